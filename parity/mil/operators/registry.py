"""Which function computes an operator of an ML Program, and how is it called?

An interpreter asks :func:`get` for the operator of a type under the opset that the program declares, once per
operation, then calls ``operator.function(context, **inputs)``. The convention, in full:

* **Inputs** come by keyword under their MIL names. Optional inputs that the program leaves out are left out.
* Parameters in ``operator.static`` (axes, flags, paddings, scalar attributes) come as Python values: scalars as
  ``bool``, ``int``, ``float`` or ``str``, vectors as tuples, higher ranks as nested tuples. Constants are converted
  once, when the program is planned; values known only at run time by :func:`python_value`.
* Parameters in ``operator.variadic`` come as a tuple, whatever the number of bindings.
* Every other input is a ``torch.Tensor`` (rank 0 included), a ``str``, a Python list (MIL list of tensors) or a
  :class:`State`.
* **Dtypes.** Floating-point tensors are float32 and hold values that their declared dtype can represent. Integers
  and booleans are the torch dtype in :data:`CARRIERS`: torch has hardly any kernels for unsigned integers wider than
  8 bits, so those travel in the next wider signed one. Sub-byte integers travel one to a byte.
* **Result.** One value, or a tuple of exactly as many as the operation declares when the operator can return several
  (`split`, `topk`, `lstm`, ...; a tuple of one for a split into one). A MIL list is a Python list.
* **Rounding.** Functions compute in float32 and return float32; the interpreter rounds each result once to its
  declared dtype unless ``operator.exact``, which says that representable inputs give representable results.
  Integer results may need a change of dtype to the declared one's carrier.
* **Aliasing.** Functions never write into their inputs. ``operator.aliases`` says that the result may share memory
  with an input (views), which in-place reuse has to respect.

Nothing here imports torch; the functions' modules do, at the first lookup.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from parity.errors import UnsupportedError

if TYPE_CHECKING:
    import torch

OPSETS = ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26")
"""Opsets in order. iOS 26 adds no operator to iOS 18's in coremltools 9.0."""

_SPELLINGS = {name.lower(): index for index, name in enumerate(OPSETS)} | {
    f"coreml{5 + index}": index for index in range(len(OPSETS))
}

CARRIERS: Mapping[str, str] = {
    "bool": "bool",
    "fp16": "float32",
    "fp32": "float32",
    "fp64": "float64",
    "bf16": "float32",
    "int4": "int8",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint1": "uint8",
    "uint2": "uint8",
    "uint3": "uint8",
    "uint4": "uint8",
    "uint6": "uint8",
    "uint8": "uint8",
    "uint16": "int32",
    "uint32": "int64",
    "uint64": "int64",
}
"""Name of the torch dtype in which values of a MIL dtype travel."""

_FAMILIES = (
    "activation",
    "constexpr",
    "control_flow",
    "conv",
    "detection",
    "elementwise_binary",
    "elementwise_unary",
    "image_resizing",
    "linear",
    "normalization",
    "pool",
    "quantization",
    "random",
    "recurrent",
    "reduction",
    "scatter_gather",
    "states",
    "tensor_operation",
    "tensor_transformation",
)


@dataclass(frozen=True, slots=True)
class Declared:
    """The type that an operation declares for one result.

    Attributes
    ----------
    dtype : str
        MIL dtype as in textual MIL, e.g. ``"fp16"``, ``"int32"``, ``"string"``.
    shape : tuple of (int or None)
        Sizes; None where flexible.
    """

    dtype: str
    shape: tuple[int | None, ...] = ()


@dataclass(slots=True)
class State:
    """A named piece of memory that outlives a prediction: what a value of type ``state<tensor<…>>`` is at run time."""

    value: torch.Tensor


def _no_blocks(index: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    raise UnsupportedError(f"this operation carries no block {index}; cond and while_loop need an interpreter")


@dataclass(slots=True)
class Context:
    """What an operator may know beside its inputs. The interpreter makes one per operation when it plans.

    Attributes
    ----------
    name, type : str
        The operation's name (its first output where it has none) and operator.
    outputs : tuple of Declared
        Declared types of the results.
    profile : str
        ``declared``, ``float32``, ``float16-accumulate`` or ``float16-sequential``.
    run_block : callable
        ``run_block(index, arguments) -> tuple``: runs the operation's nested block (cond: 0 true, 1 false;
        while_loop: 0 condition, 1 body) with its block inputs bound to `arguments`.
    generators : dict
        Random generators by operation name; one dictionary per run, shared by all contexts, cleared or replaced at
        the start of each run. See `parity.mil.operators.random`.
    random_seed : int
        Seed of the session, for random operators whose own seed is -1.
    half_accumulate, sequential : bool
        Derived: dot products and sums of this operation accumulate in float16, by the rules of
        :mod:`parity.mil.operators.accumulate` or of :mod:`parity.mil.operators.sequential`.
    """

    name: str = ""
    type: str = ""
    outputs: tuple[Declared, ...] = ()
    profile: str = "declared"
    run_block: Callable[[int, tuple[Any, ...]], tuple[Any, ...]] = _no_blocks
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    random_seed: int = 0
    half_accumulate: bool = field(init=False, default=False)
    sequential: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        halves = bool(self.outputs) and self.outputs[0].dtype == "fp16"
        self.half_accumulate = halves and self.profile == "float16-accumulate"
        self.sequential = halves and self.profile == "float16-sequential"


@dataclass(frozen=True, slots=True)
class Operator:
    """One version of an operator.

    Attributes
    ----------
    type, since : str
        MIL name, and the first opset of this version.
    function : callable
        ``function(context, **inputs)``.
    exact : bool
        Representable inputs give representable results: no rounding needed.
    aliases : bool
        A result may share memory with an input.
    static, variadic : frozenset of str
        Inputs that come as Python values, and as tuples.
    parameters : tuple of str
        All input names, in the order of the function's signature.
    required : frozenset of str
        Inputs without a default.
    accumulates : bool
        Has sums that the profile ``float16-accumulate`` rounds on the way.
    """

    type: str
    since: str
    function: Callable[..., Any]
    exact: bool
    aliases: bool
    static: frozenset[str]
    variadic: frozenset[str]
    parameters: tuple[str, ...]
    required: frozenset[str]
    accumulates: bool = False

    def check(self, inputs: Iterable[str], *, value: str = "") -> None:
        """Refuse unknown and missing input names, naming the operation's `value`.

        Raises
        ------
        UnsupportedError
            The operation has an input this operator lacks, or lacks one that it needs.
        """
        given = set(inputs)
        where = f"operation {value!r}: " if value else ""
        if unknown := given.difference(self.parameters):
            raise UnsupportedError(
                f"{where}operator {self.type} (version of {self.since}) has no input {', '.join(sorted(unknown))}; "
                f"it takes {', '.join(self.parameters)}"
            )
        if missing := self.required.difference(given):
            raise UnsupportedError(f"{where}operator {self.type} needs the input {', '.join(sorted(missing))}")


_OPERATORS: dict[str, list[Operator]] = {}  # by type, versions in the order of OPSETS
_loaded = False


def operator(
    *types: str,
    exact: bool = False,
    aliases: bool = False,
    accumulates: bool = False,
    since: str = "iOS15",
    static: Iterable[str] = (),
    variadic: Iterable[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function for the operators `types` from the opset `since` on (see :class:`Operator`)."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        names = tuple(p.name for p in parameters)
        static_names, variadic_names = frozenset(static), frozenset(variadic)
        if stray := (static_names | variadic_names).difference(names):
            raise ValueError(f"{types[0]}: {', '.join(sorted(stray))} is no parameter of {function.__name__}")
        required = frozenset(p.name for p in parameters if p.default is inspect.Parameter.empty)
        for kind in types:
            versions = _OPERATORS.setdefault(kind, [])
            if any(version.since == since for version in versions):
                raise ValueError(f"{kind} of {since} is registered twice")
            versions.append(
                Operator(
                    kind, since, function, exact, aliases, static_names, variadic_names, names, required, accumulates
                )
            )
            versions.sort(key=lambda version: OPSETS.index(version.since))
        return function

    return register


def _load() -> None:
    global _loaded
    if not _loaded:
        for family in _FAMILIES:
            importlib.import_module(f"parity.mil.operators.{family}")
        _loaded = True


def versions() -> dict[str, tuple[Operator, ...]]:
    """Return all operators: type to its versions, oldest first."""
    _load()
    return {kind: tuple(_OPERATORS[kind]) for kind in sorted(_OPERATORS)}


def get(kind: str, opset: str, *, value: str = "") -> Operator:
    """Return the version of an operator that a program of `opset` means.

    Parameters
    ----------
    kind : str
        Operator, e.g. ``"conv"``.
    opset : str
        ``"iOS15"`` … ``"iOS26"`` or ``"CoreML5"`` … ``"CoreML9"``, in any case.
    value : str
        Name of the operation or of its result, for the message.

    Raises
    ------
    UnsupportedError
        The operator or opset is unknown, or the operator is younger than the opset.
    """
    _load()
    where = f" (computes {value!r})" if value else ""
    level = _SPELLINGS.get(opset.lower())
    if level is None:
        raise UnsupportedError(
            f"opset {opset!r} of operator {kind!r}{where} is unknown; this release executes {', '.join(OPSETS)} "
            "(in files: CoreML5 to CoreML9)"
        )
    candidates = _OPERATORS.get(kind)
    if not candidates:
        raise UnsupportedError(
            f"operator {kind!r}{where} is unknown to the reference runtime; coremltools 9.0 writes no operator of "
            "that name into a program (docs/operators.md lists those executed)"
        )
    for candidate in reversed(candidates):
        if OPSETS.index(candidate.since) <= level:
            return candidate
    raise UnsupportedError(
        f"operator {kind!r}{where} exists since {candidates[0].since}, but the program declares {OPSETS[level]}"
    )


def python_value(value: Any) -> Any:
    """Return a static input's Python form: scalars as such, vectors as tuples, higher ranks as nested tuples."""
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(python_value(item) for item in value)
    plain = value.tolist()  # torch and NumPy alike
    return plain if not isinstance(plain, list) else python_value(plain)
