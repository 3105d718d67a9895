"""Does every index of a palettized weight point at the entry that it was meant for?

scikit-learn's k-means, which coremltools uses for small tensors (below 10,000 elements in float16), goes wrong where a
tensor has fewer different values than its table has entries (weights that were quantized before, toy models): in its
last step it moves superfluous centres onto elements and takes these away from the centre that their indices point at.
What such an index then unpacks is anything, from a neighbour's value to a hundred times the largest weight. Seen with
scikit-learn 1.1, 1.5 and 1.9; coremltools 7 to 9 call it in the same way.

The file shows it: the lost value still stands in the table, at places where no index points. A right table has no such
values, since k-means leaves no centre without elements; what it does not need is a copy of another entry, or zero.
Values that are spaced by hand (mode "uniform") may go unused as well, but they are all different, whereas here entries
are repeated. One version leaves the tensor's mean behind; that does no harm. Which index lost which value cannot be
told from the file, so nothing but the original weights helps.

Not looked at: tables that are computed (a quantized table), of a sparse weight, or of fewer than ten entries in the
text of a compiled model.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parity import quiet
from parity.contracts.causal import named_constants
from parity.contracts.inspection import Palette
from parity.errors import ParityError
from parity.mil import dtypes, values
from parity.mil.blobs import Weights

Indices = Callable[[], np.ndarray]
_MEAN = 2.0**-9  # the mean of the unpacked weights and the entry, which was rounded to float16, agree to this share
_BITS = (1, 2, 3, 4, 6, 8)
_UNPACKED = re.compile(r"tensor<\w+, \[([\d, ]+)\]> (\w+) = constexpr_lut_to_dense\(([^;]*);")
_ARGUMENT = (
    r'\b{} = (?:tensor<\w+, \[[\d, ]*\]>\()?tensor<(\w+), \[([\d, ]+)\]>\(BLOBFILE\(path = [^"]*"([^"]*)"\)?, '
    r"offset = [^(]*\((\d+)\)"
)


def of_operations(operations: Iterator[Any], weights: Weights) -> tuple[Palette, ...]:
    """Return the tables of a program that cannot be right.

    Parameters
    ----------
    operations : iterator of parity.mil.proto.mil.Operation
        In the program's order.
    weights : parity.mil.Weights
        Tables are read, indices only of tables that repeat an entry. What cannot be read is left out.
    """
    constants: dict[str, Any] = {}
    found = []
    for operation in operations:
        if operation.type == "const":
            constants[operation.outputs[0].name] = operation.attributes["val"]
        elif operation.type == "constexpr_lut_to_dense":
            message = dict(named_constants(operation))
            for name, argument in operation.inputs.items():
                if argument.arguments and argument.arguments[0].name in constants:
                    message[name] = constants[argument.arguments[0].name]
            name = operation.outputs[0].name
            shape = tuple(d.constant.size for d in operation.outputs[0].type.tensorType.dimensions)
            if {"lut", "indices"} <= message.keys():
                found.append(
                    _judged(name, shape, _reader(message["lut"], weights), _reader(message["indices"], weights))
                )
    return tuple(palette for palette in found if palette)


def of_text(text: str, weights: Weights) -> tuple[Palette, ...]:
    """Return the tables of a compiled model's text that cannot be right, as far as they lie in its weight file."""
    found = []
    for sizes, name, arguments in _UNPACKED.findall(text):
        table, indices = (re.search(_ARGUMENT.format(part), arguments) for part in ("lut", "indices"))
        if table and indices:
            found.append(_judged(name, _sizes(sizes), _stored(table, weights), _stored(indices, weights)))
    return tuple(palette for palette in found if palette)


def _reader(message: Any, weights: Weights) -> Indices:
    return lambda: np.asarray(values.decode(message, "palette", weights))


def _stored(match: re.Match[str], weights: Weights) -> Indices:
    return lambda: weights.read(int(match[4]), match[3]).reshape(_sizes(match[2]))


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))


def _judged(name: str, shape: tuple[int, ...], table: Indices, indices: Indices) -> Palette | None:
    try:
        return judge(name, shape, table(), indices)
    except (ParityError, ValueError, IndexError):  # damaged weights are another finding's
        return None


def judge(name: str, shape: tuple[int, ...], table: np.ndarray, indices: Indices) -> Palette | None:
    """Judge one weight.

    Parameters
    ----------
    name : str
        Of the weight, for messages.
    shape : tuple of int
        Of the unpacked weight.
    table : numpy.ndarray
        Shape (entries,), or (…, entries, vector length) with a table for each block of the weight.
    indices : callable
        Gives them: with a table of one axis packed bytes, otherwise one to an element, in the weight's shape. Called
        only if the table repeats an entry.

    Returns
    -------
    Palette or None
        None where nothing is wrong.

    Raises
    ------
    ValueError, IndexError
        When table and indices do not fit.
    """
    if table.dtype.kind != "f" or not table.size:
        return None
    packed = table.ndim == 1
    table = quiet.float64(table[:, None] if packed else table) + 0.0  # so that -0 is 0
    entries, groups = table.shape[-2], table.shape[:-2]
    first = np.sort(table[..., 0], axis=-1)
    candidates = np.argwhere(np.any(first[..., 1:] == first[..., :-1], axis=-1))  # one () where there is one table
    repeating = [group for group in map(tuple, candidates.tolist()) if _repeats(table[group])]
    if not repeating:
        return None
    places = _unpack(indices(), entries, shape) if packed else indices()
    used = 0
    lost: list[float] = []
    for group in repeating:
        count, missing = _unreachable(table[group], _block(places, groups, group))
        if len(missing):
            used, lost = max(used, count), [*lost, *missing.ravel().tolist()]
    return Palette(name, shape, entries, used, tuple(dict.fromkeys(lost))) if lost else None


def _unpack(packed: np.ndarray, entries: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return indices, one to a byte; iOS 16 programs pack them into as many bits as the table needs."""
    bits = entries.bit_length() - 1
    if bits not in _BITS or entries != 1 << bits:
        raise ValueError(f"a table of {entries} entries")
    return dtypes.unpack(np.ascontiguousarray(packed).reshape(-1), dtypes.BY_NAME[f"uint{bits}"], math.prod(shape))


def _block(places: np.ndarray, groups: tuple[int, ...], group: tuple[int, ...]) -> np.ndarray:
    if not groups:
        return places
    steps = [size // count for size, count in zip(places.shape, groups, strict=True)]
    return places[tuple(slice(at * step, (at + 1) * step) for at, step in zip(group, steps, strict=True))]


def _unreachable(table: np.ndarray, places: np.ndarray) -> tuple[int, np.ndarray]:
    """Return how many entries of (entries, length) are used, and the values that were lost; none if all is well."""
    counts = np.bincount(places.reshape(-1), minlength=len(table))
    used, spare = table[counts > 0], table[counts == 0]
    doubled = _repeats(used)  # of two equal entries the nearest one is the first: the second is never asked for
    if not doubled and not _repeats(spare[np.any(spare != 0, axis=1)]):
        return len(used), spare[:0]
    if not doubled and not spare.any():
        return len(used), spare[:0]
    mean = counts @ table / counts.sum()
    known = {tuple(row) for row in used.tolist()}
    rows = [row for row in np.unique(spare, axis=0).tolist() if tuple(row) not in known]
    lost = [row for row in rows if not np.allclose(row, mean, rtol=_MEAN, atol=0)]
    return len(used), np.array(lost).reshape(-1, table.shape[1])


def _repeats(rows: np.ndarray) -> bool:
    return len(np.unique(rows, axis=0)) < len(rows)


def sentence(palettes: tuple[Palette, ...], *, most: int = 3) -> str:
    """Say for readers which tables are wrong, what shows it, and what to do."""
    named = [
        f"'{one.tensor}' {list(one.shape)} (indices point at {one.used} of {one.entries} entries, none at "
        f"{', '.join(f'{value:.6g}' for value in itertools.islice(one.lost, 4))}{', …' if len(one.lost) > 4 else ''})"
        for one in palettes[:most]
    ]
    more = f" and {len(palettes) - most} more" if len(palettes) > most else ""
    count = "a weight unpacks" if len(palettes) == 1 else f"{len(palettes)} weights unpack"
    return (
        f"{count} to wrong values: {'; '.join(named)}{more}. scikit-learn's k-means took these values away from their "
        "indices, as it does where a tensor has fewer different values than its look-up table has entries. Which index "
        "lost which value is not in the file: compress the 16-bit package again, with 'parity convert --compression' "
        "or with coremltools' mode 'unique' for these weights"
    )
