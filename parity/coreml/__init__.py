"""What does a Core ML model predict, on the hardware that is here or on the reference runtime?

One call, :func:`load`, for packages and compiled models, four compute units and two runtimes:

* *native*: the Core ML framework, which exists on macOS;
* *reference*: ``parity.mil`` executes the program with its declared numerics, anywhere.

Away from macOS `parity.coreml.shim` puts the reference runtime behind ``coremltools.models.MLModel``, so the code that
runs here is the code that talks to the framework on a Mac, with its argument checks and conversions. On macOS one
process cannot hold two native modules; there ``runtime="reference"`` calls the class that the shim would install,
without coremltools in between. Both give equal results (tested).

The reference runtime has no units: whatever unit is asked for, :attr:`LoadedModel.numerics` and :func:`resolve` answer
*reference runtime*, never the name of hardware. The native path is *not verified on hardware*.

Importing this module imports neither coremltools nor torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

from parity import mil, quiet
from parity.coreml.model import LoadedModel, Port, through_coremltools, through_reference
from parity.coreml.pipeline_runner import KINDS, other_kind
from parity.errors import UnsupportedError, UsageError

__all__ = ["COMPUTE_UNITS", "RUNTIMES", "Feature", "LoadedModel", "Model", "Port", "load", "resolve"]

Feature = Port  # their earlier names
Model = LoadedModel

COMPUTE_UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")
"""Names of Core ML's compute units, as coremltools spells them."""

RUNTIMES = ("auto", "native", "reference")
"""``auto`` is ``native`` on macOS and ``reference`` elsewhere."""


def resolve(runtime: str = "auto", compute_unit: str = "CPU_ONLY", *, profile: str = "declared") -> str:
    """Return the numerics that a load would have here, without loading anything.

    Parameters
    ----------
    runtime : str
        One of :data:`RUNTIMES`.
    compute_unit : str
        One of :data:`COMPUTE_UNITS`.
    profile : str
        Numeric profile of the reference runtime.

    Returns
    -------
    str
        As :attr:`LoadedModel.numerics`: ask for several units and compute equal answers once.

    Raises
    ------
    UsageError
        Unknown runtime, unit or profile; the message lists the known ones.
    UnsupportedError
        The native runtime away from macOS.

    Examples
    --------
    >>> resolve("reference", "CPU_AND_NE") == resolve("reference", "ALL")
    True
    """
    if compute_unit not in COMPUTE_UNITS:
        raise UsageError(f"unknown compute unit {compute_unit!r}; known are {', '.join(COMPUTE_UNITS)}")
    if profile not in mil.PROFILES:
        raise UsageError(f"unknown numeric profile {profile!r}; known are {', '.join(mil.PROFILES)}")
    if _runtime(runtime) == "native":
        return f"Core ML {compute_unit}"
    return f"reference runtime ({profile})"


def _runtime(name: str) -> str:
    if name not in RUNTIMES:
        raise UsageError(f"unknown Core ML runtime {name!r}; known are {', '.join(RUNTIMES)}")
    mac = sys.platform == "darwin"
    if name == "native" and not mac:
        raise UnsupportedError(
            f"the Core ML framework exists on macOS only, this is {sys.platform}; use the runtime 'reference' "
            "(or 'auto'), which executes the same program with its declared numerics"
        )
    return ("native" if mac else "reference") if name == "auto" else name


def load(
    path: Path | str,
    compute_unit: str = "CPU_ONLY",
    *,
    runtime: str = "auto",
    profile: str = "declared",
    function: str | None = None,
) -> LoadedModel:
    """Load a model for predictions.

    Parameters
    ----------
    path : path
        An ``.mlpackage`` or a compiled ``.mlmodelc`` folder with an ML Program, or a pipeline of ML Programs.
    compute_unit : str
        One of :data:`COMPUTE_UNITS`; makes no difference to the reference runtime.
    runtime : str
        One of :data:`RUNTIMES`.
    profile : str
        Numeric profile of the reference runtime, see `parity.mil.Session`.
    function : str, optional
        Function of a model that has several; its default function otherwise.

    Returns
    -------
    LoadedModel
        Ready to predict.

    Raises
    ------
    UsageError
        Unknown unit, runtime, profile or function.
    MissingError, FormatError
        No such model; one that is damaged, incomplete or whose weights were not downloaded.
    UnsupportedError
        The native runtime away from macOS; a model of another kind; an unknown operator.
    """
    path = Path(path)
    numerics = resolve(runtime, compute_unit, profile=profile)
    chosen = _runtime(runtime)
    model = mil.load(path)
    if model.kind not in KINDS:
        raise UnsupportedError(other_kind(model))
    model.require_weights()
    described = model.function(function)
    if chosen == "reference" and sys.platform == "darwin":
        predictor = through_reference(path, compute_unit, function, profile)
    else:
        if chosen == "reference":
            from parity.coreml import shim

            quiet.coremltools()  # the shim would import it aloud
            shim.install()
        predictor = through_coremltools(path, compute_unit, function, profile, keep=chosen == "native")
    return LoadedModel(path, described, predictor, compute_unit=compute_unit, runtime=chosen, numerics=numerics)
