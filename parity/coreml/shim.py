"""How does unmodified ``coremltools`` code predict away from macOS?

coremltools reaches the Core ML framework through one native module, ``coremltools.libcoremlpython``, which exists on
macOS alone, and asks in a few places whether it runs on macOS. :func:`install`

1. puts a module of that name into :data:`sys.modules` whose classes execute ML Programs with ``parity.mil``,
2. makes coremltools' own questions about macOS answer :data:`MACOS_VERSION` (:data:`GATES` lists them all),
3. gives both to those coremltools modules that were imported before.

:func:`uninstall` takes everything back. Nothing else of coremltools changes: argument checks, conversion of inputs,
temporary packages and the experimental inspector, comparator and benchmarker are coremltools' own code::

    import parity.coreml.shim

    parity.coreml.shim.install()

    import coremltools as ct

    ct.models.MLModel("model.mlpackage").predict({"x": x})

or, without touching a script, ``python -m parity.coreml.shim SCRIPT …`` (``-m MODULE …`` works too; put
``--order reversed`` before it for scripts that expect the outputs the other way round).

Proved: coremltools 9.0's own tests pass through it (``make coremltools-tests``). Not modelled: the hardware. Every
compute unit computes the same numbers, compute plans place everything on the CPU, and costs are unknown.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from parity.errors import UnsupportedError, UsageError

MACOS_VERSION = (26, 0)
"""What coremltools is told. 26 is the newest that coremltools 9.0 knows: no feature is refused for its age."""

GATES: dict[str, Callable[[], Any]] = {
    "_is_macos": lambda: True,  # coremltools.models.utils: make_state, make_pipeline
    "_macos_version": lambda: MACOS_VERSION,  # the same: loading, predicting, compiling, states, optimization hints
}
"""Functions of coremltools that ask for the platform, by name, and what answers instead."""

_NATIVE = "coremltools.libcoremlpython"
_MISSING = object()
_undo: list[tuple[ModuleType, str, object]] = []
_replacements: dict[str, tuple[object, object]] = {}  # name -> (original, ours)
_displaced: object = _MISSING  # what stood in sys.modules under _NATIVE


def installed() -> bool:
    """Return whether the stand-in is in place."""
    return bool(_replacements)


def install(*, profile: str = "declared", order: str = "declared", force: bool = False) -> None:
    """Put the reference runtime in the place of the Core ML framework, for this process.

    Works before and after ``import coremltools``; calling it again only changes the profile of models loaded later.

    Parameters
    ----------
    profile : str
        Numerics of the reference runtime, see `parity.mil.Session`.
    order : str
        In which order a prediction's dictionary lists the outputs: ``declared`` or ``reversed``. On macOS it is that of
        Apple's dictionary, which nobody documents. Code that takes the first value instead of a name may need the other
        one: ml-stable-diffusion's converter, up to 1.0.0, takes the first output of the text encoder to be the second
        that is declared, ``pooled_outputs``.
    force : bool
        Replace the real module on macOS, where it is refused otherwise.

    Raises
    ------
    UnsupportedError
        On macOS without `force`.
    UsageError
        The profile or the order is unknown.
    """
    global _displaced
    from parity.coreml import proxies

    if sys.platform == "darwin" and not force:
        raise UnsupportedError(
            "this is macOS, where coremltools predicts with the real Core ML framework; the stand-in would hide it. "
            'Use parity.coreml.load(path, runtime="reference"), or install(force=True) to replace it in this process'
        )
    proxies.set_default_profile(profile)
    proxies.set_output_order(order)
    if installed():
        return
    ours = proxies.native_module(_NATIVE)
    displaced = sys.modules.get(_NATIVE, _MISSING)
    sys.modules[_NATIVE] = ours
    try:
        coremltools = importlib.import_module("coremltools")
    except BaseException:
        _put_back(displaced)
        raise
    _displaced = displaced
    _undo.append((coremltools, "libcoremlpython", displaced))  # `from . import libcoremlpython` binds the module
    coremltools.libcoremlpython = ours  # type: ignore[attr-defined]
    utils = importlib.import_module("coremltools.models.utils")
    for name, answer in GATES.items():
        _replacements[name] = (getattr(utils, name), answer)
    for name in proxies.NATIVE_NAMES:
        # Without the native module coremltools binds these names to None.
        _replacements[name] = (getattr(displaced, name, None), getattr(ours, name))
    for module in _coremltools_modules():
        for name, (original, replacement) in _replacements.items():
            if module.__dict__.get(name, _MISSING) is original:
                _bind(module, name, replacement)


def uninstall() -> None:
    """Take the stand-in back; models loaded through it go on working. Does nothing when it is not installed."""
    global _displaced
    if not installed():
        return
    while _undo:
        module, name, value = _undo.pop()
        if value is _MISSING:
            delattr(module, name)
        else:
            setattr(module, name, value)
    for module in _coremltools_modules():  # modules imported in between copied our names
        for name, (original, replacement) in _replacements.items():
            if module.__dict__.get(name, _MISSING) is replacement:
                setattr(module, name, original)
    _put_back(_displaced)
    _displaced = _MISSING
    _replacements.clear()


def _put_back(displaced: object) -> None:
    if displaced is _MISSING:
        sys.modules.pop(_NATIVE, None)
    else:
        sys.modules[_NATIVE] = displaced  # type: ignore[assignment]


def _bind(module: ModuleType, name: str, value: object) -> None:
    _undo.append((module, name, module.__dict__.get(name, _MISSING)))
    setattr(module, name, value)


def _coremltools_modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "coremltools" and name != _NATIVE and isinstance(module, ModuleType):
            yield module


def main(arguments: Sequence[str]) -> None:
    """Install the stand-in, then run a script (``PATH …``) or a module (``-m NAME …``) as Python itself would.

    ``--order reversed`` and ``--profile NAME`` before it are options of :func:`install`.
    """
    arguments = list(arguments)
    options = {"--order": "declared", "--profile": "declared"}
    while len(arguments) > 1 and arguments[0] in options:
        options[arguments[0]] = arguments[1]
        del arguments[:2]
    module = arguments[:1] == ["-m"]
    if len(arguments) < 1 + module or (arguments[0].startswith("-") and not module):
        raise UsageError(
            "usage: python -m parity.coreml.shim [--order declared|reversed] [--profile NAME] "
            "SCRIPT [ARGUMENT …] | -m MODULE [ARGUMENT …]"
        )
    install(order=options["--order"], profile=options["--profile"])
    target, *rest = arguments[module:]
    sys.argv = [target, *rest]
    if module:
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(target).resolve().parent)
        runpy.run_path(target, run_name="__main__")


if __name__ == "__main__":
    # Under "-m" this file is the module __main__; the state that counts is that of the importable module.
    importlib.import_module("parity.coreml.shim").main(sys.argv[1:])
