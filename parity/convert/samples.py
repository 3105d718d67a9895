"""Which inputs are networks traced with and compared on?

Random, but in the range that each feature has in a real run: whole timesteps, token ids that end with the end-of-text
token, images in their range. Values are rounded to float16 where the feature is float16, so that the comparison
measures the network and not the rounding of its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from parity.convert.job import Job


def sample(
    name: str, shape: tuple[int, ...], dtype: str, *, seed: int, vocabulary: Mapping[str, int] | None = None
) -> np.ndarray:
    """Draw one feature.

    Parameters
    ----------
    name : str
        Feature name of the contract; it decides the range.
    shape : tuple of int
        Shape of the feature.
    dtype : str
        ``FLOAT16`` or ``FLOAT32``: the values are exact in it.
    seed : int
        Equal seeds and names give equal values.
    vocabulary : mapping, optional
        ``size`` and ``end`` of the tokenizer, for token ids.

    Returns
    -------
    ndarray of float32, ``shape``
    """
    draw = np.random.default_rng([seed, *name.encode()])
    values: np.ndarray
    if name == "input_ids":
        size, end = (vocabulary["size"], vocabulary["end"]) if vocabulary else (2, 1)
        values = draw.integers(0, max(size - 2, 1), shape)
        values[:, int(draw.integers(2, shape[1])) :] = end
    elif name == "timestep":
        values = np.full(shape, draw.integers(1, 1000))
    elif name == "time_ids":
        row = [512.0, 768.0, 0.0, 64.0, 512.0, 768.0]
        values = np.resize(row if shape[-1] != 5 else [*row[:4], 6.0], shape)
    elif name in {"controlnet_cond", "images"}:
        values = draw.uniform(0, 1, shape)
    elif name in {"x", "z", "sample"} and shape[1] == 3:
        values = draw.uniform(-1, 1, shape)
    elif name == "sqrt_alphas_cumprod":
        values = np.full(shape, 0.8)
    elif name == "sqrt_one_minus_alphas_cumprod":
        values = np.full(shape, 0.6)
    elif name == "adjustment":
        values = np.zeros(shape)
    else:
        values = draw.standard_normal(shape)
    return np.asarray(values, np.float16 if dtype == "FLOAT16" else np.float32).astype(np.float32)


def examples(job: Job, *, seed: int) -> list[np.ndarray]:
    """Draw one value for each input of a job, float32."""
    return [sample(f.name, f.shape, f.dtype, seed=seed, vocabulary=job.vocabulary) for f in job.inputs]
