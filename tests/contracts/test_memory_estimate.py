"""What machines give a program, held against estimates: too large, unclear, may fit; and nothing is counted twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from parity import cli
from parity.contracts import memory as memories
from parity.contracts.inspection import Bundle, Component
from parity.contracts.memory import Budget, budgets, memory
from parity.errors import UnsupportedError
from parity.mil.memory import Estimate


def bundle(*components: Component) -> Bundle:
    return Bundle(".", "mixed", components, (), "sd1", "epsilon", (), {}, ())


def component(path: str, kind: str, chunk: int = 0) -> Component:
    return Component(path, path.rpartition(".")[2], kind, chunk=chunk)


def test_what_is_there_twice_is_needed_once_and_a_budget_says_what_it_exceeds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = {
        "unet.mlmodelc": Estimate(100, 200, 30),
        "unet.mlpackage": Estimate(100, 200, 30),
        "unet-1.mlmodelc": Estimate(50, 100, 30),
        "unet-2.mlmodelc": Estimate(50, 100, 30),
        "decoder.mlmodelc": Estimate(10, 20, 60, flexible=True),
    }

    def estimate(path: Path) -> Estimate:
        if path.name not in sizes:
            raise UnsupportedError(f"{path.name}: it is no ML Program")
        return sizes[path.name]

    monkeypatch.setattr(memories, "estimate", estimate)
    known = [Budget(str(number), number, "", "") for number in (129, 130, 169, 170, 279, 280)]
    found = memory(
        bundle(
            component("unet.mlpackage", "unet"),
            component("unet.mlmodelc", "unet"),
            component("unet-1.mlmodelc", "unet", 1),
            component("unet-2.mlmodelc", "unet", 2),
            component("decoder.mlmodelc", "vae_decoder"),
            component("old.mlmodel", "safety_checker"),
        ),
        tmp_path,
        known,
    )
    assert set(found.components) == set(sizes)
    assert found.unread == {"old.mlmodel": "old.mlmodel: it is no ML Program"}
    assert found.one == Estimate(100, 200, 30)
    assert found.all == Estimate(110, 220, 60, flexible=True)
    assert {fit.budget.bytes: (fit.one, fit.all) for fit in found.fits} == {
        129: ("too large", "too large"),
        130: ("unclear", "too large"),
        169: ("unclear", "too large"),
        170: ("unclear", "unclear"),
        279: ("may fit", "unclear"),
        280: ("may fit", "may fit"),
    }
    assert memory(bundle(component("old.mlmodel", "unet")), tmp_path, known).fits == ()


def test_budgets_say_where_they_were_reported_and_can_be_added(tmp_path: Path) -> None:
    assert all(budget.evidence and budget.beyond for budget in budgets())
    table = tmp_path / "own.toml"
    table.write_text('[[budget]]\nname = "ours"\nbytes = 7\nbeyond = "it ends"\nevidence = "our laboratory"\n')
    assert budgets((table,))[-1] == Budget("ours", 7, "it ends", "our laboratory")


def test_the_command_prints_and_writes_estimates(
    converted: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = converted("main", "unet")
    assert cli.main(["inspect", str(path), "--memory", "--json", str(tmp_path / "out.json")]) == 0
    (found,) = json.loads((tmp_path / "out.json").read_text())["memory"]
    (own,) = found["components"].values()
    weights = sum(file.stat().st_size for file in path.rglob("weight.bin"))
    assert own["stored"] == weights
    assert 0.9 * weights < own["expanded"] <= weights
    assert found["all"] == found["one"] == own
    assert {fit["all"] for fit in found["fits"]} == {"may fit"}
    assert "left out: the framework's own memory" in capsys.readouterr().out
    archive = tmp_path / "models.zip"
    archive.write_bytes(b"PK\x05\x06" + bytes(18))
    assert cli.main(["inspect", str(archive), "--memory"]) == 2
    assert "models.zip: --memory reads programs from a folder; unpack the archive first" in capsys.readouterr().err
