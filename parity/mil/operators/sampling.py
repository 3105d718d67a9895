"""Where does an image operator sample its input, and what does it find there?

* :func:`grid` gives the positions of a resize along one axis, by Core ML's sampling modes.
* :func:`linear` interpolates along one axis; :func:`nearest` picks.
* :func:`sample` reads a batch of images at arbitrary positions, with Core ML's paddings.

Positions are computed in float64, so that integer ratios hit pixels exactly.
"""

from __future__ import annotations

import torch

from parity.errors import UnsupportedError

_PADDINGS = ("constant", "border", "reflection", "symmetric")


def grid(mode: str, extent: torch.Tensor | float, count: int) -> torch.Tensor:
    """Return `count` positions in an interval [0, extent - 1] of pixels, clamped to it.

    Parameters
    ----------
    mode : str
        STRICT_ALIGN_CORNERS, ALIGN_CORNERS (the middle for a single position), DEFAULT, OFFSET_CORNERS (region of
        interest alignment) or UNALIGN_CORNERS (half-pixel centres).
    extent : float or tensor (..., 1)
        Number of pixels, fractional for boxes.
    count : int
        Number of positions.

    Returns
    -------
    torch.Tensor
        float64, (..., count).
    """
    size = torch.as_tensor(extent, dtype=torch.float64)
    index = torch.arange(count, dtype=torch.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if count > 1:
            positions = index * ((size - 1) / (count - 1))
        else:
            positions = index + (size - 1) * (0.5 if mode == "ALIGN_CORNERS" else 0.0)
    elif mode == "DEFAULT":
        positions = index * (size / count)
    elif mode == "OFFSET_CORNERS":
        positions = (index + 0.5) * ((size - 1).clamp(min=1.0) / count)
    elif mode == "UNALIGN_CORNERS":
        positions = (index + 0.5) * (size / count) - 0.5
    else:
        raise UnsupportedError(
            f"sampling mode {mode!r}; known are DEFAULT, STRICT_ALIGN_CORNERS, ALIGN_CORNERS, OFFSET_CORNERS and "
            "UNALIGN_CORNERS"
        )
    return torch.minimum(positions.clamp(min=0.0), (size - 1).clamp(min=0.0))


def _mixed(below: torch.Tensor, above: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Interpolate by weights in [0, 1): a pixel of weight 0 takes no part, an infinite one gives its infinity."""
    result = torch.lerp(below, above, weight)  # exact on equal pixels, but it subtracts: infinities give NaN
    if result.isnan().any():
        result = torch.where(weight == 0, below, below * (1 - weight) + above * weight)
    return result


def linear(x: torch.Tensor, axis: int, positions: torch.Tensor) -> torch.Tensor:
    """Interpolate along the axis at positions (count) inside [0, size - 1]."""
    low = positions.floor()
    weight = (positions - low).to(torch.float32)
    first = low.long()
    second = (first + 1).clamp(max=x.shape[axis] - 1)
    shape = [-1 if other == axis % x.dim() else 1 for other in range(x.dim())]
    below, above = x.index_select(axis, first), x.index_select(axis, second)
    return _mixed(below.float(), above.float(), weight.reshape(shape))


def nearest(x: torch.Tensor, axis: int, positions: torch.Tensor) -> torch.Tensor:
    """Pick along the axis the element nearest to each position, halves upwards."""
    index = torch.floor(positions + 0.5).long().clamp(0, x.shape[axis] - 1)
    return x.index_select(axis, index)


def _reflected(position: torch.Tensor, low: float, high: float) -> torch.Tensor:
    span = high - low
    if span <= 0:
        return torch.zeros_like(position)
    offset = torch.remainder(position - low, 2 * span)
    return torch.minimum(offset, 2 * span - offset) + low


def _inside(position: torch.Tensor, size: int, padding: str) -> torch.Tensor:
    """Map positions beyond the image into it, as the padding says; `constant` leaves them."""
    if padding == "reflection":
        position = _reflected(position, 0.0, size - 1.0)
    elif padding == "symmetric":
        position = _reflected(position, -0.5, size - 0.5)
    elif padding not in _PADDINGS:
        raise UnsupportedError(f"padding mode {padding!r}; known are {', '.join(_PADDINGS)}")
    return position if padding == "constant" else position.clamp(0, size - 1)


def _read(x: torch.Tensor, row: torch.Tensor, column: torch.Tensor, value: float) -> torch.Tensor:
    """Return pixels of x (B, C, H, W) at integer positions (B, h, w); `value` outside."""
    batch, channels, height, width = x.shape
    outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
    index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
    pixels = x.flatten(2).gather(2, index.reshape(batch, 1, -1).expand(-1, channels, -1))
    return pixels.unflatten(2, row.shape[1:]).masked_fill(outside.unsqueeze(1), value)


def sample(
    x: torch.Tensor, row: torch.Tensor, column: torch.Tensor, *, mode: str, padding: str, value: float
) -> torch.Tensor:
    """Read images at positions in pixels.

    Parameters
    ----------
    x : torch.Tensor
        float32, (B, C, H, W).
    row, column : torch.Tensor
        float64, (B, h, w).
    mode : str
        ``bilinear`` or ``nearest`` (halves to even).
    padding : str
        ``constant`` (the image continues with `value`), ``border``, ``reflection`` (about the border pixels'
        centres) or ``symmetric`` (about their outer edges).
    value : float
        For ``constant``.

    Returns
    -------
    torch.Tensor
        float32, (B, C, h, w).
    """
    row, column = _inside(row, x.shape[2], padding), _inside(column, x.shape[3], padding)
    if mode == "nearest":
        return _read(x, torch.round(row), torch.round(column), value)
    if mode != "bilinear":
        raise UnsupportedError(f"sampling mode {mode!r}; known are bilinear and nearest")
    top, left = torch.floor(row), torch.floor(column)
    down, right = (row - top).float().unsqueeze(1), (column - left).float().unsqueeze(1)
    upper = _mixed(_read(x, top, left, value), _read(x, top, left + 1, value), right)
    lower = _mixed(_read(x, top + 1, left, value), _read(x, top + 1, left + 1, value), right)
    return _mixed(upper, lower, down)
