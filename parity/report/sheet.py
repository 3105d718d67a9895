"""What does a grid of cases look like, drawn by one backend? One contact sheet: a picture for each combination.

A case whose values are lists multiplies (:mod:`parity.suite.case`); the records of its cases name it under
``settings.grid``. The value that varies most stands along the top, combinations of the others down the side. The
reference has a sheet of its own.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_GAP, _LINE, _FAILS = 4, 12, (192, 40, 45)
_SIDE = 192  # pixels of a tile's longer side, at most
_APART = ("grid", "task", "image", "mask", "control")  # settings that make no axis


@dataclass(frozen=True)
class Sheet:
    """One contact sheet.

    Attributes
    ----------
    caption : str
        Which grid, drawn by what.
    picture : str
        PNG in base64.
    """

    caption: str
    picture: str


def sheets(records: Sequence[Mapping[str, Any]]) -> list[Sheet]:
    """Return the contact sheets of a run: for each grid the reference's and each backend's.

    Parameters
    ----------
    records : sequence of mapping
        From :meth:`parity.suite.outcome.Outcome.record`, in any order.
    """
    groups: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        grid = record["settings"].get("grid")
        if not grid or record["kind"] != "candidate":
            continue
        for role, who in (("reference", "the reference, PyTorch"), ("candidate", record["backend"])):
            if role in record["pictures"]:
                groups.setdefault((record["model"], grid, record["producer"], who), []).append(record)
    found = []
    for (model, grid, producer, who), cells in sorted(groups.items(), key=lambda entry: _rank(entry[0])):
        role = "reference" if who.startswith("the reference") else "candidate"
        drawn = f", as {producer}" if producer not in ("", "diffusers") else ""
        found.append(Sheet(f"{model} draws {grid}{drawn}, by {who}", _sheet(cells, role)))
    return found


def _rank(key: tuple[str, str, str, str]) -> tuple[str, str, str, bool, str]:
    model, grid, producer, who = key
    return model, grid, producer, not who.startswith("the reference"), who


def _axes(cells: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings that vary with their values in order, the one with most values last."""
    values: dict[str, list[Any]] = {}
    for cell in cells:
        for name, value in cell["settings"].items():
            if name not in _APART and not isinstance(value, list) and value not in values.setdefault(name, []):
                values[name].append(value)
    varied = {name: _ordered(found) for name, found in values.items() if len(found) > 1}
    return dict(sorted(varied.items(), key=lambda entry: len(entry[1])))


def _ordered(values: list[Any]) -> list[Any]:
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def _sheet(cells: Sequence[Mapping[str, Any]], role: str) -> str:
    axes = _axes(cells)
    top = list(axes)[-1] if axes else ""
    side = [name for name in axes if name != top]
    rows = sorted({_place(cell, side, axes) for cell in cells})
    columns = sorted({_place(cell, [top] if top else [], axes) for cell in cells})
    tiles: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[Image.Image, bool]] = {}
    for cell in cells:
        place = _place(cell, side, axes), _place(cell, [top] if top else [], axes)
        tiles.setdefault(place, (_tile(cell["pictures"][role]), cell["verdict"] == "fail"))
    width = max(tile.width for tile, _ in tiles.values())
    height = max(tile.height for tile, _ in tiles.values())
    font = ImageFont.load_default()
    left = max([*(int(font.getlength(_said(row, side, axes))) for row in rows), 0]) + 2 * _GAP
    size = left + len(columns) * (width + _GAP), _LINE + 2 * _GAP + len(rows) * (height + _GAP)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    for number, column in enumerate(columns):
        pen.text((left + number * (width + _GAP), _GAP), _said(column, [top] if top else [], axes), "black", font)
    for line, row in enumerate(rows):
        upper = _LINE + 2 * _GAP + line * (height + _GAP)
        pen.text((_GAP, upper), _said(row, side, axes), "black", font)
        for number, column in enumerate(columns):
            if (found := tiles.get((row, column))) is not None:
                corner = left + number * (width + _GAP), upper
                canvas.paste(found[0], corner)
                if found[1] and role == "candidate":
                    pen.rectangle((*corner, corner[0] + width - 1, corner[1] + height - 1), outline=_FAILS, width=3)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _place(cell: Mapping[str, Any], names: Sequence[str], axes: Mapping[str, list[Any]]) -> tuple[int, ...]:
    return tuple(axes[name].index(cell["settings"][name]) for name in names)


def _said(place: tuple[int, ...], names: Sequence[str], axes: Mapping[str, list[Any]]) -> str:
    pairs = ((name, axes[name][index]) for name, index in zip(names, place, strict=True))
    return ", ".join(
        f"{name.replace('_', ' ')} {value if len(str(value)) < 40 else str(value)[:40]}" for name, value in pairs
    )


def _tile(png: str) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    longest = max(picture.size)
    if longest <= _SIDE:
        return picture
    return picture.resize((picture.width * _SIDE // longest, picture.height * _SIDE // longest))
