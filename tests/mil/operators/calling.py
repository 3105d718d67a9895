"""Call one operator as an interpreter does, and check what every call promises.

Inputs are NumPy arrays, scalars, strings, tuples; results come back as NumPy arrays. Each call checks that the operator
wrote into none of its inputs, that a result shares memory with an input only if the operator says so, and that an
operator called exact gives values that its declared dtype can represent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import settings

from parity.mil import operators

settings.register_profile("operators", derandomize=True, deadline=None, max_examples=40, print_blob=False)
settings.load_profile("operators")


def rng(seed: int) -> np.random.Generator:
    """Random numbers of a named seed."""
    return np.random.default_rng(seed)


def halves(generator: np.random.Generator, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Normally distributed float32 values that float16 can represent."""
    return (generator.standard_normal(shape) * scale).astype(np.float16).astype(np.float32)


def carried(value: Any) -> Any:
    """Turn NumPy arrays (also in tuples) into tensors of the carrier dtype."""
    if isinstance(value, tuple):
        return tuple(carried(item) for item in value)
    if not isinstance(value, np.ndarray):
        return value
    kind = {"float16": "fp16", "float32": "fp32", "float64": "fp32"}.get(value.dtype.name, value.dtype.name)
    wide = value.astype(np.int64) if value.dtype.kind == "u" and value.dtype.itemsize > 1 else value
    return torch.from_numpy(np.array(wide, copy=True)).to(getattr(torch, operators.CARRIERS[kind]))


def _tensors(values: Any) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, (tuple, list)):
        return [tensor for value in values for tensor in _tensors(value)]
    return []


def call(
    kind: str,
    *,
    opset: str = "iOS18",
    declared: str = "fp32",
    profile: str = "declared",
    context: operators.Context | None = None,
    **inputs: Any,
) -> Any:
    """Run the operator; floating-point results are rounded to `declared` unless the operator is exact."""
    operator = operators.get(kind, opset)
    operator.check(inputs)
    arguments = {name: carried(value) for name, value in inputs.items()}
    for name in operator.static & arguments.keys():
        arguments[name] = operators.python_value(arguments[name])
    tensors = _tensors(list(arguments.values()))
    copies = [tensor.clone() for tensor in tensors]
    if context is None:
        context = operators.Context(name=kind, type=kind, outputs=(operators.Declared(declared),), profile=profile)
    result = operator.function(context, **arguments)
    for tensor, copy in zip(tensors, copies, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), copy.numpy(), err_msg=f"{kind} wrote into its input")
    memory = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    for tensor in _tensors(result):
        shared = tensor.numel() > 0 and tensor.untyped_storage().data_ptr() in memory
        assert not shared or operator.aliases, f"{kind} returned a view of its input"
    return _finished(result, operator, declared)


def _finished(result: Any, operator: operators.Operator, dtype: str) -> Any:
    if isinstance(result, (tuple, list)):
        return type(result)(_finished(item, operator, dtype) for item in result)
    if not isinstance(result, torch.Tensor):
        return result
    if dtype == "fp16" and result.is_floating_point():
        rounded = result.half().float()
        if operator.exact:
            np.testing.assert_array_equal(rounded.numpy(), result.numpy(), err_msg=f"{operator.type} is not exact")
        result = rounded
    return result.numpy()


def context(kind: str = "op", **fields: Any) -> operators.Context:
    """A context for operators that need one."""
    return operators.Context(name=kind, type=kind, **fields)
