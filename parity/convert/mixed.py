"""How many bits does each layer of a UNet need?

Palettizing every layer alike wastes bits on those that do not matter. Steps, as the released pre-analysis takes them:

1. *alone*: each large layer is palettized by itself, for each number of bits; the PSNR of the answers to a probe,
   against the answers before, is recorded (rounded to 0.1 dB);
2. *cumulative*: for each number of bits the layers are palettized one after the other, the most harmless first;
3. *recipes*: between two baselines (weights in float16; weights in linear 8 bits) thresholds are spread; a recipe gives
   each layer the fewest bits whose cumulative PSNR is above its threshold, else 16; it is measured as a whole.

The result is a JSON file with the keys of the released script, written after each layer, so that an interrupted
analysis goes on, and a curve of the recipes beside it (:mod:`parity.convert.curve`). The probe is a pipeline's latents
after one step on eight prompts, as in the released script, or one of :mod:`parity.convert.probe`. Difference: the
script's first baseline is a repeated run of the same model (about 82 dB on a GPU), which on a CPU is equal; float16
weights take its place.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from parity.convert import workarounds
from parity.convert.compress import constants, few_values, palettes, write
from parity.convert.curve import draw
from parity.convert.probe import Answer, Probe
from parity.convert.workarounds import Report
from parity.errors import FormatError, UsageError
from parity.files import replacing
from parity.metrics import measure

BITS: Final = (1, 2, 4, 6, 8)
LARGE: Final = 100_000  # weights; smaller layers stay as they are

Recipe = Mapping[str, int]


def candidates(unet: Any, *, large: int = LARGE) -> dict[str, Any]:
    """Return the linear and convolution layers with more than ``large`` weights, by name."""
    return {
        name: module
        for name, module in unet.named_modules()
        if type(module).__name__ in {"Linear", "Conv2d", "LoRACompatibleLinear", "LoRACompatibleConv"}
        and module.weight.numel() > large
    }


def analyse(
    unet: Any,
    answers: Answer,
    file: Path,
    *,
    model_version: str,
    probe: Probe,
    bits: Sequence[int] = BITS,
    count: int = 7,
    large: int = LARGE,
    report: Report | None = None,
) -> dict[str, Any]:
    """Measure layers and write recipes; an existing file of the same model is continued.

    Parameters
    ----------
    unet : UNet2DConditionModel
        In float32; its weights are changed while this runs and restored.
    answers : callable
        Returns what the UNet answers now, see :mod:`parity.convert.probe`.
    file : pathlib.Path
        JSON, with the keys model_version, probe, single_layer, cumulative, baselines, recipes; beside it the curve.
    model_version : str
        Goes into the file; a file of another model is refused.
    probe : Probe
        Which question ``answers`` asks; goes into the file, one with another question is refused.
    bits, count, large
        Numbers of bits, number of recipes, least size of a layer.
    report : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    dict
        The file's content.
    """
    layers = candidates(unet, large=large)
    if not layers:
        raise UsageError(f"no layer has more than {large} weights; nothing to analyse")
    result = _read(file, model_version)
    if result.setdefault("probe", probe.describe()) != probe.describe():
        raise UsageError(f"{file} was made with the probe {result['probe']}, not {probe.describe()}; name another file")
    analysis = _Analysis(layers, answers, answers(), file, result, 2 * len(bits) * len(layers), report)
    for n in bits:
        analysis.alone(n)
    for n in bits:
        analysis.cumulative(n)
    analysis.baselines()
    analysis.recipes(bits, count)
    _write(file, result)
    with replacing(file.with_suffix(".svg")) as path:
        weights = sum(layer.weight.numel() for layer in layers.values())
        path.write_text(draw(result, weights=weights), encoding="utf-8")
    return result


@dataclass
class _Analysis:
    """The three steps; each fills its part of the result, and what is there already is not measured again."""

    layers: Mapping[str, Any]
    answers: Answer
    expected: Sequence[np.ndarray]
    file: Path
    result: dict[str, Any]
    total: int
    report: Report | None
    done: int = 0

    def alone(self, bits: int) -> None:
        found = self.result["single_layer"].setdefault(str(bits), {})
        for name, layer in self.layers.items():
            if name not in found:
                with _changed({name: layer}, partial(palettized, bits=bits)):
                    found[name] = self._measured()
            self._advance()

    def cumulative(self, bits: int) -> None:
        order = sorted(self.layers, key=lambda name: -sum(self.result["single_layer"][str(bits)][name]))
        found = self.result["cumulative"].setdefault(str(bits), {})
        with _restored(self.layers):
            for name in order:
                _set(self.layers[name], palettized(_array(self.layers[name]), bits))
                if name not in found:
                    found[name] = self._measured()
                self._advance()

    def baselines(self) -> None:
        with _changed(self.layers, lambda w: w.astype(np.float16)):
            self.result["baselines"]["original"] = self._measured()
        with _changed(self.layers, linear8):
            self.result["baselines"]["linear_8bit"] = self._measured()

    def recipes(self, bits: Sequence[int], count: int) -> None:
        self.result["recipes"] = {}
        for recipe in _recipes(self.result, self.layers, bits, count):
            with _restored(self.layers):
                for name, n in recipe.items():
                    weight = _array(self.layers[name])
                    _set(self.layers[name], palettized(weight, n) if n < 16 else weight.astype(np.float16))
                key = f"recipe_{average_bits(recipe, self.layers):.2f}_bit_mixedpalette"
                self.result["recipes"][key] = {"layers": recipe, "psnr": self._measured()}

    def _measured(self) -> list[float]:
        values = (measure("tensor_psnr", e, a) for a, e in zip(self.answers(), self.expected, strict=True))
        return [round(v, 1) if math.isfinite(v) else 999.0 for v in values]

    def _advance(self) -> None:
        self.done += 1
        _write(self.file, self.result)
        if self.report is not None:
            self.report("mixed bits", self.done, self.total)


def _recipes(
    result: Mapping[str, Any], layers: Mapping[str, Any], bits: Sequence[int], count: int
) -> Iterator[dict[str, int]]:
    first, last = (float(np.mean(result["baselines"][name])) for name in ("original", "linear_8bit"))
    for threshold in np.linspace(first - 1, last + 5, count):
        recipe = {}
        for name in layers:
            means = {n: float(np.mean(result["cumulative"][str(n)][name])) for n in sorted(bits)}
            recipe[name] = next((n for n, mean in means.items() if mean > threshold), 16)
        yield recipe


def average_bits(recipe: Recipe, layers: Mapping[str, Any]) -> float:
    """Return a recipe's bits weighted by the layers' numbers of weights."""
    sizes = {name: layers[name].weight.numel() for name in recipe}
    return sum(recipe[name] * size for name, size in sizes.items()) / sum(sizes.values())


def palettized(weight: np.ndarray, bits: int) -> np.ndarray:
    """Return a tensor through a k-means table of 2^bits float16 values, by coremltools' own clustering."""
    if few_values(weight.astype(np.float16), bits):
        return weight.astype(np.float16)
    workarounds.coremltools()
    from coremltools.models.neural_network.quantization_utils import _get_kmeans_lookup_table_and_weight

    half = weight.astype(np.float16)
    with workarounds.converting():
        table, indices = _get_kmeans_lookup_table_and_weight(bits, half)
    return np.asarray(table, np.float16).reshape(-1)[np.asarray(indices).reshape(-1)].reshape(weight.shape)


def linear8(weight: np.ndarray) -> np.ndarray:
    """Return a tensor through asymmetric linear 8-bit values, with ranges kept along the last axis."""
    axes = tuple(range(weight.ndim - 1))
    low, high = weight.min(axis=axes, keepdims=True), weight.max(axis=axes, keepdims=True)
    scale = np.where(high > low, (high - low) / 255, 1)
    return np.round((weight - low) / scale) * scale + low


def read_recipe(file: Path, name: str) -> dict[str, int]:
    """Return the layers' bits of a recipe in an analysis file.

    Raises
    ------
    FormatError, UsageError
        Not such a file; no recipe of that name (the message lists them).
    """
    recipes = _read(file, None)["recipes"]
    if name not in recipes:
        raise UsageError(f"{file} has no recipe {name!r}; there are {', '.join(recipes) or 'none yet'}")
    return {str(layer): int(bits) for layer, bits in recipes[name]["layers"].items()}


def require_layers(recipe: Recipe, unet: Any) -> None:
    """Raise when a recipe names layers that a UNet does not have."""
    modules = dict(unet.named_modules())
    if missing := [layer for layer in recipe if layer not in modules]:
        raise UsageError(f"the recipe names {len(missing)} layers that the UNet does not have, e.g. {missing[0]}")


def apply(source: Path, target: Path, recipe: Recipe, unet: Any, *, report: Report | None = None) -> None:
    """Write a copy of a UNet's package with each layer palettized to its own number of bits.

    Layers are found in the program by the digest of their weights in float16, so names need not agree.

    Raises
    ------
    FormatError
        The package does not hold a layer's weights: it was converted from another model.
    """
    workarounds.coremltools()
    import coremltools.optimize.coreml as cto

    operations: dict[str, list[str]] = {}
    for name, values in constants(source):
        if values.dtype == np.float16:
            operations.setdefault(_digest(values), []).append(name)
    modules = dict(unet.named_modules())
    by_operation: dict[str, int] = {}
    for layer, bits in recipe.items():
        names = operations.get(_digest(_array(modules[layer])), [])
        if not names:
            raise FormatError(f"{source.name} does not hold the weights of layer {layer}; was it made from this model?")
        by_operation |= dict.fromkeys(names, bits)
    write(source, target, cto.palettize_weights, palettes(source, 16, by_operation), report=report)


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, np.float16).tobytes()).hexdigest()


def _array(layer: Any) -> np.ndarray:
    return layer.weight.detach().numpy()


def _set(layer: Any, values: np.ndarray) -> None:
    import torch

    layer.weight.data = torch.from_numpy(np.ascontiguousarray(values, np.float32))


@contextmanager
def _restored(layers: Mapping[str, Any]) -> Iterator[None]:
    before = {name: layer.weight.data for name, layer in layers.items()}
    try:
        yield
    finally:
        for name, layer in layers.items():
            layer.weight.data = before[name]


@contextmanager
def _changed(layers: Mapping[str, Any], change: Callable[[np.ndarray], np.ndarray]) -> Iterator[None]:
    with _restored(layers):
        for layer in layers.values():
            _set(layer, change(_array(layer)))
        yield


def _read(file: Path, model_version: str | None) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "model_version": model_version,
        "single_layer": {},
        "cumulative": {},
        "baselines": {},
        "recipes": {},
    }
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if model_version is None:
            raise FormatError(f"{file}: no such file") from None
        return empty
    except (OSError, ValueError) as error:
        raise FormatError(f"{file} is not an analysis: {error}") from None
    if not isinstance(found, dict) or not empty.keys() <= found.keys():
        raise FormatError(f"{file} is not an analysis: it needs the keys {', '.join(empty)}")
    if model_version is not None and found["model_version"] != model_version:
        raise UsageError(f"{file} is of {found['model_version']}, not of {model_version}; name another file")
    return found


def _write(file: Path, result: Mapping[str, Any]) -> None:
    with replacing(file) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
