"""What does every backend say about itself, and how are its components had?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from parity import memory
from parity.networks.signature import Component, kind, together


class Backend(ABC):
    """Supplies components; each is loaded once, on first use.

    Attributes
    ----------
    name : str
        First word of its name for users: ``torch``, ``coreml``, ``coreai``.
    numerics : str
        Equal for two backends exactly when their numbers are equal by construction; also what reports show, e.g.
        ``PyTorch cpu float32`` or ``reference runtime (declared)``.
    precision : str
        Precision of the networks' arithmetic, the key of tolerance tables: ``float32``, ``float16`` or ``bfloat16``.
    remarks : tuple of str
        What a reader must know about everything that it computes, e.g. known defects of a device.
    frugal : bool
        Whether a network is forgotten when one is asked for that is not called in turns with it.
    """

    name: str
    numerics: str
    precision: str
    remarks: tuple[str, ...] = ()
    frugal: bool = False

    def __init__(self) -> None:
        self._loaded: dict[str, Component] = {}

    def component(self, name: str) -> Component:
        """Return a component by name, loading it on first use.

        Parameters
        ----------
        name : str
            A key of :data:`parity.networks.signature.SIGNATURES`; of several ControlNets ``controlnet-1`` and so on.

        Raises
        ------
        UsageError
            Not a component name.
        MissingError, FormatError
            The model has no such part, or the part does not fit.
        """
        kind(name)
        if name not in self._loaded:
            if self.frugal:
                self.release({other for other in self._loaded if together(other) != together(name)})
                memory.give_back()
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def release(self, names: Iterable[str] | None = None) -> None:
        """Forget networks, so that their memory is free once nobody holds them; they are loaded again when needed.

        Parameters
        ----------
        names : iterable of str, optional
            All by default.
        """
        for name in list(self._loaded if names is None else names):
            self._forget(name)

    def _forget(self, name: str) -> None:
        """Let go of a network and of what is kept for it."""
        self._loaded.pop(name, None)

    def components(self, names: Iterable[str]) -> dict[str, Component]:
        """Return several components by name."""
        return {name: self.component(name) for name in names}

    def precision_of(self, name: str) -> str:
        """Return the precision of one component's arithmetic, where components differ."""
        return self.precision

    def as_release(self, conventions: Any) -> Backend:
        """Return the same networks, their tensors bound as a release of an app binds them.

        Only converted models can be bound in more than one way: everything else returns itself.

        Parameters
        ----------
        conventions : parity.contracts.release.Conventions
            What the release does.
        """
        return self

    @abstractmethod
    def _load(self, name: str) -> Component: ...
