"""``parity --print-completion``: a script for the shell, with the options of every command."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from parity import cli


def test_without_shtab_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["--print-completion", "bash"]) == 2
    assert "pip install 'coreml-parity[completion]'" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_knows_commands_and_options(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    pytest.importorskip("shtab", reason="completion scripts are made by shtab, an extra")
    assert cli.main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*cli.COMMANDS, "--attention", "--older-than", "--require", "profile"):
        assert word in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="completion scripts are made by shtab, an extra")
    cli.main(["--print-completion", "bash"])
    script = capsys.readouterr().out
    ask = 'COMP_WORDS=(parity repa); COMP_CWORD=1; _shtab_parity parity repa parity; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["repair"], done.stderr
