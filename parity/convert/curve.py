"""How much quality does a recipe of mixed bits cost? A picture of an analysis: size against PSNR.

An SVG without scripts or external parts: recipes as a line of labelled points, packages with the same bits everywhere
as a second line, the two baselines as levels. The last entry of a cumulative table is the network with every layer at
that number of bits, so the second line needs no further measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np

Point = tuple[float, float, str]

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 180, 48, 60
_RECIPES, _UNIFORM, _LEVEL, _TEXT = "#0b5fa5", "#b3541e", "#777777", "#222222"
_TICKS: Final = 5


def draw(result: Mapping[str, Any], *, weights: int) -> str:
    """Return an analysis as SVG.

    Parameters
    ----------
    result : mapping
        Content of an analysis file.
    weights : int
        Number of weights in all layers analysed.
    """

    def size(bits: float) -> float:
        return bits * weights / 8e6

    recipes = sorted(_recipe(name, entry, size) for name, entry in result["recipes"].items())
    uniform = [
        (size(int(bits)), min(_mean(values) for values in table.values()), f"{bits} bits")
        for bits, table in sorted(result["cumulative"].items(), key=lambda item: int(item[0]))
    ]
    levels = {name.replace("_", " "): _mean(values) for name, values in result["baselines"].items()}
    plane = _Plane([*recipes, *uniform], list(levels.values()))
    title = f"{result['model_version']}: size of {weights / 1e6:.1f} million weights and agreement with the original"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 24, title, size=14),
        *plane.axes("megabytes of the analysed layers", "PSNR in dB"),
    ]
    for name, level in levels.items():
        y = plane.y(level)
        parts.append(_line([(_LEFT, y), (_WIDTH - _RIGHT, y)], _LEVEL, dashed=True))
        parts.append(_text(_WIDTH - _RIGHT + 6, y + 4, f"{name} {level:.1f}", color=_LEVEL))
    parts += plane.series(uniform, _UNIFORM, dashed=True, below=True)
    parts += plane.series(recipes, _RECIPES)
    parts.append(_text(_WIDTH - _RIGHT + 6, _HEIGHT - _BOTTOM - 20, "recipes (mean bits)", color=_RECIPES))
    parts.append(_text(_WIDTH - _RIGHT + 6, _HEIGHT - _BOTTOM - 4, "the same bits everywhere", color=_UNIFORM))
    return "\n".join([*parts, "</svg>", ""])


def _recipe(name: str, entry: Mapping[str, Any], size: Any) -> Point:
    bits = float(name.split("_")[1])
    return size(bits), _mean(entry["psnr"]), f"{bits:.2f}"


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


class _Plane:
    """The drawing's coordinates: sizes from 0 to the largest, PSNR over its range with a margin."""

    def __init__(self, points: Sequence[Point], levels: Sequence[float]) -> None:
        self.largest = 1.05 * max(x for x, _, _ in points)
        values = [y for _, y, _ in points] + list(levels)
        margin = 0.08 * (max(values) - min(values)) + 1
        self.low, self.high = min(values) - margin, max(values) + margin

    def x(self, value: float) -> float:
        return _LEFT + value / self.largest * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, along: str, up: str) -> list[str]:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = [_line([(_LEFT, _TOP), (_LEFT, bottom), (right, bottom)], _TEXT)]
        for value in np.linspace(0, self.largest, _TICKS + 1):
            parts.append(_text(self.x(value), bottom + 18, f"{value:.3g}", anchor="middle"))
        for value in np.linspace(self.low, self.high, _TICKS + 1):
            parts.append(_line([(_LEFT - 4, self.y(value)), (_LEFT, self.y(value))], _TEXT))
            parts.append(_text(_LEFT - 8, self.y(value) + 4, f"{value:.0f}", anchor="end"))
        parts.append(_text((_LEFT + right) / 2, bottom + 42, along, anchor="middle"))
        middle = (_TOP + bottom) / 2
        parts.append(f'<g transform="rotate(-90 20 {middle:.0f})">{_text(20, middle, up, anchor="middle")}</g>')
        return parts

    def series(self, points: Sequence[Point], color: str, *, dashed: bool = False, below: bool = False) -> list[str]:
        places = [(self.x(x), self.y(y)) for x, y, _ in points]
        parts = [_line(places, color, dashed=dashed)]
        for (x, y), (_, value, label) in zip(places, points, strict=True):
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"><title>{value:.1f} dB</title></circle>'
            )
            parts.append(_text(x, y + (17 if below else -9), label, anchor="middle", color=color))
        return parts


def _line(points: Sequence[tuple[float, float]], color: str, *, dashed: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.4"{dash}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, color: str = _TEXT) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}">{escape(text)}</text>'
    )
