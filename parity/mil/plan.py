"""In what order, with what memory, are the operations of a graph run?

:class:`Plan` is made once for a set of wanted values: it keeps the operations that these need, moves what is constant
out of the way, gives each value a slot, rounds each result to its declared dtype as the profile says and frees each
value after its last use. Running it is then a plain loop.

The first run checks the shape of every result against the declared type, so an ill-typed program is named at the
operation that is wrong. Whatever an operator raises becomes an error that names operation, operator and input shapes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from parity.errors import FormatError, ParityError, UsageError
from parity.mil import values
from parity.mil.constants import Constants
from parity.mil.events import Event, Options
from parity.mil.graph import Graph, Node
from parity.mil.nested import holders
from parity.mil.operators import CARRIERS, Context, Declared, python_value
from parity.mil.rounding import rounder
from parity.mil.slicing import foldable, needed


@dataclass(slots=True)
class _Step:
    node: Node
    function: Callable[..., Any]
    context: Context
    fixed: dict[str, Any]
    pending: list[tuple[str, tuple[str, ...]]]  # constants that are not held, or not yet
    dynamic: list[tuple[str, int]]
    computed: list[tuple[str, tuple[int | str, ...]]]  # static or variadic inputs known only at run time
    output: int  # slot of the only result, or -1
    outputs: tuple[int, ...]
    finish: Callable[[Any], Any] | None
    finishes: tuple[Callable[[Any], Any] | None, ...]
    free: tuple[int, ...] = ()


def _declared(declared: values.Type | None) -> Declared:
    """Convert a type to what operators see of it: dtype and shape of the tensor, also inside a list or state."""
    while isinstance(declared, (values.ListType, values.StateType)):
        declared = declared.element if isinstance(declared, values.ListType) else declared.wrapped
    return Declared(declared.dtype.name, declared.shape) if isinstance(declared, values.TensorType) else Declared("")


class Plan:
    """A graph ready to run.

    Parameters
    ----------
    graph : Graph
        What to run.
    options : Options
        Of the session.
    wanted : tuple of str
        Names of the values to return.
    given : tuple of str
        Names of the values that the caller gives; any value of the graph, not only its inputs.
    outer : Constants, optional
        Constants of the enclosing block.
    all_states : bool
        Write all states, not just those that wanted values read.
    asked : frozenset of str
        Values inside nested blocks to put into ``options.nested``.
    """

    def __init__(
        self,
        graph: Graph,
        options: Options,
        *,
        wanted: tuple[str, ...],
        given: tuple[str, ...],
        outer: Constants | None = None,
        constants: Constants | None = None,
        all_states: bool = True,
        asked: frozenset[str] = frozenset(),
    ) -> None:
        self.graph = graph
        self.options = options
        self.constants = constants or Constants(graph, options.weights, budget=options.budget, outer=outer)
        self.asked = asked
        self._slots: dict[str, int] = {}
        self._frame: list[Any] = []
        self._fixed = {name for name in (*graph.constants, *graph.captured) if name not in given}
        kept = frozenset((*wanted, *holders(graph, asked)))
        nodes = self._fold(needed(graph, kept, frozenset(given), all_states=all_states))
        if options.rewrite is not None:
            nodes = self._fold(options.rewrite(graph, nodes, kept, frozenset(self._fixed), self.constants))
        self.given = tuple(self._slot(name) for name in given)
        self._check_complete(nodes, set(given), wanted)
        self.steps = [self._step(node) for node in nodes]
        self._wanted = [(name, None if name in self._fixed else self._slots[name]) for name in wanted]
        self._free_early({slot for _, slot in self._wanted if slot is not None})
        self._checked = False

    # Planning

    def _slot(self, name: str) -> int:
        return self._slots.setdefault(name, len(self._slots))

    def _fold(self, nodes: list[Node]) -> list[Node]:
        """Move operations on constants alone to the constants."""
        left = []
        for node in nodes:
            if foldable(node) and self._fixed.issuperset(node.dependencies()):
                for index, name in enumerate(node.outputs):
                    self.constants.fold(name, partial(self._folded, node, index))
                self._fixed.update(node.outputs)
            else:
                left.append(node)
        return left

    def _folded(self, node: Node, index: int) -> Any:
        step = self._step(node)
        kwargs = dict(step.fixed)
        for parameter, names in step.pending:
            kwargs[parameter] = self._constant(node, parameter, names, keep=False)[0]
        result = self._call(step, kwargs)
        parts = result if isinstance(result, tuple) else (result,)
        finish = step.finishes[index]
        return parts[index] if finish is None else finish(parts[index])

    def _call(self, step: _Step, kwargs: dict[str, Any]) -> Any:
        try:
            return step.function(step.context, **kwargs)
        except Exception as error:
            raise self._failure(step.node, kwargs, error) from error

    def _context(self, node: Node) -> Context:
        captured = [[name for name in block.captured if name not in self._fixed] for block in node.blocks]
        seen = [tuple(sorted(self.asked & block.types.keys())) for block in node.blocks]
        blocks = [
            Plan(
                block,
                self.options,
                wanted=(*block.outputs, *shown),
                given=(*block.inputs, *names),
                outer=self.constants,
                asked=self.asked,
            )
            for block, names, shown in zip(node.blocks, captured, seen, strict=True)
        ]
        slots = [[self._slot(name) for name in names] for names in captured]

        def run_block(index: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            frame = self._frame
            outer = [frame[slot] for slot in slots[index]]
            if len(arguments) != len(node.blocks[index].inputs):
                raise FormatError(
                    f"block {index} takes {len(node.blocks[index].inputs)} values and was given {len(arguments)}"
                )
            results = blocks[index].run([*arguments, *outer])
            count = len(node.blocks[index].outputs)
            self.options.nested.update(zip(seen[index], results[count:], strict=True))
            return results[:count]

        return Context(
            name=node.name,
            type=node.type,
            outputs=tuple(_declared(self.graph.types.get(name)) for name in node.outputs),
            profile=self.options.profile,
            generators=self.options.generators,
            random_seed=self.options.seed,
            **({"run_block": run_block} if node.blocks else {}),
        )

    def _source(self, name: str) -> int | str:
        return name if name in self._fixed else self._slot(name)

    def _step(self, node: Node) -> _Step:
        operator = node.operator
        step = _Step(node, operator.function, self._context(node), {}, [], [], [], -1, (), None, ())
        for parameter, names in node.inputs.items():
            simple = parameter not in operator.variadic
            if self._fixed.issuperset(names):
                step.pending.append((parameter, names))
            elif simple and parameter not in operator.static:
                step.dynamic.append((parameter, self._slot(names[0])))
            else:
                step.computed.append((parameter, tuple(self._source(name) for name in names)))
        finishes = tuple(self._finish(node, name) for name in node.outputs)
        step.finishes = finishes
        step.outputs = tuple(self._slot(name) for name in node.outputs)
        if len(node.outputs) == 1:
            step.output, step.finish = step.outputs[0], finishes[0]
        return step

    def _finish(self, node: Node, name: str) -> Callable[[Any], Any] | None:
        declared = self.graph.types.get(name)
        if not isinstance(declared, values.TensorType) or declared.dtype.name == "string":
            return None
        if declared.dtype.is_float:
            if node.operator.exact or self.options.profile == "float32":
                return None
            return rounder(declared.dtype.name, in_place=not node.operator.aliases)
        carrier = getattr(torch, CARRIERS[declared.dtype.name])

        def carry(x: torch.Tensor) -> torch.Tensor:
            return x if x.dtype is carrier else x.to(carrier)

        return carry

    def _check_complete(self, nodes: list[Node], known: set[str], wanted: tuple[str, ...]) -> None:
        known |= self._fixed
        for node in nodes:
            for name in node.dependencies():
                if name not in known:
                    raise UsageError(
                        f"{self.graph.where}: operation {node.name!r} ({node.type}) needs the value {name!r}, "
                        "which is neither given nor computed from what is given"
                    )
            known.update(node.outputs)
        if missing := [name for name in wanted if name not in known]:
            raise UsageError(f"{self.graph.where}: no value {missing[0]!r} follows from the given ones")

    def _free_early(self, keep: set[int]) -> None:
        seen = set(keep)
        for step in reversed(self.steps):
            used = {self._slots[n] for n in step.node.dependencies() if n not in self._fixed} | set(step.outputs)
            step.free = tuple(sorted(used - seen))
            seen |= used

    # Running

    def run(self, given: list[Any]) -> tuple[Any, ...]:
        """Run with values in the order of ``given`` and return the wanted ones in order."""
        frame: list[Any] = [None] * len(self._slots)
        for slot, value in zip(self.given, given, strict=True):
            frame[slot] = value
        before, self._frame = self._frame, frame
        try:
            if self._checked and self.options.callback is None:
                self._run_fast(frame)
            else:
                self._run_checked(frame)
                self._checked = True
        finally:
            self._frame = before
        return tuple(frame[slot] if slot is not None else self.constants.value(name) for name, slot in self._wanted)

    def _arguments(self, step: _Step, frame: list[Any]) -> dict[str, Any]:
        kwargs = step.fixed.copy()
        for parameter, slot in step.dynamic:
            kwargs[parameter] = frame[slot]
        if step.pending:
            self._pending(step, kwargs)
        if step.computed:
            self._computed(step, kwargs, frame)
        return kwargs

    def _pending(self, step: _Step, kwargs: dict[str, Any]) -> None:
        left = []
        for parameter, names in step.pending:
            value, kept = self._constant(step.node, parameter, names)
            kwargs[parameter] = value
            if kept:
                step.fixed[parameter] = value
            else:
                left.append((parameter, names))
        step.pending = left

    def _constant(self, node: Node, parameter: str, names: tuple[str, ...], *, keep: bool = True) -> tuple[Any, bool]:
        variadic = parameter in node.operator.variadic
        if parameter in node.operator.static:
            plain = tuple(self.constants.python(name) for name in names)
            return (plain if variadic else plain[0]), True
        resolved = [self.constants.resolve(name, keep=keep) for name in names]
        kept = all(k for _, k in resolved)
        return (tuple(v for v, _ in resolved) if variadic else resolved[0][0]), kept

    def _computed(self, step: _Step, kwargs: dict[str, Any], frame: list[Any]) -> None:
        operator = step.node.operator
        for parameter, sources in step.computed:
            parts = tuple(frame[s] if isinstance(s, int) else self.constants.value(s) for s in sources)
            if parameter in operator.static:
                parts = tuple(python_value(part) for part in parts)
            kwargs[parameter] = parts if parameter in operator.variadic else parts[0]

    def _run_fast(self, frame: list[Any]) -> None:
        step: Any = None
        kwargs: dict[str, Any] = {}
        try:
            for step in self.steps:
                kwargs = step.fixed.copy()
                for parameter, slot in step.dynamic:
                    kwargs[parameter] = frame[slot]
                if step.pending or step.computed:
                    kwargs = self._arguments(step, frame)
                result = step.function(step.context, **kwargs)
                kwargs.clear()
                self._store(step, result, frame)
                for slot in step.free:
                    frame[slot] = None
        except ParityError:
            raise
        except Exception as error:
            raise self._failure(step.node, kwargs, error) from error

    def _store(self, step: _Step, result: Any, frame: list[Any]) -> None:
        if step.output >= 0:
            if type(result) is tuple:
                (result,) = result
            frame[step.output] = result if step.finish is None else step.finish(result)
        else:
            for slot, finish, part in zip(step.outputs, step.finishes, result, strict=True):
                frame[slot] = part if finish is None else finish(part)

    def _run_checked(self, frame: list[Any]) -> None:
        for step in self.steps:
            start = time.perf_counter()
            kwargs: dict[str, Any] = {}
            try:
                kwargs = self._arguments(step, frame)
                self._store(step, step.function(step.context, **kwargs), frame)
            except Exception as error:
                if error is self.options.stopped:
                    raise
                raise self._failure(step.node, kwargs, error) from error
            seconds = time.perf_counter() - start
            outputs = {name: frame[slot] for name, slot in zip(step.node.outputs, step.outputs, strict=True)}
            for name, value in outputs.items():
                self._check(step.node, name, value)
            self.options.tell(Event(step.node.name, step.node.type, step.node.covers, outputs, seconds))
            for slot in step.free:
                frame[slot] = None

    def _check(self, node: Node, name: str, value: Any) -> None:
        declared = self.graph.types.get(name)
        if not isinstance(declared, values.TensorType) or declared.variadic or not isinstance(value, torch.Tensor):
            return
        shape = tuple(value.shape)
        fits = len(shape) == len(declared.shape) and all(
            want is None or want == size for want, size in zip(declared.shape, shape, strict=True)
        )
        if not fits:
            raise FormatError(
                f"{self.graph.where}: operation {node.name!r} ({node.type}) declares {name!r} as {declared}, but its "
                f"inputs give the shape {list(shape)}: the program is ill-typed"
            )

    def _failure(self, node: Node, kwargs: Mapping[str, Any], error: Exception) -> ParityError:
        if isinstance(error, ParityError):
            return error
        shown = ", ".join(f"{name} {_describe(value)}" for name, value in kwargs.items())
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return FormatError(
            f"{self.graph.where}: operation {node.name!r} ({node.type}) cannot be computed: {reason[:300]}"
            + (f"; inputs: {shown[:500]}" if shown else "")
        )


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return repr(value)[:60]
