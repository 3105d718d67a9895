"""Attention of three axes is given a fourth: equal values, weights untouched, nothing left to find."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parity import cli, mil, repair
from parity.contracts import survey
from parity.contracts.inspect import inspect
from parity.contracts.platforms import select
from parity.contracts.structure import sites
from parity.errors import UnsupportedError
from parity.mil.session import Session
from parity.repair import attention
from parity.repair.program import Editor, make_constant
from tests.contracts import folded
from tests.contracts.test_compiled import compiled
from tests.samples import sample

NAME = "Stable_Diffusion_version_a_b_text_encoder.mlpackage"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folded.traced_encoder(tmp_path_factory.mktemp("old") / NAME)


def run(path: Path, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    return Session(mil.load(path), fuse=False).predict(inputs)


def weights(path: Path) -> bytes:
    return mil.load(path).weights.file().path.read_bytes()


def ranks(path: Path) -> list[tuple[int, ...]]:
    editor = Editor(mil.load(path))
    found = sites(iter(editor.block.operations))
    return [tuple(len(node.shape) for node in (s.scores, s.softmax, s.product)) for s in found]


def operators(path: Path) -> dict[str, int]:
    return dict(inspect(path).components[0].fingerprint.operators)


def repaired(path: Path, output: Path) -> repair.Repaired:
    (result,) = repair.apply(repair.plan(inspect(path)), output)
    return result


@pytest.mark.long
def test_a_folded_encoder_is_rewritten_with_equal_values(old: Path, tmp_path: Path) -> None:
    assert ranks(old) == [(3, 3, 3)] * folded.LAYERS
    result = repaired(old, tmp_path)
    target = Path(result.target)
    assert result.changes == ("2 attentions of three axes given a fourth",)
    assert [proof.exact for proof in result.proofs] == [True, True]
    assert ranks(target) == [(4, 4, 4)] * folded.LAYERS
    assert survey.survey(inspect(target).bundles[0]).hazards == ()
    assert weights(old) == weights(target)
    ids = np.random.RandomState(8).randint(0, folded.WORDS, (1, folded.TOKENS)).astype(np.float32)
    before, after = run(old, input_ids=ids), run(target, input_ids=ids)
    for name, value in before.items():
        assert float(np.std(value)) > 0.1
        np.testing.assert_array_equal(value, after[name])
    # beside the folding reshapes nothing went or came
    gone = {"reshape": 6 * folded.LAYERS}
    assert operators(target) == {kind: count - gone.get(kind, 0) for kind, count in operators(old).items()}
    record = json.loads(mil.load(target).metadata.user_defined[repair.PROVENANCE])
    assert record["repairs"] == ["attention-rank4"]


@pytest.mark.long
def test_the_result_is_what_is_converted_from_unfolded_attention(old: Path, tmp_path: Path) -> None:
    new = folded.traced_encoder(tmp_path / "new.mlpackage", folded=False)
    target = Path(repaired(old, tmp_path / "out").target)
    assert operators(target) == operators(new)
    ids = np.random.RandomState(9).randint(0, folded.WORDS, (1, folded.TOKENS)).astype(np.float32)
    ours, theirs = run(target, input_ids=ids), run(new, input_ids=ids)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)


@pytest.mark.long
def test_a_compiled_encoder_is_rebuilt_and_rewritten(old: Path, tmp_path: Path) -> None:
    compiled(old, tmp_path / "R" / "TextEncoder.mlmodelc")
    plan = repair.plan(inspect(tmp_path / "R"))
    assert [job.repairs for job in plan.jobs] == [("package", "attention-rank4")]
    (result,) = repair.apply(plan, tmp_path / "out")
    assert all(proof.exact for proof in result.proofs)
    assert ranks(Path(result.target)) == [(4, 4, 4)] * folded.LAYERS
    assert weights(old) == weights(Path(result.target))


def test_an_odd_program_is_rewritten_too(tmp_path: Path) -> None:
    source = folded.odd_attention(tmp_path / "odd.mlpackage")
    model = mil.load(source)
    editor = Editor(model)
    assert attention.four_axes(editor) == 1
    held = {name: model.weights.path(name) for name in model.weights.names()}
    target = mil.save(editor.specification, held, tmp_path / "new.mlpackage")
    assert ranks(source) == [(3, 3, 3)]
    assert ranks(target) == [(4, 4, 4)]
    (site,) = sites(iter(Editor(mil.load(target)).block.operations))
    assert site.scores.shape == (2, 3, 5, 5), "batch and heads as the queries' reshape tells"
    random = np.random.RandomState(4)
    inputs = {f.name: random.standard_normal(f.shape).astype(np.float32) for f in model.inputs}
    before, after = run(source, **inputs), run(target, **inputs)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.shape == after[name].shape
        np.testing.assert_array_equal(value, after[name])


def test_what_cannot_be_rewritten_is_refused(old: Path, tmp_path: Path) -> None:
    new = mil.load(repaired(old, tmp_path).target)
    with pytest.raises(UnsupportedError, match="no attention of three axes in its main block"):
        attention.four_axes(Editor(new))
    editor = Editor(mil.load(old))
    site = next(sites(iter(editor.block.operations)))
    editor.block.outputs[0] = site.product.name
    with pytest.raises(UnsupportedError, match="is an output; it keeps its three axes"):
        attention.four_axes(editor)
    editor = Editor(mil.load(old))
    site = next(sites(iter(editor.block.operations)))
    softmax, _ = editor.producer(site.softmax.name)
    constant = make_constant("first_axis", 1)
    editor.block.operations.insert(0, constant)
    softmax.inputs["axis"].arguments[0].name = "first_axis"
    with pytest.raises(UnsupportedError, match="is not over the keys"):
        attention.four_axes(editor)


def test_a_plan_serves_the_named_system(old: Path, tmp_path: Path) -> None:
    def planned(system: str) -> list[str]:
        return [name for job in repair.plan(inspect(old), system=select(system)).jobs for name in job.repairs]

    assert planned("macos==27.2") == planned("macos>=14") == planned("ios>=27.2") == ["attention-rank4"]
    assert planned("macos==27.2 CPU_AND_GPU") == ["attention-rank4"]
    assert planned("macos==27.2 CPU_AND_NE") == planned("macos==26") == []
    compiled(old, tmp_path / "R" / "TextEncoder.mlmodelc")
    found = inspect(tmp_path / "R")
    assert repair.plan(found, system=select("macos==26")).jobs == ()
    (job,) = repair.plan(found, system=select("macos==27.2")).jobs
    assert job.repairs == ("package", "attention-rank4")


def test_the_command_makes_a_demand_hold(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demand = ["--require", "txt2img on macos==27.2 CPU_AND_GPU"]
    assert cli.main(["inspect", str(old), *demand]) == 1
    assert cli.main(["repair", str(old), "--for", "macos==27.2", "--dry-run"]) == 0
    assert "attention-rank4: give attention of three axes a fourth" in capsys.readouterr().out
    out = tmp_path / "out"
    assert cli.main(["repair", str(old), "--for", "macos==27.2", "-o", str(out)]) == 0
    assert "bit-identical over" in capsys.readouterr().out
    assert cli.main(["inspect", str(out), *demand]) == 0
    assert cli.main(["repair", str(old), "--for", "macos==26", "--dry-run"]) == 0
    assert "nothing to repair" in capsys.readouterr().out
    assert cli.main(["repair", str(old), "--for", "macos=27.2", "--dry-run"]) == 2
    assert cli.main(["repair", str(out / NAME), "--only", "attention-rank4", "--dry-run"]) == 0
    assert "nothing to repair" in capsys.readouterr().out


def test_a_real_encoder_of_2023(tmp_path: Path) -> None:
    plan = repair.plan(inspect(sample("real-0.2.0")), only=("attention-rank4",))
    (result,) = repair.apply(plan, tmp_path)
    assert result.changes == ("2 attentions of three axes given a fourth",)
    assert all(proof.exact for proof in result.proofs)
    assert weights(Path(result.source)) == weights(Path(result.target))
    assert survey.survey(inspect(tmp_path).bundles[0]).hazards == ()
