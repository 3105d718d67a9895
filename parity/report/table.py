"""The table at the end of a run: worst first, every skipped cell with its reason, and what a verdict speaks about.

Old models in app releases make up to a hundred cells; where many of them pass they are one line below the table.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"pass": "green", "fail": "bold red", "unknown": "yellow"}
_RANK = {"fail": 0, "unknown": 1, "pass": 2}
_KINDS = ("candidate", "producer", "picture", "golden", "compatibility")
_NARROW = 100  # columns; below it words would be cut in two
_FEW = 8  # passing cells of compatibility that are shown one by one


def worst_first(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records by verdict (fail, unknown, pass), kind (candidates first) and deciding margin."""

    def key(record: dict[str, Any]) -> tuple[int, int, float]:
        margin = float(record["checks"][record["decisive"]]["margin"])
        unmeasured = float("inf") if record["verdict"] == "pass" else float("-inf")
        place = _RANK[record["verdict"]], _KINDS.index(record["kind"])
        return *place, unmeasured if math.isnan(margin) else margin

    return sorted(records, key=key)


def render(records: Sequence[dict[str, Any]], *, width: int = 120, color: bool = False) -> str:
    """Return the table as text.

    Parameters
    ----------
    records : sequence of dict
        From :meth:`parity.suite.outcome.Outcome.record`.
    width : int
        Columns of the terminal.
    color : bool
        Whether to use ANSI colours.
    """
    buffer = io.StringIO()
    system: Any = "standard" if color else None
    console = Console(
        file=buffer, width=max(width, 80), force_terminal=color, color_system=system, markup=False, emoji=False
    )  # names are names: brackets and colons in them mean nothing
    passing = [r for r in records if r["kind"] == "compatibility" and r["verdict"] == "pass"]
    together = passing if len(passing) > _FEW else []
    hidden = {id(record) for record in [*together, *(r for r in records if not r["asked"])]}
    console.print(_table([record for record in records if id(record) not in hidden], narrow=width < _NARROW))
    for line in [*_summary(together), *notes(records)]:
        console.print(Text(line))
    return buffer.getvalue().rstrip("\n")


def _table(records: Sequence[dict[str, Any]], *, narrow: bool) -> Table:
    """Lay out the rows; on a narrow terminal stream and seed stand below the case."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("case", "candidate", "compared") if narrow else ("case", "stream, seed", "candidate", "compared"):
        table.add_column(title, overflow="fold")
    for title in ("value", "bound", "margin"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for record in worst_first(records):
        check = record["checks"][record["decisive"]]
        expected = record["verdict"] == "fail" and record.get("expected")
        shown = check["shown"]
        seed = f"{record['settings']['rng']}, {record['settings']['seed']}"
        case = "\n".join(filter(None, [record["case"], said_producer(record)]))
        table.add_row(
            *([f"{case}\n{seed}"] if narrow else [case, seed]),
            said_candidate(record),
            f"{check['where']} {check['metric']}",
            shown["value"],
            shown["bound"],
            shown["margin"],
            Text(f"{record['verdict']}{', expected' if expected else ''}", style=_STYLES[record["verdict"]]),
        )
    return table


def said_producer(record: dict[str, Any]) -> str:
    """Return who draws, unless it is diffusers: ``as swift==1.1.0``."""
    return "" if record["producer"] in ("", "diffusers") else f"as {record['producer']}"


def said_candidate(record: dict[str, Any]) -> str:
    """Return what is judged: a backend, the reference with its golden, another producer, a picture's file."""
    ways = {"golden": f"{record['backend']} (golden)", "producer": f"against {record['against']}"}
    return ways.get(record["kind"], record["against"] or record["backend"])


def _summary(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return what passing cells of compatibility found, in a line."""
    if not records:
        return []
    decisive = [record["checks"][record["decisive"]] for record in records]
    margins = [margin for check in decisive if not math.isnan(margin := float(check["margin"]))]
    others = Counter(check["where"] for check in decisive if math.isnan(float(check["margin"])))
    found = [f"{len(margins)} pictures (smallest margin {min(margins):.2f} dB)"] if margins else []
    found += [f"{count} x {where}" for where, count in others.items()]
    return ["", f"compatibility: {len(records)} pass: {', '.join(found)}; each is in the report (--parity-report DIR)"]


def notes(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return what must be said below the table: counts, reasons of unknown cells, and what stands for which units."""
    counts = Counter(record["verdict"] for record in records)
    lines = ["", ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("pass", "fail", "unknown"))]
    bad = Counter(message for record in records for message in record["bad_input"])
    lines += [f"bad input ({count}): {message}" for message, count in bad.items()]
    undecided = [record["checks"][record["decisive"]] for record in records if record["verdict"] == "unknown"]
    reasons = Counter(check["message"] for check in undecided if not check["bad_input"])
    lines += [f"unknown ({count}): {reason}" for reason, count in reasons.items()]
    said: dict[str, list[str]] = {}
    for record in records:
        for remark in record["remarks"]:
            said.setdefault(remark, []).append(record["case"])
    lines += [f"note ({', '.join(dict.fromkeys(cases))}): {remark}" for remark, cases in said.items()]
    stands_for = {r["backend"]: r["units"] for r in records if r["units"] and "reference runtime" in r["backend"]}
    for backend, units in stands_for.items():
        lines.append(
            f"{backend}: computed once for {', '.join(units)}; says what the converted program computes, "
            "nothing about Apple hardware"
        )
    return lines
