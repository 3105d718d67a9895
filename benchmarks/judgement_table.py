"""How often does a sound candidate fail, and how near to its bounds does it lie? Tables of what was measured.

The upper limit of a rate is Clopper's and Pearson's: with it or a higher rate, so few failures would be seen once in
twenty times.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Entry = dict[str, Any]


def read(paths: Iterable[Path]) -> list[Entry]:
    """Read the lines that the benchmark wrote; one that was cut off is left out."""
    found = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def limit(failed: int, count: int, confidence: float = 0.95) -> float:
    """Return the upper confidence limit of a rate.

    Examples
    --------
    >>> round(limit(0, 299), 4)
    0.01
    """
    from scipy.stats import beta

    return 1.0 if failed >= count else float(beta.ppf(confidence, failed + 1, count - failed))


def cause(entry: Entry) -> str:
    """Return what a failing cell names as the cause, or ``none``: that is a false alarm until somebody explains it.

    Examples
    --------
    >>> cause({"checks": [{"verdict": "fail", "message": "unet: … | cause: the timestep embedding is computed"}]})
    'timestep embedding'
    """
    said = " ".join(check.get("message", "") for check in entry["checks"] if check["verdict"] == "fail")
    found = [name for name, words in _CAUSES.items() if words in said]
    return " and ".join(found) or "none"


_CAUSES = {
    "timestep embedding": "cause: the timestep embedding",
    "squares of a group norm": "fused_group_norm",
    "timestep rounded by its feature": "cause: the timestep is a float16 feature",
}


def text(entries: Sequence[Entry]) -> str:
    """Return both tables as Markdown: verdicts by model and candidate, ratios by point."""
    return "\n".join([*_verdicts(entries), "", *_ratios(entries)])


def _verdicts(entries: Sequence[Entry]) -> list[str]:
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry["model"], entry["candidate"]), []).append(entry)
    lines = [
        "| model | candidate | cells | checks | fail, with the cause named | fail without | unknown |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    sound = alarms = 0
    for (model, candidate), found in sorted(groups.items()):
        count = sum(len(entry["checks"]) for entry in found)
        causes = Counter(cause(entry) for entry in found if entry["verdict"] == "fail")
        unknown = sum(entry["verdict"] == "unknown" for entry in found)
        without = causes.pop("none", 0)
        named = ", ".join(f"{number} ({name})" for name, number in causes.items()) or "0"
        lines.append(f"| `{model}` | {candidate} | {len(found)} | {count} | {named} | {without} | {unknown} |")
        sound += len(found) - sum(causes.values()) - unknown
        alarms += without
    lines += ["", f"{alarms} of {sound} cells fail without a named cause: at most {limit(alarms, sound):.2%} (95 %)."]
    return lines


def _ratios(entries: Sequence[Entry]) -> list[str]:
    """Return by candidate and point what cells show that pass or fail without a named cause, all models together."""
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in entries:
        if entry["verdict"] == "fail" and cause(entry) != "none":
            continue
        for check in entry["checks"]:
            if check["metric"].endswith("psnr"):
                rows.setdefault((entry["candidate"], check["point"]), []).append(check)
    lines = [
        "| candidate | point | n | dB | rms ratio: median, 99 %, most | largest ratio: most | least overlap |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, found in sorted(rows.items()):
        values = np.array([check["value"] for check in found])
        scored = [check for check in found if "rms" in check]
        start = f"| {key[0]} | `{key[1]}` | {len(found)} | {values.min():.1f} to {values.max():.1f} |"
        if not scored:
            lines.append(f"{start} | | |")
            continue
        rms, largest, over = (np.array([check[name] for check in scored]) for name in ("rms", "largest", "overlap"))
        lines.append(
            f"{start} {np.median(rms):.2f}, {np.quantile(rms, 0.99):.2f}, {rms.max():.2f} | {largest.max():.2f} | "
            f"{over.min():.3f} |"
        )
    return lines
