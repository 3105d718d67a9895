"""Would these models fit into a machine's memory, one at a time and all together?

:mod:`parity.mil.memory` estimates each model from its program and weights; ``tables/budgets.toml`` says what machines
were reported to give a program. What exceeds a budget will not fit. What stays below may still not: much is not in
the estimate (:data:`LEFT_OUT`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from parity.contracts.inspection import Bundle, Component
from parity.contracts.table import read
from parity.errors import ParityError
from parity.mil.memory import Estimate, estimate

_BUILT_IN: Final = Path(__file__).parent / "tables" / "budgets.toml"
LEFT_OUT: Final = (
    "the framework's own memory and copies of weights, a compute unit's buffers, text, latents and pictures"
)
"""What is in no estimate."""
SUMS: Final = "at least: weights as stored, and values; unpacked: weights expanded, and values"
"""What the two sums of a table are."""


@dataclass(frozen=True)
class Budget:
    """One entry ``[[budget]]``; fields as described at the top of ``tables/budgets.toml``."""

    name: str
    bytes: int
    beyond: str
    evidence: str


@dataclass(frozen=True)
class Fit:
    """What a budget says of a folder.

    Attributes
    ----------
    budget : Budget
    one, all : str
        ``may fit`` (the larger estimate is within it), ``unclear`` (the smaller one is) or ``too large``: loaded one
        at a time, and all together.
    """

    budget: Budget
    one: str
    all: str


@dataclass(frozen=True)
class Memory:
    """What the models of one folder need, in bytes.

    Attributes
    ----------
    bundle : str
        Path of the folder, as in :class:`parity.contracts.inspection.Bundle`.
    components : mapping of str to Estimate
        By path below the inspected folder.
    unread : mapping of str to str
        Models without an estimate, and why.
    one, all : Estimate or None
        The largest component, and all that are needed together: of a model that is there twice (as package and
        compiled, whole and in chunks) the first. None where no model could be read.
    fits : tuple of Fit
    """

    bundle: str
    components: Mapping[str, Estimate]
    unread: Mapping[str, str]
    one: Estimate | None
    all: Estimate | None
    fits: tuple[Fit, ...]


@lru_cache(maxsize=8)
def budgets(extra: tuple[Path, ...] = ()) -> tuple[Budget, ...]:
    """Read the built-in table, then tables that a user adds (their ``[[budget]]``).

    Raises
    ------
    FormatError
        Naming file, entry and field.
    """
    return tuple(
        Budget(entry.text("name"), entry.number("bytes"), entry.text("beyond"), entry.text("evidence"))
        for path in (_BUILT_IN, *extra)
        for entry in read(path).items("budget")
    )


def memory(bundle: Bundle, root: Path, known: Iterable[Budget]) -> Memory:
    """Estimate what a folder's models need.

    Parameters
    ----------
    bundle : Bundle
        From :func:`parity.contracts.inspect.inspect`.
    root : pathlib.Path
        The inspected folder, or the one model.
    known : iterable of Budget
        What it is held against.
    """
    found: dict[str, Estimate] = {}
    unread: dict[str, str] = {}
    for component in bundle.components:
        path = root if root.suffix in (".mlpackage", ".mlmodelc", ".mlmodel") else root / component.path
        try:
            found[component.path] = estimate(path)
        except ParityError as error:
            unread[component.path] = str(error)
    needed = [found[component.path] for component in _together(bundle.components) if component.path in found]
    one = max(needed, key=lambda own: own.most, default=None)
    total: Estimate | None = None
    for own in needed:
        total = own if total is None else total.beside(own)
    fits = () if one is None or total is None else tuple(Fit(b, _verdict(one, b), _verdict(total, b)) for b in known)
    return Memory(bundle.path, found, unread, one, total, fits)


def _together(components: Iterable[Component]) -> list[Component]:
    """Return what is loaded together: each component once, compiled where it is, whole rather than in chunks."""
    chosen: dict[tuple[str, str, int], Component] = {}
    for component in sorted(components, key=lambda own: own.form != "mlmodelc"):
        several = component.version if component.kind == "controlnet" else ""
        chosen.setdefault((component.kind, several, component.chunk), component)
    whole = {(kind, several) for kind, several, chunk in chosen if not chunk}
    return [own for (kind, several, chunk), own in chosen.items() if not chunk or (kind, several) not in whole]


def _verdict(own: Estimate, budget: Budget) -> str:
    if own.least > budget.bytes:
        return "too large"
    return "may fit" if own.most <= budget.bytes else "unclear"
