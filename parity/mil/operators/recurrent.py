"""Recurrent layers: rnn, gru and lstm over sequences (s, batch, features).

Gates and states stay in float32 throughout and only the declared results are rounded; under ``float16-accumulate``
products accumulate in float16, and gates and states are rounded at each step. Weight layouts are MIL's: GRU
[reset, output, update], LSTM [input, forget, output, cell].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from parity.errors import UnsupportedError
from parity.mil.operators import accumulate
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


_Linear = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
_Keep = Callable[[torch.Tensor], torch.Tensor]


def _arithmetic(context: Context) -> tuple[_Linear, _Keep]:
    """Return how products are computed and how what is kept between steps is rounded."""
    if context.half_accumulate:
        return lambda x, weight, bias: accumulate.half(accumulate.linear(x, weight, bias)), accumulate.half
    return functional.linear, lambda x: x


def _steps(x: torch.Tensor, direction: str) -> range:
    return range(len(x) - 1, -1, -1) if direction == "reverse" else range(len(x))


def _sequence(states: list[torch.Tensor], whole: bool) -> torch.Tensor:
    """Stack hidden states in the order of computation, or the last alone."""
    return torch.stack(states if whole else states[-1:])


@operator("rnn", accumulates=True, static=("direction", "output_sequence", "activation"))
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
    linear, keep = _arithmetic(context)
    projected = linear(x, weight_ih, bias)
    hidden, states = initial_h, []
    for step in _steps(x, direction):
        hidden = keep(act(keep(projected[step] + linear(hidden, weight_hh, None))))
        states.append(hidden)
    return _sequence(states, output_sequence), hidden


@operator(
    "gru",
    accumulates=True,
    static=("direction", "output_sequence", "recurrent_activation", "activation", "reset_after"),
)
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
    linear, keep = _arithmetic(context)
    projected = linear(x, weight_ih, input_bias)
    recurrent = torch.zeros(3 * size) if bias is None else bias
    if not reset_after:
        projected = keep(projected + recurrent)
        recurrent = torch.zeros(3 * size)
    weight_r, weight_o, weight_z = weight_hh.chunk(3)
    bias_r, bias_o, bias_z = recurrent.chunk(3)
    hidden, states = initial_h, []
    for step in _steps(x, direction):
        input_r, input_o, input_z = projected[step].chunk(3, -1)
        reset = keep(gate(keep(input_r + linear(hidden, weight_r, bias_r))))
        update = keep(gate(keep(input_z + linear(hidden, weight_z, bias_z))))
        if reset_after:
            output = keep(act(keep(input_o + reset * linear(hidden, weight_o, bias_o))))
        else:
            output = keep(act(keep(input_o + linear(keep(hidden * reset), weight_o, None))))
        hidden = keep((1 - update) * output + update * hidden)
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
    arithmetic: tuple[_Linear, _Keep],
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Run one direction; states in the order of computation."""
    weight_ih, weight_hh, bias, peephole = weights
    gate, inner, outer = activations
    linear, keep = arithmetic
    projected = linear(x, weight_ih, bias)
    peep_i, peep_f, peep_o = (0.0, 0.0, 0.0) if peephole is None else peephole.chunk(3)
    states = []
    for step in _steps(x, direction):
        gates = keep(projected[step] + linear(hidden, weight_hh, None))
        input_gate, forget, output, candidate = gates.chunk(4, -1)
        kept = keep(keep(gate(keep(forget + cell * peep_f))) * cell)
        added = keep(keep(gate(keep(input_gate + cell * peep_i))) * keep(inner(candidate)))
        cell = keep(kept + added)
        if clip is not None:
            cell = cell.clamp(-clip, clip)
        hidden = keep(keep(gate(keep(output + cell * peep_o))) * keep(outer(cell)))
        states.append(hidden)
    return states, hidden, cell


@operator(
    "lstm",
    accumulates=True,
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
    arithmetic = _arithmetic(context)
    if direction != "bidirectional":
        states, hidden, cell = _lstm(x, initial_h, initial_c, forward, direction, activations, clip, arithmetic)
        return _sequence(states, output_sequence), hidden, cell
    if weight_ih_back is None or weight_hh_back is None:
        raise UnsupportedError(f"operation {context.name!r}: a bidirectional lstm needs weights for both directions")
    backward = (weight_ih_back, weight_hh_back, bias_back, peephole_back)
    (h_there, h_back), (c_there, c_back) = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    there, h_there, c_there = _lstm(x, h_there, c_there, forward, "forward", activations, clip, arithmetic)
    back, h_back, c_back = _lstm(x, h_back, c_back, backward, "reverse", activations, clip, arithmetic)
    if output_sequence:
        sequence = torch.cat((torch.stack(there), torch.stack(back[::-1])), -1)
    else:
        sequence = torch.cat((h_there, h_back), -1).unsqueeze(0)
    return sequence, torch.cat((h_there, h_back), -1), torch.cat((c_there, c_back), -1)
