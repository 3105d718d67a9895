"""What does a user put together to get a model: a checkpoint, and which other VAE, LoRAs and embeddings on top?

The same four options name it everywhere: ``--model-config``, ``--vae``, ``--lora`` and ``--embedding``, of ``parity
run``, pytest and ``parity convert``. Nothing is loaded here; :mod:`parity.models.assemble` makes one folder of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from parity.errors import MissingError, UnsupportedError, UsageError
from parity.files import refuse_pointer
from parity.models import pickles

_SUFFIX: Final = ".safetensors"


@dataclass(frozen=True)
class Lora:
    """A LoRA and how strongly it is merged."""

    file: Path
    scale: float = 1.0


@dataclass(frozen=True)
class Embedding:
    """A textual inversion; the token is the file's own where none is named."""

    file: Path
    token: str = ""


@dataclass(frozen=True)
class Ingredients:
    """A model as its user names it.

    Attributes
    ----------
    model : str
        Diffusers folder, hub id, shipped name, or a single ``.safetensors`` file.
    config : str
        For a single file: folder or hub id of a diffusers model of the same architecture, for its configurations and
        its tokenizer.
    vae : str
        Folder, hub id or single file of another VAE; empty for the model's own.
    loras : tuple of Lora
    embeddings : tuple of Embedding
    """

    model: str
    config: str = ""
    vae: str = ""
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[Embedding, ...] = ()

    @classmethod
    def read(
        cls, model: str, *, config: str = "", vae: str = "", loras: Sequence[str] = (), embeddings: Sequence[str] = ()
    ) -> Ingredients:
        """Read the options' texts: ``FILE[:SCALE]`` for a LoRA, ``FILE[:TOKEN]`` for an embedding.

        Raises
        ------
        UsageError, MissingError, UnsupportedError
            A scale that is no number; a file that does not exist; a pickle; a configuration without a single file.
        """
        found = cls(
            model,
            config,
            vae,
            tuple(_lora(text) for text in loras),
            tuple(Embedding(*_split("--embedding", text)) for text in embeddings),
        )
        single = found.single_file
        if single is not None:
            file("--model-version", single)
        elif config:
            raise UsageError(f"--model-config {config}: it belongs to a single {_SUFFIX} file, and {model} is none")
        if vae and Path(vae).suffix in (_SUFFIX, *pickles.SUFFIXES):
            file("--vae", Path(vae).expanduser())
        return found

    @property
    def single_file(self) -> Path | None:
        """The single file that the model is; None for folders, hub ids and shipped names."""
        path = Path(self.model).expanduser()
        return path if path.suffix.lower() in (_SUFFIX, *pickles.SUFFIXES) and not path.is_dir() else None

    @property
    def plain(self) -> bool:
        """Whether it is a checkpoint and nothing else."""
        return self.single_file is None and not (self.vae or self.loras or self.embeddings)

    @property
    def name(self) -> str:
        """The model's name for folders and records: of a path its last part, without a file's suffix."""
        path = Path(self.model).expanduser()
        if self.single_file is not None:
            return path.stem
        return path.resolve().name if path.is_dir() else self.model

    def record(self) -> dict[str, Any]:
        """Return what goes on top, by digests: as provenance keeps it. Empty for a plain checkpoint."""
        from parity.models.content import file_hash, folder_hash

        found: dict[str, Any] = {}
        if self.single_file is not None:
            found["file"] = f"{self.single_file.name} {file_hash(self.single_file)[:16]}"
        if self.vae:
            vae = Path(self.vae).expanduser()
            digest = file_hash(vae) if vae.is_file() else folder_hash(vae) if vae.is_dir() else ""
            found["vae"] = f"{vae.name} {digest[:16]}" if digest else self.vae
        for lora in self.loras:
            found[f"lora {lora.file.name}"] = f"scale {lora.scale:g} {file_hash(lora.file)[:16]}"
        for embedding in self.embeddings:
            called = f"token {embedding.token} " if embedding.token else ""
            found[f"embedding {embedding.file.name}"] = f"{called}{file_hash(embedding.file)[:16]}"
        return found

    def sentence(self) -> str:
        """Return what goes on top, for a reader; empty if nothing does."""
        parts = [f"VAE of {Path(self.vae).name}"] if self.vae else []
        parts += [f"LoRA {lora.file.name} at {lora.scale:g}" for lora in self.loras]
        parts += [f"embedding {embedding.file.name}" for embedding in self.embeddings]
        return f"the original has {', '.join(parts)} merged in" if parts else ""


def _lora(text: str) -> Lora:
    path, scale = _split("--lora", text)
    if not scale:
        return Lora(path)
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"--lora {text}: FILE or FILE:SCALE is needed, with a number as scale")
    return Lora(path, number)


def _split(option: str, text: str) -> tuple[Path, str]:
    """Split a file from what stands behind its last colon; the file is known to be one that can be read."""
    whole = Path(text).expanduser()
    name, colon, rest = text.rpartition(":")
    if whole.is_file() or not colon or "/" in rest:
        name, rest = text, ""
    return file(option, Path(name).expanduser()), rest


def file(option: str, path: Path) -> Path:
    """Return a file of weights once it is known to exist and to be safetensors.

    Raises
    ------
    UnsupportedError, MissingError, FormatError
        A pickle; no such file; a git-lfs pointer.
    """
    pickles.refuse(path)
    if not path.is_file():
        raise MissingError(f"{option} {path}: no such file")
    if path.suffix.lower() != _SUFFIX:
        raise UnsupportedError(f"{option} {path}: a {_SUFFIX} file is needed")
    refuse_pointer(path)
    return path
