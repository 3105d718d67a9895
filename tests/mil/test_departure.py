"""The first operation that float16 does not carry is named, and none that only passes errors on."""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb  # noqa: N813 - as everybody calls it

from parity import mil
from parity.cli import main
from parity.mil import departure

SHAPE = (2, 64)


def package(folder: Path, body: object) -> Path:
    """Write a float16 program of one input x."""
    program = mb.program(input_specs=[mb.TensorSpec(shape=SHAPE)], opset_version=ct.target.iOS16)(body)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )
    path = folder / "made.mlpackage"
    model.save(str(path))
    return path


def inputs(scale: float = 1.0) -> dict[str, np.ndarray]:
    return {"x": (scale * np.random.default_rng(93).uniform(0.5, 1, SHAPE)).astype(np.float32)}


def first(path: Path, x: dict[str, np.ndarray]) -> tuple[departure.Value | None, departure.Value | None]:
    model = mil.load(path)
    return departure.first(departure.values(model, departure.given(model, x)))


def overflowing(x: object) -> object:
    small = mb.mul(x=x, y=np.float32(3.0), name="small")
    large = mb.mul(x=small, y=np.float32(300.0), name="large")
    return mb.sqrt(x=mb.square(x=large, name="beyond"), name="after")


def sine(x: object) -> object:
    angle = mb.mul(x=x, y=np.float32(900.0), name="angle")
    return mb.add(x=mb.sin(x=angle, name="wave"), y=np.float32(2.0), name="after")


def vanishing(x: object) -> object:
    tiny = mb.mul(x=x, y=np.float32(1e-4), name="tiny")
    return mb.add(x=mb.square(x=tiny, name="gone"), y=np.float32(1.0), name="after")


def sound(x: object) -> object:
    return mb.tanh(x=mb.exp(x=mb.mul(x=x, y=np.float32(0.7), name="half"), name="power"), name="after")


def test_the_first_value_beyond_the_range_has_its_size_in_float32(tmp_path: Path) -> None:
    x = inputs()
    leaving, departing = first(package(tmp_path, overflowing), x)
    assert leaving is not None
    assert departing is None
    assert leaving.name.startswith("beyond")
    assert leaving.largest == pytest.approx((np.float16(x["x"]).astype(float).max() * 900) ** 2, rel=1e-3)
    assert "is not finite: in float32 its largest is 8" in leaving.sentence
    assert leaving.sentence.endswith("and float16 ends at 65,504")


def test_a_sine_of_a_large_angle_departs_and_what_follows_does_not(tmp_path: Path) -> None:
    found = list(departure.values(mil.load(package(tmp_path, sine)), inputs()))
    (departing,) = (value for value in found if value.departs)
    assert departing.name.startswith("wave")
    assert departing.gain > 100
    assert departing.reads.startswith("angle")
    assert 800 < departing.reads_largest <= 900
    assert "where float16's values lie 0.5 apart" in departing.sentence
    assert not any(value.leaves for value in found)


def test_what_becomes_zero_leaves_the_range(tmp_path: Path) -> None:
    found = list(departure.values(mil.load(package(tmp_path, vanishing)), inputs()))
    (gone,) = (value for value in found if value.leaves)
    assert gone.name.startswith("gone")
    assert gone.vanished
    assert "becomes zero: in float32 its largest is 1e-08" in gone.sentence


def test_a_sound_program_has_no_findings_and_float32_no_errors(tmp_path: Path) -> None:
    path = package(tmp_path, sound)
    assert first(path, inputs()) == (None, None)
    assert {value.error for value in departure.values(mil.load(path), inputs(), profile="float32")} == {0.0}


@pytest.mark.parametrize(("body", "code", "says"), [(sine, 1, "departs: 1, the first is"), (sound, 0, "departs: none")])
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], body: object, code: int, says: str) -> None:
    path = package(tmp_path, body)
    np.savez(tmp_path / "call.npz", **inputs())
    assert main(["mil", "compare", str(path), "--inputs", str(tmp_path / "call.npz")]) == code
    out = capsys.readouterr().out
    assert says in out
    assert "results, declared compared with float32" in out


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": np.zeros(SHAPE, np.float32)}, "has no input 'y'"),
        ({}, "no array 'x'"),
        ({"x": np.full(SHAPE, np.nan, np.float32)}, "x holds values that are NaN or infinite"),
        ({"x": np.zeros((0, 64), np.float32)}, "x is empty, with shape (0, 64)"),
    ],
)
def test_bad_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arrays: dict[str, np.ndarray], says: str
) -> None:
    path = package(tmp_path, sound)
    np.savez(tmp_path / "call.npz", **arrays)
    assert main(["mil", "compare", str(path), "--inputs", str(tmp_path / "call.npz")]) == 2
    assert says in capsys.readouterr().err


def test_a_missing_and_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = package(tmp_path, sound)
    (tmp_path / "call.npz").write_bytes(b"no archive")
    for name, says in (("call.npz", "one with one array an input is needed"), ("none.npz", "no such file")):
        assert main(["mil", "compare", str(path), "--inputs", str(tmp_path / name)]) == 2
        assert says in capsys.readouterr().err
