"""What is a random graph, and how is it drawn?

A :class:`Graph` is data: an input shape, a dtype, a scale of the values, and steps. Each step names an operator of
:data:`OPERATORS`, its settings and the earlier values that it reads, so a graph prints as what it does and shrinks step
by step. Parameters are drawn from the graph's seed, one generator a step, so that dropping a step leaves the others' as
they were.

:func:`graphs` is the Hypothesis strategy. It draws only what both converters take (docs/core-ai.md lists the rest).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SCALES = {"ordinary": 1.0, "small": 2e-4, "large": 300.0}
"""Factors of the standard normal inputs; float16 overflows at 65504 and is subnormal below 6e-5."""


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes
    ----------
    operator : str
        A key of :data:`OPERATORS`.
    reads : tuple of int
        Values it reads: 0 is the input, ``n`` the result of step ``n``.
    settings : tuple of int
        What the operator makes of them is its own; see there.
    """

    operator: str
    reads: tuple[int, ...]
    settings: tuple[int, ...] = ()


@dataclass(frozen=True)
class Graph:
    """A random graph.

    Attributes
    ----------
    shape : tuple of int
        Of the input: (batch, channels, height, width) or (batch, tokens, width).
    steps : tuple of Step
        In order; the result is the last value.
    half : bool
        Whether it is float16 instead of float32.
    scale : str
        A key of :data:`SCALES`.
    seed : int
        Of inputs and parameters.
    """

    shape: tuple[int, ...]
    steps: tuple[Step, ...]
    half: bool = False
    scale: str = "ordinary"
    seed: int = 0

    def __str__(self) -> str:
        lines = [f"x0: {list(self.shape)}, {'float16' if self.half else 'float32'}, {self.scale}, seed {self.seed}"]
        for index, step in enumerate(self.steps, 1):
            values = ", ".join(f"x{read}" for read in step.reads)
            lines.append(f"x{index} = {step.operator}({', '.join([values, *map(str, step.settings)])})")
        return "\n".join(lines)

    def input(self) -> Tensor:
        """Return the input, rounded to the graph's dtype, in float32."""
        x = torch.randn(self.shape, generator=_generator(self.seed, 0)) * SCALES[self.scale]
        return x.half().float() if self.half else x


class Module(nn.Module):
    """A graph as a torch module in float32; parameters of float16 graphs are values of float16."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        x = graph.input()
        values = [x]
        self.weights = nn.ParameterList()
        self._slots: list[tuple[int, int]] = []
        for index, step in enumerate(graph.steps, 1):
            generator = _generator(graph.seed, index)
            read = [values[position] for position in step.reads]
            drawn = OPERATORS[step.operator].parameters(read, step.settings, generator)
            rounded = [w.half().float() if graph.half else w for w in drawn]
            self._slots.append((len(self.weights), len(self.weights) + len(rounded)))
            self.weights.extend(nn.Parameter(w, requires_grad=False) for w in rounded)
            values.append(OPERATORS[step.operator].apply(read, rounded, step.settings))

    def forward(self, x: Tensor) -> Tensor:
        """Run the steps."""
        values = [x]
        for step, (start, end) in zip(self.graph.steps, self._slots, strict=True):
            weights = [self.weights[slot] for slot in range(start, end)]
            values.append(OPERATORS[step.operator].apply([values[r] for r in step.reads], weights, step.settings))
        return values[-1]


@dataclass(frozen=True)
class Operator:
    """An operator of random graphs.

    Attributes
    ----------
    apply : callable
        (values, parameters, settings) to the result.
    ranks : tuple of int
        Of its first value.
    count : int
        Values it reads.
    settings : int
        Numbers from 0 to 7 that it is drawn with.
    parameters : callable
        (values, settings, generator) to its parameters.
    """

    apply: Callable[[list[Tensor], list[Tensor], tuple[int, ...]], Tensor]
    ranks: tuple[int, ...] = (3, 4)
    count: int = 1
    settings: int = 0
    parameters: Callable[[list[Tensor], tuple[int, ...], torch.Generator], list[Tensor]] = lambda v, s, g: []


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1000 + index)


def _draw(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=generator) * scale


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return Operator(lambda v, w, s: function(v[0]))


def _reduction(function: Callable[[Tensor, int], Tensor]) -> Operator:
    return Operator(lambda v, w, s: function(v[0], s[0] % v[0].dim()), settings=1)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return Operator(lambda v, w, s: function(v[0], v[1]), count=2)


def _linear(values: list[Tensor], settings: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    width, out = values[0].shape[-1], (1, 3, 8, 16)[settings[0] % 4]
    return [_draw(generator, out, width, scale=width**-0.5), _draw(generator, out)]


def _conv(values: list[Tensor], settings: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    channels, kernel = values[0].shape[1], (1, 3)[settings[0] % 2]
    groups = channels if settings[2] % 4 == 3 else 1
    out = channels if groups > 1 else (4, 6)[settings[2] % 2]
    fan = channels // groups * kernel * kernel
    return [_draw(generator, out, channels // groups, kernel, kernel, scale=fan**-0.5), _draw(generator, out)]


def _convolved(values: list[Tensor], weights: list[Tensor], settings: tuple[int, ...]) -> Tensor:
    groups = values[0].shape[1] // weights[0].shape[1]
    padding = weights[0].shape[-1] // 2
    return functional.conv2d(values[0], *weights, stride=1 + settings[1] % 2, padding=padding, groups=groups)


def _norm(values: list[Tensor], settings: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    width = values[0].shape[-1]
    return [1 + _draw(generator, width, scale=0.2), _draw(generator, width)]


def _group_norm(values: list[Tensor], settings: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    channels = values[0].shape[1]
    return [1 + _draw(generator, channels, scale=0.2), _draw(generator, channels)]


def _grouped(values: list[Tensor], weights: list[Tensor], settings: tuple[int, ...]) -> Tensor:
    channels = values[0].shape[1]
    groups = 2 if channels % 2 == 0 and settings[0] % 2 else 1
    return functional.group_norm(values[0], groups, *weights)


def _attention(values: list[Tensor], weights: list[Tensor], settings: tuple[int, ...]) -> Tensor:
    x = values[0].unsqueeze(1)
    return functional.scaled_dot_product_attention(x, x, values[1].unsqueeze(1)).squeeze(1)


def _cut(values: list[Tensor], weights: list[Tensor], settings: tuple[int, ...]) -> Tensor:
    axis = settings[0] % values[0].dim()
    size = int(values[0].shape[axis])  # a traced size is no number yet
    start = settings[1] % size
    window = slice(start, start + max(1, size - start - settings[2] % 2))
    return values[0][tuple(window if i == axis else slice(None) for i in range(values[0].dim()))]


def _padded(values: list[Tensor], weights: list[Tensor], settings: tuple[int, ...]) -> Tensor:
    return functional.pad(values[0], (settings[0] % 3, settings[1] % 3), value=float(settings[2]) / 4)


OPERATORS: dict[str, Operator] = {
    "relu": _unary(torch.relu),
    "silu": _unary(functional.silu),
    "sigmoid": _unary(torch.sigmoid),
    "tanh": _unary(torch.tanh),
    "gelu": _unary(functional.gelu),
    "exp": _unary(lambda x: torch.exp(torch.clamp(x, -8, 8))),
    "abs": _unary(torch.abs),
    "neg": _unary(torch.neg),
    "square": _unary(torch.square),
    "sin": _unary(torch.sin),
    "cos": _unary(torch.cos),
    "erf": _unary(torch.erf),
    "sqrt": _unary(lambda x: torch.sqrt(torch.abs(x))),
    "rsqrt": _unary(lambda x: torch.rsqrt(torch.abs(x) + 0.125)),
    "clamp": _unary(lambda x: torch.clamp(x, -0.75, 1.5)),
    "scale": _unary(lambda x: x * 1.375 + 0.25),
    "divide": _unary(lambda x: x / 3.0),
    "add": _binary(torch.add),
    "sub": _binary(torch.sub),
    "mul": _binary(torch.mul),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mean": _reduction(lambda x, axis: x.mean(axis, keepdim=True)),
    "sum": _reduction(lambda x, axis: x.sum(axis, keepdim=True)),
    "amax": _reduction(lambda x, axis: x.amax(axis, keepdim=True)),
    "amin": _reduction(lambda x, axis: x.amin(axis, keepdim=True)),
    "softmax": _reduction(torch.softmax),
    "cut": Operator(_cut, settings=3),
    "pad": Operator(_padded, settings=3),
    "transpose": Operator(lambda v, w, s: v[0].transpose(-1, -2)),
    "concat": Operator(lambda v, w, s: torch.cat([v[0], v[0] * 0.5], s[0] % v[0].dim()), settings=1),
    "flatten": Operator(lambda v, w, s: v[0].flatten(2).transpose(1, 2), ranks=(4,)),
    "linear": Operator(lambda v, w, s: functional.linear(v[0], *w), settings=1, parameters=_linear),
    "matmul": Operator(lambda v, w, s: torch.matmul(v[0], v[0].transpose(-1, -2))),
    "attention": Operator(_attention, ranks=(3,), count=2),
    "layer_norm": Operator(lambda v, w, s: functional.layer_norm(v[0], v[0].shape[-1:], *w), parameters=_norm),
    "group_norm": Operator(_grouped, ranks=(4,), settings=1, parameters=_group_norm),
    "conv": Operator(_convolved, ranks=(4,), settings=3, parameters=_conv),
    "upsample": Operator(lambda v, w, s: functional.interpolate(v[0], scale_factor=2.0), ranks=(4,)),
    "avg_pool": Operator(lambda v, w, s: functional.avg_pool2d(v[0], 2, ceil_mode=False), ranks=(4,)),
    "max_pool": Operator(lambda v, w, s: functional.max_pool2d(v[0], 3, 1, 1), ranks=(4,)),
}

_LARGEST = 4096  # elements of a value


def partners(values: list[Tensor], operator: str, first: int) -> list[int]:
    """Return the values that can be an operator's second one, beside the first: those of its shape.

    coreai-torch fails on attention whose values have another width than its keys.
    """
    x = values[first]
    return [i for i, y in enumerate(values) if y.shape == x.shape]


def possible(values: list[Tensor], operator: str, first: int) -> bool:
    """Return whether an operator can read a value."""
    x = values[first]
    if x.dim() not in OPERATORS[operator].ranks or 0 in x.shape:
        return False
    if operator == "avg_pool" and min(x.shape[2:]) < 2:
        return False
    return operator not in {"upsample", "concat", "matmul", "pad"} or x.numel() <= _LARGEST // 4


def graphs(*, longest: int = 10) -> Any:
    """Return the Hypothesis strategy of random graphs of one to ``longest`` steps."""
    from hypothesis import strategies as st

    @st.composite
    def draw_graph(draw: Any) -> Graph:
        shape = draw(st.sampled_from([(1, 4, 6, 6), (2, 6, 5, 4), (1, 5, 8), (2, 7, 12)]))
        half, scale = draw(st.booleans()), draw(st.sampled_from(sorted(SCALES, key=lambda name: name != "ordinary")))
        empty = Graph(shape, (), half, scale, draw(st.integers(0, 999)))
        values, steps = [empty.input()], []
        for index in range(1, draw(st.integers(1, longest)) + 1):
            first = len(values) - 1 if draw(st.integers(0, 3)) else draw(st.integers(0, len(values) - 1))
            names = [name for name in OPERATORS if possible(values, name, first)]
            name = draw(st.sampled_from(names))
            reads = (
                (first,)
                if OPERATORS[name].count == 1
                else (first, draw(st.sampled_from(partners(values, name, first))))
            )
            settings = tuple(draw(st.integers(0, 7)) for _ in range(OPERATORS[name].settings))
            read = [values[position] for position in reads]
            weights = OPERATORS[name].parameters(read, settings, _generator(empty.seed, index))
            result = OPERATORS[name].apply(read, weights, settings)
            if result.numel() > _LARGEST:
                break
            values.append(result)
            steps.append(Step(name, reads, settings))
        return Graph(shape, tuple(steps) or (Step("neg", (0,)),), half, scale, empty.seed)

    return draw_graph()
