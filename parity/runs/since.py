"""What is not as it was in an earlier run: verdicts, margins, pictures, times, versions?

Two runs tell less than a history: nothing is known about noise, so a margin or a time counts from a stated size on. The
cells of one machine are compared with those of the same machine; with one machine on each side, whatever their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from parity.runs.ledger import Entry, Ledger
from parity.runs.schema import Session

DECIBEL: Final = 0.5
"""A margin in dB that moved by less is not told; of other units a tenth of the bound."""
SLOWER: Final = 1.25
"""A time is told from this ratio on; single runs vary."""
_LEAST: Final = 0.2  # seconds below which times are not compared
_SHARE: Final = 0.1


@dataclass(frozen=True)
class Change:
    """Something that is not as it was.

    Attributes
    ----------
    text : str
        In a sentence, without the cell; everything that changed in a cell is one change.
    worse : bool
        Whether it is to be acted on.
    cell, machine : str
        The cell's id and its machine; empty where all cells are concerned.
    began : str
        Of what nights tell: since which run, and what differs from the one before it.
    """

    text: str
    worse: bool
    cell: str = ""
    machine: str = ""
    began: str = ""

    @property
    def whole(self) -> str:
        """Everything but the cell."""
        return f"{self.text} {self.began}" if self.began else self.text

    @property
    def sentence(self) -> str:
        """The change, with the cell where there is one."""
        return f"{self.cell} on {self.machine}: {self.whole}" if self.cell else self.whole


def changes(before: Ledger, now: Ledger) -> list[Change]:
    """Return what changed between two runs, what got worse first.

    Parameters
    ----------
    before, now : Ledger
        From :func:`parity.runs.ledger.read`.
    """
    machines = _paired(before, now)
    earlier = {(machine, entry.record["id"]): entry for (machine, _), entry in before.latest().items()}
    found = [*_facts(before, now, machines)]
    seen = set()
    for (machine, cell), entry in now.latest().items():
        key = machines.get(machine, machine), cell
        seen.add(key)
        if key in earlier:
            if moved := list(_moved(earlier[key], entry)):
                found.append(Change("; ".join(text for text, _ in moved), any(bad for _, bad in moved), cell, machine))
        else:
            found.append(Change("is new", entry.record["verdict"] == "fail", cell, machine))
    back = {was: name for name, was in machines.items()}
    for machine, cell in earlier:
        if (machine, cell) not in seen:
            found.append(Change("has no answer any more", True, cell, back.get(machine, machine)))
    return sorted(found, key=lambda change: not change.worse)


def _paired(before: Ledger, now: Ledger) -> dict[str, str]:
    """Return the earlier machine of each machine, where they differ in name alone."""
    old, new = ({session.machine for session in ledger.sessions} for ledger in (before, now))
    return dict(zip(new, old, strict=True)) if len(old) == len(new) == 1 else {}


def _facts(before: Ledger, now: Ledger, machines: Mapping[str, str]) -> Iterator[Change]:
    """Say which versions and digests changed on each machine."""
    old = {session.machine: facts(session) for session in before.sessions}
    new = {session.machine: facts(session) for session in now.sessions}
    for machine, here in new.items():
        there = old.get(machines.get(machine, machine))
        if there is None:
            continue
        names = dict.fromkeys([*there, *here])
        pairs = {name: (there.get(name, ""), here.get(name, "")) for name in names}
        told = [f"{name} {was[:24] or '-'} -> {now[:24] or '-'}" for name, (was, now) in pairs.items() if was != now]
        if told:
            yield Change(f"{machine}: {', '.join(told)}", False)


def facts(session: Session) -> dict[str, str]:
    """Return versions, system, variables and the question of a session, by name."""
    here = session.provenance
    variables = {f"${name}": value for name, value in here.variables.items()}
    own = {"parity": session.parity, "python": here.python, "system": here.system, "build": here.build}
    return {**own, "chip": here.chip, "commit": here.commit, **here.packages, **variables, **session.question}


def _moved(before: Entry, now: Entry) -> Iterator[tuple[str, bool]]:
    was, verdict = before.record["verdict"], now.record["verdict"]
    if was != verdict:
        why = now.record["checks"][now.record["decisive"]]
        reason = f" ({why['where']})" if verdict == "fail" else ""
        yield f"{was} -> {verdict}{reason}", verdict != "pass"
    yield from _margins(before.record, now.record)
    yield from _pictures(before.record, now.record)
    for role, seconds in now.record["seconds"].items():
        old = before.record["seconds"].get(role, 0.0)
        if min(old, seconds) > _LEAST and not 1 / SLOWER < seconds / old < SLOWER:
            yield f"{role} took {seconds:.2f} s, {old:.2f} s before", seconds > old


def _margins(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Say which margins moved, first the one of which the least is left."""
    known = {(check["point"], check["metric"]): check for check in before["checks"]}
    found: list[tuple[float, str, bool]] = []
    for check in now["checks"]:
        old = known.get((check["point"], check["metric"]))
        if old is None or not check["metric"]:
            continue
        was, margin = float(old["margin"]), float(check["margin"])
        step = margin - was
        decibel = check["shown"]["margin"].endswith("dB")
        least = DECIBEL if decibel else _SHARE * abs(float(check["bound"]))
        if not math.isnan(step) and abs(step) >= max(least, 1e-9):
            told = f"margin {old['shown']['margin']} -> {check['shown']['margin']}"
            left = margin / was if 0 < was < math.inf else step
            found.append((left, f"{check['point']} {check['metric']}: {told}", step < 0))
    yield from ((text, worse) for _, text, worse in sorted(found, key=lambda moved: moved[0]))


def _pictures(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    for role in ("reference", "candidate"):
        old, new = before["pictures"].get(role), now["pictures"].get(role)
        if old and new and old != new:
            yield f"the {role} draws another picture", False
