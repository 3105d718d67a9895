"""What a run finds beside accepted goldens: several of them, places, drift, rejected pictures, what is missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from parity.errors import FormatError, MissingError, UsageError
from parity.pipelines.trace import Trace
from parity.suite import tolerance
from parity.suite.goldens import curate, log, store
from parity.suite.goldens.keys import Keys
from parity.suite.questions.golden import Answer, Goldens, pairs
from parity.suite.verdict import Verdict, combine
from tests.suite.goldens.drawn import NEURAL, TORCH, WISH, accepted, asked, trace


@pytest.fixture
def goldens(tmp_path: Path) -> Goldens:
    table = tolerance.load()
    return Goldens(
        tmp_path / "golden",
        lambda point: tolerance.find_all(table, point, precision="float32", numerics=TORCH.backend),
    )


def verdict(answer: Answer) -> Verdict:
    return combine(check.verdict for check in answer.checks)


def test_the_kept_points_are_paired_by_what_tolerances_name() -> None:
    kept = Trace({point: trace()[point] for point in store.points(trace())})
    assert set(kept) == set(trace()) - {"unet/step00/sample", "latents/step00"}
    names = {"golden/start", "golden/text_encoder", "golden/unet", "golden/latents", "golden/image"}
    assert set(pairs(kept, trace())) == names


def test_the_accepted_picture_passes_and_says_who_accepted_it(goldens: Goldens) -> None:
    golden = accepted(goldens.directory, asked(), trace())
    answer = goldens.compare(asked(), trace())
    assert verdict(answer) is Verdict.PASS
    assert {check.point for check in answer.checks} == set(pairs(trace(), trace()))
    assert answer.golden is not None
    assert answer.golden.sentence == (
        f"compared with golden {golden.id}, accepted by {WISH.author} on {log.now()[:10]}: {WISH.reason}"
    )
    assert answer.remarks == ()  # nothing that a reader must know: it is as it should be


def test_without_a_golden_the_run_fails_and_what_was_drawn_waits_aside(goldens: Goldens) -> None:
    for _ in range(2):  # the second run does not take the first one's picture for accepted
        answer = goldens.compare(asked(), trace())
        assert verdict(answer) is Verdict.FAIL
    (waiting,) = store.everything(goldens.directory)
    assert (waiting.standing, waiting.decisions) == ("new", ())
    (check,) = answer.checks
    assert f"parity golden approve {waiting.id} --golden-dir {goldens.directory}" in check.message
    assert str(waiting.folder / "image.png") in check.message
    assert log.read(goldens.directory) == []


def test_at_most_three_pictures_of_a_series_wait(goldens: Goldens) -> None:
    for shift in range(5):
        answer = goldens.compare(asked(), trace(10 * shift))
        assert verdict(answer) is Verdict.FAIL
    assert len(store.everything(goldens.directory)) == 3
    assert "not written aside: 3 of" in answer.checks[0].message


def test_nothing_is_written_into_an_installed_package(goldens: Goldens) -> None:
    answer = dataclasses.replace(goldens, writable=False).compare(asked(), trace())
    assert verdict(answer) is Verdict.FAIL
    assert not goldens.directory.exists()
    assert "--golden-dir" in answer.checks[0].message


def test_a_folder_that_cannot_be_written_is_said(goldens: Goldens) -> None:
    goldens.directory.parent.joinpath("golden").write_text("a file in its place")
    with pytest.raises(FormatError, match="cannot be read"):
        goldens.compare(asked(), trace())


def test_any_of_several_accepted_goldens_passes_and_the_nearest_is_reported(goldens: Goldens) -> None:
    accepted(goldens.directory, asked(), trace())
    other = accepted(goldens.directory, asked(), trace(40), dataclasses.replace(WISH, new_anchor=True))
    assert verdict(goldens.compare(asked(), trace())) is Verdict.PASS
    answer = goldens.compare(asked(), trace(40))
    assert verdict(answer) is Verdict.PASS
    assert answer.golden is not None
    assert f"the nearest of 2 accepted goldens, {other.id}" in answer.golden.sentence
    far = goldens.compare(asked(), trace(36))
    assert verdict(far) is Verdict.FAIL
    assert other.id in far.remarks[0]
    assert "written aside" in far.remarks[1]


def test_a_rejected_picture_fails_by_that_alone(goldens: Goldens) -> None:
    golden = store.write(goldens.directory, asked(), trace())
    curate.reject(goldens.directory, [golden], dataclasses.replace(WISH, reason="the ring is open"))
    (check,) = goldens.compare(asked(), trace()).checks
    assert check.verdict is Verdict.FAIL
    assert "this very picture was rejected" in check.message
    assert "the ring is open" in check.message


def test_small_steps_do_not_lead_away_from_the_first_approval(goldens: Goldens) -> None:
    """Each picture is as near to the last one as golden/image asks for, by a loose table of the user's."""
    loose = [tolerance.Tolerance("golden/image", "image_psnr", 54.1, "loose"), *tolerance.load()]
    bounds = lambda point: tolerance.find_all(loose, point, precision="float32", numerics="x")  # noqa: E731
    goldens = dataclasses.replace(goldens, bounds=bounds)
    first = accepted(goldens.directory, asked(), trace())
    drifted = np.array(trace()["image"])
    drifted[0, :8] += 1  # rms 0.5 of a level: 54.15 dB from the anchor
    near = accepted(goldens.directory, asked(), Trace({**trace(), "image": drifted}))
    assert near.approval is not None
    assert near.approval.anchor == first.id
    drifted[0, 8:16] += 1  # 51.1 dB from the anchor, 54.15 dB from the last one
    answer = goldens.compare(asked(), Trace({**trace(), "image": drifted}))
    failing = [check.point for check in answer.checks if check.verdict is Verdict.FAIL]
    assert failing == ["golden/drift"]
    assert f"anchor {first.id}" in next(c.message for c in answer.checks if c.point == "golden/drift")
    golden = store.write(goldens.directory, asked(), Trace({**trace(), "image": drifted}))
    with pytest.raises(UsageError, match=r"too far from its anchor(.|\n)*51\.14 dB is below the bound 54\.00 dB"):
        curate.approve(goldens.directory, [golden], WISH, tolerance.load())
    curate.approve(goldens.directory, [golden], dataclasses.replace(WISH, new_anchor=True), tolerance.load())
    again = goldens.compare(asked(), Trace({**trace(), "image": drifted}))
    assert verdict(again) is Verdict.PASS


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, True),
        ({"system": "macOS 27"}, False),
        ({"chip": "Apple M4"}, False),
        ({"backend": "Core ML CPU_AND_GPU"}, False),
    ],
)
def test_a_candidates_golden_is_for_its_backend_system_and_chip(
    goldens: Goldens, changes: dict[str, str], passes: bool
) -> None:
    accepted(goldens.directory, asked(NEURAL), trace())
    answer = goldens.compare(asked(dataclasses.replace(NEURAL, **changes)), trace())
    assert verdict(answer) is (Verdict.PASS if passes else Verdict.FAIL)
    if not passes:
        assert "is for Core ML CPU_AND_NE, macOS 26, Apple M2" in answer.checks[0].message


def test_the_references_golden_is_for_every_machine_and_provenance_splits_nothing(goldens: Goldens) -> None:
    accepted(goldens.directory, asked(TORCH), trace())
    elsewhere = Keys("PyTorch cuda float32", "macOS 26", "Apple M2")
    assert verdict(goldens.compare(asked(elsewhere), trace())) is Verdict.PASS
    half = Keys("PyTorch cpu float16", "Linux", "x86_64")
    assert verdict(goldens.compare(asked(half), trace())) is Verdict.FAIL


def test_a_person_can_accept_for_more_places(goldens: Goldens) -> None:
    wish = dataclasses.replace(WISH, places=("system=macOS *", "chip=Apple *"))
    accepted(goldens.directory, asked(NEURAL), trace(), wish)
    there = dataclasses.replace(NEURAL, system="macOS 27", chip="Apple M9")
    assert verdict(goldens.compare(asked(there), trace())) is Verdict.PASS


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"weights": "def"}, "weights 'abc', this run has 'def'"), ({"size": (64, 64)}, "this run has [64, 64]")],
)
def test_a_golden_of_another_question_is_none(goldens: Goldens, changes: dict[str, object], named: str) -> None:
    accepted(goldens.directory, asked(), trace())
    (check,) = goldens.compare(asked(**changes), trace()).checks
    assert (check.verdict, named in check.message) == (Verdict.FAIL, True)


def test_a_setting_that_came_later_had_its_default_then(goldens: Goldens) -> None:
    golden = accepted(goldens.directory, asked(), trace())
    older = {name: value for name, value in golden.record["case"].items() if name != "images"}
    assert dataclasses.replace(golden, record={**golden.record, "case": older}).differs(asked()) == ""


def test_another_size_is_a_failure_with_both_shapes(goldens: Goldens) -> None:
    accepted(goldens.directory, asked(), trace())
    answer = goldens.compare(asked(), Trace({**trace(), "image": trace(side=48)["image"]}))
    assert "shapes differ: accepted (1, 32, 32, 3), PyTorch cpu float32 (1, 48, 48, 3)" in "".join(
        check.message for check in answer.checks
    )


def test_accepting_writes_in_the_name_of_a_person_and_is_no_pass(
    goldens: Goldens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(log.AUTHOR, "Ada")
    assert verdict(goldens.accept(asked(), trace())) is Verdict.UNKNOWN
    (line,) = log.read(goldens.directory)
    assert (line.author, line.action, line.reason) == ("Ada", "approve", "accepted by --update-golden")
    assert verdict(goldens.accept(asked(), trace())) is Verdict.PASS  # accepted before this run: it is compared
    assert len(log.read(goldens.directory)) == 1


def test_accepting_again_keeps_what_was_accepted_before(goldens: Goldens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log.AUTHOR, "Ada")
    goldens.accept(asked(), trace())
    goldens.accept(dataclasses.replace(asked(), weights="def"), trace(30))
    assert [one.standing for one in store.everything(goldens.directory)] == ["approved", "approved"]
    with pytest.raises(UsageError, match="too far from its anchor"):
        goldens.accept(asked(), trace(30))
    assert len(log.read(goldens.directory)) == 2


def test_a_machine_accepts_nothing_by_itself(goldens: Goldens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.delenv(log.AUTHOR, raising=False)
    with pytest.raises(UsageError, match=log.AUTHOR):
        goldens.accept(asked(), trace())
    assert log.read(goldens.directory) == []


def test_a_lost_golden_or_anchor_is_bad_input(goldens: Goldens) -> None:
    import shutil

    golden = accepted(goldens.directory, asked(), trace())
    shutil.rmtree(golden.folder)
    with pytest.raises(MissingError, match="its files are not there"):
        goldens.compare(asked(), trace())
    (gone,) = store.lost(goldens.directory)
    curate.reject(goldens.directory, [gone], WISH)
    assert verdict(goldens.compare(asked(), trace(20))) is Verdict.FAIL
