"""The page ``index.html``: what changed and what fails, then every cell with its pictures, curves and checks.

One file (pictures, style and script inside) that asks nothing of the network, so it can be attached to a ticket or kept
as a CI artefact. ``report.json`` beside it holds the same records for machines, pictures by the digests under which the
page, or the run's folder, holds them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.files import replacing
from parity.report.page.gallery import Gallery
from parity.report.page.view import Context, View, groups
from parity.report.sheet import sheets
from parity.report.table import notes, worst_first
from parity.runs import telling
from parity.suite.provenance import environment

if TYPE_CHECKING:
    from parity.suite.run import Conclusion

_MOST = 20  # failures that the summary lists
_CHANGES = 30  # groups of changes that the page begins with
_OPEN = 3  # failures that are open at first


def write(
    records: Sequence[dict[str, Any]],
    folder: Path,
    conclusion: Conclusion | None = None,
    *,
    context: Context | None = None,
) -> Path:
    """Write ``index.html`` and ``report.json`` and return the page's path.

    Parameters
    ----------
    records : sequence of dict
        From :meth:`parity.suite.outcome.Outcome.record`.
    folder : path
        Created if needed; files of those two names are replaced. Pictures beyond what a page can hold are laid into
        ``pictures/`` there.
    conclusion : Conclusion, optional
        What follows from the run; ``report.json`` has its exit code and messages, the page says the messages.
    context : Context, optional
        Machines, changes and trends; by default this machine, and nothing earlier.
    """
    ordered = worst_first(records)
    context = context or Context({"": environment()})
    with replacing(folder / "report.json") as path:
        text = json.dumps(document(records, conclusion, context=context), indent=1, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")
    with replacing(folder / "index.html") as path:
        path.write_text(_page(ordered, folder, context, conclusion), encoding="utf-8")
    return folder / "index.html"


def document(
    records: Sequence[dict[str, Any]], conclusion: Conclusion | None = None, *, context: Context | None = None
) -> dict[str, Any]:
    """Return what ``report.json`` holds; parameters as :func:`write`."""
    machines = context.machines if context else {"": environment()}
    here = next(iter(machines.values()), {}) if len(machines) == 1 else machines
    found: dict[str, Any] = {"environment": here, "records": [_by_digest(record) for record in worst_first(records)]}
    if context and context.since:
        changes = [{"text": one.sentence, "worse": one.worse} for one in context.changes]
        found["changes"] = {"since": context.since, "found": changes}
    if conclusion is not None:
        found["conclusion"] = {"exit_code": conclusion.code, "messages": list(conclusion.messages)}
    return found


def _by_digest(record: dict[str, Any]) -> dict[str, Any]:
    digests = {role: hashlib.sha256(base64.b64decode(text)).hexdigest() for role, text in record["pictures"].items()}
    return {**record, "pictures": digests}


def _page(records: list[dict[str, Any]], folder: Path, context: Context, conclusion: Conclusion | None) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = Environment(
        loader=PackageLoader("parity.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    gallery = Gallery(folder)
    grouped = groups(records, context, gallery)
    changes = telling.grouped(context.changes)
    failing = [cell for group in grouped for cell in group.cells if cell.record["verdict"] == "fail"]
    return loader.get_template("index.html.j2").render(
        groups=grouped,
        failing=failing[:_MOST],
        left_out=max(0, len(failing) - _MOST),
        opened={cell.anchor for cell in failing[:_OPEN]},
        anchors=_anchors(cell for group in grouped for cell in group.cells),
        changes=changes[:_CHANGES],
        more_changes=max(0, len(changes) - _CHANGES),
        counts=Counter(record["verdict"] for record in records),
        models=list(dict.fromkeys(record["model"] for record in records)),
        messages=conclusion.messages if conclusion else (),
        notes=[line for line in notes(records)[2:] if line],
        machines=_machines(records, context),
        context=context,
        gallery=gallery,
        sheets=sheets(records),
    )


def _anchors(cells: Any) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    cell: View
    for cell in cells:
        found[cell.record.get("machine", ""), cell.record["id"]] = cell.anchor
    return found


def _machines(records: Sequence[dict[str, Any]], context: Context) -> list[dict[str, Any]]:
    """Count verdicts by machine, and those that have no answer."""
    rows = []
    for machine in dict.fromkeys([*context.machines, *(record.get("machine", "") for record in records)]):
        own = [record for record in records if record.get("machine", "") == machine]
        facts = context.machines.get(machine, {})
        if own:
            counts = Counter(record["verdict"] for record in own)
            absent = sum(not record["asked"] for record in own)
            rows.append({"name": machine or "this machine", "counts": counts, "absent": absent, "facts": facts})
    return rows
