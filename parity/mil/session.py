"""How is a Core ML program run anywhere, with the numerics that it declares?

:class:`Session` prepares a function of a loaded model and predicts with NumPy arrays in and out. Any value of the
program can be asked for, or given, by name. Profiles say how results are rounded:

- ``declared``: computed in float32, each operation's result rounded once to its declared dtype; dot products accumulate
  in float32. A fused pattern counts as one operation.
- ``float32``: no rounding to float16 at all: what the graph would give with exact-enough arithmetic. Weights keep the
  values that the file has.
- ``float16-accumulate``: as ``declared``, and sums are rounded to float16 too, in blocks and trees: what accumulation
  in float16 costs when it is done with care. Nothing is fused.
- ``float16-sequential``: as ``declared``, and matrix products are summed one product after the other, each product and
  each sum rounded to float16, as Core AI's runtime on Linux does. Only group norms are fused.

None of them simulates a hardware unit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from parity.errors import UsageError
from parity.mil import allocator, arrays, fusion, nested
from parity.mil.constants import Budget, Constants
from parity.mil.events import Event, Options
from parity.mil.graph import Graph, build
from parity.mil.model import Model
from parity.mil.operators import State
from parity.mil.plan import Plan
from parity.mil.profiles import PROFILES
from parity.mil.values import StateType

Callback = Callable[[Event], None]


class States:
    """Memory of a stateful program between predictions: names to NumPy arrays, made by :meth:`Session.new_state`."""

    def __init__(self, cells: dict[str, State], dtypes: dict[str, str], *, rounded: bool) -> None:
        self._cells = cells
        self._dtypes = dtypes
        self._rounded = rounded

    def __iter__(self) -> Any:
        return iter(self._cells)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a copy of the state ``name`` in its declared dtype."""
        return arrays.to_numpy(self._cell(name).value, self._dtypes[name], rounded=self._rounded)

    def __setitem__(self, name: str, value: Any) -> None:
        """Replace the state ``name``; UsageError when the shape differs."""
        cell = self._cell(name)
        array = np.asarray(value)
        if array.shape != tuple(cell.value.shape):
            raise UsageError(f"state {name!r}: shape {array.shape}, expected {tuple(cell.value.shape)}")
        cell.value = arrays.to_torch(array, self._dtypes[name], f"state {name!r}", rounded=self._rounded)

    def _cell(self, name: str) -> State:
        if name not in self._cells:
            raise UsageError(f"no state {name!r}; there are {', '.join(self._cells) or 'none'}")
        return self._cells[name]


class Session:
    """A function of a model, ready to predict.

    Parameters
    ----------
    model : Model
        From :func:`parity.mil.load`.
    profile : str
        Numerics, one of :data:`PROFILES`.
    function : str, optional
        Which function; the model's default one.
    fuse : bool
        Recognise patterns (attention, normalisation, linear with activation) and run them as one operation: faster,
        and rounded once instead of at each step. False runs and rounds every operation by itself.
    memory_budget : int, optional
        Bytes that prepared weights may take; the rest is converted again at each use. No limit by default.
    seed : int
        For random operators that carry no seed of their own.

    Raises
    ------
    UsageError
        Unknown profile or function.
    FormatError, UnsupportedError
        The program is damaged, ill-typed or uses an operator that is not known.
    """

    def __init__(
        self,
        model: Model,
        profile: str = "declared",
        *,
        function: str | None = None,
        fuse: bool = True,
        memory_budget: int | None = None,
        seed: int = 0,
    ) -> None:
        if profile not in PROFILES:
            raise UsageError(f"no numerics profile {profile!r}; there are {', '.join(PROFILES)}")
        self.model = model
        self.profile = profile
        self._rounded = profile != "float32"
        self.function = model.function(function)
        name = self.function.name
        program = model.program
        if name not in program.functions:
            raise UsageError(f"{model.path}: the program has no function {name!r}: {', '.join(program.functions)}")
        self.graph: Graph = build(program.functions[name], f"{model.path}: function {name!r}")
        self._nested = nested.types(self.graph)
        rewrite = fusion.rewrite(profile) if fuse else None
        self._options = Options(profile, model.weights, Budget(memory_budget), seed=seed, rewrite=rewrite)
        self._constants = Constants(self.graph, model.weights, budget=self._options.budget)
        self._plans: dict[tuple[tuple[str, ...], tuple[str, ...]], Plan] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all values outside nested blocks: inputs, constants and results, in the program's order."""
        return tuple(name for name in self.graph.types if not name.startswith("%"))

    @property
    def nested_names(self) -> tuple[str, ...]:
        """Names of the values inside nested blocks, but for those that :attr:`names` has too."""
        return tuple(name for name in self._nested if name not in self.graph.types)

    def new_state(self) -> States:
        """Return zeroed memory for all states of the function."""
        cells, dtypes = {}, {}
        for name in self.graph.inputs:
            declared = self.graph.types[name]
            if isinstance(declared, StateType):
                cells[name] = State(arrays.zeros(declared.wrapped, f"{self.graph.where}: state {name!r}"))
                dtypes[name] = arrays.dtype_of(declared.wrapped)
        return States(cells, dtypes, rounded=self._rounded)

    def predict(
        self, inputs: Mapping[str, Any], *, state: States | None = None, callback: Callback | None = None
    ) -> dict[str, Any]:
        """Run the function.

        Parameters
        ----------
        inputs : mapping of str to array
            One entry for each input that is not optional: arrays of the declared shape; images as PIL images or arrays
            of shape (height, width[, 3]).
        state : States, optional
            Memory from :meth:`new_state`; needed when the function has states. It is updated.
        callback : callable, optional
            Called with an :class:`Event` after each operation.

        Returns
        -------
        dict of str to numpy.ndarray
            Outputs in declared order and dtype (floating-point ones as float32 in profile ``float32``); strings and
            dictionaries for classifiers.

        Raises
        ------
        UsageError
            Missing or unknown input, wrong shape or dtype.
        FormatError
            The program turns out to be ill-typed.
        """
        given = arrays.inputs(self.function.inputs, inputs, str(self.model.path))
        return self._run(self.graph.outputs, given, state, callback, all_states=True)

    def values(
        self,
        names: Sequence[str],
        inputs: Mapping[str, Any],
        *,
        state: States | None = None,
        callback: Callback | None = None,
    ) -> dict[str, Any]:
        """Return any values of the program by name, running no more than they need.

        Parameters
        ----------
        names : sequence of str
            Values to return: results, constants or inputs. Asked values are never fused away. Of a value inside a
            loop or condition the last one is returned: of the last iteration, of the branch that was taken.
        inputs : mapping of str to array
            What is known: inputs of the function, or any other values, which then are not computed. So a program runs
            from, up to or between any of its values.
        state, callback
            As in :meth:`predict`.

        Raises
        ------
        UsageError
            Unknown name, something needed is not given, a value inside a nested block is given, or one is asked for
            whose block did not run.
        """
        for name in (*names, *inputs):
            if name not in self.graph.types and name not in self._nested:
                known = (*self.names, *self.nested_names)
                raise UsageError(f"{self.graph.where}: no value {name!r}{arrays.closest(name, known)}")
        if inside := [name for name in inputs if name not in self.graph.types]:
            raise UsageError(
                f"{self.graph.where}: the value {inside[0]!r} lies inside a loop or condition, which computes it at "
                "each run: it can be asked for, but not given; give what the block reads instead"
            )
        features = {feature.name: feature for feature in self.function.inputs}
        given = {
            name: arrays.input_value(features[name], value, str(self.model.path)) if name in features else value
            for name, value in inputs.items()
        }
        return self._run(tuple(names), given, state, callback, all_states=False)

    def _run(
        self,
        wanted: tuple[str, ...],
        given: dict[str, Any],
        state: States | None,
        callback: Callback | None,
        *,
        all_states: bool,
    ) -> dict[str, Any]:
        values = {}
        for name, value in given.items():
            declared = self.graph.types.get(name)
            if declared is None:
                raise UsageError(f"{self.graph.where}: described input {name!r} is no input of the program")
            values[name] = arrays.typed(declared, value, f"{self.model.path}: value {name!r}", rounded=self._rounded)
        for name in self.graph.inputs:
            if isinstance(self.graph.types[name], StateType):
                if state is not None:
                    values[name] = state._cell(name)
                elif all_states:
                    raise UsageError(f"{self.model.path}: state {name!r} is needed: pass state=session.new_state()")
        outer = tuple(name for name in wanted if name in self.graph.types)
        asked = frozenset(wanted).difference(outer)
        key = (wanted, tuple(values))
        with self._lock, torch.inference_mode(), allocator.keeping_memory():
            if key not in self._plans:
                self._plans[key] = Plan(
                    self.graph,
                    self._options,
                    wanted=outer,
                    given=key[1],
                    constants=self._constants,
                    all_states=all_states,
                    asked=asked,
                )
            self._options.callback = callback
            self._options.generators.clear()
            try:
                results = dict(zip(outer, self._plans[key].run(list(values.values())), strict=True))
                results |= {name: value for name, value in self._options.nested.items() if name in asked}
            finally:
                self._options.callback = self._options.stopped = None
                self._options.nested.clear()
            if missing := sorted(asked.difference(results)):
                raise UsageError(
                    f"{self.graph.where}: the value {missing[0]!r} lies inside a loop or condition that did not run "
                    "with these inputs"
                )
            types = self._nested | self.graph.types
            return {n: arrays.result(types[n], results[n], rounded=self._rounded) for n in wanted}
