"""States: tensors that outlive a prediction (iOS 18).

A file holds `write_state` and `read_state`; converters show both together as `coreml_update_state`. Writing replaces
the state's tensor and never writes into it, so values read earlier stay what they were.
"""

from __future__ import annotations

import torch

from parity.mil.operators.registry import Context, State, operator


@operator("read_state", exact=True, aliases=True, since="iOS18")
def read_state(context: Context, input: State) -> torch.Tensor:
    """The state's present value."""
    return input.value


@operator("write_state", exact=True, aliases=True, since="iOS18")
def write_state(context: Context, input: State, data: torch.Tensor) -> tuple[()]:
    """Replace the state's value; no result."""
    input.value = data
    return ()


@operator("coreml_update_state", exact=True, aliases=True, since="iOS18")
def coreml_update_state(context: Context, state: State, value: torch.Tensor) -> torch.Tensor:
    """Replace the state's value and return it."""
    state.value = value
    return value
