"""What is a loaded Core ML model to the rest of the project: names, shapes, dtypes, and ``predict``.

A :class:`LoadedModel` holds a *predictor*: an object with coremltools' own ``predict(data, state)`` and
``make_state()``.
:func:`through_coremltools` gives coremltools' model classes, on a Mac over the framework and elsewhere over the shim;
:func:`through_reference` gives the same interface over the reference runtime without coremltools.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity import mil, quiet
from parity.coreml import kept, values
from parity.errors import UnsupportedError, UsageError


@dataclass(frozen=True, slots=True)
class Port:
    """One input, output or state of a model.

    Attributes
    ----------
    name : str
        Key in the dictionaries of :meth:`LoadedModel.predict`.
    shape : tuple of int
        Default shape; ``(height, width)`` of an image; ``()`` where the model declares none.
    dtype : numpy.dtype
        Declared element type. Core ML's Python binding gives float16 outputs as float32 arrays.
    kind : str
        ``array``, ``image``, ``state``, ``int64``, ``double``, ``string`` or ``dictionary``.
    optional : bool
        An input that may be left out.
    flexible : bool
        Other shapes than `shape` are allowed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    kind: str = "array"
    optional: bool = False
    flexible: bool = False


class LoadedModel:
    """A loaded model; :func:`parity.coreml.load` makes one.

    Attributes
    ----------
    path : pathlib.Path
        What was loaded.
    compute_unit, runtime : str
        What was asked for; `runtime` is ``native`` or ``reference``.
    inputs, outputs, states : tuple of Port
        In the order of the file.
    numerics : str
        Equal for two loads exactly when their numerics are the same by construction:
        ``"reference runtime (declared)"``, ``"Core ML CPU_AND_NE"``.
    """

    def __init__(
        self, path: Path, function: mil.Function, predictor: Any, *, compute_unit: str, runtime: str, numerics: str
    ) -> None:
        self.path = path
        self.compute_unit = compute_unit
        self.runtime = runtime
        self.numerics = numerics
        self._declared = tuple(feature for feature in function.inputs if feature.kind != "state")
        self.inputs = _features(self._declared)
        self.outputs = _features(function.outputs)
        self.states = _features(function.states)
        self._predictor = predictor

    def predict(self, inputs: Mapping[str, Any], *, state: Any = None) -> dict[str, Any]:
        """Return one prediction.

        Parameters
        ----------
        inputs : mapping
            Input name to array (any shape the model allows, any real dtype; converted to the declared one) or, for
            image inputs, PIL image.
        state : object, optional
            What :meth:`make_state` returned; required by models with states.

        Returns
        -------
        dict
            Output name to array (float16 as float32, rank 0 as shape (1,)), PIL image, or label.

        Raises
        ------
        UsageError
            An input is missing, unknown, or has a type or shape that the model does not allow.
        RuntimeError
            The framework failed while predicting.
        """
        known = [feature.name for feature in self.inputs]
        if unknown := [name for name in inputs if name not in known]:
            raise UsageError(f"{self.path}: no input {unknown[0]!r}; the inputs are {', '.join(known)}")
        if self.states and state is None:
            raise UsageError(f"{self.path}: the model has states; give predict(…, state=model.make_state())")
        try:
            values.check(inputs, self._declared)
        except RuntimeError as error:
            raise UsageError(f"{self.path}: {error}") from None
        # A copy, since coremltools writes its conversions into the dictionary that it is given.
        return self._predictor.predict(dict(inputs), state)

    def make_state(self) -> Any:
        """Return fresh states (zeros) for :meth:`predict`.

        Raises
        ------
        UsageError
            The model has no states.
        """
        if not self.states:
            raise UsageError(f"{self.path}: the model has no states")
        return self._predictor.make_state()

    def __repr__(self) -> str:
        return f"<LoadedModel {self.path.name}: {self.numerics}>"


def _features(declared: tuple[mil.Feature, ...]) -> tuple[Port, ...]:
    return tuple(Port(f.name, f.shape, values.numpy_dtype(f), f.kind, f.optional, f.flexible) for f in declared)


def through_coremltools(
    path: Path, compute_unit: str, function: str | None, profile: str, *, keep: bool = False
) -> Any:
    """Return coremltools' model object: ``MLModel`` for packages, ``CompiledMLModel`` for compiled folders.

    Parameters
    ----------
    path : path
        The model.
    compute_unit : str
        Name of a member of ``coremltools.ComputeUnit``.
    function : str or None
        Function name; None for the default.
    profile : str
        Numeric profile, used when the shim is installed.
    keep : bool
        Compile a package once and keep the result in the cache, see :mod:`parity.coreml.kept`.

    Raises
    ------
    UnsupportedError
        The framework refuses the model; with the framework's message.
    """
    from parity.coreml.model_proxy import using_profile

    coremltools = quiet.coremltools()

    unit = coremltools.ComputeUnit[compute_unit]
    if keep and path.suffix == ".mlpackage":
        with contextlib.suppress(RuntimeError, OSError):  # loading the package says why, or needs no room in the cache
            path = kept.compiled(path)
    with using_profile(profile):
        if path.suffix == ".mlmodelc":
            try:
                return coremltools.models.CompiledMLModel(str(path), unit, function)
            except RuntimeError as error:
                raise UnsupportedError(f"{path}: {error}") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the same text is in the error below
            model = coremltools.models.MLModel(str(path), compute_units=unit, function_name=function)
    if model.__proxy__ is None:
        raise UnsupportedError(f"{path}: {model._framework_error or 'the Core ML framework is too old for this model'}")
    return model


class _Reference:
    """coremltools' interface over the class that the shim installs; for macOS, where the shim is not in place."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy

    def predict(self, data: dict[str, Any], state: Any = None) -> dict[str, Any]:
        return self._proxy.predict(data, state)

    def make_state(self) -> Any:
        return self._proxy.newState()


def through_reference(path: Path, compute_unit: str, function: str | None, profile: str) -> Any:
    """Return the reference runtime behind coremltools' interface, without coremltools; see `through_coremltools`."""
    from parity.coreml.model_proxy import ModelProxy, using_profile

    with using_profile(profile):
        try:
            return _Reference(ModelProxy(str(path), compute_unit, function or ""))
        except RuntimeError as error:
            raise UnsupportedError(f"{path}: {error}") from error
