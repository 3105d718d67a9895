"""Does what is published install and work in empty environments: every Python, both ends of the declared versions?

``make matrix`` builds sdist and wheel and calls this. Each entry is an environment of its own, removed afterwards:

* the light installation: no torch comes with it, and models are read, compared and repaired, noise is drawn, ``parity
  doctor`` finds nothing missing or outside the tested versions;
* the extra ``run``: a first comparison with the model that comes with the package, conversion included.

*Newest* is what pip chooses by itself, *lowest* the oldest of each that ``pyproject.toml`` allows. The lowest releases
have no wheels for Python 3.13, so there is no such entry.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lowest import lowest

ROOT = Path(__file__).parents[1]
ENTRIES = (  # Python, versions, archive
    ("3.10", "lowest", "wheel"),
    ("3.12", "lowest", "wheel"),
    ("3.10", "newest", "wheel"),
    ("3.11", "newest", "sdist"),
    ("3.12", "newest", "wheel"),
    ("3.13", "newest", "wheel"),
)
_CELL = ("run", "--only", "txt2img-ddim", "--compatibility", "none", "--parity-report", "report")


@dataclass(frozen=True)
class Entry:
    """One environment.

    Attributes
    ----------
    python : str
        Such as ``3.12``.
    versions : str
        ``lowest`` or ``newest``.
    archive : pathlib.Path
        The wheel or the sdist.
    """

    python: str
    versions: str
    archive: Path

    @property
    def name(self) -> str:
        """For tables."""
        kind = "wheel" if self.archive.suffix == ".whl" else "sdist"
        return f"Python {self.python}, {self.versions}, {kind}"


class FailedError(Exception):
    """A step did not end as it must."""


class Environment:
    """An empty environment, and a folder to work in.

    Parameters
    ----------
    interpreter : str
        Python that makes it.
    folder : pathlib.Path
        Empty.
    """

    def __init__(self, interpreter: str, folder: Path) -> None:
        self.folder = folder
        self._variables = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        }
        self._variables["PARITY_CACHE"] = str(folder / "cache")
        self.python = folder / "venv" / "bin" / "python"
        self.run(interpreter, "-m", "venv", str(folder / "venv"))
        self.run(str(self.python), "-m", "pip", "install", "--quiet", "--upgrade", "pip")

    def run(self, *command: str) -> str:
        """Run a command and return what it printed."""
        done = subprocess.run(command, cwd=self.folder, env=self._variables, capture_output=True, text=True)
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
            raise FailedError(f"exit code {done.returncode}: {' '.join(command)}\n{said}")
        return done.stdout

    def install(self, what: str, constraints: Path | None) -> None:
        """Install with pip."""
        limits = ("--constraint", str(constraints)) if constraints else ()
        self.run(str(self.python), "-m", "pip", "install", "--quiet", *limits, what)

    def parity(self, *words: str) -> str:
        """Run the program that was installed."""
        return self.run(str(self.python.with_name("parity")), *words)


def check(entry: Entry, interpreter: str, folder: Path) -> Iterator[str]:
    """Install, use, and name each step that held.

    Raises
    ------
    FailedError
        One does not hold; nothing after it was tried.
    """
    constraints = None
    if entry.versions == "lowest":
        constraints = folder / "constraints.txt"
        pinned = lowest(ROOT / "pyproject.toml").items()
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in pinned), encoding="utf-8")
    environment = Environment(interpreter, folder)
    environment.install(str(entry.archive), constraints)
    yield "light"
    yield from _light(environment)
    environment.install(f"{entry.archive}[run]", constraints)
    environment.run(str(environment.python), "-m", "pip", "check")
    yield "extra run"
    environment.parity("doctor")
    environment.parity(*_CELL)
    if not (folder / "report" / "index.html").is_file():
        raise FailedError("parity run wrote no report")
    yield "a first cell"


def _light(environment: Environment) -> Iterator[str]:
    look = (
        "from importlib.util import find_spec; from importlib.resources import files; "
        "assert find_spec('torch') is None; assert files('parity').joinpath('py.typed').is_file()"
    )
    environment.run(str(environment.python), "-c", look)
    environment.parity("doctor")
    yield "doctor"
    source = environment.folder / "models"
    shutil.unpack_archive(ROOT / "fixtures" / "eras" / "6.1" / "models.zip", source)
    unet = str(next(source.rglob("*unet.mlpackage")))
    for words in (
        ("inspect", str(source)),
        ("diff", unet, unet),
        ("repair", str(source), "-o", "repaired", "--no-proof"),
        ("mil", "show", unet, "--stats"),
        ("latents", "--rng", "torch-cpu", "--seed", "93", "--shape", "1,4,64,64", "-o", "noise.npy"),
        ("latents", "--compare", "noise.npy", "noise.npy"),
        ("cache", "list"),
    ):
        environment.parity(*words)
        yield " ".join(word for word in words[:2] if not Path(word).is_absolute())


def interpreter(version: str) -> str | None:
    """Return a Python of this version that starts, or None.

    Parameters
    ----------
    version : str
        Such as ``3.12``; sought on the path, then among pyenv's.
    """
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = [*([sys.executable] if sys.version.startswith(f"{version}.") else ()), f"python{version}"]
    known += [str(path) for path in sorted(versions.glob(f"{version}.*/bin/python"), reverse=True)]
    for name in known:
        ask = [name, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            said = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:
            continue
        if said == version:
            return name
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Check the environments, print a line for each, and return 1 if one does not hold or none was checked."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dist", type=Path, help="folder with one wheel and one sdist")
    parser.add_argument("--only", action="append", metavar="TEXT", help="environments whose name contains TEXT")
    parser.add_argument("--strict", action="store_true", help="fail where a Python is not here")
    arguments = parser.parse_args(argv)
    (wheel,), (sdist,) = arguments.dist.resolve().glob("*.whl"), arguments.dist.resolve().glob("*.tar.gz")
    failed = checked = missing = 0
    for python, versions, kind in ENTRIES:
        entry = Entry(python, versions, wheel if kind == "wheel" else sdist)
        if arguments.only and not any(text in entry.name for text in arguments.only):
            continue
        if (found := interpreter(python)) is None:
            print(f"{entry.name}: not checked, there is no such Python here", flush=True)
            missing += 1
            continue
        checked += 1
        held, start = [], time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="parity-matrix-") as folder:
                for step in check(entry, found, Path(folder)):
                    held.append(step)
            print(f"{entry.name}: holds in {time.monotonic() - start:.0f} s ({', '.join(held)})", flush=True)
        except FailedError as error:
            failed += 1
            print(f"{entry.name}: FAILS after {', '.join(held) or 'nothing'}: {error}", flush=True)
    return int(failed > 0 or not checked or (arguments.strict and missing > 0))


if __name__ == "__main__":
    raise SystemExit(main())
