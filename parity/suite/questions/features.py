"""Does a network differ because its timestep is a float16 feature, which rounds what the schedule asks for?

Released converters write ``timestep`` as FLOAT16. It holds whole numbers up to 2048; but schedules with ``linspace``
spacing, and those that evaluate between two steps, ask for times between whole numbers, and above 512 float16's values
lie 0.5 apart. diffusers keeps the time in float32 even in half-precision pipelines. The original itself tells: it is
asked with the rounded time, and if it then gives what the candidate gives, nothing else is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

_LEFT: Final = 0.5
"""Share of the difference that may be left where the rounded time is its cause."""


def rounds(call: Mapping[str, np.ndarray]) -> bool:
    """Say whether float16 does not have the timestep of a call.

    Examples
    --------
    >>> rounds({"timestep": np.array([788.658])}), rounds({"timestep": np.array([999.0])}), rounds({})
    (True, False, False)
    """
    asked = np.asarray(call.get("timestep", ()))
    return bool((np.float16(asked) != asked).any())


def rounded_time(
    network: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
    call: Mapping[str, np.ndarray],
    tensor: str,
    outputs: tuple[np.ndarray, np.ndarray],
) -> str:
    """Say that the rounding of the timestep makes the difference; empty if it does not.

    Parameters
    ----------
    network : callable
        The original's, from inputs by name to outputs by name.
    call : mapping of str to array
        Its inputs.
    tensor : str
        Which output differs.
    outputs : (array, array)
        The original's and the candidate's.
    """
    if not rounds(call):
        return ""
    asked = np.asarray(call["timestep"])
    rounded = np.float16(asked).astype(asked.dtype)
    reference, candidate = (np.float64(value) for value in outputs)
    again = np.float64(network({**call, "timestep": rounded})[tensor])
    if not _rms(again - candidate) < _LEFT * _rms(reference - candidate):
        return ""
    times = float(asked.flat[0]), float(rounded.flat[0])
    return (
        f"the timestep is a float16 feature of the model, which takes {times[0]:.6g} as {times[1]:.6g}; with "
        "that time the original gives the same. Schedules whose times are whole numbers do not meet this"
    )


def _rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error)))) if error.size else 0.0
