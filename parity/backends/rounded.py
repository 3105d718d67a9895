"""What does half precision alone make of a network: PyTorch's own float16 modules, each result rounded once?

The modules are in float16 as a half-precision pipeline of diffusers has them, so what the network computes in float32
by itself (the timestep embedding) stays so. Every operation reads float16, computes in a wide dtype, and its result is
rounded to float16 once. PyTorch's own float16 kernels differ from machine to machine (some sum in float16, some in
float32, some in blocks); this does not: with float64 as the wide dtype no sum comes near a rounding boundary by its
order, so the outputs are equal bit for bit on every kernel.

The first value that leaves float16's range is recorded with its module, operation and size (:attr:`Rounded.overflow`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from parity.backends.pytorch import TorchBackend
from parity.networks.signature import Component

LARGEST = 65504.0
"""Largest finite float16."""

_FIRST_INFINITE = 65520.0  # halfway to the next power of two: rounds to infinity

_PATCHES = 256 << 20
"""Bytes of patches that a convolution may lay out at once."""

_MOVES = {"to", "_to_copy", "copy_", "type_as", "detach", "clone", "alias", "lift_fresh", "dropout", "contiguous"}
"""Operations that compute nothing, by their names in torch's schemas."""


@dataclass(frozen=True)
class Overflow:
    """Where a network first leaves float16's range.

    Attributes
    ----------
    module : str
        Path of the module, e.g. ``encoder.conv_in``; empty for the network itself.
    operation : str
        torch's name for what was computed, e.g. ``conv2d``.
    largest : float
        Largest magnitude of the result before it was rounded.
    """

    module: str
    operation: str
    largest: float

    @property
    def sentence(self) -> str:
        """The same in words."""
        where = f"in {self.module} " if self.module else ""
        return f"{self.operation} {where}gives {self.largest:,.0f}, and float16 ends at {LARGEST:,.0f}"


class Rounded(TorchDispatchMode):
    """While entered, operations on float16 tensors are computed in a wide dtype and rounded to float16 once.

    Parameters
    ----------
    wide : torch.dtype
        ``torch.float64`` or ``torch.float32``.

    Attributes
    ----------
    overflow : Overflow or None
        The first result beyond float16's range.
    """

    def __init__(self, wide: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.wide = wide
        self.overflow: Overflow | None = None
        self.inside: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute one operation; see the class."""
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        name = func._schema.name.split("::")[1]
        if name in _MOVES or func.is_view or all(tensor.dtype != torch.float16 for tensor in given):
            return func(*args, **kwargs)
        # a float32 tensor beside it makes torch compute in float32, and the result is no float16
        promoted = any(t.dtype in (torch.float32, torch.float64) and t.dim() > 0 for t in given)
        wide_args, wide_kwargs = _each((args, kwargs), self._widen)
        if name == "conv2d" and not wide_kwargs:  # what inference mode does not take apart
            result = _in_bands(torch.ops.aten.convolution.default, _general(*wide_args))
        elif name == "convolution":
            result = _in_bands(func, wide_args)
        else:
            result = func(*wide_args, **wide_kwargs)
        if func._schema.is_mutable:  # in place: the first argument is what changes
            args[0].copy_(self._narrow(wide_args[0], name))
            return args[0]
        if promoted:
            return _each(result, lambda leaf: leaf.float() if leaf.dtype == self.wide else leaf)
        return _each(result, lambda leaf: self._narrow(leaf, name) if leaf.dtype == self.wide else leaf)

    def _widen(self, leaf: torch.Tensor) -> torch.Tensor:
        return leaf.to(self.wide) if leaf.is_floating_point() else leaf

    def _narrow(self, value: torch.Tensor, name: str) -> torch.Tensor:
        rounded = value.to(torch.float16)
        if self.overflow is None and not _fits(value):
            finite = value[value.isfinite()]
            largest = float(finite.abs().max()) if finite.numel() else float("inf")
            if largest > LARGEST:  # infinite masks are no overflow
                self.overflow = Overflow(self.inside[-1] if self.inside else "", name, largest)
        return rounded


def _general(image: torch.Tensor, weight: torch.Tensor, bias: Any = None, *sizes: Any) -> tuple[Any, ...]:
    """Return the arguments of ``conv2d``, of which the last may be left out, as those of ``convolution``."""
    usual: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)
    stride, padding, dilation, groups = sizes + usual[len(sizes) :]
    return image, weight, bias, stride, padding, dilation, False, [0, 0], groups


def _in_bands(convolution: Any, args: tuple[Any, ...]) -> torch.Tensor:
    """Convolve a large picture a band of rows at a time: torch lays float64's patches out, 4.5 GiB for SD's decoder."""
    image, weight, bias, stride, padding, dilation, transposed, grown, groups = args
    if transposed or image.dim() != 4 or image.dtype != torch.float64:  # float32 is convolved without patches
        return convolution(*args)
    (down, _), (above, beside), (spread, _) = (
        each * 2 if len(each) == 1 else each for each in (stride, padding, dilation)
    )
    reach = (weight.shape[2] - 1) * spread + 1
    rows = (image.shape[2] + 2 * above - reach) // down + 1
    patches = rows * image.shape[0] * image.shape[3] * weight[0].numel() * image.element_size()
    band = max(1, rows * _PATCHES // max(patches, 1))
    if band >= rows:
        return convolution(*args)
    padded = torch.nn.functional.pad(image, (beside, beside, above, above))
    found = []
    for first in range(0, rows, band):
        last = min(first + band, rows) - 1
        part = padded[:, :, first * down : last * down + reach]
        found.append(convolution(part, weight, bias, stride, [0, 0], dilation, transposed, grown, groups))
    return torch.cat(found, dim=2)


def _fits(value: torch.Tensor) -> bool:
    """Tell whether all values are finite in float16; in the wide dtype, where the kernels are several times faster."""
    if not value.numel():
        return True
    low, high = value.aminmax()  # NaN if any is
    return bool(low > -_FIRST_INFINITE) and bool(high < _FIRST_INFINITE)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """Give the tensors among an operation's arguments; torch's own trees cost more than the operations."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _each(values: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return an operation's arguments or results with each tensor changed."""
    if isinstance(values, torch.Tensor):
        return change(values)
    if isinstance(values, dict):
        return {key: _each(value, change) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)([_each(value, change) for value in values])
    return values


class ReplacedBackend(TorchBackend):
    """A PyTorch original with other parameters in it, those of compressed weights; always on the CPU.

    Parameters
    ----------
    original : TorchBackend
        Whose model it is.
    precision : str
        As :class:`parity.backends.pytorch.TorchBackend` has it.
    weights : mapping of str to mapping of str to array, optional
        Network to its parameters by name that take the place of the original's.
    """

    def __init__(
        self,
        original: TorchBackend,
        *,
        precision: str = "float32",
        weights: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        super().__init__(
            original.location,
            precision=precision,
            controlnets=original._controlnets,
            refiner=original._refiner,
        )
        self._replaced = dict(weights or {})

    def _load(self, name: str) -> Component:
        if name in self._replaced:  # an encoder and a decoder share a module, and only one may be compressed
            self._modules.clear()
        component = super()._load(name)
        if name in self._replaced:
            with torch.no_grad():
                parameters = dict(component._module.named_parameters())  # type: ignore[attr-defined]
                for key, value in self._replaced[name].items():
                    parameters[key].copy_(torch.from_numpy(np.ascontiguousarray(value)))
            self._modules.clear()
        return component


class RoundedBackend(ReplacedBackend):
    """A PyTorch original in float16, each operation's result rounded once; always on the CPU.

    Parameters
    ----------
    original : TorchBackend
        Whose model it is.
    wide : str
        ``float64``: outputs are equal on every machine for equal inputs. ``float32``: two to three times as fast, for
        whole runs.
    weights : mapping of str to mapping of str to array, optional
        As :class:`ReplacedBackend`.
    """

    def __init__(
        self,
        original: TorchBackend,
        *,
        wide: str = "float64",
        weights: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        super().__init__(original, precision="float16", weights=weights)
        self.numerics = "PyTorch float16, each result rounded once"
        self._wide = getattr(torch, wide)
        self.overflows: dict[str, Overflow] = {}

    def _load(self, name: str) -> Component:
        component = super()._load(name)
        return _RoundedComponent(name, component, component._module, self)  # type: ignore[attr-defined]


class _RoundedComponent:
    def __init__(self, name: str, inner: Callable[..., Any], module: Any, backend: RoundedBackend) -> None:
        self.name = name
        self._inner = inner
        self._module = module
        self._backend = backend

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        mode = Rounded(self._backend._wide)
        with _paths(self._module, mode.inside), mode, np.errstate(over="ignore"):
            outputs = self._inner(inputs)
        if mode.overflow is not None:
            self._backend.overflows.setdefault(self.name, mode.overflow)
        return outputs


@contextmanager
def _paths(module: Any, inside: list[str]) -> Iterator[None]:
    """Keep the path of the module that is at work as the last entry of a list."""

    def leave(*_: Any) -> None:
        inside.pop()

    hooks = []
    for path, each in module.named_modules():
        hooks.append(each.register_forward_pre_hook(lambda *_, path=path: inside.append(path)))
        hooks.append(each.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
