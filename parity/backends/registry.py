"""Which backends are there, and how is one opened by what the user writes?

A backend is named by words with colons: ``torch:cpu:float16``, ``coreml:reference``, ``coreai``. The first word is its
name, the others are its own. Other packages add backends by an entry point in the group ``parity.backends``, whose name
is the first word and whose object is an :class:`Opener`. Only the one that is asked for is imported; one that fails to
import is named with its reason, and everything else goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Protocol

from parity.errors import ParityError, UnsupportedError, UsageError
from parity.networks.backend import Backend

GROUP = "parity.backends"

_BUILT_IN = {
    "torch": "parity.backends.openers:Torch",
    "coreml": "parity.backends.openers:CoreML",
    "coreai": "parity.backends.coreai:Opener",
}


@dataclass(frozen=True)
class Subject:
    """What a backend is asked to run.

    Attributes
    ----------
    location : str
        The checkpoint: diffusers folder or hub id.
    models : path or None
        Folder of converted models that the user named.
    packages : callable
        Gives the Core ML packages by component, halves in order: the user's, or converted now.
    progress : callable
        Told what takes time.
    controlnets : tuple of path
        Folders of the original's ControlNets.
    refiner : str, optional
        Folder or hub id of the SDXL refiner that takes over.
    """

    location: str
    models: Path | None
    packages: Callable[[], Mapping[str, tuple[Path, ...]]]
    progress: Callable[[str], None] = lambda text: None
    controlnets: tuple[Path, ...] = ()
    refiner: str | None = None


class Opener(Protocol):
    """What an entry point gives."""

    def resolve(self, words: tuple[str, ...]) -> str:
        """Return the numerics that the words stand for (see :class:`Backend`), without loading a model.

        Raises
        ------
        UsageError
            Words that this backend does not know; the message lists those it does.
        UnsupportedError, MissingError
            It cannot run here; the message is the reason.
        """
        ...

    def open(self, words: tuple[str, ...], subject: Subject) -> Backend:
        """Return the backend for a model."""
        ...


def names() -> tuple[str, ...]:
    """Return the names of all backends, the project's own first, without importing any."""
    return tuple(dict.fromkeys([*_BUILT_IN, *sorted(entry.name for entry in metadata.entry_points(group=GROUP))]))


def opener(text: str) -> tuple[Opener, tuple[str, ...]]:
    """Return the opener that a text names, and the words after its name.

    Raises
    ------
    UsageError
        No backend of that name; the message lists them.
    UnsupportedError
        Its package fails to import.
    """
    name, *words = text.split(":")
    if any(not word for word in (name, *words)):
        raise UsageError(f"--backend {text}: words with colons between them are expected, e.g. torch:cpu:float16")
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        return getattr(import_module(module), attribute)(), tuple(words)
    for entry in metadata.entry_points(group=GROUP):
        if entry.name == name:
            return _plugin(text, entry), tuple(words)
    raise UsageError(f"--backend {text}: no backend named {name!r}; there are {', '.join(names())}")


def _plugin(text: str, entry: metadata.EntryPoint) -> Opener:
    package = entry.dist.name if entry.dist is not None else "an unknown package"
    try:
        made = entry.load()
        return made() if isinstance(made, type) else made
    except ParityError:
        raise
    except Exception as error:  # whatever a foreign package does when it is imported
        raise UnsupportedError(
            f"--backend {text}: {entry.value} of {package} fails to import: {type(error).__name__}: {error}"
        ) from None


def resolve(text: str) -> str:
    """Return the numerics of a backend named by a text; see :meth:`Opener.resolve`."""
    chosen, words = opener(text)
    return chosen.resolve(words)


def open_backend(text: str, subject: Subject) -> Backend:
    """Open a backend named by a text for a model; see :meth:`Opener.open`."""
    chosen, words = opener(text)
    chosen.resolve(words)
    return chosen.open(words, subject)
