"""What did coremltools translate into something else when it wrote this package?

Structures that its converter leaves in a program and that compute something other than the PyTorch module did. The
program alone decides, whoever made it. Each was seen with coremltools 9.0 (docs/core-ai.md); what no structure shows
cannot be told from a package: a dropped ``antialias`` or ``output_padding``, ignored running statistics, a product that
reads the wrong one of two transposed matrices.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from parity import mil
from parity.contracts.fingerprint import operations
from parity.mil import dtypes, values

_EXPLAINED = {
    "batch_norm": (
        "{count} batch norms of variance 1 with an epsilon of 1e-5 stand for a scale and a shift (group norms): their "
        "results are 0.999995 of the right ones, -106 dB each. Converting again with 'parity convert' avoids it"
    ),
    "inverse": "{count} reciprocals add an epsilon of 1e-4: 1 / 0.25 gives 3.9984",
    "log": "{count} logarithms of a softmax end at -103.28, whatever the probability (log_softmax)",
    "rms": "{count} RMS norms divide by the largest value first: zeros give NaN, and epsilon counts relative to it",
    "square": (
        "{count} norms take squares in float16: a value more than 256 from its group's mean makes the whole group 0. "
        "'parity convert --float32 all' avoids it"
    ),
}
_DEFAULTS = {"batch_norm": 1e-5, "inverse": 1e-4, "log": 1e-45}


def faults(model: mil.Model, *, records: bool = True) -> tuple[str, ...]:
    """Return what is known to be translated wrongly in a program, one sentence a kind; empty where nothing is.

    Parameters
    ----------
    model : parity.mil.Model
        Models that are no programs have no such faults.
    records : bool
        Whether the weight file's records can be read; otherwise batch norms are passed over.

    Notes
    -----
    The epsilons of float32 operations are below rounding in float16, and the squares that float16 lacks are within
    float32, so each of these is named in programs of one precision; a norm of zeros is NaN in both.
    """
    if model.kind != "mlProgram":
        return ()
    reader = _Reader(model)
    found = Counter(
        reader.kind(operation) for operation in operations(model.program) if records or operation.type != "batch_norm"
    )
    return tuple(text.format(count=found[kind]) for kind, text in _EXPLAINED.items() if found[kind])


class _Reader:
    def __init__(self, model: mil.Model) -> None:
        self._model = model
        self._constants: dict[str, Any] = {}
        self._made: dict[str, Any] = {}

    def kind(self, operation: Any) -> str:
        """Return the key of the sentence that an operation deserves, or nothing; remembers it for those that follow."""
        for output in operation.outputs:
            self._made[output.name] = operation
            if operation.type == "const":
                self._constants[output.name] = operation.attributes["val"]
        if operation.type == "real_div":
            return "rms" if self._by_largest(operation) else ""
        elif operation.type == "reduce_mean":
            return "square" if _precise(operation, "fp16") and self._of_squares(operation) else ""
        elif operation.type in _DEFAULTS and _precise(operation, "fp32"):
            return operation.type if self._wrong(operation) else ""
        return ""

    def _wrong(self, operation: Any) -> bool:
        if operation.type == "log":
            return bool(self._maker(operation, "x", "softmax"))
        epsilon = self._value(operation, "epsilon")
        used = _DEFAULTS[operation.type] if epsilon is None else float(epsilon)
        if operation.type == "batch_norm":
            unit = self._constant(operation, "variance", 1.0) and self._constant(operation, "mean", 0.0)
            return unit and used > 1e-7
        return used > 1e-7

    def _by_largest(self, division: Any) -> bool:
        """Tell whether x is divided by the largest of its own magnitudes."""
        largest = self._maker(division, "y", "reduce_max")
        magnitudes = self._maker(largest, "x", "abs") if largest else None
        return magnitudes is not None and _name(magnitudes, "x") == _name(division, "x")

    def _of_squares(self, mean: Any) -> bool:
        """Tell whether it is the mean of squared differences, as converters and as ml-stable-diffusion write them."""
        square = self._maker(mean, "x", "square") or self._maker(mean, "x", "mul")
        if square is None or (square.type == "mul" and _name(square, "x") != _name(square, "y")):
            return False
        return self._maker(square, "x", "sub") is not None

    def _maker(self, operation: Any, parameter: str, kind: str) -> Any:
        """Return the operation of this type that made an input; None if it was another or an inline value."""
        made = self._made.get(_name(operation, parameter))
        return made if made is not None and made.type == kind else None

    def _constant(self, operation: Any, parameter: str, number: float) -> bool:
        value = self._value(operation, parameter)
        return value is not None and bool(np.all(np.asarray(value) == number))

    def _value(self, operation: Any, parameter: str) -> Any:
        if parameter not in operation.inputs or not operation.inputs[parameter].arguments:
            return None
        argument = operation.inputs[parameter].arguments[0]
        inline = argument.WhichOneof("binding") == "value"
        message = argument.value if inline else self._constants.get(argument.name)
        if message is None:
            return None
        return values.decode(message, f"{self._model.path}: {operation.outputs[0].name}", self._model.weights)


def _name(operation: Any, parameter: str) -> str:
    """Return what an input reads, empty where it is an inline value or missing."""
    given = operation.inputs[parameter].arguments if parameter in operation.inputs else ()
    return str(given[0].name) if given else ""


def _precise(operation: Any, name: str) -> bool:
    return any(output.type.tensorType.dataType == dtypes.BY_NAME[name].code for output in operation.outputs[:1])
