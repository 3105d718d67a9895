"""How good does a picture look beside its original? SSIMULACRA2 of JPEG XL, from the library ``ssimulacra2``.

About 90 is visually lossless, 70 high quality, 50 medium, 30 low; below 0 is beyond what people were asked. The score
is not symmetric: new structure and lost structure weigh differently.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from parity.errors import MissingError
from parity.metrics.metric import Metric, Takes
from parity.metrics.pictures import pairs


def ssimulacra2(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the SSIMULACRA2 score, at most 100; of several pictures the lowest."""
    score = library().compute_ssimulacra2
    return min(float(score(_file(a), _file(b))) for a, b in pairs(reference, candidate))


def library() -> Any:
    """Return the module.

    Raises
    ------
    MissingError
        It is not installed.
    """
    try:
        import ssimulacra2 as module
    except ImportError as error:
        raise MissingError(f"ssimulacra2 needs the library of that name ({error}): pip install ssimulacra2") from None
    return module


def _file(picture: np.ndarray) -> io.BytesIO:
    """Return the picture as the file that the library reads."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(buffer, "BMP")
    return buffer


METRICS = (
    Metric(
        name="ssimulacra2",
        higher_is_better=True,
        symmetric=False,
        takes=Takes.PICTURE,
        least=-math.inf,
        most=100.0,
        equal="100",
        worst="without end; black against white is -920 at 128 x 128",
        convention=(
            "compute_ssimulacra2 of the library ssimulacra2 (weights of SSIMULACRA 2.1), 8-bit sRGB without alpha; of "
            "several pictures the lowest"
        ),
        function=ssimulacra2,
        smallest=8,
        defects=(
            "below 256 pixels a side fewer than six scales exist and the weights move to other channels, as in the "
            "original, so scores of small pictures are comparable only at equal size; the library darkens the left and "
            "right border, so a fault there counts otherwise than at the top"
        ),
        prepare=library,
    ),
)
