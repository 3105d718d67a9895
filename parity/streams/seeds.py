"""Which seeds do producers take?"""

from __future__ import annotations

import operator
from typing import SupportsIndex

import numpy as np

from parity.errors import UsageError
from parity.streams.stream import RuntimeUsageError, TypeUsageError


def bounded_seed(seed: SupportsIndex, low: int, high: int, stream: str) -> int:
    """Return a seed as an int that lies in [low, high].

    Raises
    ------
    TypeUsageError
        Not an integer.
    UsageError
        Out of range.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeUsageError(f"seed {seed!r}: {stream} takes an integer") from None
    if not low <= number <= high:
        # torch's CPU generator is seeded by the low 32 bits, so its noise for the large seed can be had from these
        same = f"; torch-cpu's noise for it is that of seed {number % 2**32}" if stream == "swift-torch" else ""
        raise UsageError(f"seed {number}: {stream} takes {low} to {high}{same}")
    return number


def torch_seed(seed: SupportsIndex) -> int:
    """Return the 64 bits that torch makes of a seed.

    Parameters
    ----------
    seed : int
        -2**63 to 2**64 - 1; negative ones count modulo 2**64.

    Raises
    ------
    RuntimeUsageError
        Not an integer (a ``RuntimeError``, as torch's).
    UsageError
        Out of range (a ``ValueError``, as torch's).
    """
    if isinstance(seed, (bool, np.bool_)) or not hasattr(seed, "__index__"):
        raise RuntimeUsageError(f"seed {seed!r}: torch takes an integer")
    number = operator.index(seed)
    if not -(2**63) <= number < 2**64:
        raise UsageError(f"seed {number}: torch takes -2**63 to 2**64 - 1")
    return number % 2**64
