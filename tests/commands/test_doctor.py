"""``parity doctor`` says what is there and what is missing, without importing what it asks about."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parity import cli
from parity.commands import doctor
from tests.commands.printed import checked


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Installed versions, as the test wants them; empty for a package that is not installed."""
    changed: dict[str, str] = {}
    real = doctor.metadata_version
    monkeypatch.setattr(doctor, "metadata_version", lambda name: changed.get(name, real(name)))
    return changed


def report(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = cli.main(["doctor", "--json", "--no-devices"])
    return code, checked(capsys.readouterr().out, "doctor")


def test_this_installation_lacks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = report(capsys)
    assert (code, found["problems"]) == (0, [])
    packages = {package["name"]: package for package in found["packages"]}
    assert packages["torch"]["installed"] == importlib.metadata.version("torch")  # without the build that torch adds
    assert packages["torch"]["state"] == "ok"


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("torch", "2.14.0", "torch 2.14.0 is outside the tested range >=2.4,<2.14"),
        ("numpy", "2.4.0rc1", "numpy 2.4.0rc1 is outside the tested range"),
        ("coremltools", "", "coremltools is not installed; pip install 'coremltools>=8.3,<9.1'"),
    ],
)
def test_what_is_missing_or_untested_is_a_problem(
    capsys: pytest.CaptureFixture[str], versions: dict[str, str], name: str, version: str, words: str
) -> None:
    versions[name] = version
    code, found = report(capsys)
    assert code == 1
    (problem,) = found["problems"]
    assert words in problem


def test_an_extra_that_is_not_installed_is_no_problem(
    capsys: pytest.CaptureFixture[str], versions: dict[str, str]
) -> None:
    versions["scikit-learn"] = ""
    code, found = report(capsys)
    (package,) = (package for package in found["packages"] if package["name"] == "scikit-learn")
    assert (code, package["state"], package["extra"]) == (0, "optional", "compress")


def test_an_unwritable_cache_is_a_problem(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PARITY_CACHE", str(tmp_path / "file" / "cache"))
    code, found = report(capsys)
    assert code == 1
    assert "cannot be written" in found["problems"][0]
    assert found["cache"]["chosen_by"] == "PARITY_CACHE"


def test_the_home_folder_is_not_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PARITY_CACHE", str(tmp_path / "cache"))
    cli.main(["doctor", "--no-devices"])
    out = capsys.readouterr().out
    assert str(tmp_path) not in out
    assert "cache: ~/cache" in out
    assert "PARITY_CACHE=~/cache" in out


def test_a_torch_that_does_not_start_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ASK_TORCH", "raise ImportError('libtorch.so: cannot open shared object file')")
    found = doctor.examine()
    assert found.problems == ("torch does not start: ImportError: libtorch.so: cannot open shared object file",)


@pytest.mark.long
def test_devices_are_those_that_torch_names() -> None:
    import torch

    devices = doctor.examine().devices
    assert devices["cpu"] == torch.backends.cpu.get_cpu_capability()
    assert devices["mps"] == torch.backends.mps.is_available()
    assert len(devices["cuda"]) == torch.cuda.device_count()


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from parity import cli; cli.main(['doctor', '--no-devices']); "
        "print(sorted({'torch', 'diffusers', 'transformers', 'coremltools'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
