"""How is an ``.aimodel`` run without taking this process along when it dies?

Many damaged files and some operators end the whole process (a trap, without an exception), and every load keeps a copy
of its weights mapped for ever. So each file has a process of its own (:mod:`parity.coreai.worker`), started at the
first call, ended with a time limit, started again at the next call after it died. What the runtime prints is kept and
quoted when something goes wrong.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from parity import children
from parity.coreai import availability, container, frames
from parity.errors import FormatError, ParityError, UsageError

SECONDS = 600.0
"""Default time limit of one call."""


@dataclass(frozen=True)
class ArraySpec:
    """An input or output of a function.

    Attributes
    ----------
    name, dtype : str
        ``dtype`` as NumPy spells it (``float32``).
    shape : tuple of (int or None)
        None where a size is flexible.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Function:
    """A function of a file: its features in order."""

    name: str
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    states: tuple[ArraySpec, ...] = ()


class Process:
    """A file and the process that runs it.

    Parameters
    ----------
    path : path
        An ``.aimodel`` folder.
    unit : str, optional
        macOS only: ``CPU``, ``GPU`` or ``NEURAL_ENGINE``, *not verified on hardware*; Core AI's own choice by default.
    seconds : float
        Time limit of each call.

    Raises
    ------
    MissingError, FormatError, UnsupportedError
        No such file, a damaged one, or one of a newer format (nothing is started for these); Core AI is not here.
    """

    def __init__(self, path: Path | str, *, unit: str | None = None, seconds: float = SECONDS) -> None:
        availability.require()
        self.path = Path(path)
        container.check(self.path)
        self.unit = unit
        self.seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._noise: Any = None
        self._functions: dict[str, Function] = {}
        self._finalizer: Any = None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def functions(self) -> dict[str, Function]:
        """The file's functions by name; loads it."""
        self._loaded()
        return dict(self._functions)

    def run(self, inputs: Mapping[str, np.ndarray], *, function: str | None = None) -> dict[str, np.ndarray]:
        """Run a function (the first one by default).

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Arrays of the declared shapes; integers of 64 bits are narrowed, float dtypes are converted.
        function : str, optional
            Name of the function.

        Returns
        -------
        dict of str to ndarray
            Outputs in declared order and dtype.

        Raises
        ------
        UsageError
            A missing or unknown input, or a wrong shape; no such function.
        FormatError
            The runtime refused, died or ran out of time.
        """
        self._loaded()
        chosen = self._function(function)
        given = {feature.name: _fitted(self.path, feature, inputs) for feature in chosen.inputs}
        if unknown := inputs.keys() - given.keys():
            known = ", ".join(given)
            raise UsageError(f"{self.path}: no input {', '.join(sorted(unknown))}; it has {known}")
        return self._ask({"op": "run", "function": chosen.name}, given)[1]

    def switch(self, path: Path | str) -> None:
        """Take another file, in the same process while it lives; what the first one took in memory stays taken."""
        container.check(Path(path))
        self.path, self._functions = Path(path), {}

    def ask(self, operation: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Ask about the file without loading it for execution: ``summary``, ``program`` or ``constants``."""
        if self._child is None:
            self._start()
        self._ask({"op": "open", "path": str(self.path.resolve())})
        return self._ask({"op": operation})

    def close(self) -> None:
        """End the process; the next call starts it again."""
        if self._finalizer is not None:
            self._finalizer()
        self._child, self._functions = None, {}

    def _function(self, name: str | None) -> Function:
        if name is None:
            return next(iter(self._functions.values()))
        if name not in self._functions:
            raise UsageError(f"{self.path}: no function {name!r}; there are {', '.join(self._functions)}")
        return self._functions[name]

    def _loaded(self) -> None:
        if self._child is not None and self._functions:
            return
        if self._child is None:
            self._start()
        answer, _ = self._ask({"op": "load", "path": str(self.path.resolve()), "unit": self.unit})
        self._functions = {entry["name"]: _described(entry) for entry in answer["functions"]}
        if not self._functions:
            raise FormatError(f"{self.path}: it has no function")

    def _start(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="parity-coreai-")  # the runtime leaves copies of weights behind
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 (read when something goes wrong)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "parity.coreai.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            env={**os.environ, "TMPDIR": scratch.name, "PYTHONPATH": children.search_path()},
        )
        self._finalizer = weakref.finalize(self, _end, self._child, scratch, self._noise)

    def _ask(
        self, message: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            frames.write(child.stdin, message, arrays)
            answer, results = frames.read(_Limited(child.stdout, self.seconds))  # type: ignore[arg-type]
        except TimeoutError:
            self.close()
            raise FormatError(
                f"{self.path}: Core AI did not finish '{message['op']}' in {self.seconds:g} s; its process was ended"
            ) from None
        except (EOFError, BrokenPipeError, ValueError):
            raise self._death(message["op"], child) from None
        if "error" in answer:
            raise self._refused(message["op"], answer["error"])
        return answer, results

    def _death(self, operation: str, child: subprocess.Popen[bytes]) -> ParityError:
        how, text = children.death(child), self._last_words()
        self.close()
        why = (
            "the file is damaged or of a format that this Core AI does not read"
            if operation != "run"
            else "an operator of the program ends the process (docs/core-ai.md lists those known)"
        )
        return FormatError(f"{self.path}: Core AI's process ended ({how}) at '{operation}': {why}{text}")

    def _refused(self, operation: str, error: str) -> ParityError:
        first = error.strip().splitlines()[0][:400] if error.strip() else "no reason given"
        return FormatError(f"{self.path}: Core AI refuses to {operation}: {first}")

    def _last_words(self) -> str:
        told = [line.strip() for line in children.said(self._noise) if not line.startswith("ODIE")]
        reasons = [line.split("error: ", 1)[1] for line in told if "error: " in line]  # before the trap's own lines
        return f"; it said: {(reasons or told[-1:])[0][:300]}" if told else ""


class _Limited:
    """A pipe that is read until a deadline."""

    def __init__(self, stream: IO[bytes], seconds: float) -> None:
        self._stream = stream
        self._deadline = time.monotonic() + seconds

    def read(self, count: int) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, selectors.EVENT_READ)
            if not selector.select(max(0.0, self._deadline - time.monotonic())):
                raise TimeoutError
        return os.read(self._stream.fileno(), count)


def _end(child: subprocess.Popen[bytes], scratch: tempfile.TemporaryDirectory[str], noise: IO[bytes]) -> None:
    children.end(child, [noise])
    scratch.cleanup()


def _described(entry: Mapping[str, Any]) -> Function:
    def features(kind: str) -> tuple[ArraySpec, ...]:
        return tuple(ArraySpec(name, _dtype(dtype), tuple(shape)) for name, dtype, shape in entry[kind])

    return Function(entry["name"], features("inputs"), features("outputs"), features("states"))


def _dtype(name: str) -> str:
    """Turn the runtime's spelling into NumPy's."""
    return name.lower().removeprefix("dtype.")


def _fitted(path: Path, feature: ArraySpec, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    if feature.name not in inputs:
        raise UsageError(f"{path}: input {feature.name} is missing ({feature.dtype} {list(feature.shape)})")
    array = np.asarray(inputs[feature.name])
    fits = len(array.shape) == len(feature.shape) and all(
        want is None or want == have for want, have in zip(feature.shape, array.shape, strict=True)
    )
    if not fits:
        raise UsageError(f"{path}: input {feature.name} has shape {list(feature.shape)}, not {list(array.shape)}")
    wanted = np.dtype(feature.dtype)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{path}: input {feature.name} takes numbers ({wanted}), not {array.dtype}")
    if wanted.kind in "iu" and array.dtype.kind == "f":
        raise UsageError(f"{path}: input {feature.name} takes whole numbers ({wanted}), not {array.dtype}")
    if wanted.kind in "iu" and array.size and not _representable(array, wanted):
        raise UsageError(f"{path}: input {feature.name}: values outside {wanted}")
    return array.astype(wanted)


def _representable(array: np.ndarray, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return bool(int(array.min()) >= limits.min and int(array.max()) <= limits.max)
