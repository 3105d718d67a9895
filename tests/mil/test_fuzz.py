"""Damaged packages give an error of this package or run: nothing else, and without memory beyond reason.

Bytes of all three files and single fields of the specification are changed at random; hypothesis prints what failed
and how to repeat it. Two more programs are there for what a small one does not reach: weights large enough to be laid
out anew by oneDNN, whose functions check little, fused attention in both forms; and a loop with a condition in it.
"""

from __future__ import annotations

import resource
import shutil
import unittest.mock
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity import mil
from parity.convert.attention import split_einsum
from parity.coreml.mil_text import write_program
from parity.errors import ParityError
from parity.mil import describe, proto
from parity.mil.fusion import split_attention

_SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_COUNTS = pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
_ROUNDS = 40  # of a loop; damage may make it endless, which a callback ends
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


class _EnoughError(Exception):
    """A loop went on for long enough."""


def _watch() -> Any:
    """Make a callback that ends a program after a number of operations."""
    left = [100 * _ROUNDS]

    def count(event: mil.Event) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise _EnoughError

    return count


def _use_model(model: mil.Model, inputs: dict[str, np.ndarray] = _INPUT) -> None:
    for reader in (describe.header, describe.operations, describe.statistics):
        try:
            list(reader(model))
        except ParityError:
            continue
    session = mil.Session(model)
    try:
        outputs = session.predict(inputs, callback=_watch())
    except _EnoughError:
        return
    for output in outputs.values():
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


OTHERS: dict[type, st.SearchStrategy[Any]] = {
    str: st.sampled_from(["", "x0", "conv", "../../etc/passwd", "y" * 999]),
    bytes: st.binary(max_size=40),
    int: st.sampled_from([0, 1, 2, 3, 7, 1 << 20, (1 << 31) - 1]),
    float: st.sampled_from([0.0, -1.0, 1e30, float("nan")]),
}


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
    else:
        setattr(message, field.name, not value if isinstance(value, bool) else data.draw(OTHERS[type(value)]))


def _damage_fields(package: Path, data: st.DataObject, inputs: dict[str, np.ndarray]) -> None:
    original = mil.load(package)
    specification = proto.model.Model()
    specification.CopyFrom(original.specification)
    for _ in range(data.draw(st.integers(1, 3))):
        messages = _messages(specification, [])
        _change(messages[data.draw(st.integers(0, len(messages) - 1))], data)
    try:
        _use_model(mil.Model(original.path, specification, original.weights), inputs)
    except ParityError as error:
        assert str(error).strip()  # noqa: PT017


def _damage_many(count: int, package: Path, inputs: dict[str, np.ndarray]) -> None:
    @settings(_SETTINGS, max_examples=count)
    @given(data=st.data())
    def damage(data: st.DataObject) -> None:
        _damage_fields(package, data, inputs)

    damage()


@_COUNTS
def test_changed_fields(small: Path, count: int) -> None:
    _damage_many(count, small, _INPUT)


class _Wide(torch.nn.Module):
    """A convolution and a linear layer with many weights, attention of all heads and of one head as einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(64, 128, 3, padding=1)
        self.linear = torch.nn.Linear(256, 288)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, 64, 6, 8) to (1, 6, 1, 48)."""
        rows = self.linear(self.conv(x).reshape(1, 48, 128).repeat(1, 1, 2))
        q, k, v = rows.reshape(1, 48, 3, 12, 8).permute(2, 0, 3, 1, 4)
        heads = torch.softmax(q @ k.transpose(-1, -2) * 0.3, -1) @ v
        one = heads[:, 0].transpose(1, 2).unsqueeze(2)  # (1, 8, 1, 48)
        return split_einsum(one, one, one, 1)


@pytest.fixture(scope="module")
def wide(convert: Any) -> Path:
    torch.manual_seed(17)
    return convert(_Wide(), (torch.randn(1, 64, 6, 8),))


def test_the_wide_program_reaches_what_it_is_for(wide: Path) -> None:
    session = mil.Session(mil.load(wide))
    kinds: list[str] = []
    with unittest.mock.patch.object(split_attention, "_KEYS", 1):
        session.predict({"x0": np.zeros((1, 64, 6, 8), np.float32)}, callback=lambda event: kinds.append(event.type))
    packed = [name for name in next(iter(session._plans.values()))._fixed if name.startswith("%packed:")]
    assert (kinds.count("fused_attention"), len(packed)) == (2, 2)


@_COUNTS
def test_changed_fields_of_fused_operations(wide: Path, count: int) -> None:
    x = np.random.default_rng(4).standard_normal((1, 64, 6, 8)).astype(np.float32)
    with unittest.mock.patch.object(split_attention, "_KEYS", 1):
        _damage_many(count, wide, {"x0": x})


class _Loop(torch.nn.Module):
    """Grows until a bound, in two ways."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (3,) to (3,)."""
        while x.sum() < 50.0:
            x = x + 2.0 if x.max() > 4.0 else x * 2.0 + 1.0
        return x


@pytest.fixture(scope="module")
def loop(ct: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = ct.convert(
        torch.jit.script(_Loop()),
        inputs=[ct.TensorType(name="x", shape=(3,))],
        minimum_deployment_target=ct.target.iOS16,
        skip_model_load=True,
    )
    path = tmp_path_factory.mktemp("loop") / "loop.mlpackage"
    package.save(str(path))
    return path


@pytest.mark.long
@_COUNTS
def test_changed_fields_of_nested_blocks(loop: Path, count: int) -> None:
    _damage_many(count, loop, {"x": np.array([0.1, 0.2, 0.3], np.float32)})


@pytest.fixture(scope="module")
def printed(loop: Path, small: Path) -> tuple[str, ...]:
    return tuple(write_program(mil.load(path).program) for path in (loop, small))


@settings(_SETTINGS, max_examples=60)
@given(data=st.data())
def test_changed_text_of_whole_programs(printed: tuple[str, ...], tmp_path: Path, data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(printed))
    lines = source.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "repeat", "swap", "cut", "token"])):
            case "drop":
                del lines[at]
            case "repeat":
                lines.insert(at, lines[at])
            case "swap":
                lines[at], lines[at - 1] = lines[at - 1], lines[at]
            case "cut":
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
            case "token":
                words = lines[at].split(" ")
                words[data.draw(st.integers(0, len(words) - 1))] = data.draw(
                    st.sampled_from(
                        ["(", "{", "}", "->", "cond(pred", "x", "tensor<fp16,", "[1 << 40]>", "0x1p+99", ";"]
                    )
                )
                lines[at] = " ".join(words)
        if not lines:
            return
    folder = tmp_path / "text.mlmodelc"
    folder.mkdir(exist_ok=True)
    (folder / "model.mil").write_text("\n".join(lines))
    _use(folder)
