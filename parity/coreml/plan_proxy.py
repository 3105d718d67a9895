"""What do compute plans, model structures and compute devices say on the reference runtime?

The structure is the program's own: functions, blocks, operations, arguments. The plan is honest about this runtime:
there is one device, the CPU; every operation but a constant runs on it; the cost of an operation is unknown (None, as
the framework itself answers where it cannot tell).

The results are coremltools' own classes, which is what its native module returns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    structure : MLModelStructure, optional
        The model's structure; coremltools' subclass for remote devices brings its own.
    """

    def __init__(self, structure: Any = None) -> None:
        self._structure = structure

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

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> None:
        """Return None: the cost is unknown."""
        del operation


def compute_devices() -> list[Any]:
    """Return the one device of the reference runtime, a CPU."""
    from coremltools.models.compute_device import MLCPUComputeDevice

    return [MLCPUComputeDevice(CPUDeviceProxy())]


def compute_plan(path: str, compute_units: str) -> Any:
    """Return coremltools' compute plan of a compiled model; the compute units make no difference."""
    import coremltools.models.compute_plan as plan

    del compute_units
    return plan.MLComputePlan(PlanProxy(model_structure(path)))


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
