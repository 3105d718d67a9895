"""PyTorch components from a diffusers model, on cpu, mps or cuda.

The networks are loaded one by one from a folder or from the hub (:mod:`parity.models.checkpoint`: none with random
weights), and called exactly as diffusers' pipelines call them. On mps the code is that of cuda; *not verified on
hardware*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import quiet
from parity.errors import MissingError, UnsupportedError, UsageError
from parity.models import checkpoint
from parity.networks.backend import Backend
from parity.networks.signature import Component

DEVICES = ("cpu", "mps", "cuda")

# part of a pipeline -> library and class whose calls are written here
_NETWORKS = {
    "text_encoder": ("transformers", "CLIPTextModel"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}


class TorchBackend(Backend):
    """The PyTorch original.

    Parameters
    ----------
    location : str
        Folder or hub id, as ``from_pretrained`` takes it.
    device : str
        ``cpu``, ``mps`` or ``cuda``.
    precision : str
        ``float32``, or ``float16`` for weights and activations in half precision.

    Raises
    ------
    UsageError, UnsupportedError
        Unknown device or precision; a device that this machine does not have.
    """

    name = "torch"

    def __init__(self, location: str, *, device: str = "cpu", precision: str = "float32") -> None:
        super().__init__()
        if device not in DEVICES:
            raise UsageError(f"no device named {device!r}; there are {', '.join(DEVICES)}")
        if precision not in {"float32", "float16"}:
            raise UsageError(f"precision must be float32 or float16, not {precision!r}")
        if not available(device):
            raise UnsupportedError(f"device {device} is not available to torch on this machine; use --device cpu")
        self.location = location
        self._modules: dict[str, Any] = {}
        self.device = device
        self.precision = precision
        self.numerics = f"PyTorch {device} {precision}"

    def _load(self, name: str) -> Component:
        part = "vae" if name.startswith("vae_") else name
        if part not in self._modules:
            self._modules[part] = self._module(part)
        return _TorchComponent(name, self._modules[part], device=self.device, precision=self.precision)

    def _module(self, part: str) -> Any:
        import importlib

        import torch

        library, name = _NETWORKS[part]
        entry = checkpoint.index(self.location).get(part)
        if not isinstance(entry, list) or entry[-1] is None:
            raise MissingError(f"{self.location}: the model has no {part}; txt2img and img2img need it")
        if entry[-1] != name:
            raise UnsupportedError(f"{self.location}: {part} is a {entry[-1]}; txt2img and img2img run a {name}")
        module = checkpoint.load(getattr(importlib.import_module(library), name), self.location, part=part)
        with quiet.loading():  # diffusers remarks on every change of precision
            return module.to(device=self.device, dtype=getattr(torch, self.precision)).eval()


def available(device: str) -> bool:
    """Return whether torch can use the device here."""
    import torch

    return {"cpu": lambda: True, "mps": torch.backends.mps.is_available, "cuda": torch.cuda.is_available}[device]()


class _TorchComponent:
    def __init__(self, name: str, module: Any, *, device: str, precision: str) -> None:
        self.name = name
        self._module = module
        self._device = device
        self._precision = precision

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            output = self._run({name: self._to_device(name, array) for name, array in inputs.items()})
            return output.float().cpu().numpy()

    def _to_device(self, name: str, array: np.ndarray) -> Any:
        import torch

        # Strides are kept: a channels-last picture, as diffusers' image processor gives it, makes oneDNN take another
        # convolution whose sums differ in the last bits.
        tensor = torch.from_numpy(array)
        if name in {"sample", "hidden", "latents", "image"}:  # ids and timesteps keep their dtype
            tensor = tensor.to(getattr(torch, self._precision))
        return tensor.to(self._device)

    def _run(self, tensors: dict[str, Any]) -> Any:
        if self.name == "text_encoder":
            return self._module(tensors["input_ids"])[0]
        if self.name == "unet":
            return self._module(
                tensors["sample"], tensors["timestep"], encoder_hidden_states=tensors["hidden"], return_dict=False
            )[0]
        if self.name == "vae_decoder":
            return self._module.decode(tensors["latents"], return_dict=False)[0]
        return self._module.encode(tensors["image"]).latent_dist.parameters
