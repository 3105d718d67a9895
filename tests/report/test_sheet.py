"""A grid's pictures lie where their values say."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from parity.report.sheet import sheets

SIZE = 16


def png(colour: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def record(steps: int, guidance: float, backend: str = "reference runtime", verdict: str = "pass") -> dict[str, Any]:
    colour = (10 * steps, int(20 * guidance), 0)
    return {
        "model": "tiny",
        "kind": "candidate",
        "backend": backend,
        "producer": "diffusers",
        "verdict": verdict,
        "settings": {"grid": "g", "task": "txt2img", "steps": steps, "guidance_scale": guidance, "seed": 1},
        "pictures": {"reference": png((0, 0, 255)), "candidate": png(colour)},
    }


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_one_sheet_a_backend_and_one_of_the_reference() -> None:
    cells = [record(steps, guidance) for guidance in (7.5, 1.0) for steps in (8, 1, 4)]
    found = sheets([*cells, *(record(1, guidance, "Core ML ALL") for guidance in (1.0, 7.5))])
    assert [sheet.caption for sheet in found] == [
        "tiny draws g, by the reference, PyTorch",
        "tiny draws g, by Core ML ALL",
        "tiny draws g, by reference runtime",
    ]
    sheet = opened(found[2].picture).convert("RGB")
    colours = [(10 * steps, int(20 * guidance), 0) for guidance in (1.0, 7.5) for steps in (1, 4, 8)]
    places = {colour: corner(sheet, colour) for colour in colours}
    assert len({x for x, _ in places.values()}) == 3
    assert len({y for _, y in places.values()}) == 2
    assert [places[colour][0] for colour in colours[:3]] == sorted(places[colour][0] for colour in colours[:3])
    assert places[colours[0]][1] < places[colours[3]][1]


def corner(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int]:
    pixels = sheet.load()
    assert pixels is not None
    found = [(x, y) for y in range(sheet.height) for x in range(sheet.width) if pixels[x, y] == colour]
    assert len(found) == SIZE * SIZE
    return min(found)


def test_what_fails_is_framed_in_the_candidates_sheet() -> None:
    reference, candidate = sheets([record(1, 1.0), record(2, 1.0, verdict="fail")])
    colours = [opened(each.picture).convert("RGB").getcolors(1 << 24) or [] for each in (reference, candidate)]
    framed = [(192, 40, 45) in [colour for _, colour in found] for found in colours]
    assert framed == [False, True]


def test_cases_that_do_not_multiply_have_no_sheet() -> None:
    plain = record(1, 1.0)
    del plain["settings"]["grid"]
    assert sheets([plain]) == []
