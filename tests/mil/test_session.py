"""Sessions against PyTorch: outputs, profiles, intermediates, callbacks, states, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity import mil
from parity.errors import FormatError, UnsupportedError, UsageError
from parity.mil import proto


class Net(torch.nn.Module):
    """Two branches that meet, so that there are values to ask for and to give."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(6, 8)
        self.second = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, 6) to (batch, 4)."""
        hidden = torch.tanh(self.first(x))
        return self.second(hidden * hidden) + 1.5


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(21)
    return Net().eval()


@pytest.fixture(scope="module")
def model(net: Net, convert: Any) -> mil.Model:
    return mil.load(convert(net, (torch.randn(3, 6),)))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((3, 6)).astype(np.float32)


def _declared(net: Net, x: np.ndarray) -> np.ndarray:
    """What the program computes, written again with NumPy: each result rounded to float16 once."""

    def half(a: np.ndarray) -> np.ndarray:
        return a.astype(np.float16).astype(np.float32)

    w1, b1, w2, b2 = (half(p.detach().numpy()) for p in net.parameters())
    hidden = half(np.tanh(half(half(x) @ w1.T + b1)))
    return half(half(half(hidden * hidden) @ w2.T + b2) + np.float32(1.5))


def test_declared_rounds_each_result_once(net: Net, model: mil.Model, x: np.ndarray) -> None:
    (output,) = mil.Session(model, fuse=False).predict({"x0": x}).values()
    assert output.dtype == np.float16
    expected = _declared(net, x)
    wrong = np.abs(output - expected) > np.spacing(np.abs(expected).astype(np.float16)).astype(np.float32)
    assert not wrong.any()


def test_float32_removes_the_rounding(net: Net, model: mil.Model, x: np.ndarray) -> None:
    (output,) = mil.Session(model, "float32").predict({"x0": x}).values()
    rounded = Net().eval()
    rounded.load_state_dict({k: v.half().float() for k, v in net.state_dict().items()})
    with torch.no_grad():
        expected = rounded(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_profiles_differ_as_they_should(net: Net, model: mil.Model, x: np.ndarray) -> None:
    with torch.no_grad():
        exact = net(torch.from_numpy(x)).numpy()
    errors = [
        np.abs(next(iter(mil.Session(model, profile).predict({"x0": x}).values())) - exact).max()
        for profile in ("float32", "declared", "float16-accumulate")
    ]
    assert errors[0] < errors[1] < 1e-2
    assert errors[2] < 2e-2


def test_any_value_by_name_and_from_any_value(model: mil.Model, x: np.ndarray) -> None:
    session = mil.Session(model, fuse=False)
    everything: dict[str, np.ndarray] = {}

    def record(event: mil.Event) -> None:
        everything.update({name: value.clone().numpy() for name, value in event.outputs.items()})

    (output,) = session.predict({"x0": x}, callback=record).values()
    names = list(everything)
    again = session.values(names, {"x0": x})
    for name in names:
        np.testing.assert_array_equal(again[name].astype(np.float32), everything[name])
    last = session.graph.outputs[0]
    ran: list[str] = []
    for name in names[:-1]:  # every cut gives the same result, and runs less
        ran.clear()
        cut = session.values(
            [last],
            {name: again[name]} | ({"x0": x} if name == names[0] else {}),
            callback=lambda event: ran.append(event.name),
        )
        np.testing.assert_array_equal(cut[last], output)
        assert len(ran) < len(names) or name == names[0]


def test_given_constants_replace_weights(model: mil.Model, x: np.ndarray) -> None:
    session = mil.Session(model, fuse=False)
    node = next(n for n in session.graph.nodes if n.type == "linear")
    weight = node.inputs["weight"][0]
    plain = session.values([node.outputs[0]], {"x0": x})[node.outputs[0]]
    zeroed = session.values([node.outputs[0]], {"x0": x, weight: np.zeros((8, 6))})[node.outputs[0]]
    bias = session.values([node.inputs["bias"][0]], {})[node.inputs["bias"][0]]
    np.testing.assert_array_equal(zeroed, np.broadcast_to(bias, (3, 8)))
    np.testing.assert_array_equal(session.values([node.outputs[0]], {"x0": x})[node.outputs[0]], plain)


def test_weights_that_exceed_the_budget_are_converted_each_time(model: mil.Model, x: np.ndarray) -> None:
    small, large = mil.Session(model, memory_budget=0), mil.Session(model)
    for _ in range(2):
        for name, value in small.predict({"x0": x}).items():
            np.testing.assert_array_equal(value, large.predict({"x0": x})[name])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "'x0' is missing"),
        ({"x0": np.zeros((3, 6)), "y": 1}, "no input 'y'"),
        ({"x0": np.zeros((3, 7))}, r"shape \[3, 7\]"),
        ({"x0": np.zeros(6)}, r"shape \[6\]"),
        ({"x0": np.zeros((3, 6), complex)}, "complex128"),
        ({"x0": [["a"] * 6] * 3}, "not numeric"),
        ({"x0": None}, "not numeric"),
    ],
)
def test_wrong_inputs_are_named(model: mil.Model, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mil.Session(model).predict(inputs)


def test_wrong_names_and_profiles(model: mil.Model, x: np.ndarray) -> None:
    with pytest.raises(UsageError, match="float16-accumulate"):
        mil.Session(model, "exact")
    with pytest.raises(UsageError, match="no function 'other'; it has main"):
        mil.Session(model, function="other")
    with pytest.raises(UsageError, match="no value 'nothing'"):
        mil.Session(model).values(["nothing"], {"x0": x})
    session = mil.Session(model)
    with pytest.raises(UsageError, match="needs the value 'x0'"):
        session.values(session.graph.outputs, {})


def _edited(model: mil.Model, change: Any) -> mil.Model:
    specification = proto.model.Model()
    specification.CopyFrom(model.specification)
    function = specification.mlProgram.functions["main"]
    change(function.block_specializations[function.opset], function)
    return mil.Model(model.path, specification, model.weights)


def _swap(block: Any, function: Any) -> None:
    operations = [op for op in block.operations if op.type != "const"]
    first, second = operations[0], operations[-1]
    first.inputs["x"].arguments[0].name = second.outputs[0].name


def _unknown_name(block: Any, function: Any) -> None:
    next(op for op in block.operations if op.type == "tanh").inputs["x"].arguments[0].name = "nobody"


def _twice(block: Any, function: Any) -> None:
    block.operations.append(block.operations[-1])


def _bad_shape(block: Any, function: Any) -> None:
    op = next(op for op in block.operations if op.type == "tanh")
    op.outputs[0].type.tensorType.dimensions[1].constant.size = 9


def _huge(block: Any, function: Any) -> None:
    op = next(op for op in block.operations if op.type == "tanh")
    op.outputs[0].type.tensorType.dimensions[1].constant.size = 1 << 60


def _no_type(block: Any, function: Any) -> None:
    block.operations[-1].outputs[0].ClearField("type")


def _offset(block: Any, function: Any) -> None:
    op = next(o for o in block.operations if o.type == "const" and o.attributes["val"].HasField("blobFileValue"))
    op.attributes["val"].blobFileValue.offset = 1 << 40


def _escape(block: Any, function: Any) -> None:
    op = next(o for o in block.operations if o.type == "const" and o.attributes["val"].HasField("blobFileValue"))
    op.attributes["val"].blobFileValue.fileName = "@model_path/../../../../etc/passwd"


def _count(block: Any, function: Any) -> None:
    op = next(o for o in block.operations if o.type == "const" and o.attributes["val"].HasField("blobFileValue"))
    op.attributes["val"].type.tensorType.dimensions[0].constant.size = 7


def _opset(block: Any, function: Any) -> None:
    function.opset = "CoreML99"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_swap, "computed only later: a cycle"),
        (_unknown_name, "'nobody', which is unknown"),
        (_twice, "computed twice"),
        (_bad_shape, r"declares .* fp16\[3, 9\].*ill-typed"),
        (_huge, "would need more than"),
        (_no_type, "it has no type"),
        (_offset, "offset 1099511627776"),
        (_escape, "outside the model"),
        (_count, "elements"),
        (_opset, "CoreML99"),
    ],
)
def test_damaged_programs_are_named(model: mil.Model, x: np.ndarray, change: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        mil.Session(_edited(model, change)).predict({"x0": x})


def test_unknown_operators_are_named(model: mil.Model) -> None:
    def change(block: Any, function: Any) -> None:
        next(op for op in block.operations if op.type == "tanh").type = "frobnicate"

    with pytest.raises(UnsupportedError, match="frobnicate"):
        mil.Session(_edited(model, change))


def test_operators_younger_than_the_opset_are_named(model: mil.Model) -> None:
    def change(block: Any, function: Any) -> None:
        op = next(op for op in block.operations if op.type == "linear")
        op.type = "scaled_dot_product_attention"

    with pytest.raises(UnsupportedError, match=r"since iOS18"):
        mil.Session(_edited(model, change))


def test_deep_nesting_is_refused(model: mil.Model) -> None:
    def change(block: Any, function: Any) -> None:
        inner = block
        for level in range(40):
            operation = inner.operations.add(type="cond")
            operation.inputs["pred"].arguments.add(name="x0")
            operation.outputs.add(name=f"deep{level}").type.CopyFrom(function.inputs[0].type)
            inner = operation.blocks.add()

    with pytest.raises(FormatError, match="nested more than"):
        mil.Session(_edited(model, change))


class Counter(torch.nn.Module):
    """Adds its input to a state and returns twice the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4, dtype=torch.float16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (4,) to (4,)."""
        self.total.add_(x)
        return self.total * 2


def test_states_live_between_predictions(ct: Any, convert: Any) -> None:
    path = convert(
        Counter(),
        (torch.zeros(4, dtype=torch.float16),),
        inputs=[ct.TensorType(name="x0", shape=(4,), dtype=np.float16)],
        outputs=[ct.TensorType(name="y", dtype=np.float16)],
        states=[ct.StateType(ct.TensorType(shape=(4,), dtype=np.float16), name="total")],
        minimum_deployment_target=ct.target.iOS18,
    )
    session = mil.Session(mil.load(path))
    state, other = session.new_state(), session.new_state()
    one = np.array([1, 2, 3, 0.1], np.float16)
    for count in (1, 2, 3):
        np.testing.assert_allclose(session.predict({"x0": one}, state=state)["y"], 2 * count * one, rtol=2e-3)
    np.testing.assert_array_equal(session.predict({"x0": one}, state=other)["y"], 2 * one)
    np.testing.assert_allclose(state["total"], 3 * one, rtol=2e-3)
    state["total"] = np.zeros(4)
    np.testing.assert_array_equal(session.predict({"x0": one}, state=state)["y"], 2 * one)
    with pytest.raises(UsageError, match="state"):
        session.predict({"x0": one})


class Loop(torch.nn.Module):
    """Doubles until the sum passes a bound: a while loop that reads an outer value."""

    def forward(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Map (3,) and (3,) to (3,)."""
        while x.sum() < 100.0:
            x = x * 2.0 + step
        return x


def test_loops_read_values_around_them(ct: Any, tmp_path: Path) -> None:
    scripted = torch.jit.script(Loop())
    package = ct.convert(
        scripted,
        inputs=[ct.TensorType(name="x", shape=(3,)), ct.TensorType(name="step", shape=(3,))],
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    package.save(str(tmp_path / "loop.mlpackage"))
    session = mil.Session(mil.load(tmp_path / "loop.mlpackage"))
    x, step = np.array([1, 2, 3], np.float32), np.array([0, 1, 0.5], np.float32)
    expected = scripted(torch.from_numpy(x), torch.from_numpy(step)).numpy()
    (output,) = session.predict({"x": x, "step": step}).values()
    np.testing.assert_array_equal(output, expected)


def test_float16_overflow_and_nan(convert: Any) -> None:
    class Square(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x

    session = mil.Session(mil.load(convert(Square(), (torch.zeros(5),))))
    given = np.array([300.0, 255.9, 1e-4, np.nan, 2.4e-4], np.float32)
    (output,) = session.predict({"x0": given}).values()
    half = given.astype(np.float16).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = (half * half).astype(np.float16).astype(np.float32)
    assert np.isinf(expected[0])
    np.testing.assert_array_equal(output, expected)


def _first_difference(one: mil.Model, other: mil.Model, x: np.ndarray) -> str:
    """Name of the first operation whose result differs when both start from the same inputs."""
    found: list[dict[str, np.ndarray]] = []
    for model in (one, other):
        seen: dict[str, np.ndarray] = {}

        def record(event: mil.Event, seen: dict[str, np.ndarray] = seen) -> None:
            seen.update({event.name: next(iter(event.outputs.values())).clone().numpy()})

        mil.Session(model, fuse=False).predict({"x0": x}, callback=record)
        found.append(seen)
    return next((name for name in found[0] if not np.array_equal(found[0][name], found[1][name])), "")


def _other_operator(block: Any, function: Any) -> None:
    next(op for op in block.operations if op.type == "tanh").type = "sigmoid"


def _other_constant(block: Any, function: Any) -> None:
    tensors = [
        o for o in block.operations if o.type == "const" and len(o.attributes["val"].type.tensorType.dimensions) == 0
    ]
    half = next(o for o in tensors if o.attributes["val"].type.tensorType.dataType == 10)
    half.attributes["val"].immediateValue.tensor.bytes.values = np.float16(1.25).tobytes()


def _other_operand(block: Any, function: Any) -> None:
    op = next(op for op in block.operations if op.type == "mul")
    op.type = "add"


@pytest.mark.parametrize(
    ("defect", "kind"), [(_other_operator, "tanh"), (_other_constant, "add"), (_other_operand, "mul")]
)
def test_planted_defects_are_found_where_they_are(model: mil.Model, x: np.ndarray, defect: Any, kind: str) -> None:
    assert _first_difference(model, model, x) == ""
    name = _first_difference(model, _edited(model, defect), x)
    node = next(n for n in mil.Session(model).graph.nodes if n.name == name)
    assert node.type == kind
