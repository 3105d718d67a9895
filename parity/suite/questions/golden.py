"""Accepted traces: what the reference drew when a person last agreed with it, and under which versions.

A golden is a folder ``MODEL/CASE-RNG-SEED`` with ``trace.npz`` (chosen points), ``image.png`` (to look at) and
``provenance.json``. It is written only by ``--update-golden``, and never counts as a pass in the run that wrote it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import FormatError, MissingError
from parity.files import replacing
from parity.pipelines.trace import Trace
from parity.suite import provenance
from parity.suite.case import Case


@dataclass(frozen=True)
class Golden:
    """An accepted trace with its provenance."""

    trace: Trace
    provenance: dict[str, Any]


def points(trace: Trace) -> list[str]:
    """Return the points that a golden keeps: start, text, first prediction, final latents, image."""
    latents = [point for point in trace if point.startswith("latents/step")]
    hidden = [point for point in trace if point.endswith("/hidden") and point.startswith("text_encoder/")]
    return ["latents/initial", *hidden, "unet/step00/noise_pred", latents[-1], "image"]


def folder(directory: Path, model: str, case: Case) -> Path:
    """Return where the golden of a case lies."""
    return directory / model.replace("/", "_") / case.slug


def save(
    directory: Path, model: str, case: Case, trace: Trace, *, weights: str, size: tuple[int, int] | None = None
) -> Path:
    """Write or replace the golden of a case and return its folder.

    Parameters
    ----------
    directory : path
        Folder of goldens.
    model : str
        Name of the original.
    case : Case
        What was drawn.
    trace : Trace
        What is accepted.
    weights : str
        Digest of the original's weights.
    size : tuple of (int, int), optional
        Height and width in pixels, if not the model's own.
    """
    from PIL import Image

    target = folder(directory, model, case)
    record = {
        "model": model,
        "weights": weights,
        "case": _settings(case, size),
        "environment": provenance.environment(),
        "image_sha256": provenance.picture_digest(trace["image"]),
    }
    with replacing(target) as scratch:
        scratch.mkdir()
        trace.save(scratch / "trace.npz", points(trace))
        Image.fromarray(np.concatenate(list(trace["image"]), axis=1)).save(scratch / "image.png")
        (scratch / "provenance.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return target


def _settings(case: Case, size: tuple[int, int] | None) -> dict[str, Any]:
    """Return what decides the picture; a size only where it is not the model's own."""
    return {**case.settings(), **({"size": list(size)} if size else {})}


def load(directory: Path, model: str, case: Case, *, weights: str, size: tuple[int, int] | None = None) -> Golden:
    """Read the golden of a case; parameters as :func:`save`.

    Raises
    ------
    MissingError
        There is none; the message says how to make it.
    FormatError
        It is damaged, or was made with other weights or settings; the message names the first that differs.
    """
    source = folder(directory, model, case)
    if not source.is_dir():
        raise MissingError(
            f"no golden for case {case.name} in {directory} (looked for {source}); make it with --update-golden"
        )
    try:
        record = json.loads((source / "provenance.json").read_text(encoding="utf-8"))
        made_with = {"weights": record["weights"], **record["case"]}
    except FileNotFoundError as error:
        raise MissingError(
            f"golden {source}: {Path(error.filename).name} is missing; make it again with --update-golden"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"golden {source}: provenance.json is damaged: {error!r}") from None
    for key, value in {"weights": weights, "size": None, **_settings(case, size)}.items():
        if made_with.get(key) != value:
            raise FormatError(
                f"golden {source} was made with {key} {made_with.get(key)!r}, this run has {value!r}; "
                "accept the change with --update-golden"
            )
    trace = Trace.load(source / "trace.npz")
    if missing := {"latents/initial", "unet/step00/noise_pred", "image"} - set(trace):
        raise FormatError(
            f"golden {source}: trace.npz lacks {', '.join(sorted(missing))}; make it again with --update-golden"
        )
    return Golden(trace, record)


def pairs(accepted: Trace, now: Trace) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Pair accepted and present values by the point that tolerances name.

    Returns
    -------
    dict
        ``golden/start``, ``golden/text_encoder``, ``golden/unet`` (first step), ``golden/latents`` (after the last
        step), ``golden/image``; each maps recorded points to (accepted, present), empty where the run has none.
    """
    grouped: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for point, value in accepted.items():
        name = "start" if point == "latents/initial" else point.split("/")[0]
        group = grouped.setdefault(f"golden/{name}", {})
        if point in now:
            group[point] = (value, now[point])
    return grouped
