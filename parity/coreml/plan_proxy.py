"""What do compute plans, model structures and compute devices say on the reference runtime?

The structure is the program's own: functions, blocks, operations, arguments. The plan is honest about this runtime:
there is one device, the CPU, and every operation but a constant runs on it. The cost of an operation is its measured
share of the time of one run of the default function on zeros, operation by operation, on this runtime; it says nothing
about Apple's hardware. It is measured when first asked for, and unknown (None) where that run is not possible.

The results are coremltools' own classes, which is what its native module returns.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from parity import mil
from parity.errors import ParityError


class CPUDeviceProxy:
    """Stands in for ``_MLCPUComputeDeviceProxy``."""


class GPUDeviceProxy:
    """Stands in for ``_MLGPUComputeDeviceProxy``; the reference runtime has none."""


class NeuralEngineDeviceProxy:
    """Stands in for ``_MLNeuralEngineComputeDeviceProxy``; the reference runtime has none."""


class PlanProxy:
    """Stands in for ``_MLComputePlanProxy``.

    Parameters
    ----------
    path : str, optional
        The model; coremltools' subclass for remote devices brings its own structure.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._structure = model_structure(path) if path is not None else None

    @property
    def model_structure(self) -> Any:
        """The model's structure."""
        return self._structure

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        """Return the CPU as preferred and only device; None for constants, which no device executes."""
        import coremltools.models.compute_plan as plan

        if operation.operator_name == "const":
            return None
        (cpu,) = compute_devices()
        return plan.MLComputePlanDeviceUsage(preferred_compute_device=cpu, supported_compute_devices=[cpu])

    def get_compute_device_usage_for_neuralnetwork_layer(self, layer: Any) -> None:
        """Return None: neural networks are not executed here."""
        del layer

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        """Return the operation's share of the time, 0 to 1; 0 for what needs no work at run time, None if unknown."""
        import coremltools.models.compute_plan as plan

        if self._shares is None or not operation.outputs:
            return None
        return plan.MLComputePlanCost(weight=self._shares.get(operation.outputs[0].name, 0.0))

    @functools.cached_property
    def _shares(self) -> dict[str, float] | None:
        return None if self._path is None else _measure(Path(self._path))


def _measure(path: Path) -> dict[str, float] | None:
    """Return each result's share of the time of one run on zeros; None where the model does not run on zeros."""
    seconds: dict[str, float] = {}

    def note(event: mil.Event) -> None:
        seconds.update({name: event.seconds for name in list(event.outputs)[:1]})

    try:
        session = mil.Session(mil.load(path), fuse=False)
        inputs = {f.name: np.zeros(_shape(f), np.float32) for f in session.function.inputs if f.kind != "state"}
        state = session.new_state() if session.function.states else None
        session.predict(inputs, state=state)  # the first run prepares weights
        session.predict(inputs, state=state, callback=note)
    except ParityError:
        return None
    total = sum(seconds.values()) or 1.0
    return {name: value / total for name, value in seconds.items()}


def _shape(feature: mil.Feature) -> tuple[int, ...]:
    return (1, feature.channels, *feature.shape) if feature.kind == "image" else feature.shape


def compute_devices() -> list[Any]:
    """Return the one device of the reference runtime, a CPU."""
    from coremltools.models.compute_device import MLCPUComputeDevice

    return [MLCPUComputeDevice(CPUDeviceProxy())]


def compute_plan(path: str, compute_units: str) -> Any:
    """Return coremltools' compute plan of a compiled model; the compute units make no difference."""
    import coremltools.models.compute_plan as plan

    del compute_units
    return plan.MLComputePlan(PlanProxy(path))


def model_structure(path: str) -> Any:
    """Return coremltools' structure of a compiled model or package.

    Raises
    ------
    RuntimeError
        There is no such model, or it is no ML Program.
    """
    import coremltools.models.compute_plan as plan

    try:
        program = mil.load(Path(path)).program
    except ParityError as error:
        raise RuntimeError(f"Error loading model structure: {error}") from error
    functions = {name: _function(plan, function) for name, function in program.functions.items()}
    return plan.MLModelStructure(neuralnetwork=None, program=plan.MLModelStructureProgram(functions), pipeline=None)


def _function(plan: Any, message: Any) -> Any:
    block = message.block_specializations[message.opset]
    return plan.MLModelStructureProgramFunction(inputs=_named(plan, message.inputs), block=_block(plan, block))


def _block(plan: Any, message: Any) -> Any:
    return plan.MLModelStructureProgramBlock(
        inputs=_named(plan, message.inputs),
        operations=[_operation(plan, operation) for operation in message.operations],
        output_names=list(message.outputs),
    )


def _operation(plan: Any, message: Any) -> Any:
    return plan.MLModelStructureProgramOperation(
        inputs={name: _argument(plan, argument) for name, argument in message.inputs.items()},
        operator_name=message.type,
        outputs=_named(plan, message.outputs),
        blocks=[_block(plan, block) for block in message.blocks],
        __proxy__=None,
    )


def _argument(plan: Any, message: Any) -> Any:
    return plan.MLModelStructureProgramArgument(
        [
            plan.MLModelStructureProgramBinding(name=binding.name, value=None)
            if binding.WhichOneof("binding") == "name"
            else plan.MLModelStructureProgramBinding(name=None, value=plan.MLModelStructureProgramValue())
            for binding in message.arguments
        ]
    )


def _named(plan: Any, messages: Any) -> list[Any]:
    kind = plan.MLModelStructureProgramValueType
    return [plan.MLModelStructureProgramNamedValueType(name=each.name, type=kind()) for each in messages]
