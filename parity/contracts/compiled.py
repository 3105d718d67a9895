"""What does a compiled model say about itself, without its program being parsed?

``metadata.json`` describes features and counts operations; ``model.mil`` is searched as text for what the description
leaves out (outputs of coremltools 6.1 to 7.0b1 have no shape), for attention, compression, and for the weights. Parsing
the text whole takes a hundred times longer, and is done only where ``metadata.json`` is missing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity import mil
from parity.contracts import palettes
from parity.contracts.causal import judge_mask
from parity.contracts.fingerprint import from_text
from parity.contracts.inspection import Component, DeclaredFeature, Fingerprint
from parity.errors import FormatError, ParityError
from parity.files import refuse_pointer
from parity.mil import dtypes
from parity.mil.blobs import weight_problem

DTYPES = {"fp16": "FLOAT16", "fp32": "FLOAT32", "fp64": "DOUBLE", "int32": "INT32", "int8": "INT8"}
_COMPILED_DTYPES = {"Float16": "FLOAT16", "Float32": "FLOAT32", "Double": "DOUBLE", "Int32": "INT32", "Int8": "INT8"}
_BLOBS = re.compile(
    r'tensor<(\w+), \[([\d, ]*)\]>\(BLOBFILE\(path = [^"]*"([^"]*)"\)?, offset = [^(]*\((\d+)\)'
)  # dtype, shape, file, offset of the record
_TEXT_LIMIT = 256 << 20  # bytes of model.mil that are searched; the largest UNets have a few MiB


def read(folder: Path, component: Component, *, records: bool) -> tuple[Component, str, tuple[str, ...]]:
    """Read a compiled model that has its ``metadata.json``.

    Parameters
    ----------
    folder : pathlib.Path
        The ``.mlmodelc`` folder.
    component : Component
        What is known of it so far: path, form and claimed name.
    records : bool
        Whether the weight file holds its records; otherwise only its size is compared with what the program needs.

    Returns
    -------
    component : Component
        With features, metadata and fingerprint.
    problem : str
        What is missing or damaged, empty if nothing is.
    contradictions : tuple of str
        Where ``metadata.json`` says otherwise than the program; the program counts.

    Raises
    ------
    FormatError
        When ``metadata.json`` is not the metadata of a compiled model.
    """
    component, histogram = _schema(folder / "metadata.json", component)
    text, problem = _program(folder)
    several = len(re.findall(r"\bfunc\s+\w+<", text)) > 1
    contradictions: list[str] = []
    empty = {feature.name for feature in component.outputs if not feature.shape}
    if text and not several:  # names of several functions are not told apart without parsing
        types = _types(text, (*component.inputs, *component.outputs))
        component = replace(
            component,
            inputs=tuple(_completed(f, types, contradictions) for f in component.inputs),
            outputs=tuple(_completed(f, types, contradictions) for f in component.outputs),
        )
        completed = [f.name for f in component.outputs if f.name in empty and f.shape and None not in f.shape]
        component = replace(component, shapeless=tuple(completed))
    weights = mil.Weights(folder)
    problem = problem or weight_problem(_last_weights(text), weights, records=records)
    print_ = from_text(text, histogram)
    if records and not problem:
        print_ = replace(print_, palettes=palettes.of_text(text, weights))
    component = replace(component, fingerprint=print_)
    size = folder / "weights" / "weight.bin"
    if size.is_file():
        component = replace(component, weight_bytes=size.stat().st_size)
    tokens = tokens_of(component.inputs)
    if not tokens:
        component = replace(component, fingerprint=replace(component.fingerprint, mask="none"))
    elif text and not problem:
        component = replace(component, fingerprint=_mask(text, tokens, weights, component.fingerprint))
    return component, problem, tuple(contradictions)


def tokens_of(inputs: tuple[DeclaredFeature, ...]) -> int:
    """Token count of a text encoder, recognised by its only input; 0 for other models."""
    if len(inputs) == 1 and inputs[0].name == "input_ids" and len(inputs[0].shape) == 2:
        return inputs[0].shape[1] or 0
    return 0


def _program(folder: Path) -> tuple[str, str]:
    path = folder / "model.mil"
    if not path.is_file():
        return "", f"{path}: missing; an unfinished download, or not an ML Program"
    if path.stat().st_size > _TEXT_LIMIT:
        return "", ""
    return path.read_bytes().decode("utf-8", errors="replace"), ""


def _last_weights(text: str) -> dict[str, tuple[int, int]]:
    """Offset and bytes of the last weight that a text refers to, by weight file."""
    last: dict[str, tuple[int, int]] = {}
    for name, shape, file, offset in _BLOBS.findall(text):
        elements = math.prod(int(size) for size in shape.split(",") if size.strip())
        dtype = dtypes.BY_NAME.get(name)
        last[file] = max(last.get(file, (-1, 0)), (int(offset), elements * dtype.bits // 8 if dtype else 0))
    return last


def _types(text: str, features: tuple[DeclaredFeature, ...]) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Dtype and shape of features in the program's text: function inputs, and results by their names."""
    names = "|".join(sorted(re.escape(feature.name) for feature in features))
    if not names:
        return {}
    found: dict[str, tuple[str, tuple[int | None, ...]]] = {}
    pattern = rf"(?:tensor<(\w+),\s*\[([\d\s,?]*)\]>|\b(fp16|fp32|int32))\s+({names})\s*[=,)]"
    for match in re.finditer(pattern, text):
        sizes = [part.strip() for part in (match[2] or "").split(",") if part.strip()]
        shape = tuple(None if size == "?" else int(size) for size in sizes)
        found.setdefault(match[4], (match[1] or match[3], shape))
    return found


def _completed(
    feature: DeclaredFeature, types: Mapping[str, tuple[str, tuple[int | None, ...]]], contradictions: list[str]
) -> DeclaredFeature:
    """Complete a described array by the program's type; what the program says otherwise counts, and is named."""
    if feature.name not in types or feature.dtype not in DTYPES.values():
        return feature
    name, shape = types[feature.name]
    dtype = DTYPES.get(name, feature.dtype)
    if dtype != feature.dtype:
        text = f"{feature.name!r} is {feature.dtype} in metadata.json and {dtype} in the program"
        contradictions.append(text)
    if not feature.shape:
        return replace(feature, dtype=dtype, shape=shape)
    fits = len(shape) == len(feature.shape) and all(
        size is None or size == other for size, other in zip(shape, feature.shape, strict=True)
    )
    if not fits and not (shape == () and feature.shape == (1,)):
        contradictions.append(f"{feature.name!r} is {feature.size} in metadata.json and {_size(shape)} in the program")
        return replace(feature, dtype=dtype, shape=shape)
    return replace(feature, dtype=dtype, flexible=feature.flexible or None in shape)


def _size(shape: tuple[int | None, ...]) -> str:
    return DeclaredFeature("", "", shape).size


def _mask(text: str, tokens: int, weights: mil.Weights, print_: Fingerprint) -> Fingerprint:
    """Read the causal mask of a compiled text encoder: the constant of (…, tokens, tokens) in its weight file."""
    shape = rf"\[(?:1, )*{tokens}, {tokens}\]"
    unpacked = (
        rf"tensor<\w+, {shape}> \w+ = constexpr_affine_dequantize\([^;]*?\bscale = tensor<\w+, \[\]>\(0(?:x0)?[.p+0]*\)"
    )
    if re.search(unpacked, text):
        return replace(print_, mask="lost", mask_minimum=0.0)
    minimum = None
    for match in re.finditer(rf"tensor<(fp16|fp32), {shape}>\(BLOBFILE\([^)]*\)[^)]*offset = [^(]*\((\d+)\)", text):
        try:
            smallest = float(weights.read(int(match[2])).min())
        except ParityError:
            return print_
        minimum = smallest if minimum is None else min(minimum, smallest)
    if minimum is None:
        return replace(print_, mask="none")
    return replace(print_, mask=judge_mask(minimum), mask_minimum=minimum)


def _schema(path: Path, component: Component) -> tuple[Component, dict[str, int]]:
    refuse_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entry = content[0] if isinstance(content, list) else content
        user = {str(key): str(value) for key, value in dict(entry.get("userDefinedMetadata") or {}).items()}
        component = replace(
            component,
            inputs=tuple(_feature(item) for item in entry["inputSchema"]),
            outputs=tuple(_feature(item) for item in entry["outputSchema"]),
            specification=int(entry.get("specificationVersion") or 0),
            author=str(entry.get("author") or ""),
            license=str(entry.get("license") or ""),
            version=str(entry.get("version") or ""),
            description=str(entry.get("shortDescription") or ""),
            metadata=user,
        )
        return component, {str(k): int(v) for k, v in dict(entry.get("mlProgramOperationTypeHistogram") or {}).items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path}: not the metadata of a compiled model: {error!r}") from None


def _feature(item: Any) -> DeclaredFeature:
    if str(item.get("type", "")) == "Image":
        shape: tuple[int, ...] = (int(item.get("height") or 0), int(item.get("width") or 0))
    else:
        shape = tuple(int(size) for size in re.findall(r"\d+", str(item.get("shape", ""))))
    dtype = str(item.get("dataType", ""))
    return DeclaredFeature(
        str(item["name"]),
        _COMPILED_DTYPES.get(dtype, dtype or str(item.get("type", "")).lower()),
        shape,
        str(item.get("shortDescription") or ""),
        flexible=str(item.get("hasShapeFlexibility", "0")) == "1",
    )
