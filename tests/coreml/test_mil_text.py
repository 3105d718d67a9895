"""Programs as text: read back by the project's parser, and equal to what Core ML's compiler wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parity import mil
from parity.coreml.mil_text import write_program
from parity.mil import text
from tests.samples import sample

SAMPLE = "silero_vad.mlmodelc"  # compiled by Apple's compiler


def programs(ct, mb):
    """Yield programs with scalars, vectors, strings, infinities, blocks, variadic inputs and states."""
    rng = np.random.default_rng(3)

    @mb.program(input_specs=[mb.TensorSpec((2, 3)), mb.TensorSpec((2, 3))], opset_version=ct.target.iOS15)
    def old(x, y):
        both = mb.concat(values=(x, y, np.array([[np.inf, 1 / 3, -0.0]] * 2, np.float32)), axis=0)
        wide = mb.linear(x=both, weight=rng.standard_normal((64, 3)).astype(np.float32))
        parts = mb.split(x=wide, num_splits=2, axis=0)
        total = mb.reduce_sum(x=parts[0], axes=[0, 1], keep_dims=False)
        return mb.cond(
            pred=mb.greater(x=total, y=0.0),
            _true_fn=lambda: mb.mul(x=parts[0], y=2.0),
            _false_fn=lambda: mb.sub(x=parts[1], y=parts[0]),
        )

    @mb.program(
        input_specs=[mb.TensorSpec((2,)), mb.StateTensorSpec((2,), dtype=ct.converters.mil.mil.types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def new(x, memory):
        total = mb.add(x=mb.read_state(input=memory), y=mb.cast(x=x, dtype="fp16"))
        return mb.coreml_update_state(state=memory, value=total)

    for program, target in ((old, ct.target.iOS15), (new, ct.target.iOS18)):
        yield ct.convert(program, minimum_deployment_target=target, skip_model_load=True).get_spec().mlProgram


@pytest.mark.long
def test_text_is_read_back(ct, mb):
    for program in programs(ct, mb):
        written = write_program(program)
        again = text.parse(written, "test")
        assert write_program(again) == written
        for name, function in program.functions.items():
            before = function.block_specializations[function.opset]
            after = again.functions[name].block_specializations[function.opset]
            assert [op.type for op in after.operations] == [op.type for op in before.operations]
            assert list(after.outputs) == list(before.outputs)


def test_the_folder_predicts_by_its_text_alone(ct, package, tmp_path):
    """A compiled folder without the package's files is read through ``model.mil``, as Apple's are."""
    source = Path(ct.models.utils.compile_model(str(package)))
    folder = tmp_path / "text.mlmodelc"
    (folder / "weights").mkdir(parents=True)
    (folder / "model.mil").write_bytes((source / "model.mil").read_bytes())
    for file in (source / "Data/com.apple.CoreML").glob("weights/*"):
        (folder / "weights" / file.name).write_bytes(file.read_bytes())
    x = np.array([[-1.0, 0.5, 2.0], [3.0, -4.0, 0.25]], np.float32)
    expected = mil.Session(mil.load(package)).predict({"x": x})
    got = mil.Session(mil.load(folder)).predict({"x": x})
    np.testing.assert_array_equal(got["y"], expected["y"])


def test_statements_equal_those_of_the_real_compiler():
    lines = (sample(SAMPLE) / "model.mil").read_text().splitlines()
    written = write_program(mil.load(sample(SAMPLE)).program).splitlines()
    ours = {line.strip() for line in written}
    statements = [line.strip() for line in lines if line.strip().endswith(";") and " = " in line]
    assert len(statements) > 100
    assert [line for line in statements if line not in ours] == []
