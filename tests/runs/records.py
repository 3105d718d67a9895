"""Records as the suite makes them, without computing: what run folders hold in these tests."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from parity.runs import folder
from parity.runs.folder import Plan

QUESTION = {"model": "tiny-sd", "weights unet": "aaaa", "package unet.mlpackage": "bbbb", "tolerances": "cccc"}

SETTINGS = {"task": "txt2img", "prompt": "a ring", "steps": 2, "guidance_scale": 7.5, "rng": "torch-cpu"}


def picture(value: int, size: int = 4) -> str:
    """Return a PNG of one grey in base64."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def planned(number: int, **changes: Any) -> dict[str, Any]:
    """Return the plan's entry of a cell."""
    return {
        "id": f"candidate/case-{number}/coreml:reference",
        "case": f"case-{number}",
        "sentence": f"tiny-sd draws case-{number}",
        "model": "tiny-sd",
        "kind": "candidate",
        "backend": "reference runtime (declared)",
        "units": ["CPU_ONLY"],
        "producer": "diffusers",
        "against": "",
        "settings": {**SETTINGS, "seed": number},
        "reproduce": f"parity run --cell candidate/case-{number}/coreml:reference",
        "digest": f"digest-{number}",
        **changes,
    }


def record(number: int, verdict: str = "pass", margin: float = 5.0, **changes: Any) -> dict[str, Any]:
    """Return a finished cell's record; pictures in base64, as the suite gives them."""
    cell = planned(number)
    del cell["digest"]
    shown = {"value": f"{41 + margin:.2f} dB", "bound": "41.00 dB", "margin": f"{margin:.2f} dB"}
    check = {
        "point": "image",
        "where": "image",
        "metric": "image_psnr",
        "value": _number(41 + margin),
        "bound": 41.0,
        "margin": _number(margin),
        "shown": shown,
        "verdict": verdict,
        "message": "" if verdict == "pass" else f"image: {verdict}",
        "bad_input": False,
    }
    return {
        **cell,
        "verdict": verdict,
        "asked": True,
        "bad_input": [],
        "decisive": 0,
        "checks": [check],
        "seconds": {"candidate": 1.0, "reference": 0.5},
        "remarks": [],
        "explanation": "" if verdict == "pass" else f"{cell['sentence']}\nimage: {verdict}",
        "pictures": {"reference": picture(100), "candidate": picture(number % 250)},
        "course": None,
        "golden": None,
        "worker": "",
        **changes,
    }


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def plan(count: int, machine: str = "Apple M2", question: Mapping[str, str] = QUESTION, first: int = 0) -> Plan:
    """Return the plan of a run of cells with consecutive numbers."""
    return Plan(question, [planned(number) for number in range(first, first + count)], machine)


def write(path: Path, records: list[dict[str, Any]], wanted: Plan, *, resume: bool = False) -> Path:
    """Write a run's folder."""
    with folder.open_run(path, wanted, resume=resume) as run:
        for entry in records:
            run.add(entry)
    return path
