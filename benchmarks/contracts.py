"""Inspecting a 2 GB folder: seconds and peak memory of a whole process, beside reading the descriptions alone.

The folder has weights as large as those of Stable Diffusion 1.5 (sparse files) and programs with as many operations as
the converter writes (24,000 in the UNet with split attention). `parity inspect` identifies and judges everything; the
other process imports coremltools and loads each package's specification, nothing more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from parity import mil
from parity.contracts import converter
from parity.mil import dtypes, proto

_SIZES = {"B": 2, "Cin": 4, "Cout": 4, "h": 64, "w": 64, "L": 4, "S": 77, "D": 768, "Hs": 512, "Ws": 512, "K": 17}
# component: bytes of weights, operations (constants included)
_MODELS = {
    "unet": (1_720_000_000, 24_000),
    "text_encoder": (246_000_000, 1_600),
    "vae_encoder": (68_000_000, 1_100),
    "vae_decoder": (99_000_000, 1_400),
}
_CODES = {"FLOAT16": (65552, "fp16"), "FLOAT32": (65568, "fp32")}
_PARITY = "from parity import cli; raise SystemExit(cli.main(['inspect', {folder!r}, '--json', {out!r}]))"
_INSTEAD = (
    "import glob; from coremltools.models.utils import load_spec\n"
    "for path in sorted(glob.glob({folder!r} + '/*.mlpackage')): load_spec(path)"
)


def run(report: Callable[[str], None]) -> None:
    """Report medians of five runs each."""
    with tempfile.TemporaryDirectory(prefix="parity-bench-") as scratch:
        folder = Path(scratch) / "models"
        for name, (size, count) in _MODELS.items():
            _package(folder, name, size, count)
        names = {"folder": str(folder), "out": str(Path(scratch) / "out.json")}
        runs: dict[str, list[tuple[float, float, float]]] = {"parity inspect": [], "coremltools load_spec": []}
        bytecode = Path(scratch) / "bytecode"  # as an installed package has it, whatever the environment says
        for attempt in range(6):
            for label, script in zip(runs, (_PARITY, _INSTEAD), strict=True):
                measured = _measure(script.format(**names), bytecode)
                if attempt:
                    runs[label].append(measured)
        limits = ("  (limits 0.5 s, 150 MiB)", "")
        for (label, samples), limit in zip(runs.items(), limits, strict=True):
            wall, cpu, peak = (sorted(column)[len(column) // 2] for column in zip(*samples, strict=True))
            report(f"{label:<30}{wall:6.2f} s ({cpu:.2f} s of CPU) {peak:6.0f} MiB{limit}")
        document = json.loads(Path(names["out"]).read_text(encoding="utf-8"))
        report(f"{'  of which after imports':<30}{document['inspection']['seconds']:6.2f} s")


def _measure(script: str, bytecode: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MiB of a fresh process."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", script]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"the measured process ended with {status}")
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale


def _package(folder: Path, name: str, size: int, count: int) -> None:
    """Write a package with a program of constants and convolutions and a sparse weight file."""
    contract = converter("1.1.0").component(name, family="sd1")
    model = proto.model.Model(specificationVersion=7)
    program = model.mlProgram
    program.version = 1
    function = program.functions["main"]
    function.opset = "CoreML6"
    block = function.block_specializations["CoreML6"]
    for rules, features in ((contract.inputs, model.description.input), (contract.outputs, model.description.output)):
        for rule in rules:
            code, kind = _CODES[rule.dtype]
            array = features.add(name=rule.name).type.multiArrayType
            array.dataType = code
            array.shape.extend(rule.shape(_SIZES))
            if rules is contract.inputs:
                _declare(function.inputs.add(name=rule.name).type, kind, rule.shape(_SIZES))
    elements = size // count // 2
    for index in range(count):
        operation = block.operations.add(type="const" if index % 3 else "einsum" if name == "unet" else "conv")
        _declare(
            operation.outputs.add(name=f"down_blocks_0_value_{index}").type, "fp16", (1, 320, 1, elements // 320 or 1)
        )
        if operation.type == "const":
            value = operation.attributes["val"]
            _declare(value.type, "fp16", (elements,))
            value.blobFileValue.fileName = "@model_path/weights/weight.bin"
            value.blobFileValue.offset = 64
        else:
            for key in ("x", "weight", "bias", "strides", "pad", "dilations"):
                operation.inputs[key].arguments.add(name=f"down_blocks_0_value_{max(index - 1, 0)}")
    block.outputs.extend(feature.name for feature in model.description.output)
    weights = folder / f".{name}.bin"
    folder.mkdir(parents=True, exist_ok=True)
    with weights.open("wb") as file:
        file.write((count).to_bytes(4, "little") + (2).to_bytes(4, "little"))
        file.seek(64)
        record = (0xDEADBEEF).to_bytes(4, "little") + (1).to_bytes(4, "little")
        file.write(record + (elements * 2).to_bytes(8, "little") + (128).to_bytes(8, "little") + bytes(8))
        file.truncate(size)
    package = mil.save(model, None, folder / contract.file_name(model_id="owner/model"))
    target = package / "Data/com.apple.CoreML/weights"
    target.mkdir()
    weights.rename(target / "weight.bin")


def _declare(message: object, dtype: str, shape: tuple[int, ...]) -> None:
    tensor = message.tensorType  # type: ignore[attr-defined]
    tensor.dataType, tensor.rank = dtypes.BY_NAME[dtype].code, len(shape)
    for size in shape:
        tensor.dimensions.add().constant.size = size
