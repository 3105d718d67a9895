"""What works where only the light installation is, without torch, and what do the other commands say there?"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from parity import assets

# the imports of the extra `run` fail as they do where nothing is installed
WITHOUT = """
import sys
ABSENT = {"diffusers", "flip_evaluator", "pytest", "skimage", "ssimulacra2", "torch", "transformers"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ABSENT else found(name, package)
sys.meta_path.insert(0, Absent())
from parity.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a converter of 2023 wrote it."""
    folder = tmp_path_factory.mktemp("models")
    with zipfile.ZipFile(assets.fixtures() / "eras" / "6.1" / "models.zip") as archive:
        archive.extractall(folder)
    return folder


def _parity(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=300, check=False)


@pytest.mark.long
def test_models_are_read_repaired_and_compared_without_torch(models: Path, tmp_path: Path) -> None:
    unet = str(next(path for path in models.rglob("*unet.mlpackage")))
    noise = str(tmp_path / "noise.npy")
    for words in (
        ["inspect", str(models)],
        ["diff", unet, unet],
        ["repair", str(models), "-o", str(tmp_path / "repaired"), "--no-proof"],
        ["mil", "show", unet, "--stats"],
        ["latents", "--rng", "torch-cpu", "--seed", "93", "--shape", "1,4,8,8", "-o", noise],
        ["latents", "--compare", noise, noise],
        ["cache", "list"],
        ["cache", "list", "--json"],
        ["mil", "show", unet, "--stats", "--json"],
    ):
        done = _parity(*words)
        assert done.returncode == 0, (words, done.stderr)
    assert list((tmp_path / "repaired").rglob("*.mlpackage"))


@pytest.mark.long
def test_other_commands_name_the_extra(models: Path, tmp_path: Path) -> None:
    for words in (
        ["run", "--only", "txt2img-ddim", "--compatibility", "none"],
        ["convert", "tiny-sd", "-o", str(tmp_path / "converted")],
        ["repair", str(models), "-o", str(tmp_path / "repaired")],
        ["mil", "profile", str(next(models.rglob("*unet.mlpackage")))],
    ):
        done = _parity(*words)
        assert done.returncode == 2, words
        assert done.stderr.strip().endswith("pip install 'coreml-parity[run]'"), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
