"""The command line: exit codes, the page, the records, and that no bad input ends in a traceback."""

from __future__ import annotations

import html.parser
from pathlib import Path

import pytest

from parity import cli
from tests.commands.printed import checked
from tests.contracts import packages

SD = ("text_encoder", "unet", "vae_decoder", "vae_encoder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return packages.folder_of(tmp_path / "models & <more>", *SD, window="0.3.0")


@pytest.mark.parametrize(
    ("demand", "code"),
    [
        ("img2img on swift==0.3.0", 0),
        ("img2img on swift>=1.1", 1),
        ("txt2img on swift", 0),
        ("img2img on mochi>=3.2", 1),
        ("fly on swift", 2),
        ("img2img on amiga", 2),
        ("img2img", 2),
    ],
)
def test_demands_decide_the_exit_code(demand: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(folder), "--require", demand]) == code
    captured = capsys.readouterr()
    if code == 1:
        assert f"required: {demand}  not met" in captured.out
        assert "→ cut the encoder at its moments: parity repair" in captured.out
    if code == 2:
        assert captured.err.startswith("parity inspect: ")


def test_json_holds_everything_and_nothing_else_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(folder), "--json", "--require", "img2img on S4"]) == 1
    document = checked(capsys.readouterr().out, "inspect")
    encoder = next(c for c in document["inspection"]["bundles"][0]["components"] if c["kind"] == "vae_encoder")
    assert encoder["contract"] == "legacy"
    assert encoder["windows"] == ["C2", "C3"]
    cells = {(c["task"], c["consumer"]): c for c in document["capabilities"][0]["cells"]}
    assert cells["img2img", "S4"]["verdict"] == "no"
    assert cells["img2img", "S4"]["reasons"][0]["repair"] == "encoder-z"
    assert document["requirements"][0]["met"] is False


class Page(html.parser.HTMLParser):
    """Collects links, their targets, and anything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        if tag == "a":
            self.links.add((values["href"] or "").removeprefix("#"))
        elif tag in ("script", "link", "img", "iframe"):
            self.fetched.append(tag)


def test_the_page_is_self_contained_escaped_and_linked(folder: Path, tmp_path: Path) -> None:
    packages.component(folder, "unet", model_id='"><script>alert(1)</script>')
    target = tmp_path / "out" / "page.html"
    assert cli.main(["inspect", str(folder), "--html", str(target)]) == 0
    text = target.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.fetched == []
    assert page.links
    assert page.links <= page.ids
    assert "http" not in text.replace("https://www.w3.org", "")
    assert "models &amp; &lt;more&gt;" in text
    assert "Encoder.swift:96" in text


def test_evidence_is_printed_on_request(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    cli.main(["inspect", str(folder), "--evidence"])
    assert "names, shapes and dtypes of the features → 0.2.0 to 0.3.0" in capsys.readouterr().out


def test_markup_in_names_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages.component(tmp_path / "[bold]x[/bold] [/red]", "unet", file="[red]_unet")
    (tmp_path / "[bold]x[/bold] [/red]" / "[blink].zip").write_text("x")
    assert cli.main(["inspect", str(tmp_path)]) == 0
    assert "[/red]" in capsys.readouterr().out


def test_an_app_of_ones_own_is_judged(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "mine.toml"
    table.write_text('[[consumer]]\nid = "mine-1"\napp = "mine"\nname = "My app"\nfirst = "1.0"\nlike = "S3"\n')
    options = ["--tables", str(table), "--require", "img2img on mine"]
    assert cli.main(["inspect", str(folder), *options]) == 0
    assert "mine" in capsys.readouterr().out
    faulty = tmp_path / "faulty.toml"
    faulty.write_text("[[consumer]]\nid = 3\n")
    assert cli.main(["inspect", str(folder), "--tables", str(faulty)]) == 2
    assert "faulty.toml: consumer[0]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "none"],
        ["repair", "none", "-o", "out"],
        ["repair", "none", "-o", "out", "--in-place"],
        ["diff", "none", "none"],
        ["diff", "none.mlpackage", "none.mlpackage"],
    ],
)
def test_what_is_not_there_is_said_without_a_traceback(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith(f"parity {words[0]}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_broken_models_is_refused_by_repair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packages.component(tmp_path / "m", "vae_encoder", window="0.4.0")
    (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"\xff")
    assert cli.main(["repair", str(tmp_path / "m"), "-o", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert f"{path.name}/Data/com.apple.CoreML/model.mlmodel: not a Core ML model" in printed.out
    assert f"{path.name} is damaged" in printed.err
    assert not (tmp_path / "out").exists()


def test_all_columns_fit_into_80(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    packages.folder_of(folder, "control-unet", "controlnet", window="0.4.0")
    cli.main(["inspect", str(folder)])
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("Swift package "))
    assert head.split()[2:] == ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "1.0.0", "2023-08", "1.1", "main"]
    row = next(line for line in lines if line.startswith("image to image"))
    assert len(row) <= 80
    assert row.count("✗") == 5
    assert row.count("✓") == 1
