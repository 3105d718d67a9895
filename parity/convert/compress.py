"""How are a package's weights compressed, as each converter release did it?

* ``affine8``: 8 bits, linear and asymmetric for each output channel; 0.1.0 to 0.4.0, for every component.
* ``palette1`` … ``palette8``: k-means look-up tables of 2^n values for each tensor; from 1.0.0 on (1 bit from C6), for
  text encoders, denoisers and ControlNets. Embedding tables (read by ``gather``) keep their 16 bits.

Both are coremltools' own; what is added is that the description survives and that equal input gives equal bytes.
Proved by tests: the operators that the facts of each window name, and the agreement with PyTorch within the bounds of
``tolerances.toml``. Mixed-bit recipes are in :mod:`parity.convert.mixed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

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
        write(source, target, cto.palettize_weights, palettes(PALETTES[compression]), report=report)


def palettes(bits: int, by_operation: Mapping[str, int] | None = None) -> Any:
    """Return coremltools' configuration for k-means palettization.

    Parameters
    ----------
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

    return cto.OptimizationConfig(
        global_config=one(bits),
        op_type_configs={"gather": None},
        op_name_configs={name: one(count, weight_threshold=0) for name, count in (by_operation or {}).items()},
    )


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
