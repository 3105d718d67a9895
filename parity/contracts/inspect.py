"""What is this folder of Core ML models, who made it, and what can be done with it?

:func:`inspect` walks a folder (or takes one model, or a zip archive), reads every model's description, identifies it,
compares the components with each other and returns plain records. It reads no weights but a causal mask and look-up
tables, imports no torch, and reports damaged or hostile input as findings.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from parity.contracts import component as components
from parity.contracts.converters import converters
from parity.contracts.crosscheck import check
from parity.contracts.discover import TOKENIZER, Group, discover, unpacked
from parity.contracts.inspection import Bundle, Component, Finding, Inspection
from parity.errors import FormatError, MissingError
from parity.files import pointer

_NEEDED = ("vocab.json", "merges.txt")


def inspect(path: Path | str, *, extra: Iterable[Path] = ()) -> Inspection:
    """Inspect a folder, a model or a zip archive.

    Parameters
    ----------
    path : path
        Folder, ``.mlpackage``, ``.mlmodelc``, ``.mlmodel`` or ``.zip``.
    extra : iterable of pathlib.Path
        TOML tables with further converter windows.

    Raises
    ------
    MissingError
        When nothing is there.
    FormatError
        When a file is neither a model nor a zip archive.
    """
    start = time.perf_counter()
    path = Path(path)
    tables = tuple(extra)
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder")
    if path.suffix == ".zip" and path.is_file():
        with unpacked(path) as (folder, refused, outlined):
            inspection = _folder(folder, tables, outlined)
        bundles = tuple(replace(b, findings=_of_archive(b.findings, folder, path)) for b in inspection.bundles)
        findings = (*refused, *_of_archive(inspection.findings, folder, path))
        seconds = time.perf_counter() - start
        return replace(inspection, path=str(path), bundles=bundles, findings=findings, seconds=seconds)
    if path.suffix in (".mlpackage", ".mlmodelc", ".mlmodel"):
        inspection = _single(path, tables)
    elif path.is_file():
        text = pointer(path) or "neither a folder, a Core ML model nor a zip archive"
        raise FormatError(f"{path}: {text}")
    else:
        inspection = _folder(path, tables)
    return replace(inspection, seconds=time.perf_counter() - start)


def _of_archive(findings: Iterable[Finding], folder: Path, archive: Path) -> tuple[Finding, ...]:
    """Name files by the archive that the user gave instead of the folder that it was unpacked to."""
    return tuple(replace(finding, text=finding.text.replace(str(folder), str(archive))) for finding in findings)


def _single(path: Path, extra: tuple[Path, ...]) -> Inspection:
    group = Group(path, [path])
    bundle = _bundle(group, path, extra, single=True)
    return Inspection(str(path), True, (bundle,), (), 0.0)


def _folder(path: Path, extra: tuple[Path, ...], outlined: frozenset[Path] = frozenset()) -> Inspection:
    groups, findings = discover(path)
    bundles = [_bundle(group, path, extra, outlined=outlined) for group in groups]
    if not bundles:
        findings.append(Finding("error", ".", "no Core ML models here (.mlpackage or .mlmodelc)"))
    return Inspection(str(path), False, tuple(bundles), tuple(findings), 0.0)


def _bundle(
    group: Group, root: Path, extra: tuple[Path, ...], *, single: bool = False, outlined: frozenset[Path] = frozenset()
) -> Bundle:
    found: list[Component] = []
    findings: list[Finding] = []
    for path in group.models:
        records = not any(path in weights.parents for weights in outlined)
        component, problems = components.read(path, root, converters(extra), records=records)
        found.append(component)
        findings += problems
    where = group.folder.relative_to(root).as_posix()
    checked = check(
        found,
        tokenizer=all(name in group.tokenizer for name in _NEEDED),
        scheduler=group.scheduler,
        where=where,
        single=single,
    )
    known = [c for c in found if c.windows and c.kind not in ("broken", "foreign")]
    common = set.intersection(*(set(c.windows) for c in known)) if known else set()
    windows = tuple(window.id for window in converters(extra).windows if window.id in common)
    return Bundle(
        path=where,
        layout=checked.facts["layout"],
        components=tuple(found),
        tokenizer=tuple(name for name in TOKENIZER if name in group.tokenizer),
        family=checked.family,
        prediction=checked.prediction,
        windows=windows,
        facts=checked.facts,
        findings=(*findings, *checked.findings),
    )
