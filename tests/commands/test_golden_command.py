"""``parity golden`` from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity import assets, cli
from parity.suite.goldens import log, store
from parity.suite.goldens.keys import Keys
from tests.commands.printed import checked
from tests.suite.goldens.drawn import NEURAL, accepted, asked, trace


@pytest.fixture(autouse=True)
def author(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log.AUTHOR, "Ada")


def run(capsys: pytest.CaptureFixture[str], directory: Path, *words: object) -> tuple[int, str, str]:
    action, *rest = [str(word) for word in words]
    code = cli.main(["golden", action, *rest, "--golden-dir", str(directory)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_from_a_picture_that_waits_to_an_accepted_one_and_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Both for people and as documents."""
    golden = store.write(tmp_path, asked(NEURAL), trace())
    code, out, _ = run(capsys, tmp_path, "list")
    assert code == 0
    assert f"new       {golden.id}  waits for a decision" in out
    code, out, _ = run(capsys, tmp_path, "approve", golden.id, "--reason", "as the original", "--for", "system=macOS *")
    assert (code, "Core ML CPU_AND_NE, macOS *, Apple M2; begins a line" in out) == (0, True)
    code, out, _ = run(capsys, tmp_path, "show", "org_model/")
    assert code == 0
    for told in ("approved", "accepted  for Core ML CPU_AND_NE, macOS *", "approve by Ada: as the original", "itself"):
        assert told in out
    (shown,) = checked(run(capsys, tmp_path, "show", "org", "--json")[1], "golden show")["goldens"]
    assert (shown["golden"], shown["standing"]) == (golden.id, "approved")
    assert shown["accepted"]["system"] == "macOS *"
    assert shown["distance"] == {"anchor": golden.id, "there": True, "figures": None}
    assert [held["point"] for held in shown["holds"]] == list(golden.open())
    code, out, _ = run(capsys, tmp_path, "reject", "org*", "--reason", "too dark", "--json")
    (decision,) = checked(out, "golden decisions")["decisions"]
    assert (code, decision["action"], decision["author"], decision["golden"]) == (0, "reject", "Ada", golden.id)
    code, out, _ = run(capsys, tmp_path, "list", "--json", "--only", "rejected")
    (row,) = checked(out, "golden list")["goldens"]
    assert (row["golden"], row["standing"], row["last"]["reason"]) == (golden.id, "rejected", "too dark")
    assert run(capsys, tmp_path, "prune", "--rejected", "--dry-run")[1] == f"would remove {golden.id}\n"
    dry = checked(run(capsys, tmp_path, "prune", "--rejected", "--dry-run", "--json")[1], "golden prune")
    assert (dry["removed"], dry["goldens"], dry["kept"]) == (False, [golden.id], [])
    assert golden.folder.is_dir()
    assert run(capsys, tmp_path, "prune", "--rejected")[0] == 0
    assert not (tmp_path / "org_model").exists()
    assert [one.action for one in log.read(tmp_path)] == ["approve", "reject", "prune"]


def test_diff_says_what_differs_and_draws_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first = accepted(tmp_path, asked(), trace())
    second = store.write(tmp_path, asked(weights="def"), trace(4))
    code, out, _ = run(capsys, tmp_path, "diff", second.id, "-o", tmp_path / "apart.png")
    assert code == 1
    assert f"A {first.id}: approved" in out
    assert "image: image_psnr 36.09 dB, image_window_rms 4" in out  # 20 log10(255 / 4)
    assert "weights: abc -> def" in out
    assert "latents/initial: equal" in out
    code, out, _ = run(capsys, tmp_path, "diff", second.id, "--json")
    document = checked(out, "golden diff")
    assert (code, document["equal"], document["file"]) == (1, False, None)
    assert document["settings"] == [{"part": "weights", "name": "weights", "first": "abc", "second": "def"}]
    points = {point["point"]: point for point in document["points"]}
    assert points["image"]["figures"]["image_psnr"] == pytest.approx(20 * np.log10(255 / 4))
    assert (points["image"]["state"], points["latents/initial"]["state"]) == ("differs", "equal")
    drawn = np.asarray(Image.open(tmp_path / "apart.png"))
    assert drawn.shape == (32, 96, 3)
    assert (drawn[:, 64:] == 32).all()  # eight times four levels
    assert run(capsys, tmp_path, "diff", first.id, first.id)[0] == 0


def test_list_tells_equal_pictures_unused_ones_and_lost_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = accepted(tmp_path, asked(), trace())
    second = store.write(tmp_path, asked(weights="def"), trace())
    cases = tmp_path / "cases.toml"
    cases.write_text('[[case]]\nname = "other"\ntask = "txt2img"\nprompt = "x"\n')
    out = run(capsys, tmp_path, "list", "--cases", cases)[1]
    assert f"unused    {first.id}" in out
    assert f"same picture as {second.id}" in out
    assert run(capsys, tmp_path, "prune", "--unused", cases)[1] == f"removed {first.id}\n"
    third = accepted(tmp_path, asked(), trace(1))
    shutil.rmtree(third.folder)
    assert f"lost      {third.id}" in run(capsys, tmp_path, "list")[1]
    assert run(capsys, tmp_path, "reject", third.id, "--reason", "it is gone")[0] == 0
    assert "lost" not in run(capsys, tmp_path, "list")[1]


def test_anchors_of_accepted_goldens_stay(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first = accepted(tmp_path, asked(), trace())
    picture = np.array(trace()["image"])
    picture[0, :4] += 1
    second = accepted(tmp_path, asked(), type(trace())({**trace(), "image": picture}))
    assert second.approval is not None
    assert second.approval.anchor == first.id
    assert f"anchor    {first.id}, image_psnr 57.16 dB" in run(capsys, tmp_path, "show", second.id)[1]
    (shown,) = checked(run(capsys, tmp_path, "show", second.id, "--json")[1], "golden show")["goldens"]
    (psnr, *_) = shown["distance"]["figures"]
    assert (psnr["metric"], psnr["verdict"]) == ("image_psnr", "pass")
    assert psnr["value"] == pytest.approx(57.16, abs=0.01)
    run(capsys, tmp_path, "reject", first.id, "--reason", "older")
    code, out, err = run(capsys, tmp_path, "prune", "--rejected")
    assert (code, out) == (0, "")
    assert f"kept {first.id}: it is the anchor of {second.id}" in err
    kept = checked(run(capsys, tmp_path, "prune", "--rejected", "--json")[1], "golden prune")["kept"]
    assert kept == [f"{first.id}: it is the anchor of {second.id}"]


def test_goldens_of_older_releases_are_taken_over_byte_for_byte(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shipped = [one for one in store.everything(assets.golden()) if "keys" not in one.record]  # made by such a release
    older, content = tmp_path / "golden", {}
    for one in shipped:
        shutil.copytree(one.folder, older / one.series)
        content[one.id] = {path.name: path.read_bytes() for path in one.folder.iterdir()}
    code, _, err = run(capsys, older, "list")
    assert code == 2
    assert f"parity golden migrate --golden-dir {older}" in err
    assert run(capsys, older, "migrate")[0] == 0
    moved = store.everything(older)
    assert [one.id for one in moved] == [one.id for one in shipped]
    for one in moved:
        assert {path.name: path.read_bytes() for path in one.folder.iterdir()} == content[one.id]
        assert one.keys == Keys("PyTorch cpu float32", "Linux", "x86_64")
        assert one.open()["image"].dtype == np.uint8
    assert run(capsys, older, "migrate")[1] == ""  # nothing is left to take over


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["approve", "nothing", "--reason", "x"], "no golden in"),
        (["approve", "org_model/txt2img-pmdn", "--reason", "x"], "did you mean org_model/txt2img-pndm"),
        (["approve", "org", "--reason", " "], "--reason is needed"),
        (["approve", "org", "--reason", "x", "--for", "os=*"], "no key 'os'"),
        (["prune"], "--rejected, --new or --unused"),
        (["diff", "org"], "name the second one"),
        (["diff", "org", "org", "org"], "one golden or two"),
        (["list", "--cases", "none.toml"], "no such file"),
        (["diff", "org", "org", "-o", "none"], ""),
    ],
)
def test_bad_input_is_one_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store.write(tmp_path, asked(), trace())
    code, _, err = run(capsys, tmp_path, *words)
    assert says in err
    assert code == (2 if says else 0)
    assert log.read(tmp_path) == []


def test_all_goldens_that_words_name_are_accepted_or_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store.write(tmp_path, asked(), trace())
    broken = store.write(tmp_path, asked(weights="def"), trace())
    (broken.folder / "image.png").write_bytes(b"")
    code, _, err = run(capsys, tmp_path, "approve", "org", "--reason", "all of them")
    assert (code, "image.png" in err) == (2, True)
    assert log.read(tmp_path) == []


def test_the_shipped_goldens_are_what_was_accepted() -> None:
    goldens = store.everything(assets.golden())
    assert len(goldens) == 34
    assert store.lost(assets.golden()) == []
    for golden in goldens:
        assert golden.standing == "approved"
        golden.open()
