"""Which margins have shrunk since an earlier run, although the check still passes?

A check that passes with less and less room fails one day without a change that anybody remembers. ``--earlier FILE``
names the ``report.json`` of an earlier run; a check whose margin has lost :data:`SHARE` of what it was is a *warning*
in table, page and JSON. A warning fails nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from parity.errors import FormatError, MissingError
from parity.files import refuse_pointer

SHARE: Final = 0.5
"""Share of an earlier margin whose loss is a warning."""
_LEAST: Final = 1e-6  # margins below are no room that could be lost

Margins = Mapping[tuple[str, str, str], tuple[float, str]]
"""Cell, point and metric to the margin and how it was printed."""


def load(path: Path | None) -> Margins:
    """Read the margins of an earlier run's passing checks; none without a file.

    Raises
    ------
    MissingError, FormatError
        No such file; no report of a run.
    """
    if path is None:
        return {}
    refuse_pointer(path)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["records"]
        return {
            (record["id"], check["point"], check["metric"]): (float(check["margin"]), str(check["shown"]["margin"]))
            for record in records
            for check in record["checks"]
            if check["verdict"] == "pass" and check["metric"]
        }
    except FileNotFoundError:
        raise MissingError(f"--earlier {path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"--earlier {path}: the report.json of a run is needed ({error!r:.80})") from None


def warned(record: dict[str, Any], earlier: Margins) -> dict[str, Any]:
    """Return a cell's record with a warning for each passing check whose margin has shrunk.

    Parameters
    ----------
    record : dict
        From :meth:`parity.suite.outcome.Outcome.record`.
    earlier : mapping
        From :func:`load`.
    """
    found = []
    for check in record["checks"]:
        before, shown = earlier.get((record["id"], check["point"], check["metric"]), (math.nan, ""))
        now = float(check["margin"])
        if check["verdict"] != "pass" or not before > _LEAST:
            continue
        lost = 1.0 if math.isinf(before) else (before - now) / before
        if not math.isinf(now) and lost >= SHARE:
            found.append(
                f"warning: {check['point']} passes, and its margin has shrunk since the earlier run: {check['metric']} "
                f"{check['shown']['margin']}, was {shown}"
            )
    if not found:
        return record
    return {**record, "warnings": found, "remarks": [*record["remarks"], *found]}
