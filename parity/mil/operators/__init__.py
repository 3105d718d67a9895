"""The operators of ML Programs, grouped by family as coremltools groups them.

:func:`get` finds an operator, :class:`Context` is what it may know; the calling convention stands in
`parity.mil.operators.registry`. Importing this package does not import torch.
"""

from parity.mil.operators.registry import (
    CARRIERS,
    OPSETS,
    Context,
    Declared,
    Operator,
    State,
    get,
    python_value,
    versions,
)

__all__ = ["CARRIERS", "OPSETS", "Context", "Declared", "Operator", "State", "get", "python_value", "versions"]
