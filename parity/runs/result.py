"""What does a run's folder say as a whole: the answers that count, and what is missing?

Records come out as a run gives them, so table, page and summary are made of them as of a run in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parity.runs.folder import filled
from parity.runs.ledger import Ledger
from parity.runs.schema import Planned, Session
from parity.runs.since import facts


@dataclass(frozen=True)
class Result:
    """The answers of a run.

    Attributes
    ----------
    records : tuple of dict
        The last answer of each planned cell on each machine, in the order of the plan; where there is none, a record
        that was not asked. With several machines, sentences and backends name theirs.
    machines : mapping of str to Session
        The last session on each machine.
    accepting : bool
        Whether the run accepted goldens.
    """

    records: tuple[dict[str, Any], ...]
    machines: Mapping[str, Session]
    accepting: bool

    @property
    def missing(self) -> int:
        """Number of planned cells without an answer."""
        return sum(not record["asked"] for record in self.records)

    @property
    def described(self) -> dict[str, dict[str, str]]:
        """Return what a page says of each machine: facts by name, the digests of what was asked among them."""
        return {
            name: {key: value for key, value in facts(session).items() if value}
            for name, session in self.machines.items()
        }


def result(ledger: Ledger) -> Result:
    """Collect the answers of a run.

    Raises
    ------
    FormatError
        A picture is damaged.
    """
    planned = {(session.machine, cell.id): cell for session in ledger.sessions for cell in session.planned}
    machines = {session.machine: session for session in ledger.sessions}
    answers = ledger.latest()
    several = len(machines) > 1
    records = []
    for key in dict.fromkeys([*planned, *answers]):
        entry = answers.get(key)
        record = missing(planned[key], key[0]) if entry is None else filled(ledger.folder, entry)
        records.append(_named(record, key[0]) if several else {**record, "machine": key[0]})
    accepting = ledger.sessions[-1].question.get("goldens") == "being accepted"
    return Result(tuple(records), machines, accepting)


def missing(cell: Planned, machine: str) -> dict[str, Any]:
    """Return the record of a planned cell that has no answer: unknown, with the reason."""
    message = f"not asked: planned on {machine}, and its answer is not in the run's folder"
    nothing = {"value": "nan", "bound": "nan", "margin": "nan", "metric": "", "bad_input": False}
    shown = {"value": "-", "bound": "-", "margin": "-"}
    check = {**nothing, "point": "cell", "where": "nothing", "verdict": "unknown", "message": message, "shown": shown}
    names = ("id", "case", "sentence", "model", "kind", "backend", "units", "producer", "against", "settings")
    return {
        **{name: getattr(cell, name) for name in names},
        "verdict": "unknown",
        "asked": False,
        "bad_input": [],
        "expected": "",
        "decisive": 0,
        "checks": [check],
        "seconds": {},
        "reproduce": cell.reproduce,
        "remarks": [],
        "explanation": f"{cell.sentence}\n{message}\n  reproduce: {cell.reproduce}",
        "pictures": {},
        "course": None,
        "golden": None,
        "worker": "",
    }


def _named(record: dict[str, Any], machine: str) -> dict[str, Any]:
    """Say on which machine a record was made, wherever it is shown."""
    sentence = f"{record['sentence']}, on {machine}"
    return {**record, "machine": machine, "sentence": sentence, "backend": f"{record['backend']}, {machine}"}
