"""A full disk, whoever notices it: one message, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from parity import convert
from parity.convert import disk, lower, plan
from parity.errors import ParityError
from parity.models import scratch

Model = Callable[[str], Path]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.long
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(path: Path, spec: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lower, "write_spec", full)
    with pytest.raises(ParityError, match=r"text_encoder\.mlpackage cannot be written: .*nothing was left behind"):
        convert.convert(model("sd1"), tmp_path / "out", components=["text_encoder"], check=False)
    assert files(tmp_path / "out") == []


LIMITED = """
import json, resource, sys
from parity import convert
from parity.convert import build
from parity.errors import ParityError

model, output, limits = sys.argv[1:]
told = {}
highest = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for component, (limit, large) in json.loads(limits).items():
    build.LARGE = large
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, highest))
    try:
        convert.convert(model, output, components=[component], check=False)
    except ParityError as error:
        told[component] = str(error)
print(json.dumps(told))
"""
REFUSED = {
    "text_encoder": "the disk is probably full ([MIL FileWriter]",  # coremltools' native writer
    "vae_decoder": "File too large",  # coremltools in Python
    "unet": "File too large",  # the scratch file
}


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_limits_that_real_writes_meet(model: Model, tmp_path: Path) -> None:
    """The system itself refuses; no function is replaced."""
    limits = {"text_encoder": (20_000, 10**9), "vae_decoder": (110_000, 10**9), "unet": (20_000, 1)}
    command = [sys.executable, "-c", LIMITED, str(model("sd1")), str(tmp_path / "out"), json.dumps(limits)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert told.keys() == REFUSED.keys()
    for component, message in REFUSED.items():
        assert f"cannot be written: {message}" in told[component]
        assert "nothing was left behind" in told[component]
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("filesystem error: cannot copy: Input/output error [/a/b] [/c/d]"),
            "probably full (filesystem error: cannot copy: Input/output error); nothing was left behind",
        ),
        (shutil.Error([("/a", "/b", "[Errno 28] No space left on device")]), "[Errno 28] No space left on device;"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system;"),
    ],
)
def test_what_python_and_native_code_say(tmp_path: Path, error: Exception, message: str) -> None:
    """The texts are those that a full tmpfs made."""
    with pytest.raises(ParityError) as caught, disk.writing(tmp_path / "unet.mlpackage"):
        raise error
    assert message in str(caught.value)
    assert "GiB are free now; make room or name another folder" in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), FileNotFoundError(errno.ENOENT, "no such file")])
def test_other_errors_stay_as_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, disk.writing(tmp_path / "unet.mlpackage"):
        raise error
    assert caught.value is error


def test_too_little_space_is_noticed_first(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    (job,) = plan.plan(model("sd1"), components=["unet"])
    from parity.models import weights

    assert job.weights is not None
    needed = 4 * weights.count(job.weights)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, needed))
    disk.require_space(job, tmp_path / "out" / "unet.mlpackage")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, needed - 1))
    with pytest.raises(ParityError, match=r"0\.0 GiB are needed, 0\.0 GiB are free"):
        convert.convert(model("sd1"), tmp_path / "out", components=["unet"])
    assert files(tmp_path / "out") == []
    monkeypatch.setattr(disk, "LARGE", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, needed + needed // 4 * scratch.BYTES - 1))
    with pytest.raises(ParityError, match="are needed"):
        disk.require_space(job, tmp_path / "out" / "unet.mlpackage")
