"""Which classes does coremltools expect in its native module ``coremltools.libcoremlpython``?

:func:`native_module` builds a module with the names of the real one; the classes live beside their subject:
`parity.coreml.model_proxy` (models, states, assets), `parity.coreml.plan_proxy` (devices, structures, compute plans).
"""

from __future__ import annotations

import importlib.machinery
from types import ModuleType

from parity.coreml.model_proxy import AssetProxy, ModelProxy, StateProxy, set_default_profile, set_output_order
from parity.coreml.plan_proxy import CPUDeviceProxy, GPUDeviceProxy, NeuralEngineDeviceProxy, PlanProxy

__all__ = ["NATIVE_NAMES", "native_module", "set_default_profile", "set_output_order"]

NATIVE_NAMES: dict[str, type] = {
    "_MLModelProxy": ModelProxy,
    "_State": StateProxy,
    "_MLModelAssetProxy": AssetProxy,
    "_MLComputePlanProxy": PlanProxy,
    "_MLCPUComputeDeviceProxy": CPUDeviceProxy,
    "_MLGPUComputeDeviceProxy": GPUDeviceProxy,
    "_MLNeuralEngineComputeDeviceProxy": NeuralEngineDeviceProxy,
}
"""Names that coremltools 9.0 imports from its native module, and the classes that stand in."""


def native_module(name: str) -> ModuleType:
    """Return a new module with everything that coremltools imports from its native one."""
    module = ModuleType(name, "Stand-in for the Core ML framework: the reference runtime of coreml-parity.")
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="parity.coreml.proxies")
    vars(module).update(NATIVE_NAMES)
    return module
