"""Which operations of a denoiser make its timestep embedding, that is, what has to stay in float32?

The embedding is the sine and cosine of ``t * frequency``. In float16 these angles, up to 1000, lie 0.5 apart, and the
results come out at 24 to 30 dB. diffusers computes both in float32 even in half-precision pipelines, and rounds what
comes out.
"""

from __future__ import annotations

from typing import Any, Final

_STEPS: Final = 6  # between an input and the sine: cast, expand, multiply, scale, shift


def of_timestep(operation: Any, steps: int = _STEPS) -> bool:
    """Tell whether one of coremltools' operations computes a sine or cosine, or what goes into one.

    Parameters
    ----------
    operation : coremltools.converters.mil.mil.Operation
        Of the program that is converted.
    steps : int
        How far to look ahead.
    """
    if operation.op_type in ("sin", "cos"):
        return True
    children = (child for output in operation.outputs for child in output.child_ops)
    return steps > 0 and any(of_timestep(child, steps - 1) for child in children)
