"""Converter release × consumer release × task: is what the contract tables say what happens when it is executed?

A cell takes packages as a converter release wrote them, plays one release of the Swift package on them in the reference
runtime (:mod:`parity.contracts.conventions`), and holds the result against the tables: *yes* must give PyTorch's
picture, *no* must end with the failure that the tables quote. The Swift package itself is not run.

The contracts differ in the VAE encoder (five inputs, ``z``, ``x``), so image to image is asked of each of them; text to
image of today's packages by every release.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity import assets
from parity.contracts.capability import capabilities
from parity.contracts.conventions import Execution, execute
from parity.contracts.inspect import inspect
from parity.pipelines.model import Model
from parity.pipelines.tasks import Request, read_picture
from parity.suite import comparison
from parity.suite.case import Case
from parity.suite.comparison import Check
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict

ENCODERS = ("0.3.0", "0.4.0", "main")
RELEASES = tuple(f"S{number}" for number in range(1, 9))
POINT = "compatibility"

_PROMPT, _NEGATIVE = "a photo of a red circle on a blue background", "blurry, low quality"


@dataclass(frozen=True)
class Pairing:
    """Which converter release's encoder meets which consumer release."""

    encoder: str
    consumer: str


def cases() -> dict[Pairing, list[Case]]:
    """Return the cases of each pairing: image to image for S3 to S8 with each encoder, text to image for all."""
    picture = assets.fixtures() / "pictures" / "start.png"
    found: dict[Pairing, list[Case]] = {}
    for encoder in ENCODERS:
        for consumer in RELEASES:
            tasks = (["txt2img"] if encoder == "main" else []) + (["img2img"] if consumer >= "S3" else [])
            for task in tasks:
                image = picture if task == "img2img" else None
                request = Request(task, _PROMPT, _NEGATIVE, "pndm", steps=4, strength=0.7, image=image)
                case = Case(f"compatibility-{encoder}-{consumer}-{task}", request, 93, "swift-numpy")
                found.setdefault(Pairing(encoder, consumer), []).append(case)
    return found


def judge(
    case: Case, pairing: Pairing, packages: Mapping[str, Path], model: Model, tolerance: Tolerance | None
) -> tuple[Check, dict[str, np.ndarray]]:
    """Execute one cell and compare it with the tables.

    Parameters
    ----------
    case, pairing
        What is asked, of whom.
    packages : mapping
        Converted components by name; ``vae_encoder`` is that of the pairing's converter release.
    model : Model
        The PyTorch original.
    tolerance : Tolerance or None
        For the picture, where one is expected.

    Returns
    -------
    check : Check
        *Pass* where execution and tables agree; its message says how a known failure looks.
    pictures : dict
        uint8 (1, height, width, 3) by role, empty where no picture was drawn.
    """
    request = case.request
    subject = packages["vae_encoder" if request.task == "img2img" else "unet"]
    expected = capabilities(inspect(subject).bundles[0]).cell(request.task, pairing.consumer)
    result = execute(
        packages,
        pairing.consumer,
        checkpoint=Path(model.location),
        prompt=model.tokens(request.prompt),
        negative=model.tokens(request.negative_prompt),
        image=read_picture(request.image, model) if request.image else None,
        seed=case.seed,
        steps=request.steps,
        strength=request.strength,
        guidance=request.guidance_scale,
    )
    pictures = _pictures(result)
    if result.failure:
        agrees = expected.verdict == "no" and expected.failure == result.failure
        text = f"fails as the tables say: {result.failure}" if agrees else f"fails: {result.failure}"
    else:
        agrees = expected.verdict == "yes"
        text = "draws a picture"
    if not agrees:
        said = f"{expected.verdict} {expected.failure}".strip()
        message = f"{POINT}: {pairing.consumer} {text}, but the tables say: {said}"
        return Check(POINT, POINT, "", math.nan, math.nan, Verdict.FAIL, message), pictures
    if result.failure:
        return Check(POINT, "fails as the tables say", "", math.nan, math.nan, Verdict.PASS, text), pictures
    pair = (pictures["reference"], pictures["candidate"])
    return comparison.worst(POINT, {"image": pair}, tolerance, names=("PyTorch", pairing.consumer)), pictures


def _pictures(result: Execution) -> dict[str, np.ndarray]:
    if result.picture is None or result.reference is None:
        return {}
    roles = {"reference": result.reference, "candidate": result.picture}
    return {role: (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)[None] for role, pixels in roles.items()}
