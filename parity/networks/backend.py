"""What every backend says about itself, and the common way to get its components."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from parity.errors import UsageError
from parity.networks.signature import SIGNATURES, Component


class Backend(ABC):
    """Supplies components; each is loaded once, on first use.

    Attributes
    ----------
    name : str
        ``torch`` or ``coreml``.
    numerics : str
        Equal for two backends exactly when their numbers are equal by construction; also what reports show, e.g.
        ``PyTorch cpu float32`` or ``reference runtime (declared)``.
    precision : str
        Precision of the networks' arithmetic, the key of tolerance tables: ``float32`` or ``float16``.
    """

    name: str
    numerics: str
    precision: str

    def __init__(self) -> None:
        self._loaded: dict[str, Component] = {}

    def component(self, name: str) -> Component:
        """Return a component by name, loading it on first use.

        Raises
        ------
        UsageError
            Not a component name.
        MissingError, FormatError
            The model has no such part, or the part does not fit.
        """
        if name not in SIGNATURES:
            raise UsageError(f"no component named {name!r}; there are {', '.join(SIGNATURES)}")
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def components(self, names: Iterable[str]) -> dict[str, Component]:
        """Return several components by name."""
        return {name: self.component(name) for name in names}

    @abstractmethod
    def _load(self, name: str) -> Component: ...
