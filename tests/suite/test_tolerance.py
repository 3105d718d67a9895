"""A mistake in a table is refused with the entry, the word and the nearest one; several metrics judge one point."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.errors import FormatError
from parity.metrics import METRICS
from parity.networks.signature import SIGNATURES
from parity.suite import tolerance
from parity.suite.tolerance import Tolerance

GOOD = {"point": '"unet"', "metric": '"max_abs"', "bound": "1", "measured": '"a test"'}


def load(tmp_path: Path, **changes: str | None) -> list[Tolerance]:
    rows = {key: value for key, value in (GOOD | changes).items() if value is not None}
    path = tmp_path / "mine.toml"
    path.write_text("[[tolerance]]\n" + "".join(f"{key} = {value}\n" for key, value in rows.items()))
    return tolerance.load(path)


def test_a_good_entry_goes_before_the_shipped_ones(tmp_path: Path) -> None:
    table = load(tmp_path, numerics='"Core ML *"')
    assert table[0] == Tolerance("unet", "max_abs", 1.0, measured="a test", numerics="Core ML *")
    assert table[1:] == tolerance.load()
    assert [row.own for row in table] == [True, *(False for _ in tolerance.load())]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"boud": "1"}, "unknown key 'boud'; did you mean bound?; known are point, metric, bound, measured, precision"),
        ({"numeric": '"x"'}, "unknown key 'numeric'; did you mean numerics?"),
        ({"bound": None}, "bound must be given; has point, metric, measured"),
        ({"bound": None, "metric": None}, "metric and bound must be given; has point, measured"),
        (dict.fromkeys(GOOD), "point and metric and bound and measured must be given; has nothing"),
        ({"metric": '"image_snr"'}, "no metric named 'image_snr'; did you mean image_psnr"),
        ({"metric": '"zzz"'}, "no metric named 'zzz'; there are image_psnr, tensor_psnr"),
        ({"metric": "3"}, "metric must be a text, not 3"),
        ({"point": '"unett"'}, "no point 'unett'; did you mean unet?"),
        ({"point": '"unett"'}, "there are compatibility, control-unet, controlnet, "),
        ({"point": '"golden/pictures"'}, "no point 'golden/pictures'"),
        ({"bound": '"1"'}, "bound must be a number, not '1'"),
        ({"bound": "true"}, "bound must be a number, not True"),
        ({"bound": "nan"}, "max_abs has no value nan: its bound, a maximum, is from 0 to infinity"),
        ({"bound": "-1"}, "max_abs has no value -1: its bound, a maximum, is from 0 to infinity"),
        ({"metric": '"image_psnr"'}, "image_psnr compares 8-bit pictures, and unet holds tensors"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, str | None], says: str) -> None:
    with pytest.raises(FormatError) as caught:
        load(tmp_path, **changes)
    assert f"{tmp_path}/mine.toml: [[tolerance]] number 1: " in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("metric", "bound", "says"),
    [
        ("image_ssim", "35", "a minimum, is from -1 to 1"),
        ("image_psnr", "-3", "a minimum, is from 0 dB to infinity"),
        ("flip_max", "1.5", "a maximum, is from 0 to 1"),
        ("ssimulacra2", "101", "a minimum, is from -infinity to 100"),
        ("image_window_rms", "256", "a maximum, is from 0 levels to 255 levels"),
        ("psnr_coremltools", "inf", "a minimum, is from -infinity to 3183 dB"),
    ],
)
def test_a_bound_that_is_no_value_of_its_metric(tmp_path: Path, metric: str, bound: str, says: str) -> None:
    with pytest.raises(FormatError) as caught:
        load(tmp_path, point='"image"', metric=f'"{metric}"', bound=bound)
    assert f"{metric} has no value {bound}: its bound, {says}" in str(caught.value)
    assert METRICS[metric].worst in str(caught.value)


@pytest.mark.parametrize("bound", ["0", "0.5", "1"])
def test_both_ends_are_legal(tmp_path: Path, bound: str) -> None:
    assert load(tmp_path, point='"image"', metric='"flip_max"', bound=bound)[0].bound == float(bound)


@pytest.mark.parametrize("text", ["", "tolerance = 3", "tolerance = [3]", "[tolerance]\npoint = 'unet'"])
def test_tables_of_another_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"mine\.toml: "):
        tolerance.load(path)


@pytest.mark.parametrize(
    ("point", "kin"),
    [
        ("controlnet-2", ("controlnet", "unet")),
        ("controlnet", ()),
        ("control-unet", ("unet",)),
        ("refiner", ("unet",)),
        ("unconditional-unet", ("unet",)),
        ("text_encoder_2", ("text_encoder",)),
        ("unet", ()),
        ("image", ()),
    ],
)
def test_networks_without_rows_of_their_own_have_those_of_their_kin(point: str, kin: tuple[str, ...]) -> None:
    assert tolerance.kin(point) == kin

    def bound(*names: str) -> tuple[float, ...]:
        table = [Tolerance(name, "max_abs", index + 1.0, measured="a test") for index, name in enumerate(names)]
        found = tolerance.find_all(table, point, precision="float16", numerics="any")
        return tuple(row.bound for row in found)

    assert bound("vae_decoder") == ()
    for index, name in enumerate(kin):
        assert bound("vae_decoder", name) == (2.0,)
        assert bound(name, point) == (2.0,)  # its own goes first, wherever it stands
        assert bound(*reversed(kin[: index + 1])) == (index + 1.0,)  # then the nearest


def test_another_section_is_refused_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[[bounds]]\npoint = 'unet'\n")
    with pytest.raises(FormatError) as caught:
        tolerance.load(path)
    assert str(caught.value) == f"{path}: unknown section 'bounds'; there are tolerance and yardstick"


def test_of_each_metric_the_first_that_matches() -> None:
    def row(metric: str, bound: float, numerics: str = "*") -> Tolerance:
        return Tolerance("image", metric, bound, measured="a test", numerics=numerics)

    table = [row("image_psnr", 30, "mine"), row("flip_max", 0.5), row("image_psnr", 40), row("flip_max", 0.1)]
    found = tolerance.find_all(table, "image", precision="float16", numerics="mine")
    assert found == (table[0], table[1])
    assert tolerance.find_all(table, "image", precision="float16", numerics="other") == (table[1], table[2])
    assert tolerance.find(table, "image", precision="float16", numerics="mine") == table[0]
    assert tolerance.find_all(table, "unet", precision="float16", numerics="mine") == ()
    assert tolerance.find(table, "unet", precision="float16", numerics="mine") is None


@pytest.mark.parametrize(
    ("numerics", "precision"),
    [
        ("PyTorch cpu float32", "float32"),
        ("PyTorch cuda float16", "float16"),
        ("PyTorch mps bfloat16", "bfloat16"),
        ("reference runtime (declared)", "float16"),
        ("Core AI interpreter (float32)", "float32"),
        ("Core ML CPU_AND_NE", "float16"),
    ],
)
def test_every_network_has_a_bound_on_every_backend(numerics: str, precision: str) -> None:
    table = tolerance.load()
    points = [name for name in SIGNATURES if name not in ("controlnet", "multilingual_projection")]
    points += ["controlnet-1", "controlnet-2", "latents/encoded", "image"]
    found = [tolerance.find(table, point, precision=precision, numerics=numerics) for point in points]
    assert [point for point, row in zip(points, found, strict=True) if row is None] == []
