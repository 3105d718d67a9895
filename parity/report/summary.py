"""What fits on a pull request's or a workflow's page? Counts by machine, what fails, what is unknown and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity.files import replacing
from parity.report.page.view import Context
from parity.report.table import said_candidate, said_producer, shown_numbers, worst_first
from parity.runs import telling

_MOST = 50  # failures that are listed


def write(
    records: Sequence[dict[str, Any]],
    path: Path,
    *,
    messages: Sequence[str] = (),
    context: Context = Context(),  # noqa: B008 (frozen)
) -> Path:
    """Write the summary as Markdown and return its path.

    Parameters
    ----------
    records : sequence of dict
        From :func:`parity.runs.result.result`; each names its ``machine``.
    path : path
        The file; it is replaced.
    messages : sequence of str
        What else follows from the run.
    context : Context
        What changed since an earlier run, or earlier nights.
    """
    with replacing(path) as written:
        written.write_text(render(records, messages=messages, context=context), encoding="utf-8")
    return path


def render(
    records: Sequence[dict[str, Any]],
    *,
    messages: Sequence[str] = (),
    context: Context = Context(),  # noqa: B008 (frozen)
) -> str:
    """Return the summary as Markdown, parameters as :func:`write`."""
    counts = Counter(record["verdict"] for record in records)
    lines = [f"## parity: {counts['fail']} fail, {counts['unknown']} unknown, {counts['pass']} pass", ""]
    lines += [*(f"- {_plain(message)}" for message in messages), *([""] if messages else [])]
    lines += [*_machines(records), *_failures(records)]
    if context.since:
        told = list(telling.sentences(telling.grouped(context.changes), most=_MOST)) or ["nothing got worse or better"]
        lines += ["", f"### Since {_plain(context.since)}", "", *map(_item, told)]
    undecided = [record["checks"][record["decisive"]] for record in records if record["verdict"] == "unknown"]
    if reasons := Counter(check["message"] for check in undecided):
        lines += ["", "### Unknown", "", *(f"- {count} x {_plain(reason)}" for reason, count in reasons.items())]
    return "\n".join(lines) + "\n"


def _machines(records: Sequence[dict[str, Any]]) -> list[str]:
    rows = ["| machine | pass | fail | unknown | without an answer |", "| --- | ---: | ---: | ---: | ---: |"]
    for machine in dict.fromkeys(record["machine"] for record in records):
        own = [record for record in records if record["machine"] == machine]
        counts = Counter(record["verdict"] for record in own)
        absent = sum(not record["asked"] for record in own)
        rows.append(f"| {_plain(machine)} | {counts['pass']} | {counts['fail']} | {counts['unknown']} | {absent} |")
    return rows


def _failures(records: Sequence[dict[str, Any]]) -> list[str]:
    failed = [record for record in worst_first(records) if record["verdict"] == "fail"]
    if not failed:
        return []
    rows = ["", "| fails | candidate | compared | value | bound | margin |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for record in failed[:_MOST]:
        check = record["checks"][record["decisive"]]
        case = " ".join(filter(None, [record["case"], said_producer(record)]))
        words = [case, said_candidate(record), f"{check['where']} {check['metric']}", *shown_numbers(check)]
        rows.append("| " + " | ".join(map(_plain, words)) + " |")
    if len(failed) > _MOST:
        rows.append(f"\nand {len(failed) - _MOST} more")
    rows += ["", f"The worst again: `{failed[0]['reproduce']}`"]
    return rows


def _item(sentence: str) -> str:
    """Make a line of :func:`parity.runs.telling.sentences` an item of a list, or of one in it."""
    return f"{'  ' if sentence.startswith('  ') else ''}- {_plain(sentence)}"


def _plain(text: str) -> str:
    """Keep a text in its cell or line, and from being read as a tag."""
    first = " ".join(text.split())
    return first.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
