"""How is an unconditional model's UNet written as a package, which no released converter did?

The features are named as ml-stable-diffusion names a UNet's: ``sample`` and ``timestep`` in, ``noise_pred`` out; the
inputs are float16, the output float32, as its newest release has it. There is no text, no second row and no VAE, so the
batch is one picture. The timestep embedding stays in float32, as it does in diffusers' half-precision pipelines.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np

from parity import cache
from parity.convert import embedding
from parity.convert.job import TensorSpec
from parity.convert.record import own_source
from parity.errors import UnsupportedError
from parity.files import replacing
from parity.models import checkpoint
from parity.models.content import folder_hash

_LIBRARIES = ("coremltools", "torch", "diffusers", "numpy")
NAME = "Unconditional_unet.mlpackage"


def cached(location: str | Path, *, size: tuple[int, int] | None = None) -> dict[str, Path]:
    """Return the package of an unconditional model's UNet from the cache, converting it on first use.

    Parameters
    ----------
    location : str or path
        Its diffusers folder.
    size : tuple of (int, int), optional
        Height and width in pixels; the model's own by default.

    Returns
    -------
    dict of str to pathlib.Path
        One entry, ``unet``.

    Raises
    ------
    UnsupportedError
        A hub id that is not a folder here: its content, which decides the cache's key, is not known.
    """
    folder = Path(location)
    if not folder.is_dir():
        raise UnsupportedError(
            f"model {location}: download it first and name its folder; its UNet is converted from there"
        )
    key = cache.key(
        unet=folder_hash(folder / "unet"),
        size=size,
        libraries={name: importlib.metadata.version(name) for name in _LIBRARIES},
        converter=own_source(),
    )
    target = cache.folder("converted", key) / NAME
    with cache.locked(target.parent):
        if not target.is_dir():
            with replacing(target) as path:
                _write(folder, path, size)
    return {"unet": target}


def _write(folder: Path, path: Path, size: tuple[int, int] | None) -> None:
    import torch
    from diffusers import UNet2DModel

    from parity.convert import lower
    from parity.convert.networks import Network

    unet = checkpoint.load(UNet2DModel, folder, part="unet").float().requires_grad_(False)
    own = unet.config.sample_size
    height, width = size or (own if isinstance(own, list | tuple) else (own, own))
    shape = (1, unet.config.in_channels, height, width)

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (self.unet(sample, timestep, return_dict=False)[0],)

    module = Traced().eval()
    lower.lower(
        Network(module, module),
        path,
        inputs=(TensorSpec("sample", shape, "FLOAT16", "noisy picture"), TensorSpec("timestep", (1,), "FLOAT16")),
        outputs=(TensorSpec("noise_pred", (1, unet.config.out_channels, height, width), "FLOAT32"),),
        examples=(np.zeros(shape, np.float32), np.array([500.0], np.float32)),
        labels=lower.Labels(author="", license="", version="", description="unconditional UNet"),
        exact=embedding.of_timestep,
    )
