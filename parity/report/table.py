"""The table at the end of a run: worst first, every skipped cell with its reason, and what a verdict speaks about.

A wide terminal, a pipe and a file get one line a cell, as long as it has to be, so that other programs can search it. A
narrow terminal gets two: what decides, and below it who drew what. Old models in app releases make up to a hundred
cells; where many of them pass they are one line below the table.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"pass": "green", "fail": "bold red", "unknown": "yellow"}
_RANK = {"fail": 0, "unknown": 1, "pass": 2}
_KINDS = ("candidate", "producer", "picture", "golden", "compatibility")
_NARROW = 120  # columns; below it words would be cut in two
_UNLIMITED = 10_000  # columns of what is no terminal
_NUMBERS = (12, 12, 12)  # columns of value, bound and margin
_INDENT = 9  # columns of the verdict
_FEW = 8  # passing cells of compatibility that are shown one by one


def worst_first(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records by verdict (fail, unknown, pass), kind (candidates first) and deciding margin."""

    def key(record: dict[str, Any]) -> tuple[int, int, float]:
        margin = float(record["checks"][record["decisive"]]["margin"])
        unmeasured = float("inf") if record["verdict"] == "pass" else float("-inf")
        place = _RANK[record["verdict"]], _KINDS.index(record["kind"])
        return *place, unmeasured if math.isnan(margin) else margin

    return sorted(records, key=key)


def columns() -> int:
    """Return how wide a line on standard output may be: COLUMNS, else the terminal's width, else as it comes."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return shutil.get_terminal_size((_UNLIMITED, 24)).columns
    return _UNLIMITED


def colored() -> bool:
    """Return whether standard output takes colours: a terminal does, unless NO_COLOR is set or it is a dumb one."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(records: Sequence[dict[str, Any]], *, width: int = 120, color: bool = False) -> str:
    """Return the table as text.

    Parameters
    ----------
    records : sequence of dict
        From :meth:`parity.suite.outcome.Outcome.record`.
    width : int
        Columns of the terminal, see :func:`columns`; below 80 lines are as for 80.
    color : bool
        Whether to use ANSI colours.
    """
    buffer = io.StringIO()
    system: Any = "standard" if color else None
    width = max(width, 80)
    console = Console(
        file=buffer, width=width, force_terminal=color, color_system=system, markup=False, emoji=False, highlight=False
    )  # names are names: brackets and colons in them mean nothing
    passing = [r for r in records if r["kind"] == "compatibility" and r["verdict"] == "pass"]
    together = passing if len(passing) > _FEW else []
    hidden = {id(record) for record in [*together, *(r for r in records if not r["asked"])]}
    shown = worst_first([record for record in records if id(record) not in hidden])
    if width < _NARROW:
        for line in _narrow(shown, width):
            console.print(line, no_wrap=True, overflow="ignore", crop=False)
    else:
        console.print(_wide(shown))
    for text in [*_summary(together), *notes(records)]:
        console.print(Text(text))
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip("\n").split("\n"))


def _wide(records: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("verdict", "case", "stream, seed", "candidate", "compared"):
        table.add_column(title, overflow="fold", no_wrap=title == "verdict")
    for title in ("value", "bound", "margin"):
        table.add_column(title, justify="right", no_wrap=True)
    for record in records:
        check = record["checks"][record["decisive"]]
        table.add_row(
            Text(_verdict(record), style=_STYLES[record["verdict"]]),
            _case(record),
            _seed(record),
            said_candidate(record),
            f"{check['where']} {check['metric']}".rstrip(),
            *shown_numbers(check),
        )
    return table


def _narrow(records: Sequence[dict[str, Any]], width: int) -> Iterator[Text]:
    """Give two lines a cell; a name that is too long goes on in a line of its own."""
    room = width - _INDENT - sum(_NUMBERS)
    titles = "".join(title.rjust(size) for title, size in zip(("value", "bound", "margin"), _NUMBERS, strict=True))
    yield Text("verdict".ljust(_INDENT) + "case".ljust(room) + titles, style="bold")
    for record in records:
        check = record["checks"][record["decisive"]]
        numbers = "".join(text.rjust(size) for text, size in zip(shown_numbers(check), _NUMBERS, strict=True))
        first, *rest = textwrap.wrap(_case(record), room - 1, break_on_hyphens=False) or [""]
        verdict = record["verdict"].ljust(_INDENT)
        yield Text.assemble((verdict, _STYLES[record["verdict"]]), first.ljust(room), numbers)
        what = f"{_seed(record)}; {said_candidate(record)}; {check['where']} {check['metric']}".rstrip()
        below = [*rest, f"expected; {what}" if _expected(record) else what]
        for line in below:
            for part in textwrap.wrap(line, width - _INDENT, break_on_hyphens=False):
                yield Text(" " * _INDENT + part, style="dim")


def _verdict(record: dict[str, Any]) -> str:
    return f"{record['verdict']}{', expected' if _expected(record) else ''}"


def _expected(record: dict[str, Any]) -> bool:
    return record["verdict"] == "fail" and bool(record.get("expected"))


def _case(record: dict[str, Any]) -> str:
    return " ".join(filter(None, [record["case"], said_producer(record)]))


def _seed(record: dict[str, Any]) -> str:
    return f"{record['settings']['rng']}, {record['settings']['seed']}"


def shown_numbers(check: dict[str, Any]) -> tuple[str, str, str]:
    """Return value, bound and margin of a check, with units."""
    shown = check["shown"]
    return shown["value"], shown["bound"], shown["margin"]


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


def _goldens(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return who accepted what passing cells were compared with, in a line."""
    found = [record["golden"] for record in records if record.get("golden") and record["verdict"] == "pass"]
    if not found:
        return []
    days = sorted({golden["time"][:10] for golden in found})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    authors = ", ".join(sorted({golden["author"] for golden in found}))
    return [f"goldens: {len(found)} as {authors} accepted, {when}; the report (--parity-report DIR) says which and why"]


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
    lines += _goldens(records)
    stands_for = {r["backend"]: r["units"] for r in records if r["units"] and "reference runtime" in r["backend"]}
    for backend, units in stands_for.items():
        lines.append(
            f"{backend}: computed once for {', '.join(units)}; says what the converted program computes, "
            "nothing about Apple hardware"
        )
    return lines
