"""Time and memory: what is measured, what is published, and what happens where measuring fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parity import cli
from parity.bench import measure, published
from parity.bench.protocol import NAMED, Component, Measured, Protocol, median
from parity.errors import ParityError
from tests.commands.printed import checked


def test_medians_count() -> None:
    assert median([3.0, 1.0, 9.0]) == 3.0
    assert median([]) == 0
    assert Measured("x", pictures=(2.0, 1.0, 7.0)).record()["picture"] == 2.0


def test_published_tables_name_their_source_and_their_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    sources = published.sources()
    assert {"ml-stable-diffusion", "ten-steps"} <= {source.name for source in sources}
    assert set(NAMED) <= {source.name for source in sources}
    for source in sources:
        assert source.origin
        assert source.protocol
        assert all(row.seconds or row.rate for row in source.rows)
    (early,) = (source for source in sources if source.name == "ml-stable-diffusion")
    assert f"{NAMED[early.name].steps} steps" in early.protocol
    assert cli.main(["bench", "--published"]) == 0
    out = capsys.readouterr().out
    assert "none of it was reproduced" in out
    assert "MacBook Pro M2" in out
    assert "    first load: text_encoder 19.5 s, unet 139.2 s, vae_decoder 6.2 s" in out.splitlines()
    assert max(map(len, out.splitlines())) <= 80
    assert cli.main(["bench", "--published", "--json"]) == 0
    assert len(checked(capsys.readouterr().out, "bench published")["sources"]) == len(sources)


def test_the_table_fits_80_columns() -> None:
    from parity.commands.bench import _lines

    parts = tuple(
        Component(name, 139.2, 0.04, 2.25, (2.25,), 3 << 30, 2 << 30, 5 << 20) for name in ("unet", "vae_decoder")
    )
    one = Measured("Core ML CPU_AND_NE", parts, (22.0, 23.0), 1.1, 9 << 30)
    lines = list(_lines(one, Protocol()))
    assert max(map(len, lines)) <= 80
    assert "  a picture in 22.50 s (22.00 s to 23.00 s), a step in 1.10 s, peak 9.00 GiB" in lines
    assert "not measured: no such unit" in "".join(_lines(Measured("x", problem="no such unit"), Protocol()))


def test_figures_are_a_document(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command's own path, with figures that were not measured now."""
    parts = (Component("unet", 1.5, 0.5, 0.25, (0.25, 0.5), 3 << 30, 2 << 30, 5 << 20),)
    found = [Measured("Core ML CPU_AND_NE", parts, (2.0, 1.0), 0.125, 1 << 30), Measured("x", problem="no such unit")]
    monkeypatch.setattr(measure, "measure", lambda *_, **__: iter(found))
    assert cli.main(["bench", "--model-version", "tiny-sd", "--repeats", "2", "--json"]) == 1  # one was not measured
    document = checked(capsys.readouterr().out, "bench")
    assert document["candidates"][0]["picture"] == 1.5
    assert document["candidates"][1]["problem"] == "no such unit"
    assert document["machine"]["architecture"]


def test_the_table_of_a_protocol_stands_below_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "measure", lambda *options, **others: iter([Measured("x", problem="not here")]))
    assert cli.main(["bench", "--protocol", "ten-steps", "--model-version", "tiny-sd"]) == 1
    out = capsys.readouterr().out
    assert "10 steps of pndm" in out
    assert "ten-steps: a Japanese note on Core ML Stable Diffusion" in out
    assert "MacBook Air M2" in out
    assert "ml-stable-diffusion" not in out
    assert cli.main(["bench", "--model-version", "tiny-sd"]) == 1
    assert "MacBook" not in capsys.readouterr().out


_PEAKS = """
import numpy as np
from parity.bench import child
before = child.peak()
large = np.ones(64 << 17)  # 64 MiB
held = child.peak()
del large
begun = child.begin_peak()
again = np.ones(64 << 17)
print(before >> 20, held >> 20, begun >> 20, child.peak() >> 20)
"""


def test_a_peak_begins_anew() -> None:
    """What was let go before is not in it, where the system can tell (Linux); a process of its own has no past."""
    done = subprocess.run([sys.executable, "-c", _PEAKS], capture_output=True, text=True, check=True)
    before, held, begun, again = (int(word) for word in done.stdout.split())
    assert held - before > 60
    if Path("/proc/self/clear_refs").exists():
        assert begun < held - 30
        assert again - begun > 50


def test_a_process_that_dies_is_said_with_its_last_words() -> None:
    die = "import os, sys\nprint('the driver is gone', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 11)"
    with pytest.raises(ParityError, match=r"SIGSEGV.*the driver is gone"):
        measure._answer({}, (sys.executable, "-c", die))


@pytest.mark.parametrize("option", ["--steps", "--repeats"])
def test_numbers_below_one_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--model-version", "tiny-sd", option, "0"]) == 2
    assert f"{option} 0: at least 1 is needed" in capsys.readouterr().err


@pytest.mark.slow
def test_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--model-version", "tiny-sd", "--coreml-runtime", "reference", "--with-reference"]
    assert cli.main([*arguments, "--steps", "2", "--repeats", "1", "--json"]) == 0
    found = checked(capsys.readouterr().out, "bench")
    assert found["protocol"]["steps"] == 2
    reference, candidate = found["candidates"]
    assert (reference["numerics"], candidate["numerics"]) == ("PyTorch cpu float32", "reference runtime (declared)")
    for one in (reference, candidate):
        assert [part["name"] for part in one["components"]] == ["text_encoder", "unet", "vae_decoder"]
        assert len(one["pictures"]) == 1
        assert 0 < one["step"] < one["picture"]
        assert one["memory"] > max(part["memory"] for part in one["components"])
        assert all(part["first"] > 0 and part["again"] > 0 and part["call"] > 0 for part in one["components"])
    for part in candidate["components"]:  # what is sure: no process needs less
        assert 0 < part["stored"] + part["alive"] < part["memory"]
