"""How are a package's weights compressed, as each converter release did it?

* ``affine8``: 8 bits, linear and asymmetric for each output channel; 0.1.0 to 0.4.0, for every component.
* ``palette1`` … ``palette8``: k-means look-up tables of 2^n values for each tensor; from 1.0.0 on (1 bit from C6), for
  text encoders, denoisers and ControlNets. Embedding tables (read by ``gather``) keep their 16 bits.

Both are coremltools' own; what is added is that the description survives, that equal input gives equal bytes, and that
a tensor with no more different values than a table has entries gets these values as its table: k-means would let
indices point at wrong entries (:mod:`parity.contracts.palettes`).
Proved by tests: the operators that the facts of each window name, and the agreement with PyTorch within the bounds of
``tolerances.toml``. Mixed-bit recipes are in :mod:`parity.convert.mixed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from parity import mil
from parity.convert import workarounds
from parity.convert.spec import read_spec, write_spec
from parity.convert.workarounds import Report
from parity.errors import MissingError, UsageError

PALETTES: Final = {f"palette{bits}": bits for bits in (1, 2, 4, 6, 8)}
NAMES: Final = ("affine8", *PALETTES)
PALETTIZED: Final = frozenset({"text_encoder", "text_encoder_2", "unet", "refiner", "control-unet", "controlnet"})


def applies(compression: str | None, component: str) -> str | None:
    """Return the compression that a component gets under a request, or None.

    >>> applies("palette6", "vae_decoder") is None, applies("affine8", "vae_decoder")
    (True, 'affine8')
    """
    if compression is None or compression == "affine8":
        return compression
    return compression if component in PALETTIZED else None


def compress(source: Path, target: Path, compression: str, *, report: Report | None = None) -> None:
    """Write a compressed copy of a package.

    Parameters
    ----------
    source : pathlib.Path
        An ``.mlpackage`` with 16- or 32-bit weights.
    target : pathlib.Path
        Does not exist yet.
    compression : str
        One of :data:`NAMES`.
    report : callable, optional
        Called with (stage, done, total).

    Raises
    ------
    UsageError
        Unknown name.
    MissingError
        Palettization without scikit-learn.
    """
    if compression not in NAMES:
        raise UsageError(f"unknown compression {compression!r}; there are {', '.join(NAMES)}")
    workarounds.coremltools()
    import coremltools.optimize.coreml as cto

    if compression == "affine8":
        config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig(mode="linear", dtype="uint8"))
        write(source, target, cto.linear_quantize_weights, config, report=report)
    else:
        write(source, target, cto.palettize_weights, palettes(source, PALETTES[compression]), report=report)


def palettes(source: Path, bits: int, by_operation: Mapping[str, int] | None = None) -> Any:
    """Return coremltools' configuration for k-means palettization of a package.

    Parameters
    ----------
    source : pathlib.Path
        The package: its weights decide which tensors get a table of their very values.
    bits : int
        For every tensor above coremltools' size threshold; 16 leaves them as they are.
    by_operation : mapping of str to int, optional
        Other bits for single operations by name; 16 leaves the operation as it is.
    """
    import coremltools.optimize.coreml as cto

    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise MissingError("palettization needs scikit-learn: pip install 'coreml-parity[compress]'") from None

    def one(count: int, **options: int) -> Any:
        return None if count == 16 else cto.OpPalettizerConfig(mode="kmeans", nbits=count, **options)

    named = {name: one(count, weight_threshold=0) for name, count in (by_operation or {}).items()}
    whole = one(bits)
    for name, weight in constants(source, gathered=False):
        count = (by_operation or {}).get(name, bits)
        large = name in named or (whole is not None and weight.size > whole.weight_threshold)
        if count < 16 and large and weight.dtype.kind == "f" and few_values(weight, count):
            exact = partial(table_of_values, bits=count)
            named[name] = cto.OpPalettizerConfig(mode="custom", lut_function=exact, weight_threshold=0)
    return cto.OptimizationConfig(global_config=whole, op_type_configs={"gather": None}, op_name_configs=named)


def few_values(weight: np.ndarray, bits: int) -> bool:
    """Tell whether a weight has no more different values than 2^bits."""
    beginning = weight.reshape(-1)[:4096]  # enough to settle it for nearly all weights, however large
    return len(np.unique(beginning)) <= 1 << bits and len(np.unique(weight)) <= 1 << bits


def table_of_values(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values of a weight, filled up with zeros to 2^bits, and each element's index among them.

    >>> table_of_values(np.array([[0.5, -1.0], [0.5, 0.5]]), 2)
    (array([-1. ,  0.5,  0. ,  0. ]), array([1, 0, 1, 1], dtype=uint8))
    """
    found, places = np.unique(weight, return_inverse=True)
    table = np.zeros(1 << bits, weight.dtype)
    table[: len(found)] = found
    return table, places.reshape(-1).astype(np.uint8)


def constants(package: Path, *, gathered: bool = True) -> Iterator[tuple[str, np.ndarray]]:
    """Iterate over the constants in a package's weight file, by the names that coremltools gives the operations.

    Without ``gathered`` those are left out that a ``gather`` reads.
    """
    model = mil.load(package)
    message = model.program.functions["main"]
    listed = message.block_specializations[message.opset].operations
    left_out = {
        binding.name
        for operation in listed
        if operation.type == "gather" and not gathered
        for binding in operation.inputs["x"].arguments
    }
    for operation in listed:
        value = operation.attributes["val"] if operation.type == "const" else None
        if value is None or value.WhichOneof("value") != "blobFileValue" or operation.outputs[0].name in left_out:
            continue
        yield operation.outputs[0].name, model.weights.read(value.blobFileValue.offset)


def write(source: Path, target: Path, method: Any, config: Any, *, report: Report | None = None) -> None:
    """Apply one of coremltools' weight compressions to a package and write the result with fixed bytes."""
    ct = workarounds.coremltools()
    with workarounds.converting(report, folder=target.parent):
        model = ct.models.MLModel(str(source), compute_units=ct.ComputeUnit.CPU_ONLY, skip_model_load=True)
        compressed = method(model, config)
        compressed.save(str(target))
    spec = read_spec(target)
    spec.description.CopyFrom(read_spec(source).description)  # compression keeps it; make that certain
    write_spec(target, spec)
