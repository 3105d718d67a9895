"""Progress: a bar where there is a terminal, a line now and then elsewhere, on standard error alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from parity.report import progress

SHOW = (
    "import time\nfrom parity.report import progress\nwith progress.shown(121) as shown:\n"
    "    shown.say('a sentence of ' + 'many ' * 40 + 'words')\n    shown.advance(7)\n    time.sleep(0.5)\n"
)


def test_without_a_terminal_a_line_now_and_then(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.shown(4, every=0.05) as shown:
        shown.advance(1)
        shown.say("ddim: step03")
        time.sleep(0.3)
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) >= 2
    assert lines[-1] == "1 of 4 cells after 0:00: ddim: step03"


def test_a_short_run_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.shown(4) as shown:
        shown.say("x")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
def test_the_bar_fits_a_terminal_of_80_columns() -> None:
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    child = subprocess.Popen(
        [sys.executable, "-c", SHOW], stderr=slave, stdout=subprocess.PIPE, env={**environment, "TERM": "xterm"}
    )
    os.close(slave)
    said = b""
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        said += block
    out, _ = child.communicate(timeout=60)
    os.close(master)
    assert (child.returncode, out) == (0, b"")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    rows = [row for row in re.split(r"[\r\n]+", plain) if row.strip()]
    assert any("7/121" in row and "a sentence of many" in row for row in rows)
    assert max(map(len, rows)) <= 80
