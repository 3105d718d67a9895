"""Does the ``.aimodel`` compute what the ``.mlpackage`` computed?

Three comparisons of one network in the two formats: its features (matched by name, else by size), its weights (paired
by their values: the formats share no names), and its function, on seeded inputs: Core ML's program by the reference
runtime (on macOS too, so that one answer is compared) and Core AI's by Core AI.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from parity import coreml, mil, quiet
from parity.coreai.process import ArraySpec, Process
from parity.errors import UsageError
from parity.metrics import registry
from parity.mil import values

_SAMPLE = 64  # values that decide which constant is tried first
SMALL = 16  # constants with fewer elements are shapes and axes
BOUNDS = {"float16": 40.0, "float32": 80.0}
"""Decibels that the two outputs must agree to, by the narrower of the two precisions; the converter's own bounds."""


@dataclass(frozen=True)
class Match:
    """A feature of the old file and its counterpart: names, dtypes and shapes as text; empty where there is none."""

    kind: str
    old: str
    new: str


@dataclass(frozen=True)
class WeightPair:
    """A weight and the constant whose values are nearest: names, shape, dtypes, largest difference, largest value."""

    name: str
    other: str
    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    largest: float
    scale: float

    @property
    def equal(self) -> bool:
        """Whether they differ by no more than rounding to the narrower dtype."""
        unit = 2.0**-10 if "float16" in self.dtypes else 2.0**-22
        return self.largest <= unit * self.scale


@dataclass(frozen=True)
class Comparison:
    """What differs between two files.

    Attributes
    ----------
    old, new : str
        Paths.
    features : tuple of Match
    weights : tuple of WeightPair
        Largest relative difference first.
    alone : tuple of str
        Weights of the old file without a constant of their size in the new one.
    psnr : dict of str to float
        Output of the old file to decibels against the new one's.
    bound : float
        What these must reach.
    reason : str
        Why the functions were not compared; empty if they were.
    """

    old: str
    new: str
    features: tuple[Match, ...]
    weights: tuple[WeightPair, ...]
    alone: tuple[str, ...]
    psnr: dict[str, float]
    bound: float
    reason: str = ""

    @property
    def same(self) -> bool:
        """Whether every feature and weight has its counterpart and the outputs agree."""
        matched = all(match.old and match.new for match in self.features)
        weights = all(pair.equal for pair in self.weights) and not self.alone
        return matched and weights and not self.reason and all(value >= self.bound for value in self.psnr.values())


def compare(old: Path, new: Path, *, seed: int = 0) -> Comparison:
    """Compare a Core ML model with a Core AI file of the same network.

    Raises
    ------
    MissingError, FormatError, UnsupportedError
        A file is missing, damaged or cannot be read here.
    """
    program = mil.load(old)
    with Process(new) as process:
        function = next(iter(process.functions.values()))
        constants = list(process.ask("constants")[1].values())
        features, bound_inputs = _features(program, function.inputs, function.outputs)
        weights, alone = _weights(program, constants)
        narrow = any("float16" in pair.dtypes for pair in weights)
        comparison = Comparison(
            str(old), str(new), features, weights, alone, {}, BOUNDS["float16" if narrow else "float32"]
        )
        try:
            return replace(comparison, psnr=_function(old, program, process, bound_inputs, seed))
        except UsageError as error:
            return replace(comparison, reason=str(error))


def _text(name: str, dtype: str, shape: Sequence[int | None]) -> str:
    return f"{name} {dtype} {['?' if size is None else size for size in shape]}"


def _features(
    program: mil.Model, inputs: Sequence[ArraySpec], outputs: Sequence[ArraySpec]
) -> tuple[tuple[Match, ...], dict[str, str]]:
    matches, bound = [], {}
    for kind, olds, news in (("input", program.inputs, inputs), ("output", program.outputs, outputs)):
        left = list(olds)
        for new in news:
            same = [f for f in left if f.name == new.name]
            same = same or [f for f in left if _size(f.shape) == _size(new.shape)]
            same = same or [f for f in left if _size(f.shape[1:]) == _size(new.shape[1:])]  # another batch
            old = same[0] if same else None
            if old is not None:
                left.remove(old)
                bound[new.name] = old.name
            shown = _text(old.name, old.dtype or old.kind, old.shape) if old is not None else ""
            matches.append(Match(kind, shown, _text(new.name, new.dtype, new.shape)))
        matches += [Match(kind, _text(old.name, old.dtype or old.kind, old.shape), "") for old in left]
    return tuple(matches), bound


def _size(shape: Sequence[int | None]) -> int:
    return math.prod(size or 0 for size in shape)


def _weights(program: mil.Model, constants: list[np.ndarray]) -> tuple[tuple[WeightPair, ...], tuple[str, ...]]:
    by_size: dict[int, list[tuple[str, np.ndarray]]] = {}
    for index, array in enumerate(constants):
        if array.dtype.kind == "f":
            by_size.setdefault(array.size, []).append((f"constant {index}", array))
    pairs, alone = [], []
    for name, array in _old_weights(program):
        candidates = by_size.get(array.size, [])
        if not candidates:
            alone.append(name)
            continue
        pairs.append(_nearest(name, array, candidates))
    return tuple(sorted(pairs, key=lambda pair: -pair.largest / (pair.scale or 1.0))), tuple(alone)


def _old_weights(program: mil.Model) -> Iterator[tuple[str, np.ndarray]]:
    session = mil.Session(program, "float32")
    for name, message in session.graph.constants.items():
        if message.WhichOneof("value") == "blobFileValue":
            value = values.decode(message, f"{program.path}: {name}", program.weights)
            if (
                value.dtype.kind == "f" and value.size >= SMALL and np.ptp(value) > 0
            ):  # norms' zeros and ones are no weights
                yield name, value
    for node in session.graph.nodes:
        if node.type.startswith("constexpr_"):
            yield node.outputs[0], session.values([node.outputs[0]], {})[node.outputs[0]]


def _nearest(name: str, array: np.ndarray, candidates: list[tuple[str, np.ndarray]]) -> WeightPair:
    shape = tuple(size for size in array.shape if size > 1)
    flat = quiet.float64(array).reshape(-1)
    variants = [flat] + ([quiet.float64(array.reshape(shape).T).reshape(-1)] if len(shape) == 2 else [])
    step = max(1, flat.size // _SAMPLE)
    best = min(
        ((other, constant, variant) for other, constant in candidates for variant in variants),
        key=lambda item: float(np.abs(quiet.float64(item[1].reshape(-1)[::step]) - item[2][::step]).max()),
    )
    other, constant, variant = best
    largest = float(np.abs(quiet.float64(constant).reshape(-1) - variant).max())
    dtypes = (array.dtype.name, constant.dtype.name)
    return WeightPair(name, other, array.shape, dtypes, largest, float(np.abs(flat).max()))


def _function(
    path: Path, program: mil.Model, process: Process, bound: Mapping[str, str], seed: int
) -> dict[str, float]:
    function = next(iter(process.functions.values()))
    declared = {feature.name: feature for feature in program.inputs}
    draw = np.random.default_rng(seed)
    old_inputs, new_inputs = {}, {}
    for feature in function.inputs:
        if feature.name not in bound:
            raise UsageError(f"the functions were not compared: input {feature.name} has no counterpart")
        old = declared[bound[feature.name]]
        if None in old.shape:
            raise UsageError(f"the functions were not compared: input {old.name} has a flexible shape")
        value = _drawn(draw, feature, tuple(int(size or 0) for size in old.shape))
        old_inputs[old.name] = value
        new_inputs[feature.name] = arranged(value, feature)
    quiet.coremltools()
    before = coreml.load(path, runtime="reference").predict(old_inputs)
    after = process.run(new_inputs)
    found = {}
    for output in function.outputs:
        if output.name in bound:
            a, b = np.asarray(before[bound[output.name]]), after[output.name].astype(np.float32)
            b = b[: len(a)] if b.size > a.size else b  # the other rows repeat
            found[bound[output.name]] = registry.measure("tensor_psnr", a.reshape(-1), b.reshape(-1))
    return found


def _drawn(draw: np.random.Generator, feature: ArraySpec, shape: tuple[int, ...]) -> np.ndarray:
    if np.dtype(feature.dtype).kind in "iu":
        return draw.integers(0, 50, shape).astype(np.float32)
    if "timestep" in feature.name:
        return np.full(shape, 501, np.float32)
    return draw.standard_normal(shape, dtype=np.float32).astype(np.float16).astype(np.float32)


def arranged(value: np.ndarray, feature: ArraySpec) -> np.ndarray:
    """Bring a value of the old layout into the new one: axes of one removed, (batch, width, 1, tokens) turned.

    Raises
    ------
    UsageError
        The shapes do not correspond.
    """
    wanted = feature.shape
    if value.ndim == 4 and len(wanted) == 3 and value.shape[2] == 1:
        value = value[:, :, 0].transpose(0, 2, 1)
    if wanted and len(wanted) == value.ndim and wanted[0] and wanted[0] % value.shape[0] == 0:
        value = np.repeat(value, wanted[0] // value.shape[0], axis=0) if value.shape[0] == 1 else value
    elif value.ndim != len(wanted) and value.size == _size(wanted):
        value = value.reshape([int(size or 0) for size in wanted])
    if value.shape != wanted:
        raise UsageError(
            f"the functions were not compared: input {feature.name} is {list(wanted)} in the new file, "
            f"{list(value.shape)} in the old one"
        )
    return value if np.dtype(feature.dtype).kind == "f" else value.astype(feature.dtype)


def lines(comparison: Comparison, *, listed: int = 12) -> list[str]:
    """Return a comparison for readers; at most ``listed`` weights that differ."""
    text = [f"before {comparison.old}", f"after  {comparison.new}"]
    for match in comparison.features:
        text.append(f"{match.kind}: {match.old or 'absent'} → {match.new or 'absent'}")
    different = [pair for pair in comparison.weights if not pair.equal]
    text.append(
        f"weights: {len(comparison.weights) - len(different)} equal but for rounding, {len(different)} differ, "
        f"{len(comparison.alone)} without a constant of their size"
    )
    for pair in different[:listed]:
        share = pair.largest / (pair.scale or 1.0)
        text.append(
            f"  {pair.name} → {pair.other} {list(pair.shape)}: up to {pair.largest:.3g} ({share:.2g} of the largest)"
        )
    text += [f"  {name}: no counterpart" for name in comparison.alone[:listed]]
    if comparison.reason:
        text.append(comparison.reason)
    for name, value in comparison.psnr.items():
        verdict = "agrees" if value >= comparison.bound else "differs"
        text.append(f"function: {name} {verdict}: {value:.1f} dB, bound {comparison.bound:.0f} dB")
    return text
