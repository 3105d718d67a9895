"""The page: what it says and to whom, how large it is, and that it works in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from parity.report import html
from parity.report.page.gallery import Gallery
from parity.report.page.view import Context
from parity.runs.history.trends import Trend
from parity.runs.since import Change
from tests.report.browser import browsed
from tests.runs.records import record


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def drawn(number: int, verdict: str = "pass", margin: float = 5.0, *, size: int = 32, **changes: Any) -> dict[str, Any]:
    """Return a record with pictures that differ a little everywhere, and with a course."""
    generator = np.random.default_rng(number)
    reference = generator.integers(0, 256, (size, size, 3), np.uint8)
    candidate = np.clip(reference.astype(int) + generator.integers(-2, 3, reference.shape), 0, 255).astype(np.uint8)
    points = ["latents/initial", *(f"latents/step{step:02d}" for step in range(10))]
    course = {
        "metric": "tensor_psnr",
        "points": points,
        "values": ["inf", *(60.0 - step for step in range(10))],
        "shown": [points[0], points[-1]],
        "scale": 0.5,
    }
    pictures = {
        "reference": png(reference),
        "candidate": png(candidate),
        "latents": png(generator.integers(0, 256, (24, 24), np.uint8)),
    }
    return record(number, verdict, margin, **{"pictures": pictures, "course": course, **changes})


def written(folder: Path, records: list[dict[str, Any]], context: Context | None = None) -> str:
    return html.write(records, folder, context=context).read_text(encoding="utf-8")


def sources(page: str) -> dict[str, str]:
    found = re.search(r'id="sources">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


class Outline(HTMLParser):
    """Headings, pictures without words, tables without headers, and fields without labels."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.silent: list[str] = []
        self.ids: list[str] = []
        self._labels = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        own = dict(attributes)
        self.ids += [value for name, value in attributes if name == "id" and value]
        self._labels += tag == "label"
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        said = own.get("alt") if tag == "img" else own.get("aria-label") if tag == "svg" else "-"
        if tag in ("input", "select") and not (self._labels or own.get("aria-label")):
            said = ""
        if tag == "th" and not own.get("scope"):
            said = ""
        if not said:
            self.silent.append(str(self.get_starttag_text()))

    def handle_endtag(self, tag: str) -> None:
        self._labels -= tag == "label"


def test_who_accepted_a_golden_stands_quietly_at_its_cell(tmp_path: Path) -> None:
    about = {"id": "g/1", "author": "Ada", "time": "2026-11-26T03:35:02Z", "reason": "looks right", "count": 1}
    sentence = "compared with golden g/1, accepted by Ada on 2026-11-26: looks right"
    page = written(tmp_path, [drawn(0, kind="golden", golden={**about, "sentence": sentence}), drawn(1)])
    assert page.count(f'<p class="soft">{sentence}</p>') == 1


def test_who_does_not_see_it_is_told_what_is_seen(tmp_path: Path) -> None:
    trends = {("", record(1)["id"]): [Trend("seconds candidate in s", (1.0, 1.1, 1.2))]}
    context = Context({"": {"chip": "Apple M2"}}, [Change("fails", True, record(0)["id"])], "yesterday", trends)
    page = written(tmp_path, [drawn(0, "fail"), drawn(1)], context)
    outline = Outline(page)
    assert not outline.silent
    assert len(set(outline.ids)) == len(outline.ids)
    assert outline.levels[0] == 1
    assert all(after - before <= 1 for before, after in zip(outline.levels, outline.levels[1:], strict=False))
    alternatives = re.findall(r'alt="([^"]*)"', page)
    assert len(alternatives) == 10
    assert any(re.search("32 by 32 pixels, .* % .*; asked for “a ring”", text) for text in alternatives)
    assert any(re.search("difference: .* % of pixels differ, by 2 of 255 at most", text) for text in alternatives)
    assert any("FLIP&#39;s errors: largest error 0." in text for text in alternatives)
    assert "latents are equal up to initial, then agree by 60.0 dB at step00 and by 51.0 dB at step09" in page
    assert "seconds candidate in s: 1.2 now, 1 to 1.2 in 3 runs" in page


def test_worst_first_in_groups_and_what_changed_on_top(tmp_path: Path) -> None:
    other = drawn(3, kind="golden")
    records = [drawn(0), drawn(1, "fail", -3.0), drawn(2, "unknown"), other]
    changes = [Change("pass -> fail", True, records[1]["id"]), Change("torch 2.12 -> 2.13", False)]
    page = written(tmp_path, records, Context({"": {}}, changes, "night 7"))
    assert [int(place) for place in re.findall(r"<strong>case-(\d)", page)] == [1, 2, 0, 3]
    assert re.findall(r'<h3 id="group-\d">([^<]*) <', page) == [
        "tiny-sd: the converted model against its original",
        "tiny-sd: the original against what was accepted",
    ]
    order = ["What changed since night 7", "What fails", "Machines", "Cells", "Provenance"]
    places = [page.index(f">{title}<") for title in order]
    assert places == sorted(places)
    assert '<a href="#cell-1">candidate/case-1/coreml:reference</a>: pass -&gt; fail' in page
    assert "torch 2.12 -&gt; 2.13" in page
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["changes"]["since"] == "night 7"
    assert document["changes"]["found"][0]["worse"]


def test_what_began_together_is_told_once_with_links_to_its_cells(tmp_path: Path) -> None:
    began = "since run 4; the last before is run 3; between them changed torch 2.12 -> 2.13"
    records = [drawn(number, "fail", -3.0) for number in range(3)]
    changes = [Change("fails", True, one["id"], "", began) for one in records]
    changes += [Change("its margin fell", True, records[0]["id"], "", began)]
    page = written(tmp_path, records, Context({"": {}}, changes, "earlier nights"))
    top = page[page.index('id="changed"') : page.index('id="fails"')]
    assert top.count("since run 4") == 1
    assert [text.split(":")[0] for text in re.findall(r"<li>([^<]*: )<a", top)] == ["fails", "its margin fell"]
    assert top.count('<a href="#cell-') == 4
    assert page.count("-&gt; 2.13: fails; its margin fell</p>") == 1  # at its cell
    assert page.count("-&gt; 2.13: fails</p>") == 2


def test_equal_pictures_have_no_maps(tmp_path: Path) -> None:
    grey = png(np.full((8, 8, 3), 9, np.uint8))
    page = written(tmp_path, [record(0, pictures={"reference": grey, "candidate": grey})])
    assert "equal, pixel by pixel" in page
    assert len(sources(page)) == 1


def test_pictures_are_held_once_bit_for_bit_and_named_in_the_json(tmp_path: Path) -> None:
    first, second = drawn(0), drawn(1)
    second["pictures"]["reference"] = first["pictures"]["reference"]
    page = written(tmp_path, [first, second])
    held = sources(page)
    assert len(held) == 9  # 2 x candidate, signed, errors, latents; one reference
    assert "http" not in page
    names = json.loads((tmp_path / "report.json").read_text())["records"][0]["pictures"]
    assert set(names) == {"reference", "candidate", "latents"}
    for role, name in names.items():
        texts = held[name].partition(",")[2], first["pictures"][role]
        there, here = (np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")) for text in texts)
        assert np.array_equal(there, here)


def test_what_a_page_cannot_hold_lies_beside_it(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path, budget=6000)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    names = [gallery.draw(pixels), gallery.draw(pixels[::-1].copy())]
    assert gallery.sources[names[0]].startswith("data:image/")
    assert gallery.sources[names[1]] == f"pictures/{names[1]}.png"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "pictures" / f"{names[1]}.png")), pixels[::-1])
    assert gallery.beside == 1


@pytest.mark.slow
def test_two_hundred_cells_stay_below_8_mb(tmp_path: Path) -> None:
    """With pictures of pure noise, which nothing makes smaller: what the page does not hold lies beside it."""
    page = written(tmp_path, [drawn(number, size=64) for number in range(200)])
    assert len(page.encode()) < 8e6
    assert len((tmp_path / "report.json").read_bytes()) < 1e6
    assert any(source.startswith("pictures/") for source in sources(page).values())
    assert sources(page)[re.search(r'data-picture="(\w+)"', page)[1]].startswith("data:")  # type: ignore[index]


def test_in_a_browser(tmp_path: Path) -> None:
    """Search, filters, keys, slider and pictures, by a script that does what a reader would do."""
    records = [drawn(0, "fail", -3.0), drawn(1, "unknown"), drawn(2), drawn(3, kind="golden")]
    changes = [Change("pass -> fail", True, records[0]["id"])]
    page = written(tmp_path, records, Context({"": {}}, changes, "night 7"))
    script = """
      const q = (what) => document.querySelector(what), count = () => one("shown").textContent;
      const one = (id) => document.getElementById(id), set = (id, value) => {
        one(id).value = value; one(id).dispatchEvent(new Event("input", { bubbles: true })); };
      const key = (name) => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", { key: name, bubbles: true }));
      const found = { all: count() };
      await new Promise((done) => setTimeout(done, 300));
      const images = [...document.querySelectorAll("details[open] img")];
      found.opened = images.length; found.loaded = images.filter((image) => image.naturalWidth > 0).length;
      found.waiting = document.querySelectorAll("img[data-picture]").length;
      set("search", "case-2"); found.searched = count(); set("search", "");
      q("input[value=fail]").click(); found.unfailed = count(); q("input[value=fail]").click();
      set("kind", "2"); found.golden = count(); found.hidden = q(".group[data-group='1']").hidden; set("kind", "");
      one("changed-only").click(); found.changed = count(); one("changed-only").click();
      key("j"); key("j"); found.focused = document.activeElement.closest("article").id;
      key("k"); found.back = document.activeElement.closest("article").id;
      key("/"); found.slash = document.activeElement.id;
      const range = q("input[type=range]"); range.value = 20; range.dispatchEvent(new Event("input"));
      found.slider = getComputedStyle(q(".slider .over")).clipPath;
      location.hash = "cell-3"; await new Promise((done) => setTimeout(done, 300));
      found.linked = one("cell-3").querySelector("details").open;
      one("toggle").click(); found.all_open = document.querySelectorAll("article details:not([open])").length;
      await new Promise((done) => setTimeout(done, 300));
      found.left = document.querySelectorAll("img[data-picture]").length;
      return found;
    """
    found = browsed(page, script, tmp_path)
    assert found == {
        "errors": [],
        "all": "4 of 4 cells",
        "opened": 5,
        "loaded": 5,
        "waiting": 15,
        "searched": "1 of 4 cells",
        "unfailed": "3 of 4 cells",
        "golden": "1 of 4 cells",
        "hidden": True,
        "changed": "1 of 4 cells",
        "focused": "cell-2",
        "back": "cell-1",
        "slash": "search",
        "slider": "inset(0px 0px 0px 20%)",
        "linked": True,
        "all_open": 0,
        "left": 0,
    }


def test_on_a_phone_nothing_is_wider_than_the_screen(tmp_path: Path) -> None:
    records = [drawn(0, "fail", -3.0, sentence="a_name_without_any_place_to_break_it" * 3), drawn(1)]
    page = written(tmp_path, records, Context({"m1": {"chip": "M1"}, "m2": {}}, [Change("x" * 90, True)], "night 7"))
    script = """
      for (const details of document.querySelectorAll("details")) details.open = true;
      await new Promise((done) => setTimeout(done, 300));
      return { wide: document.documentElement.scrollWidth, width: innerWidth };
    """
    found = browsed(page, script, tmp_path, width=390)
    assert found["errors"] == []
    assert found["width"] == 390
    assert found["wide"] <= 390


@pytest.mark.slow
def test_two_hundred_cells_open_within_two_seconds(tmp_path: Path) -> None:
    page = written(tmp_path, [drawn(number, "fail", size=64) for number in range(200)])
    script = 'return { cells: document.querySelectorAll("article").length, milliseconds: performance.now() };'
    found = browsed(page, script, tmp_path)
    assert found["cells"] == 200
    assert found["milliseconds"] < 2000
