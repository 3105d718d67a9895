"""Systems and compute units: planted structures are found with platform, unit and remedy; other structures are not."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from parity import cli, mil
from parity.contracts import pattern, structure, survey
from parity.contracts.consumers import consumers
from parity.contracts.inspect import inspect
from parity.contracts.inspection import Component, Structure
from parity.contracts.platforms import UNITS, Platforms, platforms, select
from parity.coreml.mil_text import write_program
from parity.errors import FormatError, UsageError
from parity.repair import REPAIRS
from tests.contracts import folded, packages
from tests.contracts.test_compiled import compiled
from tests.samples import sample

Converted = Callable[..., Path]
NAME = "Stable_Diffusion_version_a_b_text_encoder.mlpackage"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folded.traced_encoder(tmp_path_factory.mktemp("old") / NAME)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folded.traced_encoder(tmp_path_factory.mktemp("new") / NAME, folded=False)


def found(path: Path) -> survey.Survey:
    return survey.survey(inspect(path).bundles[0])


def structure_of(component: Component) -> Structure:
    assert component.fingerprint.structure is not None
    return component.fingerprint.structure


def rules_for(component: Component, kind: str, **changes: object) -> set[str]:
    component = dataclasses.replace(component, kind=kind, **changes)
    return {rule.id for rule in platforms().rules if pattern.matches(rule, component)}


# ------------------------------------------------------------------------------------------------- attention of 3 axes


@pytest.mark.long
def test_folded_attention_is_found_with_system_unit_and_remedy(old: Path) -> None:
    first, second = found(old).hazards
    assert (first.rule.id, first.rule.verdict, first.rule.effect) == ("attention-rank3", "no", "crash")
    assert first.places == ("2 × (heads 4, queries 77, keys 77, width 8)",)
    assert first.rule.repair == "attention-rank4"
    assert (second.rule.id, second.rule.verdict) == ("attention-rank3-ios", "unknown")
    rows = {str(row.stretch): row.verdicts for row in found(old).rows}
    assert rows == {
        "macOS 27.2 and later": {"CPU_ONLY": "yes", "CPU_AND_GPU": "no", "CPU_AND_NE": "yes", "ALL": "unknown"},
        "iOS 27.2 and later": {"CPU_ONLY": "yes", "CPU_AND_GPU": "unknown", "CPU_AND_NE": "yes", "ALL": "unknown"},
    }


@pytest.mark.long
def test_a_compiled_encoder_is_judged_like_its_package(old: Path, tmp_path: Path) -> None:
    package = inspect(old).components[0].fingerprint.structure
    for metadata in (True, False):
        folder = compiled(old, tmp_path / f"R{metadata}" / "TextEncoder.mlmodelc", metadata=metadata)
        assert inspect(folder).components[0].fingerprint.structure == package
        assert [hazard.rule.id for hazard in found(folder).hazards] == ["attention-rank3", "attention-rank3-ios"]


@pytest.mark.long
def test_todays_attention_raises_no_alarm(new: Path) -> None:
    (attention,) = structure_of(inspect(new).components[0]).attention
    assert (attention.rank, attention.batch, attention.heads, attention.count) == (4, 1, 4, 2)
    assert found(new).hazards == ()
    assert found(new).rows == ()


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_decoder", "vae_encoder"])
@pytest.mark.parametrize("contract", ["0.2.0", "1.1.0", "main"])
def test_conversions_raise_the_alarm_of_their_era_alone(contract: str, component: str, converted: Converted) -> None:
    path = converted(contract, component)
    built = inspect(path).components[0].fingerprint.structure
    assert built is not None
    assert built.operators
    if component == "vae_decoder":
        assert [item.rank for item in built.attention] == [3 if contract == "0.2.0" else 4]
    hazards = {hazard.rule.id for hazard in found(path).hazards}
    # text encoders of both old releases have the attention of their time, and nothing else is said
    old = component == "text_encoder" and contract != "main"
    assert hazards == ({"attention-rank3", "attention-rank3-ios"} if old else set())


def test_attention_without_heads_is_no_hazard(old: Path) -> None:
    component = inspect(old).components[0]
    built = component.fingerprint.structure
    assert built is not None
    single = dataclasses.replace(built.attention[0], heads=1)
    print_ = dataclasses.replace(component.fingerprint, structure=dataclasses.replace(built, attention=(single,)))
    assert rules_for(component, "text_encoder", fingerprint=print_) == set()
    assert rules_for(component, "unet") == {"attention-rank3-elsewhere"}
    assert rules_for(component, "safety_checker") == {"attention-rank3-elsewhere"}
    assert rules_for(component, "vae_decoder") == set()


def test_real_models_of_2023() -> None:
    bundle = inspect(sample("real-0.2.0")).bundles[0]
    hazards = survey.survey(bundle).hazards
    assert [hazard.rule.id for hazard in hazards] == ["attention-rank3", "attention-rank3-ios"]
    assert hazards[0].components == ("text_encoder",)
    assert hazards[0].places == ("2 × (heads 4, queries 77, keys 77, width 24)",)


# ---------------------------------------------------------------------------------------------------- other structures


@pytest.mark.parametrize(("batch", "expected"), [(10, {"attention-batch10"}), (9, set())])
def test_a_bias_in_batches_of_ten(batch: int, expected: set[str], tmp_path: Path) -> None:
    component = inspect(folded.biased_attention(tmp_path / "m.mlpackage", batch)).components[0]
    assert rules_for(component, "safety_checker") == expected


def test_fused_attention_of_wide_heads_and_of_small_size(tmp_path: Path) -> None:
    wide = inspect(folded.fused_attention(tmp_path / "w.mlpackage", width=512)).components[0]
    narrow = inspect(folded.fused_attention(tmp_path / "n.mlpackage", width=64)).components[0]
    assert rules_for(wide, "vae_decoder") == {"attention-fused-wide", "attention-fused-small"}
    assert rules_for(narrow, "vae_decoder") == {"attention-fused-small"}
    assert structure_of(narrow).attention[0].form == "fused"


@pytest.mark.long
def test_tables_with_a_scale_for_each_channel(tmp_path: Path) -> None:
    scaled = inspect(folded.palettized(tmp_path / "s.mlpackage", scale=True)).components[0]
    plain = inspect(folded.palettized(tmp_path / "p.mlpackage", scale=False)).components[0]
    assert "scaled-palette" in rules_for(scaled, "unet")
    assert "scaled-palette" not in rules_for(plain, "unet")
    key = "com.github.apple.coremltools.version"
    for version, hit in (("9.0", True), ("8.3", False)):
        assert ("palette4-coremltools9" in rules_for(plain, "unet", metadata={key: version})) == hit


def test_flexible_inputs(tmp_path: Path) -> None:
    source = folded.flexible(tmp_path / "m.mlpackage")
    component = inspect(source).components[0]
    assert structure_of(component).flexible == ("z",)
    assert rules_for(component, "vae_decoder") == {"flexible-shapes"}
    assert structure.of_text(write_program(mil.load(source).program)).flexible == ("z",)


def test_program_text_is_read_however_it_is_set() -> None:
    text = """program(1.3) { func main<ios18>(tensor<fp16,[1, ?]> a, tensor<fp16, [2]> b) { fp16 c=const()[val=fp16(1)];
      tensor<fp16,[3,1,4]> x, tensor<fp16, [1, 4]> y = lstm(x = a, bias = (b, b))[name = string("x")];
      fp16 s = reduce_sum(x = b)[name = string("s = add(x = a)")]; } -> (x); }"""
    built = structure.of_text(text)
    assert [(o.operator, o.dtype, o.rank, o.largest) for o in built.operators] == [
        ("lstm", "fp16", 3, 4),
        ("reduce_sum", "fp16", 0, 0),
    ]
    assert built.flexible == ("a",)


@pytest.mark.parametrize(
    "text",
    [
        "0123456789abcdef" * 60_000,
        "func f<g>(" + "tensor<fp16, [1]> a, " * 50_000,
        "func f<g>(" * 100_000,
        "tensor<fp16, [1]> m = matmul(x = " + "a" * 1_000_000 + ")\n",
        "a " * 500_000,
        " " * 1_000_000 + "=",
    ],
)
def test_hostile_text_is_searched_in_linear_time(text: str) -> None:
    start = time.process_time()
    structure.of_text(text)
    assert time.process_time() - start < 5


def test_sdxl_for_1024_pixels_on_the_neural_engine(tmp_path: Path) -> None:
    for name, size in (("large", 128), ("small", 96)):
        packages.component(tmp_path / name, "unet", window="1.1.0", family="sdxl", h=size, w=size)
    assert [hazard.rule.id for hazard in found(tmp_path / "large").hazards] == ["sdxl-1024-neural-engine"]
    assert found(tmp_path / "small").hazards == ()


def test_a_program_that_was_not_read_is_unknown(old: Path) -> None:
    bundle = inspect(old).bundles[0]
    component = bundle.components[0]
    unread = dataclasses.replace(component, fingerprint=dataclasses.replace(component.fingerprint, structure=None))
    result = survey.survey(dataclasses.replace(bundle, components=(unread,)))
    (row,) = [row for row in result.rows if str(row.stretch) == "macOS 27.2 and later"]
    assert row.verdicts["CPU_AND_GPU"] == "unknown"
    assert all("the program was not read" in hazard.failure for hazard in result.hazards)


# ------------------------------------------------------------------------------------------------------------- demands


@pytest.mark.parametrize(
    ("demand", "met"),
    [
        ("txt2img on macos==27.2 CPU_AND_GPU", False),
        ("txt2img on macos==27.2.1 CPU_AND_GPU", False),
        ("txt2img on macos==27 CPU_AND_GPU", False),
        ("txt2img on macos==27.2 CPU_AND_NE", True),
        ("txt2img on macos==27.2 CPU_AND_NE, CPU_ONLY", True),
        ("txt2img on macos==27.2", False),
        ("txt2img on macos==27.1 CPU_AND_GPU", True),
        ("txt2img on macos>=14,<27 CPU_AND_GPU", True),
        ("txt2img on macos<=27.1", True),
        ("img2img on macOS>=14 CPU_AND_GPU", False),
        ("txt2img on ios==27.1", True),
        ("txt2img on ios>=27.2 ALL", False),
        ("safety-check on macos==27.2 CPU_AND_GPU", False),
        ("txt2img on macos==12.6 CPU_ONLY", False),
        ("txt2img on macos==13 CPU_ONLY", True),
    ],
)
def test_demands_on_systems(demand: str, met: bool, old: Path) -> None:
    assert survey.require(demand, inspect(old)).met == met


def test_a_demand_says_what_is_in_the_way(old: Path, new: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demand = ["--require", "txt2img on macos==27.2 CPU_AND_GPU"]
    assert cli.main(["inspect", str(old), *demand]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "not met" in text
    assert f"macOS 27.2, CPU_AND_GPU no: {NAME}: the process aborts while the prompt is encoded" in text
    assert "→ rewrite it with four axes: parity repair" in text
    assert cli.main(["inspect", str(new), *demand]) == 0
    assert cli.main(["inspect", str(new), "--require", "safety-check on macos==27.2"]) == 1
    assert "no model of the task safety check is here" in capsys.readouterr().out
    assert cli.main(["inspect", str(old), "--require", "txt2img on macos==12"]) == 1
    assert "models of specification 7 load on macOS 13 and later only" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("demand", "message"),
    [
        ("txt2img on macos==27.2 GPU", "'GPU' is no compute unit; there are CPU_ONLY, CPU_AND_GPU"),
        ("txt2img on macos=27.2", "names no system; give macos or ios"),
        ("txt2img on macos>27,<27", "leaves no version"),
        ("fly on macos==27.2", "unknown task 'fly'"),
        ("txt2img on macos==27..2", "'27..2' is not a version"),
    ],
)
def test_a_slip_in_a_demand_is_named(demand: str, message: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(old), "--require", demand]) == 2
    assert message in capsys.readouterr().err


def test_a_broken_model_meets_no_demand(old: Path, tmp_path: Path) -> None:
    import shutil

    target = tmp_path / NAME
    shutil.copytree(old, target)
    weights = next(target.rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes()[:100])
    assert not survey.require("txt2img on macos==14", inspect(tmp_path)).met


# --------------------------------------------------------------------------------------------------------------- output


def test_the_terminal_fits_eighty_columns(
    old: Path, new: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["inspect", str(old)]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("macOS 27.2 and later"))
    assert row.split()[4:] == ["–", "✗", "a", "–", "?", "a"]
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("needs macOS 13 or iOS 16 (specification 7)") for line in lines)
    assert cli.main(["inspect", str(new)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "nothing known against these models, which is no promise; needs macOS 13 or iOS 16" in text


def test_json_and_page_hold_the_table(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert cli.main(["inspect", str(old), "--json", "--html", str(page)]) == 0
    (document,) = json.loads(capsys.readouterr().out)["platforms"]
    assert document["needs"] == {"macos": "13", "ios": "16"}
    assert document["rows"][0] == {
        "system": "macos",
        "from": "27.2",
        "before": None,
        "verdicts": {"CPU_ONLY": None, "CPU_AND_GPU": "no", "CPU_AND_NE": None, "ALL": "unknown"},
        "hazards": {"CPU_ONLY": [], "CPU_AND_GPU": [0], "CPU_AND_NE": [], "ALL": [0]},
    }
    hazard = document["hazards"][0]
    assert hazard["repair"] == "attention-rank4"
    assert hazard["evidence"].startswith("MochiDiffusion/MochiDiffusion#521")
    text = page.read_text(encoding="utf-8")
    assert "macOS 27.2 and later" in text
    assert "expandSDPAOperandTo4D" in text


# ---------------------------------------------------------------------------------------------------------------- table


def test_every_rule_names_what_exists() -> None:
    table = platforms()
    kinds = {kind for task in consumers().tasks for kind in task.involves} | {"text_encoder_t5"}
    for rule in table.rules:
        assert kinds.issuperset(rule.components), rule.id
        assert rule.evidence, rule.id
        assert rule.remedy, rule.id
        assert not rule.repair or rule.repair in REPAIRS, rule.id
        assert not set(rule.units) & set(rule.maybe), rule.id
    assert list(table.oldest) == sorted(table.oldest)


RULE = """
[[platform_rule]]
id = "mine"
components = ["text_encoder"]
systems = ["macos>=26,<26.4"]
units = ["CPU_AND_NE"]
pattern = { structure = "operator", operator = "layer_norm", dtype = "fp16", rank = "3", largest = ">=77" }
verdict = "degraded"
effect = "slow"
title = "layer norms"
failure = "slow on my machines"
basis = "measured"
"""


def test_a_rule_of_ones_own(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(RULE)
    arguments = ["inspect", str(old), "--tables", str(table)]
    assert cli.main([*arguments, "--require", "txt2img on macos==26.3 CPU_AND_NE"]) == 1
    text = capsys.readouterr().out
    assert "macOS 26 to before 26.4" in text
    assert "layer_norm of rank 3, fp16" in " ".join(text.split())
    assert cli.main([*arguments, "--require", "txt2img on macos==26.3 CPU_AND_NE", "--accept-degraded"]) == 0
    assert cli.main([*arguments, "--require", "txt2img on macos==26.4 CPU_AND_NE"]) == 0


def test_the_rule_of_the_documentation_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")
    (block,) = [part for part in text.split("```toml\n")[1:] if part.startswith("[[platform_rule]]")]
    table = tmp_path / "documented.toml"
    table.write_text(block.partition("```")[0])
    assert platforms((table,)).rules[-1].id == "mine-layer-norm"
    for rule in platforms().rules:
        assert f"`{rule.id}`" in text or rule.id.endswith("-elsewhere"), rule.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"CPU_AND_NE"', '"NPU"'), "field 'units' must name some of CPU_ONLY"),
        (('"macos>=26,<26.4"', '"windows"'), "field 'systems' has an entry that cannot be read: 'windows' names no"),
        (('"macos>=26,<26.4"', '"macos ALL"'), "compute units belong in 'units'"),
        (('rank = "3"', 'heads = "3"'), "field 'heads' is no fact of 'operator'"),
        (('largest = ">=77"', 'largest = ">=big"'), "field 'largest' has '>=big', which compares with no number"),
        (('structure = "operator"', 'structure = "colour"'), "field 'structure' must be one of attention, operator"),
        (('"degraded"', '"yes"'), "field 'verdict' must be one of unknown, degraded, no"),
        (('"measured"', '"guessed"'), "field 'basis' must be one of"),
        (
            ('["text_encoder"]', '["text_encodr"]'),
            "has 'text_encodr', which no converter writes; did you mean text_enc",
        ),
        (
            ("pattern = {", 'when = { famly = "sd1" }\npattern = {'),
            "'famly' is no fact of a component; did you mean family",
        ),
        (('id = "mine"', 'id = "attention-rank3"'), "field 'id' 'attention-rank3' is taken"),
    ],
)
def test_slips_in_a_table_are_named(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    assert change[0] in RULE
    table.write_text(RULE.replace(*change))
    with pytest.raises(FormatError, match=r"mine\.toml: platform_rule\[0\]") as error:
        platforms((table,))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "shown", "units"),
    [
        ("macos", "macOS, any version", UNITS),
        ("macos==27.2 CPU_AND_GPU", "macOS 27.2", ("CPU_AND_GPU",)),
        ("macos>27.1", "macOS 27.2 and later", UNITS),
        ("macos>=27.0", "macOS 27 and later", UNITS),
        ("iOS >= 17, < 18.2 ALL CPU_ONLY", "iOS 17 to before 18.2", ("ALL", "CPU_ONLY")),
        ("ios<18", "iOS before 18", UNITS),
    ],
)
def test_selections(text: str, shown: str, units: tuple[str, ...]) -> None:
    selection = select(text)
    assert (str(selection.stretch), selection.units) == (shown, units)


def test_selections_that_say_nothing() -> None:
    for text in ("linux", "", "macos 27", "macos==27.2 cpu"):
        with pytest.raises(UsageError):
            select(text)


def test_tables_are_read_once() -> None:
    assert isinstance(platforms(), Platforms)
    assert platforms() is platforms()
