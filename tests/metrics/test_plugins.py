"""A metric of another package: found by its entry point, loud and by name where it is broken, at no other's cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from parity.errors import FormatError, MissingError, UsageError
from parity.metrics import METRICS, measure, plugins, registry
from parity.suite import comparison, tolerance
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict

MODULE = """
import numpy as np
from parity.errors import UsageError
from parity.metrics import Metric, Takes

def metric(name, function, **more):
    return Metric(name=name, higher_is_better=False, symmetric=True, takes=Takes.REAL, least=0.0, most=1.0,
                  equal="0", worst="1", convention="for a test", function=function, **more)

def no_weights(*arrays):
    raise FileNotFoundError("alexnet.pth: no such file")

GOOD = metric("half", lambda a, b: float(np.mean(a != b)) / 2)
LAZY = metric("lazy", no_weights)
EARLY = metric("early", no_weights, prepare=no_weights)
WILD = metric("wild", lambda a, b: 7.0)
LOW = metric("low", lambda a, b: -1e-9)
ENDS = metric("ends", lambda a, b: float((a != b).any()))

def refuses(*arrays):
    raise UsageError("these arrays are too small")

SMALL = metric("small", refuses)
OTHER = metric("another_name", lambda a, b: 0.0)
TEXT = "not a metric"
"""
POINTS = """[parity.metrics]
half = mine:GOOD
lazy = mine:LAZY
early = mine:EARLY
wild = mine:WILD
low = mine:LOW
ends = mine:ENDS
small = mine:SMALL
renamed = mine:OTHER
text = mine:TEXT
absent = mine:NOTHING
broken = mine_broken:GOOD
max_abs = mine:GOOD
"""
ONES, TWOS = np.ones(4), np.array([1.0, 1.0, 2.0, 2.0])


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    def add(package: str, points: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(points)
        plugins.offered.cache_clear()
        plugins.load.cache_clear()

    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "mine_broken.py").write_text("import a_backbone_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    add("mine", POINTS)
    yield add
    plugins.offered.cache_clear()
    plugins.load.cache_clear()


@pytest.mark.usefixtures("install")
def test_a_good_one_is_measured_and_checked_like_any_other() -> None:
    assert measure("half", ONES, TWOS) == 0.25
    assert "half" in registry.names()
    with pytest.raises(UsageError, match="half: shapes differ"):
        measure("half", ONES, ONES[:2])
    assert measure("max_abs", ONES, TWOS) == 1.0  # ours, whatever another package calls by that name


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        (
            "broken",
            MissingError,
            "'broken' (mine 1.0, mine_broken:GOOD) cannot be imported: ModuleNotFoundError",
        ),
        ("absent", MissingError, "'absent' (mine 1.0, mine:NOTHING) cannot be imported: AttributeError"),
        ("lazy", MissingError, "'lazy' (mine 1.0, mine:LAZY) failed: FileNotFoundError: alexnet.pth: no such file"),
        ("wild", UsageError, "'wild' (mine 1.0, mine:WILD) gave 7, outside its range 0 to 1"),
        ("low", UsageError, "'low' (mine 1.0, mine:LOW) gave -1e-09, outside its range 0 to 1"),
        ("small", MissingError, "'small' (mine 1.0, mine:SMALL) failed: these arrays are too small; no other"),
        ("renamed", UsageError, "'renamed' (mine 1.0, mine:OTHER): the entry point must name"),
        ("text", UsageError, "'text' (mine 1.0, mine:TEXT): the entry point must name"),
    ],
)
def test_a_broken_one_fails_by_name_and_costs_no_other(name: str, kind: type[Exception], says: str) -> None:
    for _ in range(2):
        with pytest.raises(kind) as caught:
            measure(name, ONES, TWOS)
        assert says in str(caught.value)
    assert measure("half", ONES, TWOS) == 0.25
    for other in METRICS:
        assert registry.get(other).name == other


@pytest.mark.usefixtures("install")
def test_both_ends_of_its_range_are_values() -> None:
    assert measure("ends", ONES, ONES) == 0.0
    assert measure("ends", ONES, TWOS) == 1.0


def test_a_package_that_nobody_knows() -> None:
    assert plugins._source(EntryPoint("a", "mine:GOOD", plugins.GROUP)) == "an unknown package, mine:GOOD"


def test_two_packages_with_one_name(install: Callable[[str, str], None]) -> None:
    install("yours", "[parity.metrics]\nhalf = mine:GOOD\n")
    with pytest.raises(
        UsageError, match=r"'half' is offered by .*mine 1.0.* and .*yours 1.0|yours 1.0.* and .*mine 1.0"
    ):
        registry.get("half")
    assert registry.get("early").name == "early"


@pytest.mark.usefixtures("install")
def test_a_table_that_names_it_fails_before_anything_runs(tmp_path: Path) -> None:
    def load(name: str, bound: float = 0.5) -> list[Tolerance]:
        path = tmp_path / f"{name}.toml"
        path.write_text(f'[[tolerance]]\npoint = "unet"\nmetric = "{name}"\nbound = {bound}\nmeasured = "a test"\n')
        return tolerance.load(path)

    assert load("half")[0].metric == "half"
    with pytest.raises(FormatError, match="half has no value 2: its bound, a maximum, is from 0 to 1"):
        load("half", 2)
    with pytest.raises(
        MissingError,
        match=r"early.toml: .*number 1: metric 'early' \(mine 1.0, mine:EARLY\) is not ready: .*alexnet.pth",
    ):
        load("early")
    with pytest.raises(MissingError, match=r"broken.toml: .*a_backbone_that_nobody_has"):
        load("broken")


@pytest.mark.usefixtures("install")
def test_one_that_breaks_during_a_run_fails_its_own_check_alone() -> None:
    rows = [Tolerance("unet", name, 1.0, measured="a test") for name in ("lazy", "half")]
    checks = comparison.judge("unet", {"unet/step00": (ONES, TWOS)}, rows, names=("a", "b"))
    assert [check.verdict for check in checks] == [Verdict.FAIL, Verdict.PASS]
    assert "alexnet.pth" in checks[0].message
