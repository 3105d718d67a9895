"""Small Core ML packages as each converter window wrote them, made from the contract tables in milliseconds.

Their programs hold no network, only what inspection looks at: an operation for each output, attention operations and a
causal mask where asked for. Whether real conversions look like this is tested with :mod:`parity.convert` elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity import mil
from parity.contracts import converter, converters
from parity.contracts.windows import ComponentContract, ConverterWindow
from parity.mil import dtypes, proto

SIZES = {
    "sd1": {"D": 768},
    "sd2": {"D": 1024},
    "sdxl": {"D": 2048, "E1": 768, "E2": 1280, "P": 1280, "T": 6},
    "sdxl-refiner": {"D": 1280, "E2": 1280, "P": 1280, "T": 5},
    "sd3": {"E1": 768, "E2": 1280, "P": 1280, "J": 4096},
}
COMMON = {"B": 2, "h": 64, "w": 64, "Cin": 4, "Cout": 4, "L": 4, "S": 77, "Hs": 512, "Ws": 512, "K": 17, "n": 128}
RESIDUALS = [(320, 64, 64), (640, 32, 32), (1280, 8, 8)]
MODEL_ID = "owner/model"
_MIL_TYPES = {"FLOAT16": "fp16", "FLOAT32": "fp32", "INT32": "int32"}
_FEATURES = {"FLOAT16": 65552, "FLOAT32": 65568, "INT32": 131104}


def component(
    folder: Path,
    name: str,
    *,
    window: str = "1.1.0",
    family: str = "sd1",
    variant: str = "",
    chunk: int = 0,
    file: str = "",
    model_id: str = MODEL_ID,
    outputs: str = "",
    specification: int = 0,
    attention: str = "SPLIT_EINSUM",
    mask: float | None = None,
    **sizes: int,
) -> Path:
    """Write one component under a contract and return its path; keyword arguments override contract and sizes."""
    release = converter(window)
    contract = release.component(name, family=family, variant=variant)
    known = {**COMMON, **SIZES["sdxl-refiner" if name == "refiner" else family], **sizes}
    if window in ("C3", "0.3.0") and name == "safety_checker" and "h" in sizes:
        known.update(Hs=sizes["h"], Ws=sizes["w"])
    model = _model(contract, release, known, chunk=chunk, outputs=outputs)
    model.specificationVersion = specification or contract.specification[0]
    _attention(model, name, attention, known)
    weights = _mask(model, mask, known["S"], folder) if mask is not None else None
    _metadata(model, contract, release, model_id, chunk=chunk)
    suffix = f"_chunk{chunk}" if chunk else ""
    ids = {"model_id": model_id, "controlnet_id": file or "owner/control", "controlnet_name": "Control"}
    stem = contract.file_name(**ids).removesuffix(".mlpackage") + suffix
    if file and name != "controlnet":
        stem = file
    return mil.save(model, weights, folder / f"{stem}.mlpackage")


def package(folder: Path, stem: str, inputs: Mapping[str, tuple], outputs: Mapping[str, tuple]) -> Path:
    """Write a package of any features: name to (dtype, shape)."""
    model = proto.model.Model(specificationVersion=7)
    for features, target in ((inputs, model.description.input), (outputs, model.description.output)):
        for name, (dtype, shape) in features.items():
            _feature(target.add(name=name), dtype, shape)
    _program(model)
    return mil.save(model, None, folder / f"{stem}.mlpackage")


def folder_of(path: Path, *names: str, tokenizer: bool = True, **options) -> Path:
    """Write a folder with several components of one window and family."""
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        component(path, name, **options)
    if tokenizer:
        (path / "vocab.json").write_text("{}")
        (path / "merges.txt").write_text("#version\n")
    return path


def _model(
    contract: ComponentContract, window: ConverterWindow, sizes: Mapping[str, int], *, chunk: int, outputs: str
) -> Any:
    model = proto.model.Model()
    features: dict[str, list[Any]] = {"input": [], "output": []}
    for side, rules in (("input", contract.inputs), ("output", contract.outputs)):
        for rule in rules:
            if not rule.repeated:
                features[side].append((rule, sizes))
                continue
            for index, (channels, height, width) in enumerate(RESIDUALS):
                local = {**sizes, f"C_{index}": channels, f"h_{index}": height, f"w_{index}": width}
                features[side].append((rule.at(index), local))
    listed = {
        side: [(r.name, outputs if side == "output" and outputs else r.dtype, r.shape(s)) for r, s in rules]
        for side, rules in features.items()
    }
    crossing = [(f"hidden_{i}_cast_fp16", "FLOAT32", (2, 8, 16, 16)) for i in range(2)]
    if chunk == 1:
        listed["output"] = crossing
    elif chunk == 2:
        listed["input"] = [*crossing, *(f for f in listed["input"] if f[0] == "encoder_hidden_states")]
    for side, entries in listed.items():
        target = getattr(model.description, side)
        for name, dtype, shape in entries:
            _feature(target.add(name=name), dtype, shape)
    _program(model)
    return model


def _feature(message, dtype: str, shape: tuple[int, ...]) -> None:
    array = message.type.multiArrayType
    array.dataType = _FEATURES[dtype]
    array.shape.extend(shape)


def _program(model) -> None:
    function = model.mlProgram.functions["main"]
    model.mlProgram.version = 1
    function.opset = "CoreML6"
    block = function.block_specializations["CoreML6"]
    for feature in model.description.input:
        _typed(function.inputs.add(name=feature.name).type, feature)
    first = model.description.input[0]
    for feature in model.description.output:
        operation = block.operations.add(type="identity")
        operation.inputs["x"].arguments.add(name=first.name)
        _typed(operation.outputs.add(name=feature.name).type, feature)
        block.outputs.append(feature.name)


def _typed(message, feature) -> None:
    code = next(name for name, value in _FEATURES.items() if value == feature.type.multiArrayType.dataType)
    declare(message, _MIL_TYPES[code], tuple(feature.type.multiArrayType.shape))


def declare(message, dtype: str, shape: tuple[int, ...]) -> None:
    """Fill a ``ValueType`` message."""
    tensor = message.tensorType
    tensor.dataType, tensor.rank = dtypes.BY_NAME[dtype].code, len(shape)
    for size in shape:
        tensor.dimensions.add().constant.size = size


def _attention(model, name: str, kind: str, sizes: Mapping[str, int]) -> None:
    if name not in ("unet", "control-unet", "controlnet", "refiner"):
        return
    block = model.mlProgram.functions["main"].block_specializations["CoreML6"]
    tokens = sizes["h"] * sizes["w"]
    queries = {"SPLIT_EINSUM": tokens, "SPLIT_EINSUM_V2": 512}.get(kind)
    if queries is None:
        block.operations.add(type="matmul")
    else:
        operation = block.operations.add(type="einsum")
        declare(operation.outputs.add(name="scores").type, "fp16", (1, tokens, 1, queries))
    declare(block.operations.add(type="softmax").outputs.add(name="probabilities").type, "fp16", (1, 1, 1, 1))


def _mask(model, smallest: float, tokens: int, folder: Path) -> dict[str, Path]:
    block = model.mlProgram.functions["main"].block_specializations["CoreML6"]
    operation = block.operations.add(type="const")
    shape = (1, 1, tokens, tokens)
    declare(operation.outputs.add(name="mask").type, "fp16", shape)
    value = operation.attributes["val"]
    declare(value.type, "fp16", shape)
    value.blobFileValue.fileName = "@model_path/weights/weight.bin"
    value.blobFileValue.offset = 64
    with np.errstate(over="ignore"):
        array = np.triu(np.full((tokens, tokens), smallest), 1).astype(np.float16)
    path = folder / ".mask.bin"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob_file(array))
    return {"@model_path/weights/weight.bin": path}


def blob_file(*arrays: np.ndarray) -> bytes:
    """Bytes of a weight file; records are 64 bytes before each array's data, from offset 64 on."""
    codes = {np.dtype(np.float16): 1, np.dtype(np.float32): 2, np.dtype(np.uint8): 3}
    data = bytearray(np.array([len(arrays), 2], "<u4").tobytes().ljust(64, b"\0"))
    for array in arrays:
        start = len(data)
        record = np.array([0xDEADBEEF, codes[array.dtype]], "<u4").tobytes()
        record += np.array([array.nbytes, start + 64, 0], "<u8").tobytes()
        data += record.ljust(64, b"\0") + array.tobytes()
        data += b"\0" * (-len(data) % 64)
    return bytes(data)


def _metadata(model, contract: ComponentContract, window: ConverterWindow, model_id: str, *, chunk: int) -> None:
    tables = converters()
    metadata = model.description.metadata
    keys = metadata.userDefined
    if chunk:
        if window.chunker == "legacy":
            keys["com.github.apple.coremltools.version"] = "6.3"
            keys["com.github.apple.coremltools.source"] = "milinternal"
        return
    metadata.author = tables.author_template.format(model_id=model_id)
    metadata.versionString = model_id
    if contract.license != "none":
        metadata.license = f"{tables.licenses[contract.license]['prefix']}see the model card)"
    keys["com.github.apple.coremltools.version"] = "9.0"
    if contract.version_key:
        keys["com.github.apple.ml-stable-diffusion.version"] = contract.version_key
