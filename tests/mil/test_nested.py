"""Values inside loops and conditions can be asked for by name: what the last run of their block gave."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import mil
from parity.errors import UsageError


@pytest.fixture(scope="module")
def program(ct: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Doubles x until its sum reaches 100; each iteration adds 1 where the sum is below 10, else 2."""
    mb = importlib.import_module("coremltools.converters.mil").Builder

    @mb.program(input_specs=[mb.TensorSpec((3,))], opset_version=ct.target.iOS16)
    def made(x: Any) -> Any:
        def small(v: Any) -> Any:
            return mb.less(x=mb.reduce_sum(x=v, axes=[0], name="sum_seen"), y=100.0)

        def step(v: Any) -> Any:
            doubled = mb.mul(x=v, y=2.0, name="doubled")
            low = mb.less(x=mb.reduce_sum(x=v, axes=[0], name="sum_before"), y=10.0)
            added = mb.cond(
                pred=low,
                _true_fn=lambda: mb.add(x=doubled, y=1.0, name="plus_one"),
                _false_fn=lambda: mb.add(x=doubled, y=2.0, name="plus_two"),
            )
            return mb.relu(x=added, name="stepped")

        result = mb.while_loop(_cond=small, _body=step, loop_vars=(x,))
        return mb.mul(x=result, y=3.0, name="tripled")

    model = ct.convert(
        made, minimum_deployment_target=ct.target.iOS16, compute_precision=ct.precision.FLOAT32, skip_model_load=True
    )
    path = tmp_path_factory.mktemp("nested") / "loop.mlpackage"
    model.save(str(path))
    return path


def _reference(x: np.ndarray) -> dict[str, list[np.ndarray]]:
    seen: dict[str, list[np.ndarray]] = {}

    def note(**values: np.ndarray) -> None:
        for name, value in values.items():
            seen.setdefault(name, []).append(value)

    while True:
        note(sum_seen=x.sum())
        if not x.sum() < 100:
            break
        note(doubled=x * 2, sum_before=x.sum())
        amount, name = (1, "plus_one") if x.sum() < 10 else (2, "plus_two")
        x = x * 2 + amount
        note(**{name: x}, stepped=x)
    return seen | {"tripled": [x * 3]}


@pytest.fixture
def session(program: Path) -> mil.Session:
    return mil.Session(mil.load(program), "float32")


X = np.array([1, 0.5, 2], np.float32)
NAMES = ("sum_seen", "doubled", "sum_before", "plus_one", "plus_two", "stepped", "tripled")


@pytest.mark.parametrize("name", NAMES)
def test_each_value_is_that_of_the_last_run(session: mil.Session, name: str) -> None:
    expected = _reference(X)[name][-1]
    for _ in range(2):  # the first run checks shapes, later ones are fast
        np.testing.assert_allclose(session.values([name], {"x": X})[name], expected, rtol=1e-6)


def test_inner_and_outer_values_together_in_the_order_asked(session: mil.Session) -> None:
    found = session.values(NAMES[::-1], {"x": X})
    assert list(found) == list(NAMES[::-1])
    for name, runs in _reference(X).items():
        np.testing.assert_allclose(found[name], runs[-1], rtol=1e-6)
    assert set(NAMES[:-1]) <= set(session.nested_names)
    assert "tripled" in session.names
    assert set(session.names).isdisjoint(session.nested_names)


def test_a_callback_sees_every_run(session: mil.Session) -> None:
    seen: dict[str, list[np.ndarray]] = {}

    def note(event: mil.Event) -> None:
        for name, value in event.outputs.items():
            seen.setdefault(name, []).append(value.clone().numpy())

    session.predict({"x": X}, callback=note)
    for name, runs in _reference(X).items():
        np.testing.assert_allclose(np.array(seen[name]), np.array(runs), rtol=1e-6)


@pytest.mark.parametrize("operator", ["relu", "add", "while_loop"])
def test_what_a_callback_raises_arrives_as_it_is(session: mil.Session, operator: str) -> None:
    error = ValueError("enough")

    def stop(event: mil.Event) -> None:
        if event.type == operator:
            raise error

    for _ in range(2):
        with pytest.raises(ValueError, match="enough") as caught:
            session.predict({"x": X}, callback=stop)
        assert caught.value is error
    assert session.predict({"x": X})["tripled"].shape == X.shape


def test_predictions_are_the_same_whoever_looks(session: mil.Session) -> None:
    before = session.predict({"x": X})["tripled"]
    session.values(["plus_two"], {"x": X})
    np.testing.assert_array_equal(session.predict({"x": X})["tripled"], before)


def test_a_block_that_does_not_run_has_no_values(session: mil.Session) -> None:
    with pytest.raises(UsageError, match=r"'plus_one' lies inside a loop or condition that did not run"):
        session.values(["plus_one"], {"x": X * 10})
    with pytest.raises(UsageError, match="'stepped' lies inside"):
        session.values(["stepped"], {"x": X * 100})
    assert session.values(["sum_seen"], {"x": X * 100})["sum_seen"] == pytest.approx(350)


def test_a_value_from_an_earlier_run_is_not_remembered(session: mil.Session) -> None:
    session.values(["stepped"], {"x": X})
    with pytest.raises(UsageError, match="did not run"):
        session.values(["stepped"], {"x": X * 100})


def test_inner_values_cannot_be_given(session: mil.Session) -> None:
    with pytest.raises(UsageError, match=r"'doubled' lies inside a loop or condition, .* not given"):
        session.values(["tripled"], {"x": X, "doubled": X})


def test_a_misspelt_inner_name_is_corrected(session: mil.Session) -> None:
    with pytest.raises(UsageError, match=r"no value 'plus_on'.*plus_one"):
        session.values(["plus_on"], {"x": X})
