"""Can a VAE encoder of one contract be made into another without the PyTorch checkpoint? Yes, exactly.

The encoder of five inputs (0.2.0, 0.3.0) computes the same moments as the modern one and then goes on::

    mean, logvar = split(moments, 2, axis=1)
    latent = sqrt_alpha * (0.18215 * (mean + exp(0.5 * clip(logvar, -30, 20)) * diagonal_noise))
             + sqrt_one_minus_alpha * noise

:func:`moments` finds the cut by structure, from the input ``diagonal_noise``, never by names of values; :func:`cut`
makes it the output; :func:`extend` appends these operations to a modern encoder; :func:`rename_input` turns ``x`` into
``z`` or back. Proved by tests: the cut gives bit-identical moments to a modern conversion of the same weights. Not
verified on files of coremltools 6 and on Core ML itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity.errors import FormatError, UnsupportedError
from parity.mil import values
from parity.repair.program import Editor

SCALE = 0.18215  # written into the graph of the five-input encoder, whatever the VAE's own factor
_IMAGE = "image, RGB in [-1, 1]"
_MOMENTS = "moments: mean and logarithm of the variance along axis 1"


def moments(editor: Editor) -> str:
    """Return the name of the moments inside an encoder of five inputs.

    Raises
    ------
    FormatError
        Naming the link of the chain that is missing: the file is not what the converter wrote.
    """
    product = _only(editor, "diagonal_noise", "mul")
    total = _only(editor, product.outputs[0].name, "add")
    deviation = _other(editor, product, "diagonal_noise")
    exponential = _made_by(editor, deviation, "exp")
    half = _made_by(editor, editor.argument(exponential, "x"), "mul")
    clip = _factor(editor, half, 0.5)
    clipped = _made_by(editor, clip, "clip")
    limits = [_number(editor, clipped, name) for name in ("alpha", "beta")]
    if not np.allclose(limits, (-30, 20)):
        raise _unlike(editor, f"the logarithm of the variance is limited to {limits}, expected [-30, 20]")
    logvar = editor.argument(clipped, "x")
    split, index = editor.producer(logvar)
    mean = _other(editor, total, product.outputs[0].name)
    if split.type != "split" or len(split.outputs) != 2 or index != 1 or split.outputs[0].name != mean:
        raise _unlike(editor, "mean and logarithm of the variance are not the halves of one split")
    if _number(editor, split, "axis") not in (1, -3):
        raise _unlike(editor, "the split is not along axis 1")
    return editor.argument(split, "x")


def cut(editor: Editor, *, name: str = "z") -> str:
    """Turn an encoder of five inputs into one of a single input that returns float32 moments called ``latent``.

    Parameters
    ----------
    editor : Editor
        The encoder; it is changed.
    name : str
        Input's name: ``z`` is accepted by every Swift release from 0.4.0 on.

    Returns
    -------
    str
        Name that the moments have in the original program.
    """
    found = moments(editor)
    dtype, shape = editor.type_of(found)
    source_dtype, source_shape = editor.type_of("sample")
    editor.set_outputs([found])
    editor.set_inputs([("sample", source_dtype, source_shape, _IMAGE)])
    editor.rename("sample", name)
    _finish(editor, found, dtype, "latent")
    editor.describe_outputs([("latent", "fp32", shape, _MOMENTS)])
    return found


def rename_input(editor: Editor, new: str) -> None:
    """Give the only input of a modern encoder another name."""
    if len(editor.function.inputs) != 1:
        raise UnsupportedError(f"{editor.path}: {len(editor.function.inputs)} inputs, expected one")
    editor.rename(editor.function.inputs[0].name, new)


def extend(editor: Editor) -> str:
    """Turn an encoder of one input into the one of five inputs that Swift 0.3.0 needs.

    Returns
    -------
    str
        Name of the moments inside the new program.

    Raises
    ------
    UnsupportedError
        For float32 encoders (SDXL): no release of that time knew them.
    """
    name = editor.function.inputs[0].name
    dtype, shape = editor.type_of(name)
    if dtype != "fp16":
        raise UnsupportedError(
            f"{editor.path}: input '{name}' is {dtype}; the five-input encoder is float16 (SD 1 and 2)"
        )
    output = editor.block.outputs[0]
    producer, _ = editor.producer(output)
    found = editor.argument(producer, "x") if producer.type == "cast" else output
    if editor.type_of(found)[0] != "fp16":
        found = _cast(editor, found, "fp16", "moments_to_fp16")
    latent_shape = (1, editor.type_of(found)[1][1] // 2, *editor.type_of(found)[1][2:])
    editor.rename(name, "sample")
    scalar = (1, 1)
    editor.set_inputs(
        [
            ("sample", "fp16", shape, _IMAGE),
            ("diagonal_noise", "fp16", latent_shape, "normal noise that samples the latent"),
            ("noise", "fp16", latent_shape, "normal noise of the schedule"),
            ("sqrt_alphas_cumprod", "fp16", scalar, "scale of the latent"),
            ("sqrt_one_minus_alphas_cumprod", "fp16", scalar, "scale of the noise"),
        ]
    )

    def step(kind: str, label: str, **inputs: Any) -> str:
        return editor.append(kind, label, inputs, dtype="fp16", shape=latent_shape)

    mean, logvar = editor.append_split(found, ("mean", "logvar"))
    logvar = step("clip", "logvar_clipped", x=logvar, alpha=-30.0, beta=20.0)
    deviation = step("exp", "std", x=step("mul", "logvar_half", x=logvar, y=0.5))
    sampled = step("add", "sampled", x=mean, y=step("mul", "deviation", x=deviation, y="diagonal_noise"))
    scaled = step("mul", "latent_scaled", x=sampled, y=SCALE)
    signal = step("mul", "signal", x=scaled, y="sqrt_alphas_cumprod")
    noise = step("mul", "scaled_noise", x="noise", y="sqrt_one_minus_alphas_cumprod")
    total = step("add", "noisy_latent", x=signal, y=noise)
    editor.set_outputs([total])
    _finish(editor, total, "fp16", "latent_dist")
    editor.describe_outputs([("latent_dist", "fp32", latent_shape, "noisy latent, ready for the first step")])
    return found


def _finish(editor: Editor, value: str, dtype: str, name: str) -> None:
    """Give the program one float32 output of that name."""
    if dtype == "fp32":
        editor.rename(value, name)
        editor.set_outputs([name])
    else:
        if editor.computed(name):
            editor.rename(name, editor.fresh(f"{name}_before"))
        editor.set_outputs([_cast(editor, value, "fp32", name)])


def _cast(editor: Editor, value: str, dtype: str, name: str) -> str:
    return editor.append("cast", name, {"x": value, "dtype": dtype}, dtype=dtype, shape=editor.type_of(value)[1])


def _only(editor: Editor, name: str, kind: str) -> Any:
    """Return the only operation that reads a value, through casts."""
    found = editor.consumers(name)
    if len(found) != 1:
        raise _unlike(editor, f"'{name}' is read {len(found)} times, expected once")
    if found[0].type == "cast":
        return _only(editor, found[0].outputs[0].name, kind)
    if found[0].type != kind:
        raise _unlike(editor, f"'{name}' goes into {found[0].type}, expected {kind}")
    return found[0]


def _made_by(editor: Editor, name: str, kind: str) -> Any:
    """Return the operation that computes a value, through casts."""
    if not editor.computed(name):
        raise _unlike(editor, f"'{name}' is an input, expected the result of {kind}")
    operation, _ = editor.producer(name)
    if operation.type == "cast":
        return _made_by(editor, editor.argument(operation, "x"), kind)
    if operation.type != kind:
        raise _unlike(editor, f"'{name}' is the result of {operation.type}, expected {kind}")
    return operation


def _other(editor: Editor, operation: Any, name: str) -> str:
    """Return the operand of a binary operation that does not come from ``name``."""
    operands = [editor.argument(operation, key) for key in ("x", "y")]
    origins = [_origin(editor, operand) for operand in operands]
    if origins.count(name) != 1:
        raise _unlike(editor, f"{operation.type} does not take '{name}' once")
    return operands[1 - origins.index(name)]


def _origin(editor: Editor, name: str) -> str:
    while editor.computed(name):
        operation, _ = editor.producer(name)
        if operation.type != "cast":
            break
        name = editor.argument(operation, "x")
    return name


def _factor(editor: Editor, operation: Any, expected: float) -> str:
    """Return the operand that is multiplied by the expected constant."""
    for key, other in (("x", "y"), ("y", "x")):
        if editor.constant(operation, key) is not None:
            if not np.isclose(_number(editor, operation, key), expected):
                break
            return editor.argument(operation, other)
    raise _unlike(editor, f"{operation.type} is not a multiplication by {expected}")


def _number(editor: Editor, operation: Any, parameter: str) -> float:
    message = editor.constant(operation, parameter)
    if message is None:
        raise _unlike(editor, f"'{parameter}' of {operation.type} is no constant")
    return float(np.asarray(values.decode(message, f"{editor.path}: {parameter} of {operation.type}")))


def _unlike(editor: Editor, text: str) -> FormatError:
    return FormatError(f"{editor.path}: not the encoder of five inputs that the converter wrote: {text}")
