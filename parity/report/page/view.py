"""What does the page show of a cell, and how are cells put together?

Cells are grouped by model and question; groups and the cells in them stand worst first. Texts, pictures with captions
and drawings are made here, the template only places them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from parity.report.page import charts, differences, seen
from parity.report.page.gallery import Gallery
from parity.report.table import said_candidate, said_producer, worst_first
from parity.runs.history.trends import Trend
from parity.runs.since import Change

QUESTIONS: Final = {
    "candidate": "the converted model against its original",
    "producer": "two producers, both by PyTorch",
    "picture": "a picture drawn elsewhere against the original's",
    "golden": "the original against what was accepted",
    "compatibility": "old models in app releases",
}


@dataclass(frozen=True)
class Context:
    """What a page says beside the records.

    Attributes
    ----------
    machines : mapping
        Facts by name, for each machine by its name: versions, system, digests of what was asked.
    changes : sequence of Change
        Since an earlier run, or earlier nights.
    since : str
        What they are changes to; empty where nothing earlier was given.
    trends : mapping
        The trends of a cell, by machine and id.
    """

    machines: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    since: str = ""
    trends: Mapping[tuple[str, str], Sequence[Trend]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shot:
    """A picture on the page: its name in the gallery, what stands below it, and what is seen in it."""

    name: str
    caption: str
    alternative: str
    width: int
    height: int


@dataclass(frozen=True)
class Drawing:
    """A curve or trend: SVG, and what stands below it."""

    svg: str
    caption: str


@dataclass(frozen=True)
class View:
    """A cell as the page shows it.

    Attributes
    ----------
    anchor : str
        Its place in the page's address.
    record : dict
    candidate : str
        What is judged.
    heading : str
        The case, and who draws.
    shots : dict of str to Shot
        By role: ``reference``, ``candidate``, ``signed``, ``errors``, ``latents``; those there are.
    curve : Drawing or None
    trends : list of Drawing
    changes : list of Change
        Of this cell.
    seconds : str
        Times of the runs.
    """

    anchor: str
    record: dict[str, Any]
    candidate: str
    heading: str
    shots: dict[str, Shot]
    curve: Drawing | None
    trends: list[Drawing]
    changes: list[Change]
    seconds: str

    @property
    def decisive(self) -> dict[str, Any]:
        """The check that decides."""
        return dict(self.record["checks"][self.record["decisive"]])

    @property
    def searched(self) -> str:
        """What a search looks into."""
        record = self.record
        words = (record["sentence"], record["id"], record["settings"]["prompt"], self.candidate, *record["remarks"])
        return " ".join(words).lower()


@dataclass(frozen=True)
class Group:
    """Cells of one model and question."""

    title: str
    cells: list[View]


def groups(records: Sequence[dict[str, Any]], context: Context, gallery: Gallery) -> list[Group]:
    """Return all cells that were asked, by model and question, worst first; their pictures go into the gallery."""
    changes: dict[tuple[str, str], list[Change]] = {}
    for change in context.changes:
        changes.setdefault((change.machine, change.cell), []).append(change)
    found: dict[str, list[View]] = {}
    for number, record in enumerate(worst_first(records), 1):
        if not record["asked"]:
            continue
        key = record.get("machine", ""), record["id"]
        title = f"{record['model']}: {QUESTIONS.get(record['kind'], record['kind'])}"
        about = changes.get(key, []), context.trends.get(key, ())
        found.setdefault(title, []).append(view(f"cell-{number}", record, gallery, *about))
    return [Group(title, cells) for title, cells in found.items()]


def view(
    anchor: str, record: dict[str, Any], gallery: Gallery, changes: Sequence[Change] = (), trends: Sequence[Trend] = ()
) -> View:
    """Return one cell as the page shows it, parameters as the fields of :class:`View`."""
    heading = " ".join(filter(None, [record["case"], said_producer(record)]))
    seconds = ", ".join(f"{role} {value:.2f} s" for role, value in record["seconds"].items())
    drawn = [Drawing(charts.trend(trend.values, _told(trend)), f"{trend.label}: {_told(trend)}") for trend in trends]
    return View(
        anchor=anchor,
        record=_complete(record),
        candidate=said_candidate(record),
        heading=heading,
        shots=_shots(record, gallery),
        curve=_curve(record),
        trends=drawn,
        changes=_together(changes),
        seconds=seconds,
    )


def _together(changes: Sequence[Change]) -> list[Change]:
    """Make one change of those that began between the same runs."""
    found: dict[tuple[str, bool], list[Change]] = {}
    for change in changes:
        found.setdefault((change.began, change.worse), []).append(change)
    return [replace(own[0], text="; ".join(change.text for change in own)) for own in found.values()]


def _complete(record: dict[str, Any]) -> dict[str, Any]:
    """Give a record of an earlier release the fields that it does not have yet."""
    checks = [{**check, "shown": {"half": "-", **check["shown"]}} for check in record["checks"]]
    return {"worker": "", **record, "checks": checks}


def _told(trend: Trend) -> str:
    values = trend.values
    if len(values) < 2:
        return f"{values[-1]:.4g} in one run" if values else "nothing measured"
    return f"{values[-1]:.4g} now, {min(values):.4g} to {max(values):.4g} in {len(values)} runs"


def _shots(record: dict[str, Any], gallery: Gallery) -> dict[str, Shot]:
    names = {
        "reference": {"golden": "accepted", "producer": record["against"]}.get(record["kind"], "reference: PyTorch"),
        "candidate": record["producer"] if record["kind"] == "producer" else record["against"] or record["backend"],
    }
    found, pixels = {}, {}
    for role, name in names.items():
        if role in record["pictures"]:
            png = base64.b64decode(record["pictures"][role])
            pixels[role] = array = _pixels(png)
            height, width = array.shape[:2]
            said = (
                f"{name}: {width} by {height} pixels, {seen.colours(array)}; asked for “{record['settings']['prompt']}”"
            )
            found[role] = Shot(gallery.add(png), name, said, width, height)
    if len(pixels) == 2 and pixels["reference"].shape == pixels["candidate"].shape:
        pair = found["reference"].name, found["candidate"].name
        found |= gallery.once(pair, lambda: _maps(pixels["reference"], pixels["candidate"], gallery))
    if "latents" in record["pictures"] and record.get("course"):
        found["latents"] = _latents(record, gallery)
    return found


def _maps(reference: np.ndarray, candidate: np.ndarray, gallery: Gallery) -> dict[str, Shot]:
    height, width = reference.shape[:2]
    told = seen.difference(reference, candidate)
    if not (reference != candidate).any():
        return {}
    caption = f"candidate minus reference, white and black from ±{differences.FULL} of 255 on: {told}"
    signed = gallery.draw(differences.signed(reference, candidate))
    found = {"signed": Shot(signed, caption, f"map of the signed difference: {told}", width, height)}
    errors = differences.errors(reference, candidate)
    if errors is not None:
        told = seen.errors(errors)
        name = gallery.draw(differences.heat(errors))
        found["errors"] = Shot(
            name,
            f"FLIP, what an eye would notice, brighter is more: {told}",
            f"map of FLIP's errors: {told}",
            width,
            height,
        )
    return found


def _latents(record: dict[str, Any], gallery: Gallery) -> Shot:
    course = record["course"]
    png = base64.b64decode(record["pictures"]["latents"])
    height, width = _pixels(png).shape[:2]
    points = ", ".join(point.removeprefix("latents/") for point in course["shown"])
    scale = float(course["scale"])
    caption = (
        f"latents at {points}, from left to right; rows are reference, candidate, and their difference "
        f"(white and black at ±{scale:.3g}); a tile holds all channels"
    )
    return Shot(gallery.add(png), caption, f"grey pictures of latents: {caption}", width, height)


def _curve(record: dict[str, Any]) -> Drawing | None:
    course = record.get("course")
    if not course:
        return None
    values = [float(value) for value in course["values"]]
    told = seen.curve(course["points"], values)
    return Drawing(charts.curve(course["points"], values, told), f"agreement of the latents in dB (PSNR): {told}")


def _pixels(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
