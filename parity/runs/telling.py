"""How are many changes told in few lines?

A page that is read in the morning begins with what changed: first the set-up (a version, a package), since it may be
the cause of all else; then cells. What began between the same two runs stands together, so the runs and what differs
between them are said once and not at each cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from parity.runs.since import Change

_BRIEF: Final = 2
"""Parts of a change that a list says; the rest stands at its cell."""


@dataclass(frozen=True)
class Line:
    """What some cells of one machine have in common.

    Attributes
    ----------
    text : str
        In a sentence, without the cells.
    cells : tuple of str
        Ids; empty where all cells are concerned.
    """

    text: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Changes that began together.

    Attributes
    ----------
    worse : bool
        Whether they are to be acted on.
    machine, began : str
        As in :class:`parity.runs.since.Change`. With one line, which says it itself, ``began`` is empty.
    lines : tuple of Line
    """

    worse: bool
    machine: str
    began: str
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """What stands above the lines; empty where nothing does."""
        return f"on {self.machine} {self.began}" if self.began else ""


def grouped(changes: Sequence[Change]) -> list[Group]:
    """Return changes as a list says them: the set-up, then what got worse, then the rest.

    Parameters
    ----------
    changes : sequence of Change
        In any order, which is kept among those of a kind.
    """
    kinds: dict[tuple[object, ...], list[Change]] = {}
    for place, change in enumerate(changes):
        alone = "" if change.began else place
        kinds.setdefault((bool(change.cell), not change.worse, change.machine, change.began, alone), []).append(change)
    ordered = sorted(kinds.values(), key=lambda own: (bool(own[0].cell), not own[0].worse))
    return [_group(own) for own in ordered]


def _group(own: Sequence[Change]) -> Group:
    first = own[0]
    texts: dict[str, list[str]] = {}
    for change in own:
        texts.setdefault(brief(change.text), []).append(change.cell)
    lines = tuple(Line(text, tuple(filter(None, cells))) for text, cells in texts.items())
    if len(own) > 1:
        return Group(first.worse, first.machine, first.began, lines)
    (line,) = lines
    whole = f"{line.text} {first.began}" if first.began else line.text
    return Group(first.worse, first.machine, "", (Line(whole, line.cells),))


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 run``, ``2 runs``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def brief(text: str) -> str:
    """Return the first parts of a change's text, and how many more there are."""
    parts = text.split("; ")
    more = len(parts) - _BRIEF
    return "; ".join([*parts[:_BRIEF], f"and {more} more"]) if more > 1 else text


def sentences(groups: Sequence[Group], *, most: int) -> Iterator[str]:
    """Give lines of a list in plain text, deeper ones indented by two spaces.

    Parameters
    ----------
    groups : sequence of Group
        From :func:`grouped`.
    most : int
        Groups, and cells of a group; the others are counted.
    """
    for group in groups[:most]:
        told = [_sentence(group, line.text, cell) for line in group.lines for cell in line.cells or ("",)]
        if group.title:
            yield f"{group.title}:"
        yield from told[:most]
        if len(told) > most:
            yield f"  and {len(told) - most} more"
    if len(groups) > most:
        yield f"and {len(groups) - most} more"


def _sentence(group: Group, text: str, cell: str) -> str:
    if not cell:
        return text
    return f"  {cell}: {text}" if group.title else f"{cell} on {group.machine}: {text}"
