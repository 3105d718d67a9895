"""Which peculiarities of today's libraries does the converter work around, since when, and for how long?

Each entry names the package, the versions that need it and why, and is a context manager around the call concerned.
For each there is a test that runs without it and fails once the library no longer needs it; then the entry goes.
"""

from __future__ import annotations

import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from packaging.specifiers import SpecifierSet

from parity import memory, quiet
from parity.convert.quicker import fewer_searches, fewer_validations, unprinted
from parity.models.scratch import Scratch

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Workaround:
    """One peculiarity.

    Attributes
    ----------
    name, package, versions : str
        ``versions`` is a specifier of the versions known to need it.
    reason : str
    """

    name: str
    package: str
    versions: str
    reason: str

    @property
    def needed(self) -> bool:
        """Whether the installed version is in the range."""
        return SpecifierSet(self.versions, prereleases=True).contains(importlib.metadata.version(self.package))


IMPORT_NOISE: Final = Workaround(
    "import-noise",
    "coremltools",
    ">=8.0",
    "importing coremltools away from macOS logs a warning for each native class, and for torch and scikit-learn "
    "versions newer than it knows; none concerns what is used here",
)
TRACE_NOISE: Final = Workaround(
    "trace-noise",
    "diffusers",
    ">=0.20",
    "diffusers' modules compare sizes in Python, which tracing warns about; sizes are constant here",
)
TRACE_DEPRECATION: Final = Workaround(
    "trace-deprecation",
    "torch",
    ">=2.9",
    "torch announces the end of TorchScript at each trace; coremltools reads nothing else as well",
)
CLUSTERS: Final = Workaround(
    "clusters",
    "scikit-learn",
    ">=0.24",
    "k-means warns about tensors with fewer different values than its table has places, which need no full table",
)
CONVERT_NOISE: Final = Workaround(
    "convert-noise",
    "coremltools",
    ">=7.0",
    "coremltools logs that 64-bit indices become 32-bit ones (Core ML has no others) and that a network gives a tuple",
)
PROGRESS: Final = Workaround(
    "progress",
    "coremltools",
    ">=6.0",
    "coremltools draws progress bars on stderr and has no callback; its bars are replaced by one that reports",
)
CONVERSION_DATE: Final = Workaround(
    "conversion-date",
    "coremltools",
    ">=9.0",
    "coremltools writes today's date into the metadata, so equal input would not give equal files",
)
BOUNDARY_ORDER: Final = Workaround(
    "boundary-order",
    "coremltools",
    ">=8.0",
    "bisect_model collects the tensors that cross the cut in a set, so the halves' features come in a random order",
)
SCALAR_ARRAYS: Final = Workaround(
    "scalar-arrays",
    "numpy",
    ">=1.25,<2.4",
    "coremltools makes a number of an array with one element, which NumPy warns about (and refuses from 2.4 on, "
    "which is why the project asks for an older one)",
)
VALIDATION: Final = Workaround(
    "validation",
    "coremltools",
    ">=6.0",
    "coremltools validates the whole program after each of its 110 passes, which is two fifths of a conversion; "
    "before each of the three pipelines is enough",
)
TEMPORARY_FOLDER: Final = Workaround(
    "temporary-folder",
    "coremltools",
    ">=6.0",
    "coremltools first writes all weights into the system's temporary folder, which may be small, or memory; "
    "a folder on the output's disk takes its place",
)
CASTS_IN_MEMORY: Final = Workaround(
    "casts-in-memory",
    "coremltools",
    ">=6.0",
    "coremltools keeps every weight that it casts to float16 in memory beside the original until it writes the file",
)
FUSED_EPSILON: Final = Workaround(
    "fused-epsilon",
    "coremltools",
    ">=4.0",
    "coremltools fuses a scale and a shift per channel, as group norms have, into a batch norm of variance 1 with the "
    "default epsilon of 1e-5: all values become 0.999995 of what they were (-106 dB). The variance written here is "
    "1 - 1e-5, which is 1 in float16",
)
UPSTREAM: Final = Workaround(
    "upstream",
    "coremltools",
    ">=8.0",
    "coremltools looks for decompressed weights before each operation of a block whenever a pass leaves it; where a "
    "program has none yet, nothing can be found",
)
PRINTING: Final = Workaround(
    "printing",
    "coremltools",
    ">=6.0",
    "coremltools prints the whole program as text for debugging messages that nobody asked for",
)
GARBAGE: Final = Workaround(
    "garbage",
    "coremltools",
    ">=6.0",
    "coremltools collects garbage after each conversion, which searches all objects that torch and diffusers made; "
    "those that were there before it began are left out",
)
SAFETY_NOISE: Final = Workaround(
    "safety-noise",
    "diffusers",
    ">=0.10",
    "the safety checker logs a warning for users of pipelines when random inputs are found unsafe",
)

ALL: Final = (
    IMPORT_NOISE,
    TRACE_NOISE,
    TRACE_DEPRECATION,
    CLUSTERS,
    CONVERT_NOISE,
    PROGRESS,
    CONVERSION_DATE,
    BOUNDARY_ORDER,
    SCALAR_ARRAYS,
    VALIDATION,
    UPSTREAM,
    PRINTING,
    TEMPORARY_FOLDER,
    CASTS_IN_MEMORY,
    FUSED_EPSILON,
    GARBAGE,
    SAFETY_NOISE,
)

_CONVERT_MESSAGES: Final = ("Saving value type of int64 into a builtin type of int32", "Tuple detected at graph output")


def coremltools() -> Any:
    """Import coremltools without the known noise and return it."""
    if IMPORT_NOISE.needed:
        return quiet.coremltools()
    import coremltools

    return coremltools


@contextmanager
def tracing() -> Iterator[None]:
    """Surround ``torch.jit.trace``."""
    import torch

    with warnings.catch_warnings():
        if TRACE_NOISE.needed:
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
        if TRACE_DEPRECATION.needed:
            warnings.filterwarnings("ignore", message=".torch.jit.trace", category=DeprecationWarning)
        yield


@contextmanager
def converting(
    report: Report | None = None, *, folder: Path | None = None, scratch: Scratch | None = None
) -> Iterator[None]:
    """Surround ``coremltools.convert`` and coremltools' weight compression.

    Parameters
    ----------
    report : callable, optional
        Called with (pass or stage, done, total) while coremltools works.
    folder : pathlib.Path, optional
        For coremltools' temporary files; the system's by default.
    scratch : Scratch, optional
        Takes the large arrays that coremltools makes.
    """
    coremltools()
    with ExitStack() as stack:
        if folder is not None and TEMPORARY_FOLDER.needed:
            stack.enter_context(_temporary_files(folder))
        if scratch is not None and CASTS_IN_MEMORY.needed:
            stack.enter_context(_casts(scratch))
            report = _releasing(report, scratch)
        if CONVERT_NOISE.needed:
            stack.enter_context(quiet.without("coremltools", _CONVERT_MESSAGES))
        if PROGRESS.needed:
            stack.enter_context(_bars(report))
        for workaround, context in (
            (VALIDATION, fewer_validations),
            (UPSTREAM, fewer_searches),
            (PRINTING, unprinted),
            (FUSED_EPSILON, _unit_scale),
            (GARBAGE, memory.settled),
        ):
            if workaround.needed:
                stack.enter_context(context())
        stack.enter_context(warnings.catch_warnings())
        if SCALAR_ARRAYS.needed:
            warnings.filterwarnings("ignore", message="Conversion of an array with ndim > 0", module="coremltools")
        warnings.filterwarnings("ignore", message="Number of distinct clusters")  # see CLUSTERS
        yield


class _UnitScale:
    """coremltools' builder of operations, but for batch norms, whose epsilon is taken off the variance."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def batch_norm(self, *, variance: np.ndarray, **others: Any) -> Any:
        return self._builder.batch_norm(variance=variance - np.float32(1e-5), **others)


@contextmanager
def _unit_scale() -> Iterator[None]:
    import coremltools.converters.mil.mil.passes.defs.optimize_elementwise_binary as passes

    original = passes.mb
    passes.mb = _UnitScale(original)
    try:
        yield
    finally:
        passes.mb = original


@contextmanager
def _temporary_files(folder: Path) -> Iterator[None]:
    import coremltools.converters.mil.converter as converter
    import coremltools.models.utils as utils

    before = [module._tempfile for module in (converter, utils)]
    here = SimpleNamespace(
        TemporaryDirectory=partial(tempfile.TemporaryDirectory, dir=folder),
        mkdtemp=partial(tempfile.mkdtemp, dir=folder),
        NamedTemporaryFile=tempfile.NamedTemporaryFile,  # small, and deletes itself too late for a folder that goes
    )
    converter._tempfile = utils._tempfile = here
    try:
        yield
    finally:
        converter._tempfile, utils._tempfile = before


@contextmanager
def _casts(scratch: Scratch) -> Iterator[None]:
    from coremltools.converters.mil.mil.ops.defs.iOS15.elementwise_unary import cast

    original = cast.__dict__["get_cast_value"]

    def get_cast_value(kind: Any, *arguments: Any) -> Any:
        value = original.__func__(kind, *arguments)
        return scratch.put(value) if isinstance(value, np.ndarray) else value

    cast.get_cast_value = classmethod(get_cast_value)
    try:
        yield
    finally:
        cast.get_cast_value = original


def _releasing(report: Report | None, scratch: Scratch) -> Report:
    def released(stage: str, done: int, total: int) -> None:
        scratch.release()
        if report is not None:
            report(stage, done, total)

    return released


@contextmanager
def _bars(report: Report | None) -> Iterator[None]:
    import coremltools.converters.mil.frontend.torch.ops as torch_ops
    import coremltools.converters.mil.mil.passes.pass_pipeline as pass_pipeline
    import coremltools.optimize.coreml._quantization_passes as quantization_passes

    def bar(items: Any = None, *_: Any, desc: str = "", total: int | None = None, **__: Any) -> Iterator[Any]:
        items = list(items)
        stage = (
            desc.replace("Running MIL ", "").replace(" pipeline", "").replace("Converting PyTorch Frontend ==> ", "")
        )
        for done, item in enumerate(items):
            if report is not None:
                report(stage or "compress", done, len(items))
            yield item

    places = ((torch_ops, "_tqdm"), (pass_pipeline, "tqdm"), (quantization_passes, "tqdm"))
    before = [getattr(module, name) for module, name in places]
    for module, name in places:
        setattr(module, name, bar)
    try:
        yield
    finally:
        for (module, name), original in zip(places, before, strict=True):
            setattr(module, name, original)


@contextmanager
def checking_safety() -> Iterator[None]:
    """Surround a call of diffusers' safety checker."""
    logger = logging.getLogger("diffusers.pipelines.stable_diffusion.safety_checker")
    before = logger.disabled
    logger.disabled = before or SAFETY_NOISE.needed
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def cutting() -> Iterator[None]:
    """Surround ``coremltools.models.utils.bisect_model``."""
    coremltools()
    import coremltools.models.utils as utils

    original = utils._get_first_chunk_outputs
    if BOUNDARY_ORDER.needed:
        utils._get_first_chunk_outputs = lambda *arguments: sorted(original(*arguments), key=lambda var: var.name)
    try:
        yield
    finally:
        utils._get_first_chunk_outputs = original


def remove_conversion_date(metadata: Any) -> None:
    """Remove the date from a model description's user-defined metadata."""
    if CONVERSION_DATE.needed:
        metadata.pop("com.github.apple.coremltools.conversion_date", None)
