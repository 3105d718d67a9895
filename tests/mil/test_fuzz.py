"""Damaged packages give an error of this package or run: nothing else, and without memory beyond reason.

Bytes of all three files and single fields of the specification are changed at random; hypothesis prints what failed
and how to repeat it.
"""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity import mil
from parity.errors import ParityError
from parity.mil import describe, proto

_SETTINGS = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_INPUT = {"x0": np.random.default_rng(3).standard_normal((1, 4, 6, 6)).astype(np.float32)}


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy.mlpackage"
    shutil.copytree(small, target, dirs_exist_ok=True)
    return target


@pytest.fixture(autouse=True)
def _bounded() -> Any:
    """Refuse allocations that go far beyond the model: 6 GiB of address space more than now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/statm")
    if status.exists():
        used = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _use(path: Path) -> None:
    """Load, print and run: everything must work or raise a ParityError."""
    try:
        _use_model(mil.load(path))
    except ParityError as error:
        assert str(error).strip()  # noqa: PT017


def _use_model(model: mil.Model) -> None:
    for reader in (describe.header, describe.operations, describe.statistics):
        try:
            list(reader(model))
        except ParityError:
            continue
    session = mil.Session(model)
    for output in session.predict(_INPUT).values():
        assert isinstance(output, np.ndarray)


@_SETTINGS
@given(data=st.data())
@pytest.mark.parametrize(
    "name",
    ["Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"],
)
def test_changed_bytes(copy: Path, small: Path, name: str, data: st.DataObject) -> None:
    content = bytearray((small / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    (copy / name).write_bytes(content)
    _use(copy)


def _messages(message: Any, found: list[Any], depth: int = 0) -> list[Any]:
    found.append(message)
    if depth < 12:
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            if field.message_type.GetOptions().map_entry:
                inner = field.message_type.fields_by_name["value"].message_type
                children = list(value.values()) if inner is not None else []
            else:
                children = list(value) if not hasattr(value, "ListFields") else [value]
            for child in children:
                _messages(child, found, depth + 1)
    return found


def _change(message: Any, data: st.DataObject) -> None:
    fields = [field for field, _ in message.ListFields()]
    if not fields:
        return
    field = data.draw(st.sampled_from(fields))
    value = getattr(message, field.name)
    action = data.draw(st.sampled_from(["clear", "scalar", "drop", "repeat"]))
    if action == "clear" or (field.message_type is not None and not hasattr(value, "append")):
        message.ClearField(field.name)
    elif hasattr(value, "append") or hasattr(value, "add"):
        if action == "drop" and len(value):
            del value[data.draw(st.integers(0, len(value) - 1))]
        elif len(value):
            value.extend([value[data.draw(st.integers(0, len(value) - 1))]])
    elif isinstance(value, str):
        setattr(message, field.name, data.draw(st.sampled_from(["", "x0", "conv", "../../etc/passwd", "y" * 999])))
    elif isinstance(value, bytes):
        setattr(message, field.name, data.draw(st.binary(max_size=40)))
    elif isinstance(value, bool):
        setattr(message, field.name, not value)
    elif isinstance(value, int):
        number = data.draw(st.sampled_from([0, 1, 2, 3, 7, 1 << 20, (1 << 31) - 1]))
        setattr(message, field.name, number)
    elif isinstance(value, float):
        setattr(message, field.name, data.draw(st.sampled_from([0.0, -1.0, 1e30, float("nan")])))


@settings(_SETTINGS, max_examples=300)
@given(data=st.data())
def test_changed_fields(small: Path, data: st.DataObject) -> None:
    original = mil.load(small)
    specification = proto.model.Model()
    specification.CopyFrom(original.specification)
    for _ in range(data.draw(st.integers(1, 3))):
        messages = _messages(specification, [])
        _change(messages[data.draw(st.integers(0, len(messages) - 1))], data)
    try:
        _use_model(mil.Model(original.path, specification, original.weights))
    except ParityError as error:
        assert str(error).strip()  # noqa: PT017
