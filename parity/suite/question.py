"""What decides the answers of a run, by name and digest, so that a later day's answers are not taken for these?

Everything is found before models are opened: files are hashed, and large ones only once as long as they do not change
(:mod:`parity.models.content`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity import cache, recipes
from parity.models.content import file_hash, folder_hash
from parity.models.source import PARTS
from parity.suite import factors, tolerance
from parity.suite.goldens import log
from parity.suite.options import Options
from parity.suite.plan import Cell
from parity.suite.run import not_asked

_MODELS = (".mlpackage", ".mlmodelc", ".mlmodel", ".aimodel", ".zip")
_IDENTITY = "Manifest.json"  # of a package: random names for its items, other ones after each saving
_SHORT = 16  # hex digits
_PLANNED = ("id", "case", "sentence", "model", "kind", "backend", "units", "producer", "against", "settings")
_DECIDING = ("id", "kind", "producer", "against", "settings")  # of a cell on any machine, whatever folders are named


def question(options: Options) -> dict[str, str]:
    """Return what decides all cells of a run, by name; values are digests or options' values.

    A value is empty where it is not known yet: a hub id that was never downloaded. Compute units and runtimes are not
    in it, since a cell's id says them: machines with other ones answer the same question.
    """
    asked = {
        "model": Path(options.model_version).name if _is_folder(options.model_version) else options.model_version,
        **_weights(options.model_version),
        **{f"original {name}": value for name, value in options.ingredients.record().items()},
        "tolerances": cache.key(entries=[str(entry) for entry in _allowed(options.tolerances)])[:_SHORT],
        "device": options.device,
        "goldens": "being accepted" if options.update_golden else _decided(options.goldens),
    }
    if options.expected is not None:
        asked["expected"] = _tree(options.expected)
    if options.models_folder is not None:
        asked |= {f"package {name}": digest for name, digest in _packages(options.models_folder).items()}
    if options.picture is not None:
        asked["picture"] = _tree(options.picture)
    for name, text in (("refiner", options.refiner), *(("controlnet", text) for text in options.controlnet)):
        if text:
            shipped = recipes.find(text)
            asked[f"{name} {Path(text).name}"] = _tree(shipped or Path(text).expanduser())
    return asked


def planned(cells: Sequence[Cell], options: Options) -> list[dict[str, Any]]:
    """Return what a run folder keeps of cells before they are asked, see :class:`parity.runs.schema.Planned`."""
    found = []
    for cell in cells:
        record = not_asked(cell, options)
        content = ",".join(_tree(picture) for picture in cell.case.pictures)
        digest = cache.key(asked={name: record[name] for name in _DECIDING}, image=content)
        found.append({**{name: record[name] for name in (*_PLANNED, "reproduce")}, "digest": digest})
    return found


def _allowed(path: Path | None) -> list[Any]:
    return [*tolerance.load(path), *factors.load(path)]


def _is_folder(model: str) -> bool:
    return recipes.find(model) is None and Path(model).expanduser().is_dir()


def _weights(model: str) -> dict[str, str]:
    """Digest the original's parts; of a hub id the revision in the hub's cache is known."""
    shipped = recipes.find(model)
    folder = Path(model).expanduser() if shipped is None else shipped
    if folder.is_dir():
        parts = sorted({part for part in PARTS.values() if (folder / part).is_dir()})
        return {f"weights {part}": folder_hash(folder / part)[:_SHORT] for part in parts}
    from huggingface_hub import try_to_load_from_cache

    try:
        index = try_to_load_from_cache(model, "model_index.json")
    except ValueError:  # no hub id either; opening it says so
        return {"weights": ""}
    return {"weights": f"revision {Path(index).parent.name}" if isinstance(index, str) else ""}


def _packages(models: Path) -> dict[str, str]:
    """Digest the user's models, by path below what was named."""
    if models.suffix in _MODELS:
        return {models.name: _tree(models)}
    places = (models, models / "Resources")
    found = sorted(path for place in places if place.is_dir() for path in place.iterdir() if path.suffix in _MODELS)
    if not found:  # models that lie deeper
        return {".": _tree(models)}
    return {path.relative_to(models).as_posix(): _tree(path) for path in found}


def _decided(goldens: Path | None) -> str:
    """Digest what was decided about goldens: it names their contents; what waits for a decision decides nothing."""
    return "none" if goldens is None else _tree(goldens / log.NAME)


def _tree(path: Path | None) -> str:
    """Digest a file, or names and contents of a folder's files; ``none`` without one."""
    if path is None or not path.exists():
        return "none"
    if path.is_file():
        return file_hash(path)[:_SHORT]
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != _IDENTITY:
            total.update(f"{file.relative_to(path).as_posix()}:{file_hash(file)}\n".encode())
    return total.hexdigest()[:_SHORT]
