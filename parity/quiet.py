"""Holding back what libraries say: progress bars and remarks while they load, and warnings about damaged numbers."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from parity import memory

COREMLTOOLS_REMARKS = ("Failed to load ", "has not been tested with coremltools", "scikit-learn version ")
"""What coremltools logs at import about missing native modules and untested versions of other packages."""

_LOUD = ("coremltools", "diffusers", "torch", "transformers")


class _Without(logging.Filter):
    def __init__(self, remarks: Sequence[str]) -> None:
        super().__init__()
        self._remarks = remarks

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(remark in message for remark in self._remarks)


@contextmanager
def without(name: str, remarks: Sequence[str]) -> Iterator[None]:
    """Drop log records that contain one of the remarks: handlers filter them, loggers below ``name`` would not."""
    handlers = [*logging.getLogger(name).handlers, *logging.getLogger().handlers]
    if logging.lastResort is not None:
        handlers.append(logging.lastResort)
    known = _Without(remarks)
    for handler in handlers:
        handler.addFilter(known)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(known)


def float64(array: Any) -> Any:
    """Return an array in float64, without a warning about signalling NaNs, which damaged files hold.

    >>> import numpy as np
    >>> float64(np.array([0x7FA00000], np.uint32).view(np.float32))
    array([nan])
    """
    import numpy as np

    with np.errstate(invalid="ignore"):
        return np.asarray(array).astype(np.float64)


def coremltools() -> Any:
    """Import coremltools without its known remarks and return it."""
    with without("coremltools", COREMLTOOLS_REMARKS):
        import coremltools
    return coremltools


@contextmanager
def libraries() -> Iterator[None]:
    """Hold back what the big libraries say to their own users, for the length of a command.

    Warnings that Python was asked to show (``-W``, PYTHONWARNINGS) and levels that the environment sets are left alone.
    Nothing is imported.
    """
    levels = {name: "error" for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY") if name not in os.environ}
    os.environ.update(levels)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                for name in _LOUD:
                    warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
            yield
    finally:
        for name in levels:
            os.environ.pop(name, None)


@contextmanager
def loading() -> Iterator[None]:
    """Silence diffusers and transformers while a model is loaded or saved; errors remain."""
    with memory.importing():
        import diffusers
        import transformers

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (level, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(level)
            if bars:
                library.enable_progress_bar()
