"""The page ``index.html``: for each cell the two pictures, where they differ, and every check, worst first.

One self-contained file (pictures, style and script inside), so it can be attached to a ticket or kept as a CI artefact;
``report.json`` beside it holds the same records for machines.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.files import replacing
from parity.report.table import notes, worst_first
from parity.suite.provenance import environment

if TYPE_CHECKING:
    from parity.suite.run import Conclusion

# A difference of this many 8-bit steps is drawn at full brightness; most float16 differences are 1 to 4.
FULL_SCALE = 16


def write(
    records: Sequence[dict[str, Any]],
    folder: Path,
    conclusion: Conclusion | None = None,
    *,
    machine: dict[str, str] | None = None,
) -> Path:
    """Write ``index.html`` and ``report.json`` and return the page's path.

    Parameters
    ----------
    records : sequence of dict
        From :meth:`parity.suite.outcome.Outcome.record`.
    folder : path
        Created if needed; files of those two names are replaced.
    conclusion : Conclusion, optional
        What follows from the run; ``report.json`` has its exit code and messages, the page says the messages.
    machine : dict, optional
        Where the records were made; this machine by default.
    """
    ordered = worst_first(records)
    machine = environment() if machine is None else machine
    with replacing(folder / "report.json") as path:
        document: dict[str, Any] = {"environment": machine, "records": ordered}
        if conclusion is not None:
            document["conclusion"] = {"exit_code": conclusion.code, "messages": list(conclusion.messages)}
        path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with replacing(folder / "index.html") as path:
        path.write_text(_page(ordered, machine, conclusion.messages if conclusion else ()), encoding="utf-8")
    return folder / "index.html"


def _page(records: list[dict[str, Any]], machine: dict[str, str], messages: Sequence[str]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = Environment(loader=PackageLoader("parity.report"), autoescape=True, undefined=StrictUndefined)
    cells = [{**record, "difference": _difference(record["pictures"])} for record in records if record["asked"]]
    return loader.get_template("index.html.j2").render(
        cells=cells,
        counts=Counter(record["verdict"] for record in records),
        messages=messages,
        notes=[line for line in notes(records)[2:] if line],
        machine=machine,
        full_scale=FULL_SCALE,
    )


def _difference(pictures: dict[str, str]) -> str:
    """Return the amplified absolute difference of the two pictures as PNG in base64, empty without two of one size."""
    if set(pictures) != {"reference", "candidate"}:
        return ""
    from PIL import Image

    first, second = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[role]))), dtype=np.int16)
        for role in ("reference", "candidate")
    )
    if first.shape != second.shape:
        return ""
    amplified = np.minimum(np.abs(first - second) * (255 // FULL_SCALE), 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(amplified).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
