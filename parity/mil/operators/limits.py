"""When is a tensor that a program asks for by numbers refused, before memory is taken?

A damaged or hostile file can ask for any size with a few digits (`fill`, `tile`, `resize`, …). Sizes that follow from
those of other tensors are not checked here.
"""

from __future__ import annotations

from collections.abc import Sequence

from parity.errors import UsageError
from parity.mil.operators.registry import Context

LARGEST = 1 << 31
"""Elements of the largest tensor, 8 GiB as float32: many times the largest one in image models."""


def affordable(context: Context, sizes: Sequence[int]) -> None:
    """Refuse to make a tensor of more than :data:`LARGEST` elements.

    Raises
    ------
    UsageError
        Names the operation and the shape.
    """
    count = 1
    for size in sizes:
        count *= size
    if count > LARGEST:
        raise UsageError(
            f"operation {context.name!r} ({context.type}) asks for a tensor of shape {list(sizes)}; more than 2^31 "
            "elements are refused"
        )
