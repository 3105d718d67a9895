"""How near to PyTorch is each network in Core AI, in the reference runtime, and in PyTorch's own float16?

``python -m benchmarks.coreai_networks [MODEL …] [--first] [--half]`` draws the shipped cases of each model by PyTorch,
or the first of each task, and runs its networks on the recorded inputs (of each case the first, the middle and the last
call); it prints the lines of the table in docs/core-ai.md: the worst PSNR in dB of a network's outputs against PyTorch
float32. Two columns are against
PyTorch float64 instead: what float32 itself loses. Packages take float16 features; those that compute in float32 are
compared on inputs that float16 holds. ``--half`` adds Core AI's float16, of each network's first call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final
from unittest import mock

import numpy as np

from parity import convert, memory
from parity.backends import registry
from parity.backends.coreml import CoreMLBackend
from parity.backends.pytorch import TorchBackend
from parity.backends.registry import Subject
from parity.coreai import availability
from parity.errors import ParityError
from parity.metrics import registry as metrics
from parity.networks.backend import Backend
from parity.suite.case import Case
from parity.suite.options import Options
from parity.suite.stage import Stage

MODELS: Final[dict[str, dict[str, Any]]] = {
    "shapes-sd": {},
    "shapes-sd-v": {},
    "shapes-ddpm": {},
    "tiny-sd": {"controlnet": ("tiny-controlnet", "tiny-controlnet-2")},
    "tiny-sd-turbo": {},
    "tiny-sd-checked": {},
    "tiny-inpaint": {},
    "tiny-sdxl": {"refiner": "tiny-sdxl-refiner"},
    "tiny-sdxl-turbo": {},
    "tiny-sdxl-refiner": {},
    "tiny-sd3": {},
    "tiny-sd3-t5": {},
}
"""Shipped models, with what is named beside them."""

COLUMNS: Final = (
    "PyTorch float32, to float64",
    "PyTorch float16",
    "reference runtime float16",
    "reference runtime float32",
    "Core AI float16",
    "Core AI float32",
    "Core AI float32, to float64",
)
_FLAGS = "safety_checker"  # it gives no numbers to measure

Tensors = Mapping[str, np.ndarray]
Calls = list[tuple[Tensors, Tensors]]


class _Exact(TorchBackend):
    """PyTorch in float64."""

    def __init__(self, original: TorchBackend) -> None:
        super().__init__(original.location, controlnets=original._controlnets, refiner=original._refiner)
        self.precision = "float64"


def run(report: Callable[[str], None]) -> None:
    """Print the table's lines of one model."""
    if reason := availability.reason(convert=True):
        report(reason)
        return
    for line in lines(["tiny-sd"], first=True, half=False):
        report(line)


def lines(models: Iterable[str], *, first: bool, half: bool) -> Iterator[str]:
    """Give the table's head and its lines, network by network.

    Parameters
    ----------
    models : iterable of str
        Keys of :data:`MODELS`.
    first : bool
        Whether one case of each task is drawn instead of all.
    half : bool
        Whether Core AI's float16 is measured, too.
    """
    yield f"| network | {' | '.join(COLUMNS)} |"
    yield f"|---|{'---|' * len(COLUMNS)}"
    for name in models:
        options = Options(model_version=name, compatibility="none", backend=("coreai",), **MODELS[name])
        stage = Stage(options)
        calls = _recorded(stage, _of_each_task(stage.cases) if first else stage.cases)
        for network, found in _measured(stage, calls, half=half):
            yield f"| {name} {network} | {' | '.join(_shown(value) for value in found)} |"


def _shown(value: float | None) -> str:
    if value is None:
        return "–"
    return "equal" if value == float("inf") else f"{value:.1f}"


def _of_each_task(cases: Iterable[Case]) -> list[Case]:
    """Return the first case of each task, with a refiner and without, with one ControlNet and with two."""
    found: dict[tuple[object, ...], Case] = {}
    for case in cases:
        request = case.request
        found.setdefault((request.task, request.refiner_start is None, len(request.control)), case)
    return list(found.values())


def _recorded(stage: Stage, cases: Iterable[Case]) -> dict[str, Calls]:
    """Return inputs and outputs of the networks that PyTorch draws the cases with."""
    found: dict[str, Calls] = {}
    for case in cases:
        trace = stage.run(stage.reference, case)[0]
        for network in trace.components:
            if network == _FLAGS:
                continue
            given, known = list(trace.calls(network).items()), trace.outputs(network)
            for index in sorted({0, len(given) // 2, len(given) - 1}):
                label, inputs = given[index]
                found.setdefault(network, []).append((inputs, known[label]))
    return found


def _measured(
    stage: Stage, calls: Mapping[str, Calls], *, half: bool
) -> Iterator[tuple[str, tuple[float | None, ...]]]:
    subject = Subject(
        stage.model.location, None, dict, controlnets=tuple(stage.controlnets.values()), refiner=stage._refiner
    )
    torch16 = TorchBackend(
        stage.model.location, precision="float16", controlnets=subject.controlnets, refiner=subject.refiner
    )
    exact, core16, core32 = _Exact(stage.reference), *_runtimes(stage)
    ai16, ai32 = (registry.open_backend(f"coreai:{precision}", subject) for precision in ("float16", "float32"))
    for network, known in calls.items():
        wide = _again(exact, network, known)
        short: Calls = [({name: _halved(name, array) for name, array in inputs.items()}, {}) for inputs, _ in known]
        yield (
            network,
            (
                _worst(stage.reference, network, wide),
                _worst(torch16, network, known),
                _worst(core16, network, known),
                _worst(core32, network, _again(stage.reference, network, short)) if _wide(core32, network) else None,
                _worst(ai16, network, known[:1]) if half else None,
                _worst(ai32, network, known),
                _worst(ai32, network, wide),
            ),
        )
        for backend in (stage.reference, exact, torch16, core16, core32, ai16, ai32):
            backend.release()
        memory.give_back()


def _runtimes(stage: Stage) -> tuple[Backend, Backend]:
    """Return the reference runtime over the model's packages in float16 and in float32."""
    wide = partial(convert.cached, float32="all", outputs="FLOAT32")
    half = CoreMLBackend(stage.packages.played, runtime="reference")
    with mock.patch.object(convert, "cached", wide):
        return half, CoreMLBackend(Stage(stage.options).packages.played, runtime="reference")


def _wide(backend: Backend, network: str) -> bool:
    """Tell whether a network's package computes in float32: unconditional models' are written in float16 alone."""
    return backend.precision_of(network) == "float32"


def _again(backend: Backend, network: str, known: Calls) -> Calls:
    """Return the calls with what a backend gives."""
    component = backend.component(network)
    return [(inputs, component(inputs)) for inputs, _ in known]


def _halved(name: str, array: np.ndarray) -> np.ndarray:
    if name == "input_ids":
        return array
    return array.astype(np.float16).astype(np.float32)


def _worst(backend: Backend, network: str, known: Calls) -> float | None:
    """Return the worst PSNR of a backend's outputs; None where it cannot run the network, and why on standard error."""
    try:
        return min(
            metrics.measure("tensor_psnr", value, found[tensor])
            for (_, outputs), (_, found) in zip(known, _again(backend, network, known), strict=True)
            for tensor, value in outputs.items()
        )
    except ParityError as error:
        print(f"{network} by {backend.numerics}: {error}", file=sys.stderr)
        return None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coreai_networks")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"any of {', '.join(MODELS)}; default all")
    parser.add_argument("--first", action="store_true", help="the first case of each task alone")
    parser.add_argument("--half", action="store_true", help="measure Core AI's float16, too: minutes a network")
    arguments = parser.parse_args()
    for name in arguments.models:
        if name not in MODELS:
            parser.error(f"no model {name!r}; there are {', '.join(MODELS)}")
    for line in lines(arguments.models or MODELS, first=arguments.first, half=arguments.half):
        print(line, flush=True)


if __name__ == "__main__":
    main()
