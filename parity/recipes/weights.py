"""Which value does each parameter of a recipe's model have?

Steps: match the parameter's name with the recipe's rules, derive the tensor's seed from the recipe's seed and the name,
draw uniforms from ``numpy-legacy`` and scale them. Uniform doubles involve no transcendental function, hence the bits
are the same on every platform; :func:`digest` proves it against the digests written in the recipe's tests.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity import streams
from parity.errors import FormatError

_UNIFORM_STD = 1 / math.sqrt(3)  # standard deviation of a uniform variable on [-1, 1)


@dataclass(frozen=True)
class Rule:
    """How the parameters whose name contains ``match`` are drawn.

    Attributes
    ----------
    match : str
        Regular expression searched in ``component.parameter``.
    mean : float
        Centre of the uniform distribution.
    gain : float or None
        Standard deviation times ``sqrt(fan_in)``; ``None`` if ``std`` is given.
    std : float or None
        Standard deviation, independent of the shape.
    taps : tuple of (int, int, float)
        ``(output channel, input channel, value)`` added at the centre of a convolution's kernel, where a network must
        pass something through.
    """

    match: str
    mean: float = 0.0
    gain: float | None = None
    std: float | None = None
    taps: tuple[tuple[int, int, float], ...] = ()

    def deviation(self, shape: Sequence[int]) -> float:
        """Return the standard deviation for a parameter of this shape; fan-in is all but the first axis."""
        if self.std is not None:
            return self.std
        return (1.0 if self.gain is None else self.gain) / math.sqrt(max(1, math.prod(shape[1:])))


def canonical(component: str, parameter: str) -> str:
    """Return the name that seeds a parameter, without the wrappers that transformers has had around CLIP's models.

    Examples
    --------
    >>> canonical("text_encoder", "text_model.final_layer_norm.bias")
    'text_encoder.final_layer_norm.bias'
    >>> canonical("safety_checker", "vision_model.vision_model.post_layernorm.bias")
    'safety_checker.vision_model.post_layernorm.bias'
    """
    bare = parameter.removeprefix("text_model.").replace("vision_model.vision_model.", "vision_model.", 1)
    return f"{component}.{bare}"


def draw(name: str, shape: Sequence[int], *, seed: int, rules: Sequence[Rule]) -> np.ndarray:
    """Draw one parameter.

    Parameters
    ----------
    name : str
        Canonical name, see :func:`canonical`.
    shape : sequence of int
        Shape of the parameter.
    seed : int
        The recipe's seed.
    rules : sequence of Rule
        First match applies.

    Returns
    -------
    numpy.ndarray
        float32, C-contiguous.

    Raises
    ------
    FormatError
        No rule matches the name.
    """
    rule = next((rule for rule in rules if re.search(rule.match, name)), None)
    if rule is None:
        raise FormatError(f"no [[weights]] rule of the recipe matches {name!r}; add one with match = ''")
    stream = streams.open("numpy-legacy", seed=zlib.crc32(f"{seed}/{name}".encode()))
    uniform = 2.0 * stream.uniform(tuple(shape), dtype="float64") - 1.0
    values = np.asarray(rule.mean + rule.deviation(shape) / _UNIFORM_STD * uniform, dtype=np.float32)
    for output, source, value in rule.taps:
        values[output, source, shape[2] // 2, shape[3] // 2] += np.float32(value)
    return values


def fill(component: str, module: Any, *, seed: int, rules: Sequence[Rule]) -> str:
    """Overwrite all parameters of a torch module with the recipe's values and return their digest."""
    import torch

    drawn: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for parameter_name, parameter in module.named_parameters():
            name = canonical(component, parameter_name)
            drawn[name] = draw(name, tuple(parameter.shape), seed=seed, rules=rules)
            parameter.copy_(torch.from_numpy(drawn[name]))
    return digest(drawn)


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of named tensors: names, shapes, dtypes and little-endian bytes, in the order of names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        sha.update(f"{name}\0{array.shape}\0{array.dtype.name}\0".encode())
        sha.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return sha.hexdigest()
