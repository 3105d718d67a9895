"""Where is the compiled form of a package, so that the framework compiles it once and not at each load?

coremltools compiles a package whenever it loads it: minutes for a UNet on the Neural Engine. The compiled folder is
kept in the cache (``compiled/``), named by the package's files, coremltools and the system: what one system compiled is
not given to another. *Not verified on hardware*: through the shim the same calls run on Linux.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from parity import cache, quiet
from parity.files import replacing


def compiled(package: Path) -> Path:
    """Return a package's ``.mlmodelc``, compiled now if it is not kept yet.

    Parameters
    ----------
    package : path
        An ``.mlpackage``.

    Raises
    ------
    RuntimeError
        The framework cannot compile it.
    """
    coremltools = quiet.coremltools()
    system = (platform.platform(), coremltools.__version__)
    name = f"{package.stem}-{cache.key(files=_files(package), system=system)}"
    target = cache.folder("compiled", name) / f"{package.stem}.mlmodelc"
    if target.is_dir():
        return target
    with cache.locked(target.parent):
        if not target.is_dir():  # another process may have made it meanwhile
            with replacing(target.parent) as folder:
                folder.mkdir(parents=True)
                made = Path(coremltools.models.utils.compile_model(str(package)))
                shutil.move(made, folder / target.name)
    return target


def _files(package: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of each file: gigabytes are not read to find out whether they changed."""
    files = sorted(path for path in package.rglob("*") if path.is_file())
    return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
