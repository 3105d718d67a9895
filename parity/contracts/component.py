"""What is one model of a folder: its features, metadata, size, and what its program tells?

A package is read through :mod:`parity.mil` (weights stay on disk), a compiled model through
:mod:`parity.contracts.compiled`, or parsed whole where it has no ``metadata.json``. Whatever is wrong with the files
becomes a finding, never an exception: a folder with one broken model is still inspected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from parity import mil
from parity.contracts import compiled, lowering, names
from parity.contracts.fingerprint import fingerprint
from parity.contracts.identify import identify
from parity.contracts.inspection import Component, DeclaredFeature, Finding
from parity.contracts.windows import Converters
from parity.errors import FormatError, ParityError
from parity.files import pointer, resolved


def read(path: Path, root: Path, tables: Converters, *, records: bool = True) -> tuple[Component, tuple[Finding, ...]]:
    """Read and identify one model.

    Parameters
    ----------
    path : pathlib.Path
        ``.mlpackage`` or ``.mlmodelc`` folder, or ``.mlmodel`` file.
    root : pathlib.Path
        Inspected folder, for relative paths.
    tables : Converters
        The releases whose contracts are tried.
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

    pointers = (f"{file}: {text}" for file in _files(path) if (text := pointer(file)))
    if text := next(pointers, ""):
        return broken(text)
    parse = _compiled if component.form == "mlmodelc" else _package
    try:
        component, problem, contradictions = parse(path, component, records=records)
    except ParityError as error:
        return broken(str(error))
    except (OSError, ValueError, RecursionError) as error:
        return broken(f"cannot be read: {error}")
    if problem:
        findings.append(Finding("error", str(where), f"{problem} (an unfinished download?)"))
    findings += [Finding("warning", str(where), f"{text}; the program counts") for text in contradictions]
    identity = identify(component, tables)
    component = replace(component, **identity.__dict__)
    if not problem and component.form == "mlpackage":
        findings += _faults(path, where, records=records)
    if problem:
        component = replace(component, kind="broken")
    else:
        findings += _doubts(component, named, chunk)
    return component, tuple(findings)


def _faults(path: Path, where: PurePosixPath, *, records: bool) -> list[Finding]:
    """Say what coremltools translated into something else, or why nobody can tell."""
    try:
        return [Finding("note", str(where), text) for text in lowering.faults(mil.load(path), records=records)]
    except ParityError as error:
        return [Finding("warning", str(where), f"not searched for what coremltools translates wrongly: {error}")]


def _doubts(component: Component, named: str, chunk: int) -> Iterator[Finding]:
    """Say what is odd about an identified model: nobody's, named like another component, of no release."""
    if component.kind == "foreign":
        yield Finding("note", component.path, _foreign(component))
    elif named and (named, chunk) != (component.kind, component.chunk):
        was = f"{component.kind}{f' chunk {component.chunk}' if component.chunk else ''}"
        yield Finding("warning", component.path, f"named like {named} but its features are those of {was}")
    elif not component.windows:
        last = component.evidence[-1].text if component.evidence else ""
        text = f"no converter release wrote this combination (last observation: {last}); edited or another tool"
        yield Finding("note", component.path, text)


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


def _package(path: Path, component: Component, *, records: bool) -> tuple[Component, str, tuple[str, ...]]:
    model = mil.load(path)
    metadata = model.metadata
    stated = _stated(model)
    inputs = tuple(_feature(feature, stated) for feature in model.inputs)
    component = replace(
        component,
        inputs=inputs,
        outputs=tuple(_feature(feature, stated) for feature in model.outputs),
        shapeless=_shapeless(model),
        specification=int(model.specification.specificationVersion),
        author=metadata.author,
        license=metadata.license,
        version=metadata.version,
        description=metadata.short_description,
        metadata=dict(metadata.user_defined),
        weight_bytes=_weight_bytes(model),
    )
    if model.kind != "mlProgram":
        return component, "", ()
    print_, problem = fingerprint(model.program, model.weights, tokens=compiled.tokens_of(inputs), records=records)
    return replace(component, fingerprint=print_), problem, model.contradictions


def _compiled(path: Path, component: Component, *, records: bool) -> tuple[Component, str, tuple[str, ...]]:
    metadata, text = path / "metadata.json", path / "model.mil"
    for file in (metadata, text, path / "weights" / "weight.bin"):
        if file.is_symlink() and resolved(path) not in resolved(file).parents:
            raise FormatError(f"{file}: a link that leaves the model's folder; it was not followed")
    if not text.is_file() and not metadata.is_file():
        raise FormatError(f"{path}: neither model.mil nor metadata.json; an unfinished download, or not an ML Program")
    if metadata.is_file():
        return compiled.read(path, component, records=records)
    parsed, problem, contradictions = _package(path, component, records=records)
    parsed = replace(parsed, hints=(*parsed.hints, "metadata.json is missing: read from model.mil"))
    return parsed, problem, contradictions


def _shapeless(model: mil.Model) -> tuple[str, ...]:
    """Names of outputs that the program gives a fixed shape of at least one axis and the description none."""
    described = {item.name: item.type.multiArrayType for item in model.specification.description.output}
    return tuple(
        feature.name
        for feature in model.outputs
        if feature.kind == "array" and feature.shape and not feature.flexible
        if feature.name in described and not described[feature.name].shape
    )


def _stated(model: mil.Model) -> dict[str, tuple[int, ...]]:
    """Default shapes by name, as far as the description states them."""
    description = model.specification.description
    return {item.name: tuple(item.type.multiArrayType.shape) for item in (*description.input, *description.output)}


def _feature(feature: mil.Feature, stated: Mapping[str, tuple[int, ...]]) -> DeclaredFeature:
    dtype = compiled.DTYPES.get(feature.dtype, feature.dtype) if feature.kind == "array" else feature.kind
    shape = _shape(feature, stated.get(feature.name, ()))
    return DeclaredFeature(feature.name, dtype, shape, feature.description, flexible=feature.flexible)


def _shape(feature: mil.Feature, stated: tuple[int, ...]) -> tuple[int | None, ...]:
    """Return the default shape; None where an array's size is open and nothing states a default.

    The program leaves sizes open without one. A description with the same range, 1 to infinity, says in its shape which
    size is the default, and that may be 1: what coremltools 5.2 to 6.3 wrote for ``RangeDim()``.
    """
    if not feature.ranges or feature.kind != "array":
        return feature.shape
    if len(stated) != len(feature.shape):
        stated = (0,) * len(feature.shape)
    sizes = zip(feature.shape, feature.ranges, stated, strict=False)
    return tuple(
        None if default != 1 and (size, one.lower, one.upper) == (1, 1, None) else size for size, one, default in sizes
    )


def _weight_bytes(model: mil.Model) -> int:
    return sum(model.weights.path(name).stat().st_size for name in model.weights.names())


def _foreign(component: Component) -> str:
    takes = ", ".join(map(str, component.inputs)) or "nothing"
    gives = ", ".join(map(str, component.outputs)) or "nothing"
    return f"no Stable Diffusion component of any known converter: takes {takes}; gives {gives}"
