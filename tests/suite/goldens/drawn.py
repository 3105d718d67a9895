"""A folder of goldens to try things on: what a run would draw, without drawing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from parity.pipelines.trace import Trace
from parity.suite import case, tolerance
from parity.suite.goldens import curate, store
from parity.suite.goldens.curate import Wish
from parity.suite.goldens.keys import Keys
from parity.suite.goldens.store import Asked, Golden

TORCH = Keys("PyTorch cpu float32", "Linux", "x86_64")
NEURAL = Keys("Core ML CPU_AND_NE", "macOS 26", "Apple M2")
WISH = Wish("looked at it", "Ada <ada@example.org>")
SIDE = 32


def asked(keys: Keys = TORCH, **changes: object) -> Asked:
    return dataclasses.replace(Asked("org/model", case.load()[0], "abc", keys), **changes)  # type: ignore[arg-type]


def trace(shift: float = 0.0, *, side: int = SIDE) -> Trace:
    """Return a run's points; ``shift`` is added to every value of the picture."""
    rng = np.random.default_rng(93)
    latents = rng.normal(size=(1, 4, 2, 2)).astype(np.float32)
    picture = rng.integers(40, 200, (1, side, side, 3))
    return Trace(
        {
            "text_encoder/prompt/hidden": rng.normal(size=(1, 3, 8)).astype(np.float32),
            "latents/initial": latents,
            "unet/step00/sample": latents,
            "unet/step00/noise_pred": latents + 1,
            "latents/step00": latents + 2,
            "latents/step01": latents + 3,
            "image": np.clip(picture + shift, 0, 255).astype(np.uint8),
        }
    )


def accepted(directory: Path, asking: Asked, drawn: Trace, wish: Wish = WISH) -> Golden:
    """Write and approve a golden, and return it as it stands then."""
    golden = store.write(directory, asking, drawn)
    curate.approve(directory, [golden], wish, tolerance.load())
    return next(one for one in store.in_series(directory, asking.series) if one.id == golden.id)
