"""Textual MIL: real and printed programs read right, damaged ones are named by line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import mil
from parity.errors import FormatError, ParityError
from parity.mil import dtypes, text, values
from tests.samples import sample

SAMPLE = "silero_vad.mlmodelc"  # compiled by Apple's compiler

SMALL = """program(1.0)
[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{"coremlc-version", "3404.23.1"}})]
{
    func main<ios16>(tensor<fp16, [2, ?]> x)
      [FlexibleShapeInformation = tuple<tuple<tensor<string, []>, dict<tensor<string, []>, tensor<int32, [?]>>>,
       tuple<tensor<string, []>, dict<tensor<string, []>, list<tensor<int32, [2]>, ?>>>>((("DefaultShapes",
       {{"x", [2, 3]}}), ("RangeDims", {{"x", [[2, 2], [1, 9]]}})))] {
        tensor<fp16, []> two = const()[name = tensor<string, []>("two"), val = tensor<fp16, []>(0x1.8p+0)];
        tensor<fp16, [2, ?]> y = mul(x = x, y = two)[name = tensor<string, []>("a \\"b\\" ; ] }")];
        tensor<fp16, [4, ?]> z = concat(axis = tensor<int32, []>(0), interleave = tensor<bool, []>(false),
            values = (x, y))[name = tensor<string, []>("z")];
    } -> (z);
}
"""


_OPSETS = {"CoreML5": "ios15", "CoreML6": "ios16", "CoreML7": "ios17", "CoreML8": "ios18"}


class Printer:
    """Prints programs; ``bare`` scalars are the iOS 18 dialect."""

    def __init__(self, *, bare: bool) -> None:
        self.bare = bare

    def program(self, program: Any) -> str:
        """Print a whole ``Program`` message."""
        text = f"program({'1.3' if self.bare else '1.0'})\n"
        text += '[buildInfo = dict<string, string>({{"a", "b"}})]\n' if self.bare else ""
        return text + "{\n" + "".join(self._function(n, f) for n, f in program.functions.items()) + "}\n"

    def _function(self, name: str, function: Any) -> str:
        parameters = ", ".join(f"{self._type(item.type)} {item.name}" for item in function.inputs)
        body = self._body(function.block_specializations[function.opset])
        return f"func {name}<{_OPSETS[function.opset]}>({parameters}) {body};\n"

    def _body(self, block: Any) -> str:
        return "{\n" + "".join(map(self._operation, block.operations)) + f"}} -> ({', '.join(block.outputs)})"

    def _operation(self, operation: Any) -> str:
        outputs = ", ".join(f"{self._type(item.type)} {item.name}" for item in operation.outputs)
        arguments = ", ".join(f"{key} = {self._argument(operation.inputs[key])}" for key in sorted(operation.inputs))
        attributes = ", ".join(
            f"{key} = {self.value(operation.attributes[key])}" for key in sorted(operation.attributes)
        )
        blocks = ", ".join(
            f"({', '.join(f'{self._type(i.type)} {i.name}' for i in block.inputs)}) {self._body(block)}"
            for block in operation.blocks
        )
        left = f"{outputs} = " if outputs else ""
        return f"  {left}{operation.type}({arguments})[{attributes}] {blocks};\n"

    def _argument(self, argument: Any) -> str:
        parts = [b.name if b.WhichOneof("binding") == "name" else self.value(b.value) for b in argument.arguments]
        return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"

    def _type(self, message: Any) -> str:
        declared = values.type_of(message, "printed")
        if isinstance(declared, values.StateType):
            return f"state<{self._type(message.stateType.wrappedType)}>"
        if isinstance(declared, values.ListType):
            length = "?" if declared.length is None else declared.length
            return f"list<{self._type(message.listType.type)}, {length}>"
        assert isinstance(declared, values.TensorType)
        if self.bare and declared.shape == () and not declared.variadic:
            return declared.dtype.name
        return f"tensor<{declared.dtype.name}, [{', '.join('?' if s is None else str(s) for s in declared.shape)}]>"

    def value(self, message: Any) -> str:
        """Print ``TYPE(VALUE)``."""
        kind = self._type(message.type)
        if message.WhichOneof("value") == "blobFileValue":
            blob = message.blobFileValue
            words = ("string", "uint64") if self.bare else ("tensor<string, []>", "tensor<uint64, []>")
            return f'{kind}(BLOBFILE(path = {words[0]}("{blob.fileName}"), offset = {words[1]}({blob.offset})))'
        return f"{kind}({self._literal(values.decode(message, 'printed'), message.type.tensorType.dataType)})"

    def _literal(self, value: Any, code: int) -> str:
        if isinstance(value, str):
            return json.dumps(value)
        if isinstance(value, list):
            return f"[{', '.join(self._literal(item, code) for item in value)}]"
        array = np.asarray(value)
        if array.ndim:
            return f"[{', '.join(self._literal(item, code) for item in array)}]"
        if array.dtype == bool:
            return "true" if array else "false"
        if dtypes.BY_CODE[code].is_float:
            number = float(array)
            return number.hex() if np.isfinite(number) else str(number)
        return str(array.item())


def test_a_program_with_everything_reads_and_runs(tmp_path: Path) -> None:
    folder = tmp_path / "m.mlmodelc"
    folder.mkdir()
    (folder / "model.mil").write_text(SMALL)
    model = mil.load(folder)
    assert (model.compiled, model.inputs[0].flexible, model.outputs[0].name) == (True, True, "z")
    node = model.program.functions["main"].block_specializations["CoreML6"].operations[1]
    assert values.decode(node.attributes["name"], "name") == 'a "b" ; ] }'
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float16)
    np.testing.assert_array_equal(mil.Session(model).predict({"x": x})["z"], np.concatenate([x, x * 1.5]))


def test_the_compiled_sample_is_a_whole_model(tmp_path: Path, ct: Any) -> None:
    model = mil.load(sample(SAMPLE))
    assert [str(f) for f in model.inputs] == ["audio_chunk: array fp32 1×512"]
    assert [str(f) for f in model.outputs] == ["vad_probability: array fp32 1×1"]
    assert model.specification.specificationVersion == 6
    assert model.metadata.version == "2.0"
    operations = model.program.functions["main"].block_specializations["CoreML5"].operations
    counts: dict[str, int] = {}
    for operation in operations:
        counts[operation.type] = counts.get(operation.type, 0) + 1
    assert {k: counts[k] for k in ("linear", "lstm", "relu", "reduce_mean")} == {
        "linear": 14,
        "lstm": 1,
        "relu": 9,
        "reduce_mean": 5,
    }  # metadata.json says the same: mlProgramOperationTypeHistogram
    package = mil.save(model.specification, model.weights, tmp_path / "silero.mlpackage")
    from coremltools.converters.mil.frontend.milproto.load import load as pymil

    spec = ct.models.utils.load_spec(str(package))  # coremltools reads, types and checks what was rebuilt
    program = pymil(spec, 6, str(package / "Data/com.apple.CoreML/weights"))
    assert len([op for op in program.functions["main"].operations if op.op_type == "lstm"]) == 1
    x = {"audio_chunk": np.random.default_rng(1).standard_normal((1, 512)).astype(np.float32)}
    first = mil.Session(model).predict(x)["vad_probability"]
    np.testing.assert_array_equal(mil.Session(mil.load(package)).predict(x)["vad_probability"], first)
    assert 0 <= first.item() <= 1


def test_a_layer_of_the_sample_against_torch() -> None:
    session = mil.Session(mil.load(sample(SAMPLE)), "float32", fuse=False)
    node = next(n for n in session.graph.nodes if n.type == "lstm")
    x = np.random.default_rng(2).standard_normal((1, 1, 128)).astype(np.float32)
    given_values = {node.inputs["x"][0]: x}
    parts = session.values([n[0] for k, n in node.inputs.items() if k.startswith(("weight", "bias", "initial"))], {})
    w = {k: parts[n[0]] for k, n in node.inputs.items() if n[0] in parts}
    cell = torch.nn.LSTM(128, 128)

    def order(rows: np.ndarray) -> torch.Tensor:  # MIL: input, forget, output, cell; torch: input, forget, cell, output
        i, f, o, g = np.split(rows, 4)
        return torch.from_numpy(np.concatenate([i, f, g, o]))

    with torch.no_grad():
        cell.weight_ih_l0.copy_(order(w["weight_ih"]))
        cell.weight_hh_l0.copy_(order(w["weight_hh"]))
        cell.bias_ih_l0.copy_(order(w["bias"]))
        cell.bias_hh_l0.zero_()
        state = (torch.from_numpy(w["initial_h"])[None], torch.from_numpy(w["initial_c"])[None])
        expected = cell(torch.from_numpy(x), state)[0].numpy()
    output = session.values([node.outputs[0]], given_values)[node.outputs[0]]
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bare", [False, True])
def test_printed_programs_come_back(small: Path, bare: bool) -> None:
    program = mil.load(small).program
    again = text.parse(Printer(bare=bare).program(program), "printed")
    block = program.functions["main"].block_specializations["CoreML6"]
    assert again.functions["main"].block_specializations["CoreML6"] == block
    assert again.functions["main"].inputs == program.functions["main"].inputs


@pytest.mark.parametrize("bare", [False, True])
def test_blocks_lists_and_states_come_back(ct: Any, tmp_path: Path, bare: bool) -> None:
    class Loop(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            while x.sum() < 100.0:
                x = x * 2.0
            return x

    package = ct.convert(
        torch.jit.script(Loop()),
        inputs=[ct.TensorType(name="x", shape=(3,))],
        minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True,
    )
    package.save(str(tmp_path / "loop.mlpackage"))
    program = mil.load(tmp_path / "loop.mlpackage").program
    again = text.parse(Printer(bare=bare).program(program), "printed")
    assert (
        again.functions["main"].block_specializations["CoreML8"]
        == (program.functions["main"].block_specializations["CoreML8"])
    )


NESTED = """program(1.0)
{
    func main<ios16>(tensor<fp16, [2]> x) {
        tensor<fp16, []> bound = const()[name = tensor<string, []>("bound"), val = tensor<fp16, []>(0x1p+3)];
        RESULT = while_loop(loop_vars = (x))BEFORE FIRST {
            tensor<fp16, []> sum = reduce_sum(x = a, keep_dims = tensor<bool, []>(false));
            tensor<bool, []> low = less(x = sum, y = bound);
        } -> (low)COMMA SECOND {
            tensor<fp16, [2]> twice = add(x = b, y = b);
        } -> (twice)AFTER;
    } -> (y);
}
"""
_FORMS = {
    "RESULT": ["tensor<fp16, [2]> y", "(tensor<fp16, [2]> y)"],
    "COMMA": [",", ""],
    "FIRST": ["while_cond(tensor<fp16, [2]> a)", "(tensor<fp16, [2]> a)", "block0(tensor<fp16, [2]> a = x)"],
}


@pytest.mark.parametrize("result", _FORMS["RESULT"])
@pytest.mark.parametrize("comma", _FORMS["COMMA"])
@pytest.mark.parametrize("first", _FORMS["FIRST"])
@pytest.mark.parametrize("before", [True, False])
def test_nested_blocks_in_every_form_that_is_read(
    tmp_path: Path, result: str, comma: str, first: str, before: bool
) -> None:
    name = '[name = tensor<string, []>("loop")]'
    source = NESTED
    for mark, form in {
        "RESULT": result,
        "COMMA": comma,
        "FIRST": first,
        "SECOND": first.replace(" a", " b").replace("cond", "body").replace("0", "1"),
        "BEFORE": name if before else "",
        "AFTER": "" if before else name,
    }.items():
        source = source.replace(mark, form)
    folder = tmp_path / "nested.mlmodelc"
    folder.mkdir()
    (folder / "model.mil").write_text(source)
    model = mil.load(folder)
    loop = model.program.functions["main"].block_specializations["CoreML6"].operations[-1]
    assert [value.name for block in loop.blocks for value in block.inputs] == ["a", "b"]
    assert loop.attributes["name"].immediateValue.tensor.strings.values[0] == "loop"
    np.testing.assert_array_equal(mil.Session(model).predict({"x": np.array([0.5, 0.5])})["y"], [4, 4])


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("program(1.0)", "programme(1.0)", "1:1", "expected 'program'"),
        ("<ios16>", "<ios99>", "4:15", "unknown opset 'ios99'"),
        ("tensor<fp16, [2, ?]> x)", "tensor<fp17, [2, ?]> x)", "4:33", "unknown element type 'fp17'"),
        ("mul(x = x, y = two)", "mul(x = x, x = two)", "9:45", "'x' is there twice"),
        ("0x1.8p+0", "true", "8:97", "expected a number"),
        ("0x1.8p+0", "[0x1.8p+0]", "8:97", "declared shape []"),
        ("tensor<int32, []>(0)", "tensor<int32, []>(99999999999)", "10:66", "is no int32"),
        ("[2, 3]", "[2, [3]]", "7:19", "regular grid"),
        ("[[2, 2], [1, 9]]", "[[2, 2], [1]]", "7:56", "declared shape [2]"),
        ("-> (z);", "(z);", "12:7", "expected '->'"),
        ("-> (z);\n}", "-> (z);\n} x", "13:3", "expected the end of the file"),
        ("-> (z);\n}", "-> (z);", "13:1", "expected 'func'"),
        ('"z")', '"z)', "11:56", "unexpected character"),
        ("func", "§", "4:5", "unexpected character '§'"),
    ],
)
def test_errors_have_line_and_column(old: str, new: str, place: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(FormatError) as caught:
        text.parse(SMALL.replace(old, new, 1), "model.mil")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"model.mil:{place}:")


@pytest.mark.long
@pytest.mark.parametrize("start", ["tensor<", "list<", "tuple<", "dict<", "state<", "x(", "(", "["])
def test_nesting_without_end_is_refused(start: str) -> None:
    source = SMALL.split("tensor<fp16, []> two")[0] + start * 100_000
    with pytest.raises(FormatError, match=r"model\.mil:\d+:\d+: "):
        text.parse(source, "model.mil")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_text_never_crashes(data: st.DataObject) -> None:
    source = SMALL
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(source)))
        end = min(len(source), at + data.draw(st.integers(0, 12)))
        words = ["", "[", "]", "(", ")", "{", "}", "<", ">", ",", "0x", "1e999", "-1", "nan", '"', "?", "...", "tensor"]
        source = source[:at] + data.draw(st.sampled_from(words)) + source[end:]
    try:
        text.parse(source, "model.mil")
    except FormatError as error:
        place = str(error).split(":")[1]
    else:
        place = "1"
    assert 1 <= int(place) <= source.count("\n") + 1


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[1]", '[{"inputSchema": 3}]', '[{"inputSchema": [{}]}]', "[" * 9999]
)
def test_broken_metadata(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "m.mlmodelc"
    folder.mkdir()
    (folder / "model.mil").write_text(SMALL)
    (folder / "metadata.json").write_text(content)
    with pytest.raises(ParityError, match=r"metadata\.json"):
        mil.load(folder)
