"""A page in headless Chromium: a script acts as a reader would and returns what it found."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--virtual-time-budget=20000"),
)
_PATIENCE = 120  # seconds for the browser


def browsed(page: str, script: str, folder: Path, *, width: int = 1200) -> dict[str, Any]:
    """Open a page of a given width, run the body of an async function in it, and return its object.

    ``errors`` of the returned object are messages of scripts that ended with an error.
    """
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(_NAMES)}); Debian has it as chromium")
    catch = '<script>window.failures = []; addEventListener("error", (event) => failures.push(event.message));</script>'
    act = (
        "<script>(async () => { let found; try { found = await (async () => {" + script + "})(); }"
        " catch (error) { found = {}; failures.push(String(error)); } "
        'parent.document.getElementById("found").textContent = JSON.stringify({ errors: failures, ...found }); })();'
        "</script>"
    )
    acted = page.replace("<head>", f"<head>{catch}", 1).replace("</body>", f"{act}</body>", 1)
    style = f"width:{width}px;height:2000px;border:0"
    frame = f'<iframe style="{style}" srcdoc="{html.escape(acted, quote=True)}"></iframe>'
    target = folder / "browsed.html"
    target.write_text(f'<!doctype html><meta charset="utf-8"><pre id="found"></pre>{frame}', encoding="utf-8")
    command = [program, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", target.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    told = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stderr[-2000:]
    assert told[1], f"the script did not come to its end: {done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(html.unescape(told[1]))
    return found
