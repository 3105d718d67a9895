"""The PSNR of coremltools, defects included.

Source: ``compute_snr_and_psnr(x, y)`` in ``coremltools/converters/mil/testing_utils.py``, which ``bisect_model`` calls,
and in ``coremltools/models/ml_program/experimental/debugging_utils.py`` (8.3 to 9.0); its documentation calls ``y`` the
reference. It is here so that figures printed by those tools can be compared with ours; do not judge by it.
"""

from __future__ import annotations

import numpy as np

from parity.metrics.metric import Metric, Takes


def psnr_coremltools(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return ``10 log10((max reference² + 1e-5) / (sum of squares / length of the first axis + 1e-10))`` in dB."""
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.sum((candidate - reference) ** 2) / (len(reference) if reference.ndim else 1)
        return float(10.0 * np.log10((np.amax(reference**2) + 1e-5) / (noise + 1e-10)))


METRICS = (
    Metric(
        name="psnr_coremltools",
        unit="dB",
        higher_is_better=True,
        symmetric=False,
        takes=Takes.FLOATS,
        least=-np.inf,
        most=3183.0,
        equal="finite: 10 log10((max reference^2 + 1e-5) / 1e-10), 100 dB for a largest value of 1",
        worst="-infinity, or NaN: the squares leave the range of the dtype",
        convention=(
            "10 log10((max reference^2 + 1e-5) / (sum (candidate - reference)^2 / shape[0] + 1e-10)), "
            "in the arrays' own dtype"
        ),
        function=psnr_coremltools,
        defects=(
            "the mean runs over the first axis only, so the same values give another figure in another shape: "
            "(1, 4, 64, 64) scores 42 dB less than flat; sums in float16 overflow above 65504; equal arrays give a "
            "finite value; two zero tensors give 50 dB; bisect_model passes the candidate as the reference"
        ),
    ),
)
