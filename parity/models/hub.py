"""Which folder of the hub's holds these converted models, and where is it on this machine?

Repositories of converted models hold several variants, gigabytes each: ``original/packages``, ``split_einsum/compiled``
and so on. ``OWNER/NAME:FOLDER`` (``OWNER/NAME@REVISION:FOLDER``) names one, and only its files are downloaded, by
``huggingface_hub``, into the hub's own cache: an interrupted download goes on, a finished one is not asked for again,
and what other programs put there is used. Core ML wants files, not the links that the hub's cache consists of, so the
folder is given out as hard links in this project's cache; where there can be none, as copies.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

from parity import cache
from parity.errors import MissingError, UsageError
from parity.files import link_or_copy, replacing

_NAMED: Final = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?(:(?P<folder>[\w./ +-]*))?")
_TRIES: Final = 3
"""huggingface_hub below 1.0 gives up where a connection breaks within a file, and goes on there when asked again."""
_MODELS: Final = (".mlpackage", ".mlmodelc", ".aimodel")


@lru_cache(maxsize=32)
def local(path: Path) -> Path:
    """Return where a user's models lie: the path itself, or what the hub has under that name.

    Parameters
    ----------
    path : pathlib.Path
        An existing file or folder, or ``OWNER/NAME[@REVISION]:FOLDER``.

    Raises
    ------
    MissingError
        Neither; the hub does not answer, or has no such folder. The message says what to put where.
    UsageError
        No folder is named, or one that leads out of the repository.
    """
    if path.exists():
        return path
    match = _NAMED.fullmatch(str(path))
    if match is None or (match["folder"] is None and match["revision"] is None and path.parent.exists()):
        raise MissingError(f"--models {path}: no such file or folder")
    repository, revision, folder = match["repository"], match["revision"] or "main", (match["folder"] or "").strip("/")
    if not folder:
        raise UsageError(
            f"--models {path}: no such file or folder here; for the hub name one folder of the repository, "
            f"{repository}:FOLDER{_folders(repository, revision)}"
        )
    if ".." in Path(folder).parts:
        raise UsageError(f"--models {path}: a folder within the repository is needed")
    snapshot = _download(repository, revision, folder, path)
    found = snapshot / folder
    if not any(file.is_file() for file in found.rglob("*")):
        raise MissingError(f"--models {path}: {repository} has no folder {folder}{_folders(repository, revision)}")
    return _as_files(found, cache.folder("hub", cache.key(snapshot=str(snapshot), folder=folder)))


def _download(repository: str, revision: str, folder: str, path: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    ask = partial(snapshot_download, repository, revision=revision, allow_patterns=[f"{folder}/*"])
    try:
        for _ in range(_TRIES - 1):
            try:
                return Path(ask())
            except OSError as error:
                if "IncompleteRead" not in str(error):
                    raise
        return Path(ask())
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MissingError(
            f"--models {path}: not on this machine, and the hub gave nothing: {first}. While online: "
            f"hf download {repository} --include '{folder}/*'; or copy that folder here and name it: --models FOLDER"
        ) from None


def _folders(repository: str, revision: str) -> str:
    """Return which folders of a repository hold models, as a message's end; empty if the hub does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        files: Any = HfApi().list_repo_files(repository, revision=revision)
    except (OSError, HfHubHTTPError, ValueError, RuntimeError):
        return ""
    found = set()
    for file in files:
        parts = Path(file).parts
        place = next((index for index, part in enumerate(parts) if part.endswith(_MODELS)), 0)
        if place:
            found.add("/".join(parts[:place]))
    return f"; it has {', '.join(sorted(found))}" if found else ""


def _as_files(source: Path, target: Path) -> Path:
    """Give the files behind a snapshot's links out under the same names; what is there already stays."""
    wanted = {file.relative_to(source): file.resolve() for file in source.rglob("*") if file.is_file()}
    with cache.locked(target):
        if {file.relative_to(target) for file in target.rglob("*") if file.is_file()} != set(wanted):
            with replacing(target) as scratch:
                for name, file in wanted.items():
                    (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                    link_or_copy(file, scratch / name)
    return target
