"""A folder of the hub: only that folder, once, resumed, as real files, and offline with what to do.

The hub is a server of this test's own, with the addresses that ``huggingface_hub`` asks; its client is the real one, in
a process of its own, since it reads its settings when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from parity.errors import MissingError, UsageError
from parity.models import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"models",
    "original/packages/Unet.mlpackage/Manifest.json": b"{}",
    "original/packages/Unet.mlpackage/Data/com.apple.CoreML/weights/weight.bin": bytes(range(256))
    * 98304,  # its client writes pieces of 10 MB
    "split_einsum/packages/Unet.mlpackage/Manifest.json": b"{ }",
}
BIG = "original/packages/Unet.mlpackage/Data/com.apple.CoreML/weights/weight.bin"


class Hub:
    """What the server was asked, and how often it is to break off."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.break_off = 0


class Server(ThreadingHTTPServer):
    hub: Hub


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        where = self.path.partition("?")[0]
        self.server.hub.asked.append((self.command, where, self.headers.get("Range", "")))
        name = re.sub(r"^/owner/models/resolve/[^/]+/", "", where)
        if where.startswith("/api/models/owner/models/tree/"):
            self._json([{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in FILES.items()])
        elif where.startswith("/api/models/owner/models"):
            siblings = [{"rfilename": name} for name in FILES]
            self._json({"id": "owner/models", "sha": COMMIT, "siblings": siblings, "private": False})
        elif name in FILES:
            self._file(name)
        else:
            self._json({"error": "not found"}, status=404)

    def _json(self, content: object, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _file(self, name: str) -> None:
        data = FILES[name]
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        broken = name == BIG and self.server.hub.break_off > 0
        self.wfile.write(data[start : len(data) // 2] if broken else data[start:])
        if broken:
            self.server.hub.break_off -= 1
            self.wfile.flush()
            self.close_connection = True


@pytest.fixture
def served() -> Iterator[tuple[Hub, str]]:
    server = Server(("127.0.0.1", 0), Handler)
    server.hub = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def ask(folder: Path, endpoint: str, name: str, *, offline: bool = False) -> tuple[int, str]:
    """Ask for models in another process; its exit code and output."""
    program = (
        "import sys; from pathlib import Path; from parity.models import hub\n"
        "from parity.errors import ParityError\n"
        "try: print(hub.local(Path(sys.argv[1])))\n"
        "except ParityError as error: print(error); sys.exit(2)\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PARITY_CACHE": str(folder / "cache"),
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, name], env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    return done.returncode, (done.stdout + done.stderr if done.returncode not in (0, 2) else done.stdout).strip()


def test_one_folder_is_downloaded_once_and_serves_offline(served: tuple[Hub, str], tmp_path: Path) -> None:
    state, endpoint = served
    state.break_off = 1
    code, text = ask(tmp_path, endpoint, "owner/models:original/packages")
    assert code == 0, text
    found = Path(text)
    names = {path.relative_to(found).as_posix(): path for path in found.rglob("*") if path.is_file()}
    wanted = {name.removeprefix("original/packages/") for name in FILES if name.startswith("original/")}
    assert set(names) == wanted
    assert not any(path.is_symlink() for path in names.values())  # Core ML reads files
    assert all(path.read_bytes() == FILES[f"original/packages/{name}"] for name, path in names.items())
    assert not any("split_einsum" in where for _, where, _ in state.asked)
    resumed = [window for command, where, window in state.asked if command == "GET" and where.endswith("weight.bin")]
    assert len(resumed) == 2  # broken off in the middle, and taken up there
    assert re.fullmatch(r"bytes=[1-9]\d+-.*", resumed[1])
    asked = len(state.asked)
    assert ask(tmp_path, endpoint, "owner/models:original/packages", offline=True) == (0, text)
    assert len(state.asked) == asked


@pytest.mark.long
def test_what_is_not_there_is_said_with_what_to_do(served: tuple[Hub, str], tmp_path: Path) -> None:
    _, endpoint = served
    code, text = ask(tmp_path, endpoint, "owner/models:original/compiled")
    assert code == 2
    assert "owner/models has no folder original/compiled; it has original/packages, split_einsum/packages" in text
    code, text = ask(tmp_path, endpoint, "owner/models:")
    assert code == 2
    assert "owner/models:FOLDER; it has original/packages, split_einsum/packages" in text
    code, text = ask(tmp_path, endpoint, "owner/models:original/packages", offline=True)
    assert code == 2
    assert "hf download owner/models --include 'original/packages/*'; or copy that folder here" in text


def test_names_that_are_not_the_hubs(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert hub.local(tmp_path / "models") == tmp_path / "models"
    for name in (tmp_path / "none", Path("none"), Path("a/b/c")):
        with pytest.raises(MissingError, match="no such file or folder"):
            hub.local(name)
    with pytest.raises(UsageError, match="a folder within the repository"):
        hub.local(Path("owner/models:../../etc"))
