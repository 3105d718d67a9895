"""How do packages become the ``Resources`` folder that ml-stable-diffusion's Swift package loads?

Steps: compile each package with Apple's ``coremlcompiler`` under the name that Swift looks for (``Unet.mlmodelc``,
``controlnet/NAME.mlmodelc`` …), write ``vocab.json`` and ``merges.txt``, and ``scheduler_config.json``, which
``parity inspect`` reads and Swift does not. The compiler exists on macOS only; elsewhere the texts are written and the
result says which models are missing. The released converter skips what exists already, so that a stale model could
stay; here an existing one is refused unless forced.

*Not verified on hardware*: the call of the compiler.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from parity.convert import scheduler
from parity.errors import MissingError, ParityError, UsageError
from parity.files import replacing
from parity.models.source import Source, open_model

TEXTS: Final = ("vocab.json", "merges.txt")


@dataclass(frozen=True)
class Resources:
    """What was written.

    Attributes
    ----------
    folder : pathlib.Path
    written : tuple of str
        Paths relative to the folder.
    missing : tuple of str
        Compiled models that could not be made here, with their packages.
    reason : str
        Why, empty when nothing is missing.
    """

    folder: Path
    written: tuple[str, ...]
    missing: tuple[str, ...]
    reason: str


def bundle(
    model: Any, packages: Mapping[str, Path], folder: str | Path, *, names: Mapping[str, str], force: bool = False
) -> Resources:
    """Write the Swift package's resources.

    Parameters
    ----------
    model : path or hub id
        The diffusers folder, for the tokenizer's files.
    packages : mapping of str to pathlib.Path
        As :func:`parity.convert.convert` returns them.
    folder : path
        ``Resources``; created if need be.
    names : mapping of str to str
        Compiled name without suffix of each package's key, see :func:`compiled_name`.
    force : bool
        Replace existing models and texts.

    Raises
    ------
    MissingError
        The model has no tokenizer files.
    UsageError
        Something exists already.
    """
    folder = Path(folder)
    targets = {key: folder / f"{names[key]}.mlmodelc" for key in packages}
    source = open_model(model)
    texts = {name: path for name, path in zip(TEXTS, _tokenizer(source), strict=True)}
    scheduler.check(folder, source, force=force)
    for target in (*targets.values(), *(folder / name for name in texts)):
        if target.exists() and not force:
            raise UsageError(f"{target} exists; remove it or use --force")
    written = []
    for name, path in texts.items():
        with replacing(folder / name) as copy:
            shutil.copyfile(path, copy)
        written.append(name)
    written.append(scheduler.write(folder, source).name)
    if platform.system() != "Darwin":
        missing = tuple(str(target.relative_to(folder)) for target in targets.values())
        reason = f"compiling needs Apple's coremlcompiler, which exists on macOS only; this is {platform.system()}"
        return Resources(folder, tuple(written), missing, reason)
    for key, target in targets.items():  # pragma: no cover (macOS)
        compile_package(packages[key], target)
        written.append(str(target.relative_to(folder)))
    return Resources(folder, tuple(written), (), "")


def compile_package(package: Path, target: Path) -> None:  # pragma: no cover (macOS)
    """Compile a package to ``target`` (an ``.mlmodelc`` path) with ``xcrun coremlcompiler``."""
    with replacing(target) as path:
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["xcrun", "coremlcompiler", "compile", str(package), str(path.parent)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise MissingError("xcrun was not found; install Xcode's command line tools") from None
        if result.returncode:
            raise ParityError(f"{package}: coremlcompiler failed: {result.stderr.strip() or result.stdout.strip()}")
        (path.parent / f"{package.stem}.mlmodelc").rename(path)


def compiled_name(key: str, resource: str) -> str:
    """Return the compiled name without suffix of a package.

    Parameters
    ----------
    key : str
        Component, chunk (``unet_chunk1``) or ``controlnet:ID``.
    resource : str
        Name of the component's contract.

    >>> compiled_name("unet_chunk2", "Unet"), compiled_name("controlnet:lllyasviel/sd-controlnet-canny", "")
    ('UnetChunk2', 'controlnet/LllyasvielSdControlnetCanny')
    >>> compiled_name("controlnet:lllyasviel/control_v11p_sd15_inpaint", "")
    'controlnet/LllyasvielControlV11PSd15Inpaint'
    """
    component, _, identifier = key.partition(":")
    if component == "controlnet":
        pieces = re.split("[_-]", identifier.replace("/", "_"))
        return "controlnet/" + "".join(piece.title() for piece in pieces)
    chunk = re.search(r"_chunk([12])$", key)
    return f"{resource}Chunk{chunk[1]}" if chunk else resource


def _tokenizer(source: Source) -> Sequence[Path]:
    if source.folder is None:
        raise UsageError("resources need the model's folder, for the tokenizer's files; save the pipeline first")
    for part in ("tokenizer", "tokenizer_2"):
        paths = [source.folder / part / name for name in TEXTS]
        if all(path.is_file() for path in paths):
            return paths
    raise MissingError(f"{source.folder}: no tokenizer with vocab.json and merges.txt; Swift needs both")
