"""What did coremltools translate into something else when it wrote this package?

Structures that its converter leaves in a program and that compute something other than the PyTorch module did. The
program alone decides, whoever made it. Each was seen with coremltools 9.0 (docs/core-ai.md); what no structure shows, a
dropped ``antialias`` or ``output_padding``, cannot be told from a package.
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
}
_DEFAULTS = {"batch_norm": 1e-5, "inverse": 1e-4, "log": 1e-45}


def faults(model: mil.Model) -> tuple[str, ...]:
    """Return what is known to be translated wrongly in a float32 program, one sentence a kind; empty for other models.

    In float16 these differences are below rounding.
    """
    if model.kind != "mlProgram":
        return ()
    reader = _Reader(model)
    found = Counter(operation.type for operation in operations(model.program) if reader.wrong(operation))
    return tuple(_EXPLAINED[kind].format(count=count) for kind, count in sorted(found.items()))


class _Reader:
    def __init__(self, model: mil.Model) -> None:
        self._model = model
        self._constants: dict[str, Any] = {}
        self._softmax: set[str] = set()

    def wrong(self, operation: Any) -> bool:
        """Tell whether an operation is one of those; remembers constants and softmaxes for those that follow."""
        if operation.type == "const":
            self._constants[operation.outputs[0].name] = operation.attributes["val"]
        elif operation.type == "softmax":
            self._softmax.add(operation.outputs[0].name)
        if operation.type not in _EXPLAINED or not _float32(operation):
            return False
        if operation.type == "log":
            return operation.inputs["x"].arguments[0].name in self._softmax
        epsilon = self._value(operation, "epsilon")
        used = _DEFAULTS[operation.type] if epsilon is None else float(epsilon)
        if operation.type == "batch_norm":
            unit = self._constant(operation, "variance", 1.0) and self._constant(operation, "mean", 0.0)
            return unit and used > 1e-7
        return used > 1e-7

    def _constant(self, operation: Any, parameter: str, number: float) -> bool:
        value = self._value(operation, parameter)
        return value is not None and bool(np.all(np.asarray(value) == number))

    def _value(self, operation: Any, parameter: str) -> Any:
        if parameter not in operation.inputs:
            return None
        argument = operation.inputs[parameter].arguments[0]
        inline = argument.WhichOneof("binding") == "value"
        message = argument.value if inline else self._constants.get(argument.name)
        if message is None:
            return None
        return values.decode(message, f"{self._model.path}: {operation.outputs[0].name}", self._model.weights)


def _float32(operation: Any) -> bool:
    kind = operation.outputs[0].type.tensorType.dataType
    return bool(kind == dtypes.BY_NAME["fp32"].code)
