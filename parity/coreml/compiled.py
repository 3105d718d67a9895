"""What does "compiling" a model mean where nothing needs to be compiled?

The reference runtime executes packages as they are. A compiled model is therefore a folder named ``….mlmodelc`` with
the content of the package, hard-linked where the file system allows it: no time, no disk space, and it outlives the
package (coremltools deletes temporary packages while models still use them). ``parity.mil.load`` reads it like any
package, and Apple's own compiled models as well. ``model.mil`` lies beside it, the program as text, as tools expect.
The folder is no input for macOS: there, compile the package itself.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity.coreml import mil_text
from parity.coreml.pipeline_runner import KINDS, other_kind
from parity.errors import UnsupportedError
from parity.files import link_or_copy
from parity.mil import package
from parity.mil.model import Model

SUFFIX = ".mlmodelc"


def compile_model(source: Path) -> Path:
    """Write the compiled form of a model into a new temporary folder, which belongs to the caller.

    Parameters
    ----------
    source : path
        An ``.mlpackage`` folder, or an ``.mlmodel`` file that holds an ML Program without weights.

    Returns
    -------
    pathlib.Path
        A new folder with the suffix ``.mlmodelc``.

    Raises
    ------
    MissingError, FormatError
        There is no such model, or it is damaged.
    UnsupportedError
        It is neither an ML Program nor a pipeline.
    """
    model = package.load(source)  # refuses what is damaged or leaves its folder before anything is written
    require_runnable(model)
    if source.is_file():
        return compile_memory(model.specification, {}, stem=source.stem)
    target = _new_folder(source.stem)
    shutil.copytree(source, target, copy_function=link_or_copy, dirs_exist_ok=True)
    add_text(target, model)
    return target


def add_text(folder: Path, model: Model) -> None:
    """Write ``model.mil`` into a compiled folder, for tools and readers; the runtime does not need it."""
    path = folder / "model.mil"
    if model.kind == "mlProgram" and not path.exists():
        path.write_text(mil_text.write_program(model.program), encoding="utf-8")


def try_linking(source: Path) -> Path | None:
    """Write the compiled form of a package without copying weights; None where the file system has no such links."""
    target = _new_folder(source.stem)
    try:
        shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
    except OSError:
        shutil.rmtree(target)
        return None
    return target


def compile_memory(specification: Any, blobs: Mapping[str, bytes], *, stem: str = "model") -> Path:
    """Write the compiled form of a model that is held in memory.

    Parameters
    ----------
    specification : Model message
        The model.
    blobs : mapping
        Weight files by their path in the model, e.g. ``weights/weight.bin``.
    stem : str
        Beginning of the folder's name.

    Returns
    -------
    pathlib.Path
        A new folder with the suffix ``.mlmodelc``.
    """
    target = _new_folder(stem)
    with tempfile.TemporaryDirectory(prefix="parity-") as scratch:
        files = {}
        for number, (name, content) in enumerate(blobs.items()):
            files[name] = Path(scratch, f"{number}.bin")
            files[name].write_bytes(content)
        written = package.save(specification, files, Path(scratch, "model.mlpackage"))
        shutil.copytree(written, target, copy_function=link_or_copy, dirs_exist_ok=True)
    add_text(target, package.load(target))
    return target


def require_runnable(model: Model) -> None:
    """Refuse models of other kinds than ML Programs and pipelines.

    Raises
    ------
    UnsupportedError
        Names the kind and what to do.
    """
    if model.kind not in KINDS:
        raise UnsupportedError(other_kind(model))


def _new_folder(stem: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{stem[:80]}-", suffix=SUFFIX))
