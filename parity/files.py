"""Writing files so that an interrupted or failed run leaves nothing half-written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``target``; on success it takes the target's name, on failure it vanishes.

    Parameters
    ----------
    target : path
        File or folder to be written. Its parent is created. An existing target is replaced only at the very end.

    Yields
    ------
    pathlib.Path
        Path that does not exist yet, in the same folder, with the same suffix; write a file or create a folder there.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.stem[:80]}-", dir=target.parent))
    try:
        path = scratch / target.name
        yield path
        if path.is_dir() and target.exists():  # a folder cannot be renamed over another one
            target.replace(scratch / "replaced")
        path.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
