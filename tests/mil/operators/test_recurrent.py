"""Recurrent layers against PyTorch's, and what those lack (peepholes, clipping, other activations) against NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from parity.errors import UnsupportedError
from tests.mil.operators.calling import call, rng

STEPS, BATCH, WIDTH, H = 5, 2, 3, 4


def _problem(seed, gates, *, bidirectional=False):
    generator = rng(seed)

    def normal(*shape):
        return np.asarray(generator.standard_normal(shape), np.float32)

    factor = 2 if bidirectional else 1
    return {
        "x": normal(STEPS, BATCH, WIDTH),
        "initial_h": normal(BATCH, factor * H),
        "weight_ih": normal(gates * H, WIDTH),
        "weight_hh": normal(gates * H, H),
        "bias": normal(gates * H),
    }


def _torch_layer(layer, p, order, *, reverse="", weights=""):
    """Load MIL weights, whose gates stand in `order` of PyTorch's."""
    with torch.no_grad():
        for name, value in (("weight_ih", p["weight_ih" + weights]), ("weight_hh", p["weight_hh" + weights])):
            blocks = np.split(value, len(order))
            getattr(layer, f"{name}_l0{reverse}").copy_(torch.from_numpy(np.concatenate([blocks[i] for i in order])))
        blocks = np.split(p["bias" + weights], len(order))
        getattr(layer, f"bias_ih_l0{reverse}").copy_(torch.from_numpy(np.concatenate([blocks[i] for i in order])))
        getattr(layer, f"bias_hh_l0{reverse}").zero_()
    return layer


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_rnn(direction, whole):
    p = _problem(1, 1)
    layer = _torch_layer(torch.nn.RNN(WIDTH, H), p, [0])
    x = torch.from_numpy(p["x"])
    sequence, last = layer(x.flip(0) if direction == "reverse" else x, torch.from_numpy(p["initial_h"])[None])
    result = call("rnn", direction=direction, output_sequence=whole, **p)
    expected = sequence.detach() if whole else sequence.detach()[-1:]
    np.testing.assert_allclose(result[0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result[1], last.detach()[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "linear", "hard_sigmoid", "scaled_tanh"])
def test_rnn_activations(activation):
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "relu": lambda z: np.maximum(z, 0),
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "linear": lambda z: z,
        "hard_sigmoid": lambda z: np.clip(0.2 * z + 0.5, 0, 1),
        "scaled_tanh": np.tanh,
    }
    p = _problem(2, 1)
    hidden = p["initial_h"].astype(np.float64)
    for step in p["x"]:
        hidden = functions[activation](step @ p["weight_ih"].T + hidden @ p["weight_hh"].T + p["bias"])
    np.testing.assert_allclose(call("rnn", activation=activation, **p)[1], hidden, rtol=1e-4, atol=1e-5)


def test_gru_with_reset_after_is_pytorchs():
    """PyTorch's gates are [reset, update, new], MIL's [reset, new, update]; PyTorch's two biases stay apart."""
    p = _problem(3, 3)
    p["input_bias"] = rng(4).standard_normal(3 * H).astype(np.float32)
    layer = _torch_layer(torch.nn.GRU(WIDTH, H), p, [0, 2, 1])
    with torch.no_grad():
        for name, value in (("bias_ih_l0", p["input_bias"]), ("bias_hh_l0", p["bias"])):
            reset, new, update = np.split(value, 3)
            getattr(layer, name).copy_(torch.from_numpy(np.concatenate((reset, update, new))))
    sequence, last = layer(torch.from_numpy(p["x"]), torch.from_numpy(p["initial_h"])[None])
    result = call("gru", reset_after=True, output_sequence=True, **p)
    np.testing.assert_allclose(result[0], sequence.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result[1], last.detach()[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("bias", [True, False])
def test_gru_resets_the_state_before_its_product(direction, bias):
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    p = _problem(5, 3)
    hidden, states = p["initial_h"].astype(np.float64), []
    w, r, b = (
        np.split(p["weight_ih"], 3),
        np.split(p["weight_hh"], 3),
        np.split(p["bias"] if bias else p["bias"] * 0, 3),
    )
    for step in p["x"] if direction == "forward" else p["x"][::-1]:
        reset, update = (sigmoid(step @ w[i].T + hidden @ r[i].T + b[i]) for i in (0, 2))
        output = np.tanh(step @ w[1].T + (hidden * reset) @ r[1].T + b[1])
        hidden = (1 - update) * output + update * hidden
        states.append(hidden)
    if not bias:
        del p["bias"]
    for opset in ("iOS15", "iOS18"):
        sequence, last = call("gru", opset=opset, direction=direction, output_sequence=True, **p)
        np.testing.assert_allclose(sequence, states, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(last, hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(call("gru", direction=direction, **p)[0], states[-1:], rtol=1e-4, atol=1e-5)


_LSTM_ORDER = [0, 1, 3, 2]  # PyTorch: input, forget, cell, output; MIL: input, forget, output, cell


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lstm_is_pytorchs(direction, whole):
    both = direction == "bidirectional"
    p = _problem(6, 4, bidirectional=both)
    p["initial_c"] = rng(7).standard_normal(p["initial_h"].shape).astype(np.float32)
    layer = torch.nn.LSTM(WIDTH, H, bidirectional=both)
    _torch_layer(layer, p, _LSTM_ORDER)
    if both:
        other = _problem(8, 4)
        p |= {f"{name}_back": other[name] for name in ("weight_ih", "weight_hh", "bias")}
        _torch_layer(layer, p, _LSTM_ORDER, reverse="_reverse", weights="_back")
    x = torch.from_numpy(p["x"])
    states = [
        torch.from_numpy(np.stack(np.split(p[name], 2 if both else 1, -1))) for name in ("initial_h", "initial_c")
    ]
    with torch.no_grad():
        sequence, (hidden, cell) = layer(x.flip(0) if direction == "reverse" else x, tuple(states))
    ends = [np.concatenate(list(state.numpy()), -1) for state in (hidden, cell)]
    result = call("lstm", direction=direction, output_sequence=whole, **p)
    expected = sequence.numpy() if whole else ends[0][None]
    np.testing.assert_allclose(result[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result[1], ends[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result[2], ends[1], rtol=1e-4, atol=1e-5)


def test_lstm_cuts_initial_states_with_too_many_rows():
    p = _problem(12, 4)
    p["initial_c"] = p["initial_h"] / 2
    long = p | {name: np.concatenate((p[name], np.ones((3, H), np.float32))) for name in ("initial_h", "initial_c")}
    for ours, theirs in zip(call("lstm", **long), call("lstm", **p), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_lstm_with_peepholes_clip_and_activations():
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    p = _problem(9, 4)
    p["initial_c"] = rng(10).standard_normal((BATCH, H)).astype(np.float32)
    p["peephole"] = rng(11).standard_normal(3 * H).astype(np.float32)
    hidden, cell = p["initial_h"].astype(np.float64), p["initial_c"].astype(np.float64)
    peep_i, peep_f, peep_o = np.split(p["peephole"], 3)
    for step in p["x"]:
        i, f, o, g = np.split(step @ p["weight_ih"].T + hidden @ p["weight_hh"].T + p["bias"], 4, -1)
        cell = sigmoid(f + cell * peep_f) * cell + sigmoid(i + cell * peep_i) * np.maximum(g, 0)
        cell = np.clip(cell, -0.5, 0.5)
        hidden = sigmoid(o + cell * peep_o) * np.clip(0.2 * cell + 0.5, 0, 1)
    result = call("lstm", clip=0.5, cell_activation="relu", activation="hard_sigmoid", **p)
    np.testing.assert_allclose(result[1], hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result[2], cell, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_named():
    p = _problem(1, 4, bidirectional=True)
    p["initial_c"] = p["initial_h"]
    with pytest.raises(UnsupportedError, match="needs weights for both directions"):
        call("lstm", direction="bidirectional", **p)
    with pytest.raises(UnsupportedError, match="activation 'swish'; known are linear, relu"):
        call("lstm", activation="swish", **p)
