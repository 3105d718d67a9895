"""A damaged file among the models fails the test that needs it: no run is green because of a skip."""

from __future__ import annotations

import shutil

import pytest

from parity import convert, recipes

pytest_plugins = ["pytester"]

CASES = '[[case]]\nname = "quick"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "euler"\nsteps = 1\n'


@pytest.mark.slow  # `parity run` says the same: tests/commands/test_run.py
def test_it_fails_with_the_path(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makefile(".toml", cases=CASES)
    for path in convert.cached(recipes.build("tiny-sd")).values():
        shutil.copytree(path, pytester.path / "models" / path.name)
    (damaged,) = (pytester.path / "models").glob("*_vae_decoder.mlpackage")
    (damaged / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").write_bytes(b"x")
    result = pytester.runpytest_subprocess(
        *("--pyargs", "parity.suite", "--cases=cases.toml", "--models=models", "--model-version=tiny-sd"),
        *("--coreml-runtime=reference", "--compatibility=none"),
    )
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert f"vae_decoder: not compared: models/{damaged.name}" in text
    assert "1 unknown" in text
