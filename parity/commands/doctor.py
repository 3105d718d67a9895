"""``parity doctor``: what does a bug report need to say about this machine, and what is missing or untested here?

Versions come from the installed packages' metadata and are compared with the ranges that the project was tested with.
torch is asked for its devices in a process of its own: nothing else needs it, and a torch that crashes when it is
imported becomes a line of the answer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parity import __version__, assets, cache, tables
from parity.commands import documents
from parity.commands.records import Package, Report
from parity.errors import MissingError, ParityError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_NAME: Final = "coreml-parity"
_BUILDERS: Final = {"dev", "docs"}  # extras of those who work on the project; a user's report is not about them
_PATIENCE: Final = 120  # seconds for torch's import on a loaded machine
_VARIABLES: Final = (
    "PARITY_",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
    "PYTORCH_ENABLE_MPS_FALLBACK",
)
_ASK_TORCH: Final = """
import json, torch
mps = bool(torch.backends.mps.is_available())
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"cpu": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
                  "mps": mps, "cuda": names}))
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    documents.declare(parser, "all facts")
    parser.add_argument("--no-devices", action="store_true", help="do not ask torch which devices there are")


def main(arguments: argparse.Namespace) -> int:
    """Examine and print; 0 when nothing is missing and every version is in its tested range, else 1."""
    report = examine(devices=not arguments.no_devices)
    if arguments.json:
        documents.write(report)
    else:
        sys.stdout.write("\n".join(_lines(report)) + "\n")
    return 1 if report.problems else 0


def examine(*, devices: bool = True) -> Report:
    """Collect the facts without importing torch, diffusers or coremltools here.

    Parameters
    ----------
    devices : bool
        Ask torch, in a process of its own, which devices there are; takes its import, some seconds.

    Raises
    ------
    MissingError
        The package ``packaging``, which compares versions, is not installed.
    """
    python, wanted = _requirements()
    packages = tuple(_package(requirement, extra) for requirement, extra in wanted)
    found = _devices() if devices and metadata_version("torch") else {}
    place = _cache()
    problems = [
        *_python_problems(python),
        *(problem for package in packages if (problem := _package_problem(package))),
        *([f"torch does not start: {found['error']}"] if "error" in found else []),
        *_cache_problems(place),
        *_shipped_problems(),
    ]
    environment = {
        name: _short(value) for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES) and value
    }
    return Report(
        {"version": __version__, "folder": _short(Path(__file__).parents[1]), "installed": metadata_version(_NAME)},
        _platform(python),
        packages,
        found,
        place,
        environment,
        tuple(problems),
    )


def metadata_version(name: str) -> str:
    """Return the version of an installed package, or the empty string."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _requirements() -> tuple[str, list[tuple[Requirement, str]]]:
    """Return the range of Pythons and all requirements with their extra.

    A checkout's pyproject.toml goes first: the metadata of an editable installation is as old as the installation.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        raise MissingError(
            "packaging is not installed, so versions cannot be compared; pip install packaging"
        ) from None
    checkout = Path(__file__).parents[2] / "pyproject.toml"
    if checkout.is_file() and (project := tables.read(checkout).get("project", {})).get("name") == _NAME:
        entries = [(Requirement(text), "") for text in project["dependencies"]]
        for extra, texts in project.get("optional-dependencies", {}).items():
            entries += [(Requirement(text), extra) for text in texts]
        return project["requires-python"], _applying(entries)
    if not metadata_version(_NAME):
        raise MissingError(f"{_NAME} is not installed and no pyproject.toml lies beside the package; pip install it")
    entries = []
    for text in metadata.requires(_NAME) or []:
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", text)
        entries.append((Requirement(text), extra[1] if extra else ""))
    return metadata.metadata(_NAME)["Requires-Python"], _applying(entries)


def _applying(entries: list[tuple[Requirement, str]]) -> list[tuple[Requirement, str]]:
    """Keep what this Python and platform need, each package once: an extra repeats what another one asks for."""
    kept: dict[str, tuple[Requirement, str]] = {}
    for requirement, extra in entries:
        if extra in _BUILDERS:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            kept.setdefault(requirement.name, (requirement, extra))
    return list(kept.values())


def _package(requirement: Requirement, extra: str) -> Package:
    installed = metadata_version(requirement.name)
    if not installed:
        state = "optional" if extra else "missing"
    else:  # local parts such as +cpu do not count; a pre-release is judged like a release
        inside = requirement.specifier.contains(installed.partition("+")[0], prereleases=True)
        state = "ok" if inside else "outside"
    return Package(requirement.name, _range(str(requirement.specifier)), installed, extra, state)


def _range(text: str) -> str:
    """Write lower bounds first; packaging gives them in no order that a reader would choose."""
    return ",".join(sorted(text.split(","), reverse=True))


def _package_problem(package: Package) -> str:
    if package.state == "missing":
        return f"{package.name} is not installed; pip install '{package.name}{package.tested}'"
    if package.state == "outside":
        return (
            f"{package.name} {package.installed} is outside the tested range {package.tested}; "
            f"pip install '{package.name}{package.tested}'"
        )
    return ""


def _python_problems(tested: str) -> list[str]:
    from packaging.specifiers import SpecifierSet

    version = platform.python_version().rstrip("+")
    return [] if version in SpecifierSet(tested) else [f"Python {version} is outside the tested range {_range(tested)}"]


def _platform(python: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "system": platform.system(),
        "release": platform.mac_ver()[0] or platform.release(),
        "machine": platform.machine(),
        "processors": os.cpu_count() or 0,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_tested": _range(python),
        "environment": "virtual" if sys.prefix != sys.base_prefix else "not virtual",
        "encoding": sys.stdout.encoding or "",
        "coreml": "the Core ML framework"
        if sys.platform == "darwin"
        else "reference runtime (no Core ML on this system)",
    }
    if sys.platform == "linux":
        facts["libc"] = " ".join(platform.libc_ver())
    if sys.platform == "darwin":  # compiling packages for `convert --resources` needs it
        facts["coremlcompiler"] = "found" if shutil.which("xcrun") else "xcrun not found"
    return facts


def _devices() -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {_PATIENCE} seconds"}
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        return {"error": lines[-1]}


def _cache() -> dict[str, Any]:
    root = cache.root()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    named = next((name for name in ("PARITY_CACHE", "XDG_CACHE_HOME") if os.environ.get(name)), "default")
    size = sum(_size(path) for path in root.rglob("*")) if root.is_dir() else 0
    return {
        "folder": _short(root),
        "chosen_by": named,
        "exists": root.is_dir(),
        "bytes": size,
        "writable": _writable(existing),
        "free_bytes": shutil.disk_usage(existing).free,
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() and not path.is_symlink() else 0
    except OSError:  # another process removed it meanwhile
        return 0


def _writable(folder: Path) -> bool:
    """Try it: permissions alone do not know read-only file systems."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _cache_problems(place: dict[str, Any]) -> list[str]:
    if place["writable"]:
        return []
    return [f"the cache {place['folder']} cannot be written; make it writable, or name another folder in PARITY_CACHE"]


def _shipped_problems() -> list[str]:
    from parity.recipes import trained

    if not (assets.golden().is_dir() and (assets.fixtures() / "recipes").is_dir()):
        return ["the models and goldens that come with the project are not there; restore the checkout, or reinstall"]
    problems = []
    for name in trained.names():
        try:
            trained.folder(name)
        except ParityError as error:
            problems.append(_short(error))
    return problems


def _short(text: object) -> str:
    """Write the user's folder as ``~``: reports are public."""
    home = str(Path.home())
    return str(text) if len(home) < 2 else str(text).replace(home, "~")


def _lines(report: Report) -> list[str]:
    system = report.platform
    lines = [
        f"parity {report.parity['version']}, {report.parity['folder']}",
        f"{system['system']} {system['release']}, {system['machine']}, {system['processors']} processors"
        + (f", {system['libc']}" if system.get("libc") else ""),
        f"{system['python']} (tested: {system['python_tested']}), {system['environment']} environment",
        f"Core ML models run on: {system['coreml']}",
        "",
    ]
    width = max(len(package.name) for package in report.packages)
    for package in report.packages:
        note = {"missing": "MISSING", "outside": "OUTSIDE the tested range", "optional": "not installed"}
        parts = [package.installed or "-", f"tested {package.tested}" if package.tested else ""]
        parts += [note.get(package.state, ""), f"extra {package.extra}" if package.extra else ""]
        lines.append(f"  {package.name:{width}}  " + ", ".join(part for part in parts if part))
    lines += ["", f"devices of torch: {_devices_text(report.devices)}"]
    place = report.cache
    lines.append(
        f"cache: {place['folder']} ({place['chosen_by']}), {place['bytes'] / 2**20:.0f} MiB, "
        f"{'writable' if place['writable'] else 'NOT WRITABLE'}, {place['free_bytes'] / 2**30:.0f} GiB free"
    )
    lines += [f"{name}={value}" for name, value in report.environment.items()]
    lines.append("")
    if not report.problems:
        return [*lines, "nothing is missing"]
    return [*lines, *(f"problem: {problem}" for problem in report.problems)]


def _devices_text(devices: dict[str, Any]) -> str:
    if not devices:
        return "not asked"
    if "error" in devices:
        return f"none, {devices['error']}"
    found = [f"cpu ({devices['cpu']}, {devices['threads']} threads)", *(f"cuda ({name})" for name in devices["cuda"])]
    return ", ".join([*found, *(["mps"] if devices["mps"] else [])])
