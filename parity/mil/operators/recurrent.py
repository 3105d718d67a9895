"""Recurrent layers: rnn, gru and lstm over sequences (s, batch, features).

Gates are computed in float32 throughout; only the declared results are rounded. Weight layouts are MIL's: GRU
[reset, output, update], LSTM [input, forget, output, cell].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from parity.errors import UnsupportedError
from parity.mil.operators.registry import Context, operator

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "scaled_tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),
    "sigmoid_hard": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),
}
"""With Core ML's default parameters: scaled_tanh scales by one."""


def _activation(context: Context, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    function = _ACTIVATIONS.get(name.lower())
    if function is None:
        raise UnsupportedError(f"operation {context.name!r}: activation {name!r}; known are {', '.join(_ACTIVATIONS)}")
    return function


def _steps(x: torch.Tensor, direction: str) -> range:
    return range(len(x) - 1, -1, -1) if direction == "reverse" else range(len(x))


def _sequence(states: list[torch.Tensor], whole: bool) -> torch.Tensor:
    """Stack hidden states in the order of computation, or the last alone."""
    return torch.stack(states if whole else states[-1:])


@operator("rnn", static=("direction", "output_sequence", "activation"))
def rnn(
    context: Context,
    x: torch.Tensor,
    initial_h: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias: torch.Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[torch.Tensor, torch.Tensor]:
    """h = activation(W x + R h + b)."""
    act = _activation(context, activation)
    projected = functional.linear(x, weight_ih, bias)
    hidden, states = initial_h, []
    for step in _steps(x, direction):
        hidden = act(projected[step] + functional.linear(hidden, weight_hh))
        states.append(hidden)
    return _sequence(states, output_sequence), hidden


@operator("gru", static=("direction", "output_sequence", "recurrent_activation", "activation", "reset_after"))
def gru(
    context: Context,
    x: torch.Tensor,
    initial_h: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias: torch.Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
    input_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gated recurrent unit; the reset gate applies to the state, or after its product if `reset_after` (iOS 18)."""
    gate, act = _activation(context, recurrent_activation), _activation(context, activation)
    size = weight_hh.shape[1]
    projected = functional.linear(x, weight_ih, input_bias)
    recurrent = torch.zeros(3 * size) if bias is None else bias
    if not reset_after:
        projected = projected + recurrent
        recurrent = torch.zeros(3 * size)
    weight_r, weight_o, weight_z = weight_hh.chunk(3)
    bias_r, bias_o, bias_z = recurrent.chunk(3)
    hidden, states = initial_h, []
    for step in _steps(x, direction):
        input_r, input_o, input_z = projected[step].chunk(3, -1)
        reset = gate(input_r + functional.linear(hidden, weight_r, bias_r))
        update = gate(input_z + functional.linear(hidden, weight_z, bias_z))
        if reset_after:
            output = act(input_o + reset * functional.linear(hidden, weight_o, bias_o))
        else:
            output = act(input_o + functional.linear(hidden * reset, weight_o))
        hidden = (1 - update) * output + update * hidden
        states.append(hidden)
    return _sequence(states, output_sequence), hidden


_Activations = tuple[Callable[[torch.Tensor], torch.Tensor], ...]


def _lstm(
    x: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    direction: str,
    activations: _Activations,
    clip: float | None,
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Run one direction; states in the order of computation."""
    weight_ih, weight_hh, bias, peephole = weights
    gate, inner, outer = activations
    projected = functional.linear(x, weight_ih, bias)
    peep_i, peep_f, peep_o = (0.0, 0.0, 0.0) if peephole is None else peephole.chunk(3)
    states = []
    for step in _steps(x, direction):
        gates = projected[step] + functional.linear(hidden, weight_hh)
        input_gate, forget, output, candidate = gates.chunk(4, -1)
        cell = gate(forget + cell * peep_f) * cell + gate(input_gate + cell * peep_i) * inner(candidate)
        if clip is not None:
            cell = cell.clamp(-clip, clip)
        hidden = gate(output + cell * peep_o) * outer(cell)
        states.append(hidden)
    return states, hidden, cell


@operator(
    "lstm",
    static=("direction", "output_sequence", "recurrent_activation", "cell_activation", "activation", "clip"),
)
def lstm(
    context: Context,
    x: torch.Tensor,
    initial_h: torch.Tensor,
    initial_c: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias: torch.Tensor | None = None,
    peephole: torch.Tensor | None = None,
    weight_ih_back: torch.Tensor | None = None,
    weight_hh_back: torch.Tensor | None = None,
    bias_back: torch.Tensor | None = None,
    peephole_back: torch.Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Long short-term memory in one direction or both, with peepholes and a clipped cell state.

    Initial states with more rows than the batch are cut: programs converted from packed sequences have such, and run.
    """
    initial_h, initial_c = initial_h[: x.shape[1]], initial_c[: x.shape[1]]
    activations = tuple(_activation(context, name) for name in (recurrent_activation, cell_activation, activation))
    forward = (weight_ih, weight_hh, bias, peephole)
    if direction != "bidirectional":
        states, hidden, cell = _lstm(x, initial_h, initial_c, forward, direction, activations, clip)
        return _sequence(states, output_sequence), hidden, cell
    if weight_ih_back is None or weight_hh_back is None:
        raise UnsupportedError(f"operation {context.name!r}: a bidirectional lstm needs weights for both directions")
    backward = (weight_ih_back, weight_hh_back, bias_back, peephole_back)
    (h_there, h_back), (c_there, c_back) = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    there, h_there, c_there = _lstm(x, h_there, c_there, forward, "forward", activations, clip)
    back, h_back, c_back = _lstm(x, h_back, c_back, backward, "reverse", activations, clip)
    if output_sequence:
        sequence = torch.cat((torch.stack(there), torch.stack(back[::-1])), -1)
    else:
        sequence = torch.cat((h_there, h_back), -1).unsqueeze(0)
    return sequence, torch.cat((h_there, h_back), -1), torch.cat((c_there, c_back), -1)
