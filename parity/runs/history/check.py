"""What is new in the last nights, what got worse, and between which two runs did it begin?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from parity.runs.history import changes
from parity.runs.history.store import VERDICTS, Run, Series, Store
from parity.runs.since import Change

_FLOOR_DB: Final = 0.05  # what is smaller in a margin is nothing to act on
_FLOOR_SHARE: Final = 0.01  # of a bound, or of seconds
_FLOOR_LEAST: Final = 1e-6
WINDOW: Final = 60
"""Runs of a machine that a new level is judged against."""

_NAMED: Final = 6  # facts that differ, in a sentence


@dataclass(frozen=True)
class Finding:
    """Something that changed.

    Attributes
    ----------
    kind : str
        ``verdict``, ``margin``, ``seconds`` or ``flaky``.
    worse : bool
        Whether it is to be acted on; improvements are told too.
    machine, cell, what : str
        ``what`` names the series; empty for verdicts.
    first : Run, optional
        The first run at which it is seen; None for what is flaky.
    last : Run, optional
        The run before, the last good one of what got worse.
    text : str
        What changed, without the cell.
    began : str
        Since which run, and what differs between the runs that it lies between; empty where that is no question.
    """

    kind: str
    worse: bool
    machine: str
    cell: str
    what: str
    first: Run | None
    last: Run | None
    text: str
    began: str = ""

    @property
    def change(self) -> Change:
        """The finding as lists and pages tell it."""
        return Change(self.text, self.worse, self.cell, self.machine, self.began)


def check(store: Store, *, recent: int = 14) -> list[Finding]:
    """Return what is new in the last runs of each machine: what got worse first.

    Parameters
    ----------
    store : Store
        All runs.
    recent : int
        Runs of a machine in which a new level must begin; a cell's verdict is compared with its last decided one.

    Raises
    ------
    MissingError
        ruptures is not installed.
    """
    runs = store.runs()
    found = [*_verdicts(store, runs), *_levels(store, runs, recent), *_flaky(store)]
    return sorted(found, key=lambda finding: not finding.worse)


def between(last: Run, first: Run) -> str:
    """Say what differs between two runs: versions, system, digests."""
    names = dict.fromkeys([*last.facts, *first.facts])
    pairs = {name: (last.facts.get(name, "none"), first.facts.get(name, "none")) for name in names}
    told = [f"{name} {was or '-'} -> {now or '-'}" for name, (was, now) in pairs.items() if was != now]
    if not told:
        return "no version and no digest differs between them"
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return f"between them changed {', '.join(told[:_NAMED])}{more}"


def _verdicts(store: Store, runs: dict[int, Run]) -> Iterator[Finding]:
    """Give the cells that fail now, with the first failing run after the last passing one, and those that pass again.

    A cell that the machine's last run does not have is old news.
    """
    latest = {run.machine: run.id for run in runs.values()}
    cells = store.cells()
    whose, when, codes = store.answers()
    firsts = np.flatnonzero(np.diff(whose, prepend=-1))
    for first_place, end in zip(firsts, [*firsts[1:], len(whose)], strict=True):
        own = codes[first_place:end]
        if not own[-2:].any():  # it passed in the last two runs
            continue
        machine, cell = cells[int(whose[first_place])]
        told = [(int(run), VERDICTS[code]) for run, code in zip(when[first_place:end], own, strict=True)]
        number, verdict = told[-1]
        decided = [(run, verdict) for run, verdict in told if verdict != "unknown"]
        if number != latest[machine] or len(told) < 2:
            continue
        before = told[-2][1]
        if verdict == "fail":
            start = len(decided)
            while start and decided[start - 1][1] == "fail":
                start -= 1
            first, good = runs[decided[start][0]], runs[decided[start - 1][0]] if start else None
            yield Finding("verdict", True, machine, cell, "", first, good, "fails", _span(good, first))
        elif verdict == "unknown" and before != "unknown":
            now, last = runs[number], runs[told[-2][0]]
            yield Finding("verdict", True, machine, cell, "", now, last, "is unknown", _span(last, now))
        elif verdict == "pass" and before == "fail":
            now, last = runs[number], runs[told[-2][0]]
            yield Finding("verdict", False, machine, cell, "", now, last, "passes again", _span(last, now))


def _span(good: Run | None, first: Run) -> str:
    if good is None:
        return f"since {first.title}, the first one that is known"
    return f"since {first.title}; the last before is {good.title}; {between(good, first)}"


def _levels(store: Store, runs: dict[int, Run], recent: int) -> Iterator[Finding]:
    """Give the new levels that begin in the last runs, judged against the last :data:`WINDOW` runs of a machine."""
    if not runs:
        return
    own: dict[str, list[int]] = {}
    for run in runs.values():
        own.setdefault(run.machine, []).append(run.id)
    new = {machine: numbers[-recent:][0] for machine, numbers in own.items()}
    by_id = {series.id: series for series in store.series()}
    numbers, when, values = store.values(min(numbers[-WINDOW:][0] for numbers in own.values()))
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    known = [by_id[int(number)] for number in numbers[starts]]
    rows = np.split(values, starts[1:]) if known else []
    scaled = [np.log(row) if series.unit == "s" else row for series, row in zip(known, rows, strict=True)]
    for change in changes.find(scaled, [floor(series) for series in known]):
        series = known[change.row]
        place = int(starts[change.row]) + change.start
        first, last = runs[int(when[place])], runs[int(when[place - 1])]
        if first.id >= new[series.machine]:
            yield _level(series, change, last, first)


def floor(series: Series) -> float:
    """Return the least noise that a series is taken to have."""
    if series.unit == "dB":
        return _FLOOR_DB
    if series.unit == "s":
        return _FLOOR_SHARE  # of logarithms
    return _FLOOR_LEAST if series.bound is None else max(_FLOOR_SHARE * abs(series.bound), _FLOOR_LEAST)


def _level(series: Series, change: changes.Change, last: Run, first: Run) -> Finding:
    if series.unit == "s":
        share = math.expm1(change.after - change.before)
        worse = share > 0
        text = f"{series.what}: {abs(share):.1%} {'slower' if worse else 'faster'}"
        text += f" ({math.exp(change.before):.3g} s -> {math.exp(change.after):.3g} s)"
        kind = "seconds"
    else:
        worse = change.after < change.before
        unit = f" {series.unit}" if series.unit else ""
        text = (
            f"{series.what}: its margin {'fell' if worse else 'rose'} by {abs(change.after - change.before):.3g}{unit}"
        )
        text += f" ({change.before:.4g} -> {change.after:.4g}, noise {change.sigma:.2g})"
        kind = "margin"
    return Finding(kind, worse, series.machine, series.cell, series.what, first, last, text, _span(last, first))


def _flaky(store: Store) -> Iterator[Finding]:
    for machine, cell, passes, failures in store.flaky():
        text = f"is flaky: passed {passes} and failed {failures} of {passes + failures} times with the same versions"
        yield Finding("flaky", True, machine, cell, "", None, None, text)
