"""How do a run's curve and a cell's nights look as drawings? SVG without scripts, in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

_WIDTH, _HEIGHT = 420, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 26
_TREND_WIDTH, _TREND_HEIGHT = 240, 36
_TICKS: Final = 3


def curve(points: Sequence[str], values: Sequence[float], told: str, *, bound: float | None = None) -> str:
    """Return the agreement of two runs over their steps.

    Parameters
    ----------
    points : sequence of str
        ``latents/initial``, ``latents/step00``, ….
    values : sequence of float
        dB at each; what is infinite (equal latents) is drawn as a ring at the top.
    told : str
        What is seen, for readers who do not see it.
    bound : float, optional
        A level to draw, such as the bound of the latents.
    """
    finite = [value for value in [*values, *([bound] if bound is not None else [])] if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = max(0.08 * (high - low), 1.0)
    low, high = low - room, high + room
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(place: int) -> float:
        return _LEFT + wide * (place / max(1, len(values) - 1))

    def y(value: float) -> float:
        return _TOP + tall * (1 - (min(max(value, low), high) - low) / (high - low))

    parts = [_open(_WIDTH, _HEIGHT, "curve", told)]
    for tick in range(_TICKS + 1):
        value = low + (high - low) * tick / _TICKS
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{escape(points[0].removeprefix("latents/"))}</text>')
    last = escape(points[-1].removeprefix("latents/"))
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">{last}</text>')
    if bound is not None:
        parts.append(
            f'<line class="bound" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(bound):.1f}" y2="{y(bound):.1f}"/>'
        )
    measured = [(x(place), y(value)) for place, value in enumerate(values) if math.isfinite(value)]
    parts.append(f'<polyline class="line" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in measured)}"/>')
    for place, value in enumerate(values):
        name = points[place].removeprefix("latents/")
        shown = f"{value:.1f} dB" if math.isfinite(value) else "equal" if value > 0 else "not finite"
        shape = "dot" if math.isfinite(value) else "ring"
        height = y(value) if math.isfinite(value) else _TOP if value > 0 else _HEIGHT - _BOTTOM
        parts.append(
            f'<circle class="{shape}" cx="{x(place):.1f}" cy="{height:.1f}" r="2.5">'
            f"<title>{escape(name)}: {shown}</title></circle>"
        )
    return "".join([*parts, "</svg>"])


def trend(values: Sequence[float], told: str) -> str:
    """Return a number over nights as a line, the last one marked.

    Parameters
    ----------
    values : sequence of float
        In the order of the runs; what is not finite is left out.
    told : str
        What is seen.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    span = (high - low) or 1.0

    def spot(place: int, value: float) -> tuple[float, float]:
        middle = 0.5 if high == low else (value - low) / span
        across = 4 + (_TREND_WIDTH - 8) * place / max(1, len(values) - 1)
        return across, 4 + (_TREND_HEIGHT - 8) * (1 - middle)

    spots = [spot(place, value) for place, value in enumerate(values) if math.isfinite(value)]
    parts = [_open(_TREND_WIDTH, _TREND_HEIGHT, "trend", told)]
    parts.append(f'<polyline class="line" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in spots)}"/>')
    if spots:
        parts.append(f'<circle class="dot" cx="{spots[-1][0]:.1f}" cy="{spots[-1][1]:.1f}" r="3"/>')
    return "".join([*parts, "</svg>"])


def _open(width: int, height: int, kind: str, told: str) -> str:
    label = escape(told, quote=True)
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}"><title>{label}</title>'
