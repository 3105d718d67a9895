"""Playing a release, with the request given by keywords."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parity.contracts.consumers import Consumer
from parity.suite.questions import play
from parity.suite.questions.play import Ask, Execution, Material, Original


def execute(
    models: Mapping[str, Path],
    consumer: str | Consumer,
    original: Original | Path,
    *,
    prompt: np.ndarray,
    negative: np.ndarray,
    image: np.ndarray | None = None,
    controls: Sequence[np.ndarray] = (),
    embeddings: Sequence[np.ndarray] = (),
    kept: dict[Any, Any] | None = None,
    **ask: Any,
) -> Execution:
    """Play a release; further keywords are those of :class:`parity.pipelines.release.Ask`."""
    material = Material(prompt, negative, image, tuple(controls), embeddings=tuple(embeddings))
    return play.execute(models, consumer, original, material, Ask(**ask), kept=kept)
