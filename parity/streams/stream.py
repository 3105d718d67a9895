"""What is a stream? The protocol that every name of the catalogue follows, and the checks of its arguments.

A stream is a producer's generator after seeding: each call continues where the last one ended. Values come as NumPy
arrays in C order. NumPy has no bfloat16, so those values come as float32 arrays that hold bfloat16 numbers exactly.
"""

from __future__ import annotations

import abc
import math
import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from parity import memory
from parity.errors import ParityError, UnsupportedError, UsageError

Shape = int | Sequence[int]


class TypeUsageError(UsageError, TypeError):
    """An argument has a type that the producer refuses with ``TypeError``."""


class RuntimeUsageError(UsageError, RuntimeError):
    """An argument that torch refuses with ``RuntimeError``."""


class TooLargeError(UsageError, MemoryError):
    """A shape whose values do not fit into this machine's memory."""


class UnsupportedDtypeError(ParityError, TypeError):
    """A dtype that the producer refuses with ``TypeError``."""


_ARRAYS: dict[str, type] = {
    **{"float16": np.float16, "bfloat16": np.float32, "float32": np.float32, "float64": np.float64},
    "int64": np.int64,
}


class Stream(abc.ABC):
    """A seeded random stream.

    Attributes
    ----------
    name : str
        Name in the catalogue.
    dtypes : tuple of str
        Dtypes that :meth:`normal` can draw; the first is the default.
    """

    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]]
    _bad_shape: ClassVar[type[UsageError]] = UsageError
    _bad_dtype: ClassVar[type[ParityError]] = UnsupportedDtypeError

    @abc.abstractmethod
    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw normally distributed values.

        Parameters
        ----------
        shape : int or sequence of int
            Shape of the result; sizes of 0 draw nothing.
        dtype : str, optional
            One of :attr:`dtypes`, the first by default.
        mean, std : float
            Applied as the producer applies them, with its rounding.

        Returns
        -------
        numpy.ndarray
            Values in C order; float32 holding bfloat16 numbers for ``"bfloat16"``.
        """

    def uniform(self, shape: Shape, *, dtype: str | None = None) -> np.ndarray:
        """Draw values uniformly from [0, 1), where the producer has that."""
        raise UnsupportedError(f"{self.name} draws normal values only, not uniform ones")

    def integers(self, low: int, high: int, shape: Shape) -> np.ndarray:
        """Draw int64 values from [low, high), where the producer has that."""
        raise UnsupportedError(f"{self.name} draws normal values only, not integers")

    def _shape(self, shape: Shape) -> tuple[int, ...]:
        # isinstance(shape, SupportsIndex) takes longer than a small draw's other checks together
        sizes: Any = (shape,) if hasattr(shape, "__index__") else shape
        try:
            checked = tuple(operator.index(size) for size in sizes)
        except TypeError as error:
            raise TypeUsageError(f"shape {shape!r}: sizes must be integers") from error
        if any(size < 0 for size in checked):
            raise self._bad_shape(f"shape {checked}: sizes must not be negative")
        return checked

    def _dtype(self, dtype: str | type | np.dtype | None, allowed: tuple[str, ...] | None = None) -> str:
        allowed = allowed or self.dtypes
        if dtype is None:
            return allowed[0]
        try:
            name = dtype if dtype == "bfloat16" else np.dtype(dtype).name
        except TypeError:
            name = str(dtype).removeprefix("torch.")  # torch.float16, without importing torch
        if name not in allowed:
            raise self._bad_dtype(f"{self.name} does not draw {name}; it draws {', '.join(allowed)}")
        return str(name)

    def _empty(self, shape: Shape, dtype: str) -> np.ndarray:
        sizes, kind = self._shape(shape), np.dtype(_ARRAYS[dtype])
        needed = math.prod(sizes) * kind.itemsize
        if needed > memory.physical():
            raise TooLargeError(
                f"shape {sizes}: {dtype} values of {needed / 2**30:,.1f} GiB, more than this machine's memory of "
                f"{memory.physical() / 2**30:,.1f} GiB"
            )
        try:
            return np.empty(sizes, kind)
        except (MemoryError, ValueError) as error:  # ValueError: more dimensions or bytes than NumPy can count
            raise TooLargeError(f"shape {sizes}: {dtype} values of {needed / 2**30:,.1f} GiB: {error}") from error
