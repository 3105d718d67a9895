"""The PSNR that apple/ml-stable-diffusion prints while it converts, defects included.

Source: ``compute_psnr`` in ``python_coreml_stable_diffusion/torch2coreml.py``, all releases. It is here so that figures
in that converter's logs, and its bound of 35 dB, can be compared with ours; do not judge by it.
"""

from __future__ import annotations

import numpy as np

from parity.metrics.metric import Metric, Takes


def psnr_ml_stable_diffusion(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return ``20 log10((max |candidate| + 1e-5) / (rms + 1e-10))`` in dB, in the dtype of the arrays."""
    with np.errstate(divide="ignore"):
        difference = reference - candidate
        rms = np.sqrt(np.square(difference).sum() / candidate.size)
        return float(20.0 * np.log10((np.abs(candidate).max() + 1e-5) / (rms + 1e-10)))


METRICS = (
    Metric(
        name="psnr_ml_stable_diffusion",
        unit="dB",
        higher_is_better=True,
        symmetric=False,
        takes=Takes.FLOATS,
        least=-np.inf,
        most=6366.0,
        equal="finite: 20 log10((max |candidate| + 1e-5) / 1e-10), 200 dB for a largest value of 1",
        worst="-infinity: the squares leave the range of the dtype",
        convention=(
            "20 log10((max |candidate| + 1e-5) / (rms(reference - candidate) + 1e-10)), in the arrays' own dtype"
        ),
        function=psnr_ml_stable_diffusion,
        defects=(
            "the peak is the candidate's, so a candidate that is too large is rewarded; sums in float16 overflow above "
            "65504; equal arrays give a finite value that depends on their size; two zero tensors give 100 dB"
        ),
    ),
)
