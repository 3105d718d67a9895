"""What is one model of a folder: its features, metadata, size, and what its program tells?

A package is read through :mod:`parity.mil` (weights stay on disk); a compiled model through its ``metadata.json``, with
``model.mil`` searched as text for attention and compression, or parsed whole without ``metadata.json``. Whatever is
wrong with the files becomes a finding, never an exception: a folder with one broken model is still inspected.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from parity import mil
from parity.contracts import names
from parity.contracts.converters import Converters
from parity.contracts.fingerprint import fingerprint, from_text, weight_problem
from parity.contracts.identify import identify
from parity.contracts.inspection import Component, Feature, Finding, Fingerprint
from parity.errors import FormatError, ParityError
from parity.mil import dtypes

_DTYPES = {"fp16": "FLOAT16", "fp32": "FLOAT32", "fp64": "DOUBLE", "int32": "INT32", "int8": "INT8"}
_COMPILED_DTYPES = {"Float16": "FLOAT16", "Float32": "FLOAT32", "Double": "DOUBLE", "Int32": "INT32", "Int8": "INT8"}
_POINTER = b"version https://git-lfs.github.com/spec/"
_BLOBS = re.compile(r'tensor<(\w+), \[([\d, ]*)\]>\(BLOBFILE\(path = [^"]*"[^"]*"\)?, offset = [^(]*\((\d+)\)')
_TEXT_LIMIT = 256 << 20  # bytes of model.mil that are searched; the largest UNets have a few MiB


def pointer(path: Path) -> str:
    """Return a message when a file is a git-lfs pointer, else an empty text."""
    try:
        if path.stat().st_size > 1024:
            return ""
        content = path.read_bytes()
    except OSError:
        return ""
    if not content.startswith(_POINTER):
        return ""
    size = re.search(rb"^size (\d+)", content, re.M)
    missing = f" of {int(size[1]):,} bytes" if size else ""
    return f"{path.name} is a git-lfs pointer, not the file{missing}; run `git lfs pull`"


def read(path: Path, root: Path, tables: Converters, *, records: bool = True) -> tuple[Component, tuple[Finding, ...]]:
    """Read and identify one model.

    Parameters
    ----------
    path : pathlib.Path
        ``.mlpackage`` or ``.mlmodelc`` folder, or ``.mlmodel`` file.
    root : pathlib.Path
        Inspected folder, for relative paths.
    tables : Converters
    records : bool
        Whether the weight file holds its records; otherwise only its size is compared with what the program needs.

    Returns
    -------
    component : Component
        Of kind ``broken`` when it cannot be read.
    findings : tuple of Finding
    """
    where = PurePosixPath(path.relative_to(root).as_posix()) if path != root else PurePosixPath(path.name)
    named, chunk = names.claimed(where)
    component = Component(path=str(where), form=path.suffix.lstrip("."), kind="broken", named=named, chunk=chunk)
    findings: list[Finding] = []

    def broken(text: str) -> tuple[Component, tuple[Finding, ...]]:
        return component, (Finding("error", str(where), text),)

    for file in _files(path):
        if text := pointer(file):
            return broken(text)
    try:
        if component.form == "mlmodelc":
            component, problem = _compiled(path, component, records=records)
        else:
            component, problem = _package(path, component, records=records)
    except ParityError as error:
        return broken(_relative(str(error), root))
    except (OSError, ValueError, RecursionError) as error:
        return broken(f"cannot be read: {_relative(str(error), root)}")
    if problem:
        findings.append(Finding("error", str(where), f"{_relative(problem, root)} (an unfinished download?)"))
    identity = identify(component, tables)
    component = replace(component, **identity.__dict__)
    if problem:
        component = replace(component, kind="broken")
    elif component.kind == "foreign":
        findings.append(Finding("note", str(where), _foreign(component)))
    elif named and (named, chunk) != (component.kind, component.chunk):
        was = f"{component.kind}{f' chunk {component.chunk}' if component.chunk else ''}"
        findings.append(Finding("warning", str(where), f"named like {named} but its features are those of {was}"))
    elif not component.windows:
        last = component.evidence[-1].text if component.evidence else ""
        text = f"no converter release wrote this combination (last observation: {last}); edited or another tool"
        findings.append(Finding("note", str(where), text))
    return component, tuple(findings)


def _files(path: Path) -> list[Path]:
    """Files of a model that may be pointers, none outside it."""
    if path.is_file():
        return [path]
    found = []
    for pattern in (
        "Manifest.json",
        "metadata.json",
        "model.mil",
        "coremldata.bin",
        "weights/*",
        "Data/*/*",
        "Data/*/*/*",
    ):
        found += [file for file in sorted(path.glob(pattern)) if file.is_file() and not file.is_symlink()]
    return found


def _package(path: Path, component: Component, *, records: bool) -> tuple[Component, str]:
    model = mil.load(path)
    metadata = model.metadata
    inputs = tuple(_feature(feature) for feature in model.inputs)
    component = replace(
        component,
        inputs=inputs,
        outputs=tuple(_feature(feature) for feature in model.outputs),
        specification=int(model.specification.specificationVersion),
        author=metadata.author,
        license=metadata.license,
        version=metadata.version,
        description=metadata.short_description,
        metadata=dict(metadata.user_defined),
        weight_bytes=_weight_bytes(model),
    )
    if model.kind != "mlProgram":
        return component, ""
    print_, problem = fingerprint(model.program, model.weights, tokens=_tokens(inputs), records=records)
    return replace(component, fingerprint=print_), problem


def _compiled(path: Path, component: Component, *, records: bool) -> tuple[Component, str]:
    metadata, text = path / "metadata.json", path / "model.mil"
    for file in (metadata, text, path / "weights" / "weight.bin"):
        if file.is_symlink() and path.resolve() not in file.resolve().parents:
            raise FormatError(f"{file}: a link that leaves the model's folder; it was not followed")
    if not text.is_file() and not metadata.is_file():
        raise FormatError(f"{path}: neither model.mil nor metadata.json; an unfinished download, or not an ML Program")
    weights = mil.Weights(path)
    if not metadata.is_file():
        parsed, problem = _package(path, component, records=records)
        note = replace(parsed, hints=(*parsed.hints, "metadata.json is missing: read from model.mil"))
        return note, problem
    component, histogram = _schema(metadata, component)
    problem = ""
    program = b""
    if text.is_file():
        if text.stat().st_size <= _TEXT_LIMIT:
            program = text.read_bytes()
    else:
        problem = f"{path}: model.mil is missing"
    content = program.decode("utf-8", errors="replace")
    last = max((_blob(match) for match in _BLOBS.finditer(content)), default=None)
    if last is not None and not problem:
        problem = weight_problem({weights.names()[0]: last}, weights, records=records)
    component = replace(component, fingerprint=from_text(content, histogram))
    size = path / "weights" / "weight.bin"
    if component.sizes is not None and size.is_file():
        component = replace(component, weight_bytes=size.stat().st_size)
    tokens = _tokens(component.inputs)
    if not tokens:
        component = replace(component, fingerprint=replace(component.fingerprint, mask="none"))
    elif content and not problem:
        component = replace(component, fingerprint=_compiled_mask(content, tokens, weights, component.fingerprint))
    return component, problem


def _compiled_mask(text: str, tokens: int, weights: mil.Weights, print_: Fingerprint) -> Fingerprint:
    """Read the causal mask of a compiled text encoder: the constant of (…, tokens, tokens) in its weight file."""
    from parity.contracts.fingerprint import judge_mask

    shape = rf"\[(?:1, )*{tokens}, {tokens}\]"
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


def _blob(match: re.Match[str]) -> tuple[int, int]:
    """Offset and bytes of a weight that a compiled model's text refers to."""
    dtype = dtypes.BY_NAME.get(match[1])
    elements = math.prod(int(size) for size in match[2].split(",") if size.strip())
    return int(match[3]), elements * dtype.bits // 8 if dtype else 0


def _schema(path: Path, component: Component) -> tuple[Component, dict[str, int]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entry = content[0] if isinstance(content, list) else content
        user = {str(key): str(value) for key, value in dict(entry.get("userDefinedMetadata") or {}).items()}
        component = replace(
            component,
            inputs=tuple(_schema_feature(item) for item in entry["inputSchema"]),
            outputs=tuple(_schema_feature(item) for item in entry["outputSchema"]),
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


def _schema_feature(item: Any) -> Feature:
    sizes = re.findall(r"\d+", str(item.get("shape", "")))
    dtype = str(item.get("dataType", ""))
    return Feature(
        str(item["name"]),
        _COMPILED_DTYPES.get(dtype, dtype or str(item.get("type", "")).lower()),
        tuple(int(size) for size in sizes),
        str(item.get("shortDescription") or ""),
    )


def _feature(feature: mil.Feature) -> Feature:
    dtype = _DTYPES.get(feature.dtype, feature.dtype) if feature.kind == "array" else feature.kind
    return Feature(feature.name, dtype, feature.shape, feature.description)


def _tokens(inputs: tuple[Feature, ...]) -> int:
    """Token count of a text encoder, recognised by its only input; 0 for other models."""
    if len(inputs) == 1 and inputs[0].name == "input_ids" and len(inputs[0].shape) == 2:
        return inputs[0].shape[1]
    return 0


def _weight_bytes(model: mil.Model) -> int:
    return sum(model.weights.path(name).stat().st_size for name in model.weights.names())


def _foreign(component: Component) -> str:
    takes = ", ".join(map(str, component.inputs)) or "nothing"
    gives = ", ".join(map(str, component.outputs)) or "nothing"
    return f"no Stable Diffusion component of any known converter: takes {takes}; gives {gives}"


def _relative(text: str, root: Path) -> str:
    """Messages name files relative to the inspected folder."""
    return text.replace(f"{root}/", "")
