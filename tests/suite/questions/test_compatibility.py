"""The grid of converter and consumer releases: which cells there are, and that a wrong table is found."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from parity.contracts.capability import Cell, Matrix, Reason
from parity.contracts.consumers import consumers
from parity.errors import UnsupportedError
from parity.models.model import Model
from parity.suite import tolerance
from parity.suite.questions import pairings as compatibility
from parity.suite.questions import played as player
from parity.suite.questions import releases
from parity.suite.questions.pairings import Pairing
from parity.suite.questions.played import Player
from parity.suite.questions.releases import Release
from parity.suite.verdict import Verdict


def test_every_release_meets_every_consumer_for_every_task() -> None:
    cells = {
        (p.release.contract, p.consumer, p.task) for p, _ in compatibility.cases("all") if p.release.family == "sd"
    }
    for consumer in consumers().consumers:
        for release in releases.SD:
            assert (release, consumer.id, "txt2img") in cells
            assert ((release, consumer.id, "img2img") in cells) == ("img2img" in consumer.tasks)
            has_nets = "controlnet" in Release(release).components()
            assert ((release, consumer.id, "controlnet") in cells) == (has_nets and "controlnet" in consumer.tasks)
    xl = {(p.release.contract, p.consumer, p.task) for p, _ in compatibility.cases("all") if p.release.family == "xl"}
    assert {("C6", "S6", "txt2img"), ("1.1.0", "S7", "refiner"), ("main", "S8", "img2img")} <= xl
    assert ("C6", "S7", "refiner") not in xl, "the refiner came with 1.1.0"


def test_the_default_cells_are_a_part_that_leaves_no_release_out() -> None:
    everything = set(compatibility.cases("all"))
    chosen = compatibility.cases("distinct")
    assert set(chosen) <= everything
    assert len(chosen) < len(everything) / 5
    assert {p.release for p, _ in chosen} == {p.release for p, _ in everything}
    assert {p.consumer[0] for p, _ in chosen} == {"S", "P", "M", "D"}
    names = [case.name for _, case in compatibility.cases("all")]
    assert len(names) == len(set(names)), "a name finds one cell"
    assert compatibility.cases("none") == []


def test_components_of_each_release() -> None:
    assert "vae_encoder" not in Release("0.1.0").components()
    assert "vae_encoder" in Release("0.2.0").components()
    assert {"control-unet", "controlnet"} <= set(Release("0.4.0").components())
    assert "controlnet" not in Release("0.3.0").components()
    assert "refiner" in Release("main", "xl").components()
    assert "safety_checker" not in Release("main", "xl").components()


@pytest.mark.long
def test_drawn_parts_are_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = Path(Model(compatibility.MODEL).location)
    first = releases.controlnets(location)
    assert len(first) == 2
    content = [(net / "diffusion_pytorch_model.safetensors").read_bytes() for net in first]
    assert content[0] != content[1]
    monkeypatch.setenv("PARITY_CACHE", str(tmp_path))
    again = releases.controlnets(location)
    assert again[0] != first[0]
    assert [(net / "diffusion_pytorch_model.safetensors").read_bytes() for net in again] == content


@lru_cache(maxsize=1)
def shared() -> Player:
    return Player(Model(compatibility.MODEL))


def judge(pairing: Pairing):  # type: ignore[no-untyped-def]
    case = next(case for p, case in compatibility.cases("all") if p == pairing)
    bound = tolerance.find(tolerance.load(None), player.POINT, precision="float16", numerics="reference runtime")
    checks, pictures = shared().judge(pairing, case, bound)
    return checks[0], pictures


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "said", "verdict"),
    [
        ("txt2img", "yes", Verdict.PASS),
        ("txt2img", "no", Verdict.FAIL),
        ("img2img", "no", Verdict.PASS),
        ("img2img", "yes", Verdict.FAIL),
        ("img2img", "other", Verdict.FAIL),
    ],
)
def test_tables_that_say_something_else_are_found(
    task: str, said: str, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1.0 has no VAE encoder: text to image works, image to image fails with a known text."""
    pairing = Pairing(Release("0.1.0"), "S7", task)
    true: Matrix = shared().matrix(pairing.release)
    cell = true.cell(task, "S7")
    reason = Reason("planted", "no", "another text", "read", "", "")
    planted = {
        "yes": Cell(task, "S7", "yes", ()),
        "other": Cell(task, "S7", "no", (reason,)),
        "no": cell if task == "img2img" else Cell(task, "S7", "no", (reason,)),
    }[said]
    monkeypatch.setattr(shared(), "matrix", lambda release: replace(true, cells={**true.cells, (task, "S7"): planted}))
    check, pictures = judge(pairing)
    assert check.verdict is verdict
    assert bool(pictures) == (task == "txt2img")
    if verdict is Verdict.FAIL:
        assert "but the tables say" in check.message


@pytest.mark.long
def test_equal_executions_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.4.0 and 1.0.0 of the Swift package behave alike, and the converters of both times wrote the same UNet."""
    judge(Pairing(Release("0.1.0"), "S4", "txt2img"))
    monkeypatch.setattr(player, "execute", None)
    check, _ = judge(Pairing(Release("0.3.0"), "S5", "txt2img"))
    assert check.verdict is Verdict.PASS


@pytest.mark.long
def test_what_cannot_be_played_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UnsupportedError("not played")

    monkeypatch.setattr(player, "execute", refuse)
    check, pictures = judge(Pairing(Release("main"), "S8", "txt2img"))
    assert check.verdict is Verdict.UNKNOWN
    assert (check.message.endswith("not played"), pictures) == (True, {})


@pytest.mark.long
def test_sdxl_by_karras_spacing_is_pytorchs_picture() -> None:
    check, pictures = judge(Pairing(Release("1.1.0", "xl"), "D2024-06", "txt2img"))
    assert check.verdict is Verdict.PASS
    assert set(pictures) == {"reference", "candidate"}


@pytest.mark.long
def test_a_picture_decides_where_the_files_do_not_tell() -> None:
    """A float16 encoder of SDXL: the drawn weights stay in range, which nothing in the files says."""
    pairing = Pairing(Release("C6", "xl"), "S7", "img2img")
    assert shared().matrix(pairing.release).cell("img2img", "S7").verdict == "unknown"
    assert judge(pairing)[0].verdict is Verdict.PASS
