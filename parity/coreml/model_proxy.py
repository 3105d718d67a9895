"""What does coremltools call when it loads a model and predicts?

:class:`ModelProxy` stands in for ``_MLModelProxy``: the signatures, the argument checks of the native binding, and
``RuntimeError`` for everything that the framework would refuse. It loads a package or a compiled folder with
`parity.mil` and predicts with a `parity.mil.Session`. :class:`StateProxy` and :class:`AssetProxy` stand in for states
and model assets.

Source: coremltools 9.0, ``models/model.py``, ``models/_compiled_model.py`` and their tests.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from parity import mil
from parity.coreml import compiled, plan_proxy, values
from parity.coreml.pipeline_runner import runner
from parity.errors import ParityError, UsageError
from parity.mil import proto

UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")
MAXIMUM_SPECIFICATION = 10  # iOS 26, the newest that coremltools 9.0 writes

ORDERS = ("declared", "reversed")
"""Orders in which a prediction's dictionary can list the outputs."""

_default_profile = "declared"
_output_order = "declared"
_profile: ContextVar[str | None] = ContextVar("parity_profile", default=None)


def check_profile(profile: str) -> str:
    """Return the profile.

    Raises
    ------
    UsageError
        It is unknown; the message lists the known ones.
    """
    if profile not in mil.PROFILES:
        raise UsageError(f"unknown numeric profile {profile!r}; known are {', '.join(mil.PROFILES)}")
    return profile


def set_default_profile(profile: str) -> None:
    """Choose the numeric profile of models loaded from now on."""
    global _default_profile
    _default_profile = check_profile(profile)


def set_output_order(order: str) -> None:
    """Choose the order of the outputs in dictionaries that predictions return from now on.

    Raises
    ------
    UsageError
        It is none of :data:`ORDERS`.
    """
    global _output_order
    if order not in ORDERS:
        raise UsageError(f"unknown order of outputs {order!r}; known are {', '.join(ORDERS)}")
    _output_order = order


@contextlib.contextmanager
def using_profile(profile: str) -> Iterator[None]:
    """Choose the numeric profile of models loaded inside the ``with`` block, in this thread."""
    token = _profile.set(check_profile(profile))
    try:
        yield
    finally:
        _profile.reset(token)


@contextlib.contextmanager
def _framework_errors(action: str, *, renamed: tuple[str, str] = ("", "")) -> Iterator[None]:
    """Let errors surface as they do on macOS: RuntimeError. The first of two paths is shown as the second."""
    try:
        yield
    except ParityError as error:
        text = str(error).replace(*renamed) if renamed[0] else str(error)
        raise RuntimeError(f"Error {action}: {text}") from error


class StateProxy:
    """Stands in for ``_State``: the memory of a stateful model between predictions.

    Parameters
    ----------
    memory : parity.mil.session.States
        What the session keeps the states in.
    features : sequence of Feature
        The declared states.
    """

    def __init__(self, memory: Any, features: Sequence[mil.Feature]) -> None:
        self.memory = memory
        self._features = {feature.name: feature for feature in features}

    def _feature(self, name: str) -> mil.Feature:
        if name not in self._features:
            raise RuntimeError(f"Invalid state name '{name}'; the model has {', '.join(self._features)}.")
        return self._features[name]

    def read_state(self, name: str) -> np.ndarray:
        """Return a copy of a state; float16 as float32."""
        self._feature(name)
        return values.visible(self.memory[name])

    def write_state(self, name: str, value: np.ndarray) -> None:
        """Set a state; shape must match, dtype is converted."""
        feature = self._feature(name)
        array = np.asarray(value)
        values.check_shape(array.shape, feature)
        self.memory[name] = values.convert(array, values.numpy_dtype(feature))


class AssetProxy:
    """Stands in for ``_MLModelAssetProxy``: a compiled folder, or a model in memory that is written to one."""

    def __init__(self, path: Path, *, owned: bool = False) -> None:
        self.path = path
        if owned:
            weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)


class ModelProxy:
    """Stands in for ``_MLModelProxy``.

    Parameters
    ----------
    path : str
        Package, ``.mlmodel`` file or compiled folder; unused with `asset`.
    compute_units : str
        One of :data:`UNITS`. All compute the same here.
    function_name : str
        Function of the model; empty for its default.
    optimization_hints : mapping
        Accepted and without effect: they do not change what is computed.
    asset : AssetProxy, optional
        Load this instead of `path`.

    Raises
    ------
    RuntimeError
        The model cannot be loaded.
    """

    predictions: ClassVar[int] = 0
    """Number of predictions in this process; shows that tests execute programs."""

    def __init__(
        self,
        path: str,
        compute_units: str = "ALL",
        function_name: str = "",
        optimization_hints: Mapping[str, str] | None = None,
        asset: AssetProxy | None = None,
    ) -> None:
        started = time.perf_counter_ns()
        if compute_units not in UNITS:
            raise RuntimeError(f"Unrecognized compute unit {compute_units!r}; expected one of {', '.join(UNITS)}.")
        del optimization_hints
        source = Path(path).expanduser() if asset is None else asset.path
        self._asset = asset  # keeps its folder
        with _framework_errors("loading model"):
            model = mil.load(source)
            compiled.require_runnable(model)
            self._source = source
            self._compiled: Path | None = source
            if source.suffix != compiled.SUFFIX:
                # coremltools may delete a temporary package while this model lives: keep links to its files.
                self._compiled = compiled.try_linking(source) if source.is_dir() else compiled.compile_model(source)
                if self._compiled is not None:
                    self._own(self._compiled)
                    model = mil.load(self._compiled)
            function = model.function(function_name or None)
            profile = _profile.get() or _default_profile
            self._runner = runner(model, function.name, profile)
        self._rounded = profile != "float32"
        self._inputs = [feature for feature in function.inputs if feature.kind != "state"]
        self._outputs = function.outputs
        self._states = function.states
        self._load_duration = time.perf_counter_ns() - started
        self._predict_duration: int | None = None

    def predict(self, data: Mapping[str, Any], state: StateProxy | None = None) -> dict[str, Any]:
        """Return one prediction; see `parity.coreml.values` for what is accepted and given back.

        Raises
        ------
        TypeError
            `data` is no mapping, or `state` no state.
        RuntimeError
            An input is missing or not allowed, the state is missing, or an operation failed.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"predict(): incompatible function arguments: expected a dict, got {type(data).__name__}")
        if state is not None and not isinstance(state, StateProxy):
            raise TypeError(f"predict(): incompatible function arguments: expected a state, got {type(state).__name__}")
        if self._states and state is None:
            raise RuntimeError(f"The input feature for {self._states[0].name} must be an MLState, but it was not.")
        arrays = values.accept(data, self._inputs, rounded=self._rounded)
        ModelProxy.predictions += 1
        started = time.perf_counter_ns()
        links = (str(self._compiled), str(self._source))  # the user knows the package, not the folder of links to it
        with _framework_errors("predicting: Unable to compute the prediction using ML Program", renamed=links):
            results = self._runner.predict(arrays, state=state.memory if state is not None else None)
        self._predict_duration = time.perf_counter_ns() - started
        outputs = self._outputs[::-1] if _output_order == "reversed" else self._outputs
        return values.give_back(results, outputs, rounded=self._rounded)

    def batchPredict(self, data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return a prediction for each dictionary."""
        started = time.perf_counter_ns()
        results = [self.predict(each) for each in data]
        self._predict_duration = time.perf_counter_ns() - started
        return results

    def newState(self) -> StateProxy:
        """Return fresh states, all zero."""
        if not isinstance(self._runner, mil.Session):
            raise RuntimeError("This model is a pipeline and has no states.")
        return StateProxy(self._runner.new_state(), self._states)

    def _own(self, folder: Path) -> None:
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def get_compiled_model_path(self) -> str:
        """Return the compiled folder, which lives as long as this object."""
        if self._compiled is None:
            with _framework_errors("compiling model"):
                self._compiled = compiled.compile_model(self._source)
            self._own(self._compiled)
        elif self._compiled != self._source:
            compiled.add_text(self._compiled, mil.load(self._compiled))
        return str(self._compiled)

    def get_load_duration_in_nano_seconds(self) -> int:
        """Return how long loading took."""
        return self._load_duration

    def get_last_predict_duration_in_nano_seconds(self) -> int | None:
        """Return how long the last prediction took; None before the first."""
        return self._predict_duration

    @staticmethod
    def compileModel(path: str) -> str:
        """Compile a model into a new temporary folder and return its path."""
        with _framework_errors("compiling model"):
            return str(compiled.compile_model(Path(path).expanduser()))

    @staticmethod
    def maximum_supported_specification_version() -> int:
        """Return the newest specification version that loads."""
        return MAXIMUM_SPECIFICATION

    @staticmethod
    def auto_set_specification_version(specification: Any) -> Any:
        """Return the specification unchanged: coremltools writes the lowest version that holds an ML Program."""
        return specification

    @staticmethod
    def create_model_asset_from_path(path: str) -> Any:
        """Return coremltools' asset object for a compiled folder."""
        folder = Path(path).expanduser()
        if folder.suffix != compiled.SUFFIX or not folder.is_dir():
            raise RuntimeError(f"The asset path must be an existing compiled model ({compiled.SUFFIX}): {path}")
        return _coremltools_model().MLModelAsset(AssetProxy(folder))

    @staticmethod
    def create_model_asset_from_memory(spec_data: bytes, blob_mapping: Mapping[str, bytes]) -> Any:
        """Return coremltools' asset object for a model in memory."""
        try:
            specification = proto.model.Model.FromString(spec_data)
        except proto.DecodeError as error:
            raise RuntimeError(f"Error loading model: spec_data is no Core ML model: {error}") from error
        with _framework_errors("loading model"):
            folder = compiled.compile_memory(specification, blob_mapping)
        return _coremltools_model().MLModelAsset(AssetProxy(folder, owned=True))

    get_all_compute_devices = staticmethod(plan_proxy.compute_devices)
    get_available_compute_devices = staticmethod(plan_proxy.compute_devices)
    get_model_structure = staticmethod(plan_proxy.model_structure)
    get_compute_plan = staticmethod(plan_proxy.compute_plan)


def _coremltools_model() -> Any:
    import coremltools.models.model

    return coremltools.models.model
