"""What changed between two models, or two folders of models, before any picture is drawn?

Three questions, each answered from the files: do the features differ (names, dtypes, shapes, metadata), do the programs
(operator counts; the first place where the sequences part), and do the weights (paired by digest, then by the name of
the constant, then by order among equal shapes; where digests differ the largest difference is given)? Nothing is
executed, so equal results do not follow from equal counts: for that, run both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from parity import mil, quiet
from parity.contracts.causal import named_constants
from parity.contracts.fingerprint import operations
from parity.contracts.names import claimed
from parity.errors import UsageError
from parity.mil import values


@dataclass(frozen=True)
class FieldChange:
    """A field with two values; an empty text is an absence."""

    field: str
    before: str
    after: str


@dataclass(frozen=True)
class WeightChange:
    """A weight that differs.

    Attributes
    ----------
    name, other : str
        Names of the constant in the two programs.
    shape : tuple of int
    dtypes : tuple of str
        Of the two.
    largest, scale : float
        Largest absolute difference, and largest absolute value of the first.
    """

    name: str
    other: str
    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    largest: float
    scale: float


@dataclass(frozen=True)
class ModelDiff:
    """Differences of two models.

    Attributes
    ----------
    before, after : str
        Paths.
    features, metadata, operators : tuple of FieldChange
    parts_at : str
        Where the sequences of operators first differ, empty when they do not.
    weights : tuple of WeightChange
        Largest relative difference first.
    equal_weights : int
        Weights of equal digest.
    only_before, only_after : tuple of str
        Weights without a partner.
    """

    before: str
    after: str
    features: tuple[FieldChange, ...]
    metadata: tuple[FieldChange, ...]
    operators: tuple[FieldChange, ...]
    parts_at: str
    weights: tuple[WeightChange, ...]
    equal_weights: int
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def same(self) -> bool:
        """True when features, programs and weights are equal; metadata may differ."""
        return not (
            self.features or self.operators or self.parts_at or self.weights or self.only_before or self.only_after
        )


@dataclass(frozen=True)
class FolderDiff:
    """Differences of two folders: models of both, and those that only one has."""

    models: tuple[ModelDiff, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def diff(before: Path | str, after: Path | str) -> FolderDiff:
    """Compare two models, or the models of two folders (paired by the component that their names claim).

    Raises
    ------
    UsageError
        When a model is compared with a folder, or a folder holds no model.
    FormatError
        A model that is damaged.
    """
    before, after = Path(before), Path(after)
    if _is_model(before) and _is_model(after):
        return FolderDiff((diff_models(before, after),), (), ())
    if _is_model(before) or _is_model(after):
        raise UsageError(f"{before} and {after}: compare two models or two folders")
    first, second = _models(before), _models(after)
    for folder, found in ((before, first), (after, second)):
        if not found:
            raise UsageError(f"{folder}: no .mlpackage or .mlmodelc here")
    models = tuple(diff_models(first[key], second[key]) for key in first if key in second)
    return FolderDiff(
        models,
        tuple(first[key].name for key in first if key not in second),
        tuple(second[key].name for key in second if key not in first),
    )


def diff_models(before: Path, after: Path) -> ModelDiff:
    """Compare two models."""
    first, second = mil.load(before), mil.load(after)
    for model in (first, second):
        if model.kind == "empty":  # damaged: that is no difference between two models
            model.program  # noqa: B018  it raises, with the reason
    parts_at = ""
    operators: tuple[FieldChange, ...] = ()
    weights: tuple[list[WeightChange], int, list[str], list[str]] = ([], 0, [], [])
    if first.kind == second.kind == "mlProgram":
        operators, parts_at = _operators(first.program, second.program)
        weights = _weights(first, second)
    elif first.kind != second.kind:
        operators = (FieldChange("kind of model", first.kind, second.kind),)
    return ModelDiff(
        str(before),
        str(after),
        _features(first, second),
        _metadata(first, second),
        operators,
        parts_at,
        tuple(sorted(weights[0], key=lambda w: -w.largest / max(w.scale, 1e-30))),
        weights[1],
        tuple(weights[2]),
        tuple(weights[3]),
    )


def _is_model(path: Path) -> bool:
    return path.suffix in (".mlpackage", ".mlmodelc", ".mlmodel")


def _models(folder: Path) -> dict[tuple[str, int, str], Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    found: dict[tuple[str, int, str], Path] = {}
    for path in sorted(p for p in folder.rglob("*") if _is_model(p) and not any(_is_model(q) for q in p.parents)):
        component, chunk = claimed(PurePosixPath(path.relative_to(folder).as_posix()))
        found.setdefault((component or path.stem, chunk, path.stem if component == "controlnet" else ""), path)
    return found


def _features(first: mil.Model, second: mil.Model) -> tuple[FieldChange, ...]:
    changes = []
    for side in ("inputs", "outputs"):
        one = {f.name: f"{f.dtype or f.kind} {list(f.shape)}" for f in getattr(first, side)}
        two = {f.name: f"{f.dtype or f.kind} {list(f.shape)}" for f in getattr(second, side)}
        for name in dict.fromkeys((*one, *two)):
            if one.get(name) != two.get(name):
                changes.append(FieldChange(f"{side[:-1]} {name}", one.get(name, ""), two.get(name, "")))
    versions = [str(m.specification.specificationVersion) for m in (first, second)]
    if versions[0] != versions[1]:
        changes.append(FieldChange("specification version", *versions))
    return tuple(changes)


def _metadata(first: mil.Model, second: mil.Model) -> tuple[FieldChange, ...]:
    one, two = ({**_texts(m)} for m in (first, second))
    return tuple(
        FieldChange(key, one.get(key, ""), two.get(key, ""))
        for key in dict.fromkeys((*one, *two))
        if one.get(key, "") != two.get(key, "")
    )


def _texts(model: mil.Model) -> dict[str, str]:
    m = model.metadata
    return {
        "author": m.author,
        "license": m.license,
        "version": m.version,
        "description": m.short_description,
        **m.user_defined,
    }


def _operators(first: Any, second: Any) -> tuple[tuple[FieldChange, ...], str]:
    one, two = ([op.type for op in operations(p) if op.type != "const"] for p in (first, second))
    changes = tuple(
        FieldChange(kind, str(one.count(kind)), str(two.count(kind)))
        for kind in sorted({*one, *two})
        if one.count(kind) != two.count(kind)
    )
    for position, (a, b) in enumerate(zip(one, two, strict=False)):
        if a != b:
            return changes, f"operation {position + 1}: {a} before, {b} after"
    if len(one) != len(two):
        longer = "before" if len(one) > len(two) else "after"
        rest = (one if longer == "before" else two)[min(len(one), len(two))]
        return changes, f"operation {min(len(one), len(two)) + 1}: {rest}, {longer} only"
    return changes, ""


@dataclass(frozen=True)
class _Weight:
    name: str
    shape: tuple[int, ...]
    dtype: str
    digest: bytes
    message: Any


def _constants(model: mil.Model) -> Iterator[_Weight]:
    for operation in operations(model.program):
        held = operation.attributes.items() if operation.type == "const" else named_constants(operation)
        for key, value in held:
            if value.WhichOneof("value") != "blobFileValue":
                continue
            where = f"{model.path}: {operation.outputs[0].name}"
            array = values.decode(value, where, model.weights)
            digest = hashlib.sha256(array.tobytes()).digest()
            name = operation.outputs[0].name if operation.type == "const" else f"{operation.outputs[0].name}.{key}"
            yield _Weight(name, array.shape, str(array.dtype), digest, value)


def _weights(first: mil.Model, second: mil.Model) -> tuple[list[WeightChange], int, list[str], list[str]]:
    one, two = list(_constants(first)), list(_constants(second))
    pairs: list[tuple[_Weight, _Weight]] = []
    left = _pair(one, two, pairs, lambda w: (w.digest, w.shape))
    left = _pair(*left, pairs, lambda w: (w.name, w.shape))
    left = _pair(*left, pairs, lambda w: w.shape)
    changes = []
    equal = 0
    for a, b in pairs:
        if a.digest == b.digest and a.dtype == b.dtype:
            equal += 1
            continue
        x = np.asarray(values.decode(a.message, a.name, first.weights))
        y = np.asarray(values.decode(b.message, b.name, second.weights))
        wide, narrow = quiet.float64(x), quiet.float64(y)
        with np.errstate(invalid="ignore"):
            largest = float(np.nanmax(np.abs(wide - narrow), initial=0.0))
        scale = float(np.nanmax(np.abs(wide), initial=0.0))
        changes.append(WeightChange(a.name, b.name, a.shape, (a.dtype, b.dtype), largest, scale))
    return changes, equal, [w.name for w in left[0]], [w.name for w in left[1]]


def _pair(one: list[_Weight], two: list[_Weight], pairs: list[tuple[_Weight, _Weight]], key: Any) -> tuple[Any, Any]:
    """Pair weights of equal key in order; return what is left of both."""
    waiting: dict[Any, list[_Weight]] = {}
    for weight in two:
        waiting.setdefault(key(weight), []).append(weight)
    rest = []
    for weight in one:
        partners = waiting.get(key(weight))
        if partners:
            pairs.append((weight, partners.pop(0)))
        else:
            rest.append(weight)
    left = {id(weight) for partners in waiting.values() for weight in partners}
    return rest, [weight for weight in two if id(weight) in left]
