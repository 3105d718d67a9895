"""Which records do commands print after ``--json``? One class a document; ``docs/json.md`` says what they are for.

Classes of other rooms stand here where they are the whole document. ``schema`` writes a layout as JSON Schema
(2020-12), of which a schema checker needs nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import msgspec

from parity.errors import UsageError
from parity.tables import nearest

SCHEMA: Final = 1
"""Number of the layouts; raised when a field of one changes its meaning or goes. Fields may join without that."""

LAYOUTS: Final[Mapping[str, str]] = {
    "inspect": "parity.commands.records_of_models:Inspected",
    "inspect core-ai": "parity.commands.records_of_models:CoreAI",
    "diff": "parity.contracts.diff:FolderDiff",
    "diff core-ai": "parity.coreai.comparison:Comparison",
    "repair": "parity.commands.records_of_models:Repairs",
    "convert": "parity.commands.records_of_models:Converted",
    "convert analysis": "parity.commands.records_of_models:Analysed",
    "run": "parity.commands.records_of_runs:Reported",
    "gate": "parity.commands.records_of_runs:Gate",
    "gate plan": "parity.commands.records_of_runs:GatePlan",
    "golden list": "parity.commands.records_of_goldens:Goldens",
    "golden show": "parity.commands.records_of_goldens:ShownGoldens",
    "golden diff": "parity.commands.records_of_goldens:GoldenDiff",
    "golden decisions": "parity.commands.records_of_goldens:Decided",
    "golden prune": "parity.commands.records_of_goldens:PrunedGoldens",
    "calibrate": "parity.commands.records_of_runs:Calibrated",
    "merge": "parity.commands.records_of_runs:Merged",
    "history add": "parity.commands.records_of_runs:Added",
    "history check": "parity.commands.records_of_runs:Checked",
    "history show": "parity.commands.records_of_runs:Trends",
    "bench": "parity.commands.records_of_runs:Measured",
    "bench estimate": "parity.commands.records_of_models:Sizes",
    "bench published": "parity.commands.records_of_runs:Published",
    "latents": "parity.commands.records_of_streams:Drawn",
    "latents compare": "parity.commands.records_of_streams:Compared",
    "latents detect": "parity.commands.records_of_streams:Detected",
    "mil show": "parity.mil.listed:Program",
    "mil profile": "parity.commands.records_of_models:Profile",
    "mil compare": "parity.commands.records_of_models:Departures",
    "mil operators": "parity.commands.records_of_models:Operators",
    "cache list": "parity.commands.records:Cached",
    "cache prune": "parity.commands.records:Pruned",
    "doctor": "parity.commands.records:Report",
}
"""Where a document's class is, by what stands in its field ``document``; imported when it is asked for, since a room's
own libraries need not be there. ``parity report`` and ``parity fleet run`` print ``run``."""


def layout(name: str) -> type:
    """Import and return the class of a document."""
    module, _, attribute = LAYOUTS[name].partition(":")
    found: type = getattr(importlib.import_module(module), attribute)
    return found


def name_of(record: object) -> str:
    """Return the document that a record is; nothing is imported for that."""
    kind = type(record)
    (name,) = (name for name, place in LAYOUTS.items() if place == f"{kind.__module__}:{kind.__qualname__}")
    return name


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a document.

    Parameters
    ----------
    name : str
        A key of :data:`LAYOUTS`.

    Raises
    ------
    UsageError
        There is no such document.
    """
    if name not in LAYOUTS:
        raise UsageError(f"no document {name!r}{nearest(name, LAYOUTS)}; 'parity schema' lists them")
    kind = layout(name)
    made = _with_infinities(msgspec.json.schema(kind))
    inner = made["$defs"][kind.__name__]
    inner["properties"] = {"document": {"const": name}, "schema": {"const": SCHEMA}, **inner["properties"]}
    inner["required"] = ["document", "schema", *(field.name for field in fields(kind))]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _with_infinities(part: Any) -> Any:
    """Let numbers be ``nan``, ``inf`` and ``-inf`` as texts, which JSON has no numbers for."""
    if isinstance(part, dict):
        if part.get("type") == "number":
            return {"anyOf": [part, {"enum": ["nan", "inf", "-inf"]}]}
        return {key: _with_infinities(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_with_infinities(value) for value in part]
    return part
