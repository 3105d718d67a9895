"""Accepted traces: round trip, and refusal of what was made under other settings or is damaged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from parity.errors import FormatError, MissingError, ParityError
from parity.pipelines.trace import Trace
from parity.suite import case
from parity.suite.case import Case
from parity.suite.questions import golden


@pytest.fixture
def one() -> Case:
    return case.load()[0]


@pytest.fixture
def trace() -> Trace:
    rng = np.random.default_rng(93)
    latents = rng.normal(size=(1, 4, 2, 2)).astype(np.float32)
    return Trace(
        {
            "text_encoder/prompt/hidden": rng.normal(size=(1, 3, 8)).astype(np.float32),
            "latents/initial": latents,
            "unet/step00/sample": latents,
            "unet/step00/noise_pred": latents + 1,
            "latents/step00": latents + 2,
            "latents/step01": latents + 3,
            "image": rng.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8),
        }
    )


def test_round_trip_keeps_the_chosen_points(tmp_path: Path, one: Case, trace: Trace) -> None:
    folder = golden.save(tmp_path, "org/model", one, trace, weights="abc")
    assert folder == tmp_path / "org_model" / one.slug
    assert sorted(path.name for path in folder.iterdir()) == ["image.png", "provenance.json", "trace.npz"]
    loaded = golden.load(tmp_path, "org/model", one, weights="abc")
    assert set(loaded.trace) == set(trace) - {"unet/step00/sample", "latents/step00"}
    for point, value in loaded.trace.items():
        assert value.dtype == trace[point].dtype
        assert np.array_equal(value, trace[point])
    assert set(golden.pairs(loaded.trace, trace)) == {
        "golden/start",
        "golden/text_encoder",
        "golden/unet",
        "golden/latents",
        "golden/image",
    }


def test_a_missing_golden_says_how_to_make_it(tmp_path: Path, one: Case) -> None:
    with pytest.raises(MissingError, match="--update-golden"):
        golden.load(tmp_path, "m", one, weights="")


@pytest.mark.parametrize(
    ("changes", "named"), [({"seed": 94}, "seed 93"), ({"rng": "numpy-legacy"}, "rng 'torch-cpu'")]
)
def test_a_golden_of_other_settings_is_refused(
    tmp_path: Path, one: Case, trace: Trace, changes: dict[str, object], named: str
) -> None:
    folder = golden.save(tmp_path, "m", one, trace, weights="abc")
    other = dataclasses.replace(one, **changes)  # type: ignore[arg-type]
    folder.rename(golden.folder(tmp_path, "m", other))
    with pytest.raises(FormatError, match=named):
        golden.load(tmp_path, "m", other, weights="abc")


def test_a_golden_of_other_weights_is_refused(tmp_path: Path, one: Case, trace: Trace) -> None:
    golden.save(tmp_path, "m", one, trace, weights="abc")
    with pytest.raises(FormatError, match="weights 'abc'"):
        golden.load(tmp_path, "m", one, weights="def")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("trace.npz", b""),
        ("trace.npz", b"PK\x03\x04 truncated"),
        ("trace.npz", None),
        ("provenance.json", b"{"),
        ("provenance.json", b"[]"),
        ("provenance.json", None),
    ],
)
def test_damage_is_named(tmp_path: Path, one: Case, trace: Trace, file: str, content: bytes | None) -> None:
    path = golden.save(tmp_path, "m", one, trace, weights="abc") / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ParityError, match=file):
        golden.load(tmp_path, "m", one, weights="abc")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    np.savez(path, evil=np.array([{"a": 1}], dtype=object))
    with pytest.raises(FormatError, match="not a readable trace"):
        Trace.load(path)


def test_replacing_a_golden_leaves_no_scratch(tmp_path: Path, one: Case, trace: Trace) -> None:
    for weights in ("abc", "def"):
        folder = golden.save(tmp_path, "m", one, trace, weights=weights)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert json.loads((folder / "provenance.json").read_text())["weights"] == "def"
