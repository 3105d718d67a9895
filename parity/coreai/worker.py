"""The process that runs Core AI: ``python -m parity.coreai.worker``, started by :mod:`parity.coreai.process`.

It answers frames (:mod:`parity.coreai.frames`) on its standard input with frames on what was its standard output. That
output is moved away first and standard error takes its place, so whatever the runtime prints cannot be mistaken for an
answer. It imports neither torch nor coremltools.

Requests: ``load`` (path, unit) and ``run`` (function, inputs); ``open`` (path) and, about the opened file, ``summary``,
``program``, ``constants``.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from parity.coreai import frames

UNITS = ("CPU", "GPU", "NEURAL_ENGINE")
_Arrays = dict[str, np.ndarray]
_RESOURCE = re.compile(r"dense_resource<(\w+)>.*")
_ELEMENTS = {"f32": "<f4", "f16": "<f2", "f64": "<f8", "si8": "i1", "ui8": "u1", "si32": "<i4", "ui32": "<u4"}


class Server:
    """One loaded file and the answers about it."""

    def __init__(self) -> None:
        self._asset: Any = None
        self._functions: dict[str, Any] = {}

    def answer(self, message: dict[str, Any], arrays: _Arrays) -> tuple[dict[str, Any], _Arrays]:
        """Answer one request."""
        if message["op"] == "load":
            return asyncio.run(self._load(Path(message["path"]), message.get("unit"))), {}
        if message["op"] == "run":
            return {}, asyncio.run(self._run(message["function"], arrays))
        if message["op"] == "open":
            from coreai.authoring import AIModelAsset

            self._asset = AIModelAsset.load(Path(message["path"]))
            return {}, {}
        if message["op"] == "summary":
            return self._summary(), {}
        if message["op"] == "program":
            return {"text": _elided(self._asset.program)}, {}
        return {}, _constants(self._asset.program)

    async def _load(self, path: Path, unit: str | None) -> dict[str, Any]:
        from coreai.authoring import AIModelAsset

        # functions outlive the context, which removes the lowered copy of the weights from the disk when it ends
        async with AIModelAsset.load(path).executable(_specialization(unit)) as model:
            self._functions = {name: model.load_function(name) for name in model.function_names}
        return {"functions": [_function(name, f.desc) for name, f in self._functions.items()]}

    async def _run(self, name: str, arrays: _Arrays) -> _Arrays:
        from coreai.runtime import NDArray

        function = self._functions[name]
        results = await function({key: NDArray(array) for key, array in arrays.items()})
        return {key: np.asarray(results[key].numpy()) for key in function.desc.output_names}

    def _summary(self) -> dict[str, Any]:
        summary, about = self._asset.summary(), self._asset.metadata
        return {
            "operations": [[name, count] for name, count in summary.operation_distribution],
            "storage": [[name, count] for name, count in summary.storage_types],
            "compute": list(summary.compute_types),
            "author": about.author,
            "license": about.license,
            "description": about.model_description,
        }


def _specialization(unit: str | None) -> Any:
    if unit is None:
        return None
    from coreai.runtime import SpecializationOptions

    if unit == "CPU":
        return SpecializationOptions.cpu_only()
    from coreai.runtime import ComputeUnitKind

    kinds = {"GPU": ComputeUnitKind.gpu, "NEURAL_ENGINE": ComputeUnitKind.neural_engine}
    return SpecializationOptions.from_preferred_compute_unit_kind(kinds[unit]())


def _function(name: str, description: Any) -> dict[str, Any]:
    def features(names: list[str], descriptor: Any) -> list[list[Any]]:
        return [[n, descriptor(n).dtype, list(descriptor(n).shape)] for n in names]

    return {
        "name": name,
        "inputs": features(description.input_names, description.input_descriptor),
        "outputs": features(description.output_names, description.output_descriptor),
        "states": features(description.state_names, description.state_descriptor),
    }


def _elided(program: Any) -> str:
    text = re.sub(r'dense<"0x[0-9A-Fa-f]*">', "dense<…>", str(program))
    return re.sub(r"dense<\[[^<>]{200,}\]>", "dense<…>", text)


def _constants(program: Any) -> _Arrays:
    """Return the program's constants in order, by number.

    Small ones are attributes with a buffer. Large ones lie in the file's resources, which the library shows only in the
    program's text: in hexadecimal, after four bytes of alignment.
    """
    from coreai._compiler.ir import DenseElementsAttr, WalkResult

    found: _Arrays = {}
    places: dict[str, list[tuple[str, tuple[int, ...], str]]] = {}

    def visit(operation: Any) -> Any:
        if operation.name == "coreai.constant":
            value, key = operation.attributes["value"], str(len(found))
            found[key] = np.empty(0)
            if isinstance(value, DenseElementsAttr):
                found[key] = np.array(value)
            elif match := _RESOURCE.fullmatch(str(value)):
                kind = operation.results[0].type
                places.setdefault(match[1], []).append((key, tuple(kind.shape), str(kind.element_type)))
        return WalkResult.ADVANCE

    root = program._module._mlir_module.operation
    root.walk(visit)
    if places:
        for name, data in re.findall(r'(\w+): "0x([0-9A-Fa-f]*)"', root.get_asm().split("dialect_resources", 1)[-1]):
            for key, shape, element in places.get(name, ()):
                if element in _ELEMENTS:
                    found[key] = np.frombuffer(bytes.fromhex(data)[4:], _ELEMENTS[element]).reshape(shape)
    return found


def main() -> None:
    """Serve until the other side closes the connection."""
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = Server()
    while _serve(server, source, target):
        pass
    target.flush()
    os._exit(0)  # the runtime's own teardown adds nothing and can trap


def _serve(server: Server, source: BinaryIO, target: BinaryIO) -> bool:
    try:
        message, arrays = frames.read(source)
    except EOFError:
        return False
    try:
        answer, results = server.answer(message, arrays)
    except Exception as error:  # whatever the runtime raises is an answer
        answer, results = {"error": f"{type(error).__name__}: {error}"}, {}
    frames.write(target, answer, results)
    return True


if __name__ == "__main__":
    main()
