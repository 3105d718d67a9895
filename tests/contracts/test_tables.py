"""The tables are consistent, agree with the public history in spots, and a user can extend them."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.contracts import converter, converters
from parity.contracts.consumers import consumers
from parity.errors import FormatError, MissingError, UsageError
from parity.repair import REPAIRS


def test_windows_are_in_order_of_time_and_tags_are_found() -> None:
    windows = converters().windows
    assert [w.since for w in windows] == sorted(w.since for w in windows)
    tags = {"0.1.0": "C1", "0.2.0": "C2", "0.3.0": "C3", "0.4.0": "C4c", "1.0.0": "C5", "1.1.0": "C7", "main": "C8f"}
    assert {tag: converter(tag).id for tag in tags} == tags
    assert converter("1.1.1") is converter("1.1.0")


def test_the_encoder_history() -> None:
    names = {w.id: [r.name for r in c.inputs] for w, c in converters().contracts("vae_encoder") if c.family == "sd1"}
    assert "C1" not in names
    assert len(names["C2"]) == len(names["C3"]) == 5
    assert {i: n for i, n in names.items() if n == ["z"]}.keys() == {"C4a", "C4b", "C4c", "C5", "C6", "C6b"}
    assert names["C7"] == names["C8f"] == ["x"]


def test_time_ids_and_output_dtypes() -> None:
    flat = converter("C6").component("unet", family="sdxl").feature("time_ids")
    rows = converter("C7").component("unet", family="sdxl").feature("time_ids")
    assert (flat.shape({"B": 2}), rows.shape({"B": 2, "T": 6})) == ((12,), (2, 6))
    noise = converter("C6b").component("unet", family="sd1").feature("noise_pred")
    assert noise.dtype == "FLOAT16"
    assert converter("C7").component("unet", family="sd1").feature("noise_pred").dtypes == ("FLOAT32",)


def test_residuals_are_numbered() -> None:
    contract = converter("0.4.0").component("control-unet", family="sd1")
    rule = contract.feature("additional_residual_12")
    assert rule.shape({"B": 2, "C_12": 1280, "h_12": 8, "w_12": 8}) == (2, 1280, 8, 8)


@pytest.mark.parametrize(
    ("release", "component", "family", "text"),
    [
        ("0.1.0", "vae_encoder", "sd1", "written by C2 .0.2.0. to C8f .main."),
        ("0.4.0", "unet", "sdxl", "written by C6 to C8f .main."),
        ("main", "unet", "sd3", "there is one for sd1, sd2, sdxl, sdxl-refiner"),
        ("main", "decoder", "sd1", "known components are text_encoder"),
    ],
)
def test_what_a_release_does_not_write_is_said(release: str, component: str, family: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        converter(release).component(component, family=family)


def test_every_rule_names_what_exists() -> None:
    table = consumers()
    assert len({rule.id for rule in table.rules}) == len(table.rules)
    for rule in table.rules:
        assert rule.consumers, rule.id
        assert rule.failure, rule.id
        assert rule.basis in ("reported", "read", "run"), rule.id
        assert not rule.repair or rule.repair in REPAIRS, rule.id
        assert rule.basis != "reported" or rule.evidence, rule.id
        assert not rule.request or rule.verdict == "yes", rule.id
        for task in rule.tasks:  # a rule that can never hold is a mistake
            assert any(task in table.consumer(name).tasks for name in rule.consumers), (rule.id, task)
    for app in {consumer.app for consumer in table.consumers}:
        firsts = [consumer.first for consumer in table.consumers if consumer.app == app]
        assert firsts == sorted(firsts), app


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("S7", ["S7"]),
        ("S4..S6", ["S4", "S5", "S6"]),
        ("swift>=1.1", ["S7", "S8"]),
        ("swift<1.0", ["S1", "S2", "S3", "S4"]),
        ("swift==1.1", ["S7"]),
        ("swift>=0.4,<1.1", ["S4", "S5", "S6"]),
        ("swift==main", ["S8"]),
        ("python==1.1", ["P4", "P5"]),
        ("mochi>=4.3,<6", ["M4.3", "M4.6", "M4.7", "M5.2"]),
        ("mochi==4.1.2", ["M4.1"]),
        ("mochi==4.6", ["M4.6"]),
        ("mochi>=4.7.1,<5", ["M4.7"]),
    ],
)
def test_selecting_consumers(text: str, ids: list[str]) -> None:
    assert [consumer.id for consumer in consumers().select(text)] == ids


@pytest.mark.parametrize("text", ["swift>=x", "swfit", "", "S9", "S6..S4", "swift>=1.1 or so"])
def test_a_selector_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        consumers().select(text)


def test_a_user_adds_an_app_and_a_release(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        """
[[window]]
id = "fork"
after = "C7"
since = 2024-01-01
summary = "a fork that calls the encoder's input pixels"
specifications = [7]
batches = [2]
attention = ["ORIGINAL"]
output_dtypes = ["FLOAT32"]

[[component]]
name = "vae_encoder"
families = ["sd1"]
from = "fork"
until = "fork"
inputs = [{ name = "pixels", shape = "1, 3, 8*h, 8*w", dtype = "FLOAT16" }]
outputs = [{ name = "latent", shape = "1, 2*L, h, w" }]

[[consumer]]
id = "mine-2"
app = "mine"
first = "2.0"
like = "S4"

[[rule]]
id = "mine-safety"
tasks = ["safety-check"]
consumers = ["mine"]
when = {}
verdict = "no"
failure = "my app never checks"
basis = "read"
"""
    )
    windows = converters((table,)).windows
    assert [w.id for w in windows][9:11] == ["C7", "fork"]
    assert converter("fork", extra=[table]).component("vae_encoder", family="sd1").inputs[0].name == "pixels"
    mine = consumers((table,)).consumer("mine-2")
    assert mine.tasks == consumers().consumer("S4").tasks
    crash = next(rule for rule in consumers((table,)).rules if rule.id == "legacy-encoder-crash")
    assert "mine-2" in crash.consumers
    assert "mine-2" in consumers((table,)).rules[-1].consumers


ASKING = (
    "[[rule]]\nid = 'a'\ntasks = ['img2img']\nconsumers = ['swift']\nverdict = 'no'\nfailure = 'f'\nbasis = 'read'\n"
    "when = {{ {} }}"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[consumer]]\nid = 'S1'\napp = 'x'\nlike = 'S4'", "field 'id' 'S1' is taken"),
        ("[[consumer]]\nid = 'a'\napp = 'x'\nlike = 'S99'", "field 'like'"),
        ("[[consumer]]\nid = 'a'\napp = 'x'\nfamilies = ['sd1']\ntasks = ['fly']", "field 'tasks' must name some of"),
        ("[[rule]]\nid = 1", "field 'tasks' is missing; it must be a list of texts"),
        ("[[rule]]\nid = 'a'\ntasks = ['img2img']\nconsumers = ['swift']\nverdict = 'maybe'", "field 'verdict'"),
        (ASKING.format("batchs = '1'"), r"rule\[0\]\.when: field 'batchs' is no fact .*; did you mean batch\?"),
        (ASKING.format("chunks = '!differs'"), "field 'chunks' has '!differs', .*; did you mean differ\\?"),
        ("[[rule", "not a readable TOML file"),
    ],
)
def test_a_faulty_table_names_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "faulty.toml"
    path.write_text(text)
    with pytest.raises((FormatError, UsageError), match=message) as caught:
        consumers((path,))
    assert "faulty.toml" in str(caught.value)
    with pytest.raises(MissingError):
        consumers((tmp_path / "none.toml",))


def test_a_window_cannot_have_two_contracts_of_one_component(tmp_path: Path) -> None:
    path = tmp_path / "twice.toml"
    entry = """
[[component]]
name = "vae_encoder"
families = ["sd1"]
from = "C7"
inputs = [{ name = "p", shape = "1", dtype = "FLOAT16" }]
outputs = [{ name = "q", shape = "1" }]
"""
    path.write_text(entry * 2)
    with pytest.raises(FormatError, match="two contracts of vae_encoder for sd1 in window C7"):
        converters((path,))
