"""Which records do commands print after ``--json``? One class a document; ``docs/json.md`` says what they are for.

Classes of other rooms stand here where they are the whole document. ``schema`` writes a layout as JSON Schema
(2020-12), of which a schema checker needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import msgspec

from parity.commands.records import Cached, Pruned, Report
from parity.commands.records_of_goldens import Decided, GoldenDiff, Goldens, PrunedGoldens, ShownGoldens
from parity.commands.records_of_models import (
    Analysed,
    Compared,
    Converted,
    CoreAI,
    Departures,
    Detected,
    Drawn,
    Inspected,
    Operators,
    Profile,
    Repairs,
    Sizes,
)
from parity.commands.records_of_runs import (
    Added,
    Calibrated,
    Checked,
    Gate,
    GatePlan,
    Measured,
    Merged,
    Published,
    Reported,
    Trends,
)
from parity.contracts.diff import FolderDiff
from parity.coreai.comparison import Comparison
from parity.errors import UsageError
from parity.mil.listed import Program
from parity.tables import nearest

SCHEMA: Final = 1
"""Number of the layouts; raised when a field of one changes its meaning or goes. Fields may join without that."""

LAYOUTS: Final[Mapping[str, type]] = {
    "inspect": Inspected,
    "inspect core-ai": CoreAI,
    "diff": FolderDiff,
    "diff core-ai": Comparison,
    "repair": Repairs,
    "convert": Converted,
    "convert analysis": Analysed,
    "run": Reported,
    "gate": Gate,
    "gate plan": GatePlan,
    "golden list": Goldens,
    "golden show": ShownGoldens,
    "golden diff": GoldenDiff,
    "golden decisions": Decided,
    "golden prune": PrunedGoldens,
    "calibrate": Calibrated,
    "merge": Merged,
    "history add": Added,
    "history check": Checked,
    "history show": Trends,
    "bench": Measured,
    "bench estimate": Sizes,
    "bench published": Published,
    "latents": Drawn,
    "latents compare": Compared,
    "latents detect": Detected,
    "mil show": Program,
    "mil profile": Profile,
    "mil compare": Departures,
    "mil operators": Operators,
    "cache list": Cached,
    "cache prune": Pruned,
    "doctor": Report,
}
"""Documents by what stands in their field ``document``; ``parity report`` and ``parity fleet run`` print ``run``."""


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
    layout = LAYOUTS[name]
    made = _with_infinities(msgspec.json.schema(layout))
    inner = made["$defs"][layout.__name__]
    inner["properties"] = {"document": {"const": name}, "schema": {"const": SCHEMA}, **inner["properties"]}
    inner["required"] = ["document", "schema", *(field.name for field in fields(layout))]
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
