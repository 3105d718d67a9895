"""Which operation of a program is the first that float16 does not carry?

The profiles ``declared`` and ``float32`` run side by side on the same inputs, an operation at a time, so no more than
two runs' memory is taken. Of each result the error of ``declared`` is measured, as rms relative to the rms of
``float32``. Two kinds of findings:

- a result *leaves the range* of float16: it is not finite, or all that is not zero becomes zero;
- a result *departs*: its error is more than :data:`GAIN` times the largest error of what the operation reads, or of
  rounding where that is more. So an operation that only passes on what came before is not blamed, and one that makes
  much of a rounding (a sine of a large angle, a difference of nearly equal values) is.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from queue import Queue
from typing import Any, Final

import numpy as np

from parity.mil.arrays import dtype_of
from parity.mil.dtypes import BY_NAME
from parity.mil.events import Event
from parity.mil.graph import Graph
from parity.mil.model import Model
from parity.mil.session import Session

GAIN: Final = 8.0
"""How many times an operation may multiply the errors of its inputs before it is named."""
LARGEST: Final = 65504.0
"""Largest finite float16."""
SMALL: Final = 30.0
"""PSNR-like ratio in dB (rms to rms of the error) above which a departure is not named: nobody sees it."""
_ROUNDING = 2.0**-11 / math.sqrt(3)  # rms error of rounding to float16, relative to values of one size
_WEIGHT = re.compile(r"^(?:module_|model_)*(.+?)_(?:weight|bias)(?:_to_fp16|_quantized|_palettized|_cast)*(?:_\d+)?$")


@dataclass(frozen=True)
class Value:
    """One result in both profiles.

    Attributes
    ----------
    name, type : str
        The value, and the operator that computes it.
    module : str
        Module of the original that it belongs to, as the program's names tell; empty where they do not.
    largest : float
        Largest magnitude in ``float32``; infinite if that is not finite either.
    error : float
        Rms of the difference relative to the rms of ``float32``; infinite where ``declared`` is not finite.
    inherited : float
        The largest such error of what the operation reads; 0 for inputs of the program.
    finite : bool
        Whether ``declared`` is finite everywhere.
    vanished : bool
        Whether all of it is zero in ``declared``, and not in ``float32``.
    reads : str
        The largest computed input, by name.
    reads_largest : float
        Its largest magnitude.
    half : bool
        Whether the program declares it float16.
    """

    name: str
    type: str
    module: str
    largest: float
    error: float
    inherited: float
    finite: bool
    vanished: bool
    reads: str
    reads_largest: float
    half: bool

    @property
    def leaves(self) -> bool:
        """Whether it leaves float16's range."""
        return self.vanished or (not self.finite and math.isfinite(self.largest))

    @property
    def gain(self) -> float:
        """By how much the operation multiplies the errors that it reads."""
        return self.error / max(self.inherited, _ROUNDING)

    @property
    def departs(self) -> bool:
        """Whether it departs from its float32 value beyond rounding, given what it reads."""
        return self.finite and self.gain > GAIN and 20 * math.log10(1 / max(self.error, 1e-30)) < 2 * SMALL

    @property
    def place(self) -> str:
        """Name, operator and module."""
        return f"{self.name} ({self.type}{f', module {self.module}' if self.module else ''})"

    @property
    def sentence(self) -> str:
        """What is wrong with it; for values that leave the range or depart."""
        if self.vanished:
            return f"{self.place} becomes zero: in float32 its largest is {self.largest:.3g}"
        if not self.finite:
            return (
                f"{self.place} is not finite: in float32 its largest is {self.largest:,.0f}, and float16 ends at "
                f"{LARGEST:,.0f}"
            )
        decibel = 20 * math.log10(1 / self.error)
        text = (
            f"{self.place} departs from its float32 values: {decibel:.1f} dB, {self.gain:.0f} times the error of what "
        )
        text += "it reads"
        if not self.reads:
            return text
        spacing = float(np.spacing(np.float16(min(self.reads_largest, LARGEST / 2))))
        return (
            f"{text}; it reads {self.reads}, up to {self.reads_largest:,.4g}, where float16's values lie {spacing:.2g} "
            "apart"
        )


def values(
    model: Model,
    inputs: Mapping[str, Any],
    *,
    function: str | None = None,
    profile: str = "declared",
    fuse: bool = True,
) -> Iterator[Value]:
    """Run a function in two profiles and give its floating-point results in the program's order.

    Parameters
    ----------
    model : Model
        From :func:`parity.mil.load`.
    inputs : mapping of str to array
        As :meth:`parity.mil.Session.predict` takes them.
    function : str, optional
        Which function; the model's default one.
    profile : str
        What is compared with ``float32``.
    fuse : bool
        As :class:`parity.mil.Session` takes it; without, operations of a fused pattern are told apart.

    Raises
    ------
    ParityError
        As :class:`parity.mil.Session` and its ``predict``.
    """
    # each operation runs once, so nothing is gained by keeping weights: two full-size UNets of them are 7 GiB
    rounded, wide = (
        Session(model, name, function=function, fuse=fuse, memory_budget=0) for name in (profile, "float32")
    )
    graph = rounded.graph
    modules, errors, sizes = _modules(graph), dict.fromkeys(graph.inputs, 0.0), {}
    reads = {name: tuple(node.dependencies()) for node in graph.nodes for name in node.outputs}
    made = {node.name: node.outputs for node in graph.nodes}
    sizes = {name: float(np.abs(np.asarray(value, np.float64)).max(initial=0)) for name, value in _numbers(inputs)}
    for first, second in zip(_stepped(rounded, inputs), _stepped(wide, inputs), strict=False):
        if first.outputs.keys() != second.outputs.keys():  # another branch, or another fusion
            continue
        inside = {name for op in first.covers for name in made.get(op, ())}
        outside = {r for name in inside | set(first.outputs) for r in reads.get(name, ()) if r not in inside}
        for name, value in first.outputs.items():
            if not (hasattr(value, "is_floating_point") and value.is_floating_point() and value.numel()):
                continue
            largest_read = max(outside & sizes.keys(), key=lambda each: sizes[each], default="")
            found = _measured(value, second.outputs[name])
            result = Value(
                name=name,
                type=first.type,
                module=modules.get(name, ""),
                inherited=max((errors[each] for each in outside if each in errors), default=0.0),
                reads=largest_read,
                reads_largest=sizes.get(largest_read, 0.0),
                half=name in graph.types and dtype_of(graph.types[name]) == "fp16",
                **found,
            )
            errors[name], sizes[name] = result.error, result.largest
            yield result


def given(model: Model, known: Mapping[str, Any], function: str | None = None) -> dict[str, Any]:
    """Return what a function takes of what is known, arrays in the dtypes that it declares."""
    features = {feature.name: feature for feature in model.function(function).inputs}
    return {
        name: np.asarray(value).astype(BY_NAME[features[name].dtype].numpy)
        if features[name].kind == "array" and features[name].dtype in BY_NAME
        else value
        for name, value in known.items()
        if name in features
    }


def first(found: Iterator[Value]) -> tuple[Value | None, Value | None]:
    """Return the first value that leaves float16's range and the first one that departs, up to the former.

    Parameters
    ----------
    found : iterator of Value
        From :func:`values`; nothing is run beyond a value that is not finite.
    """
    departing: Value | None = None
    for value in found:
        if value.leaves and (value.vanished is False):
            found.close()  # type: ignore[attr-defined]
            return value, departing
        if departing is None and (value.departs or value.vanished):
            departing = value
    return None, departing


def _measured(rounded: Any, wide: Any) -> dict[str, Any]:
    import torch

    exact, other = wide.double(), rounded.double()
    finite, known = bool(other.isfinite().all()), bool(exact.isfinite().all())
    size = float(exact.square().mean().sqrt()) if known else math.inf
    error = math.inf
    if finite and known:
        difference = float((other - exact).square().mean().sqrt())
        error = difference / size if size else (0.0 if difference == 0 else math.inf)
    largest = float(exact.abs().max()) if known else math.inf
    return {
        "largest": largest,
        "error": error,
        "finite": finite,
        "vanished": bool(torch.count_nonzero(other) == 0 and torch.count_nonzero(exact) > 0),
    }


def _modules(graph: Graph) -> dict[str, str]:
    """Return the module of each result, by the weights that its operation reads, or else those of the next one."""
    own: dict[str, str] = {}
    for node in graph.nodes:
        named = [match[1] for name in node.dependencies() if (match := _WEIGHT.match(name)) and name in graph.constants]
        own |= dict.fromkeys(node.outputs, named[0]) if named else {}
    found = dict(own)
    for node in reversed(graph.nodes):  # what prepares a module's input is named after it
        for name in node.dependencies():
            if name not in found and node.outputs[0] in found and name not in graph.constants:
                found[name] = f"before {found[node.outputs[0]].removeprefix('before ')}"
    return found


def _numbers(inputs: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in inputs.items():
        array = np.asarray(value)
        if array.dtype.kind in "fiu":
            yield name, array


class _StoppedError(Exception):
    """Ends a run whose events nobody takes any more."""


def _stepped(session: Session, inputs: Mapping[str, Any]) -> Iterator[Event]:
    """Run a session in a thread of its own; it waits after each operation until the event was dealt with."""
    ready: Queue[Event | BaseException | None] = Queue()
    go, ended = threading.Semaphore(0), threading.Event()

    def tell(event: Event) -> None:
        ready.put(event)
        go.acquire()
        if ended.is_set():
            raise _StoppedError

    def run() -> None:
        try:
            session.predict(inputs, state=session.new_state(), callback=tell)
        except _StoppedError:
            return
        except BaseException as error:
            ready.put(error)
        finally:
            ready.put(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            go.release()
    finally:
        ended.set()
        go.release()
        thread.join()
