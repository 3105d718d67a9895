"""Under which names do weights lie, so that every supported release of transformers reads them?

transformers 5 took CLIP's text and vision models out of a wrapper and saves their tensors without its prefix
(``embeddings.…`` for ``text_model.embeddings.…``). Releases before 5 do not find them, and fill the network with random
values; releases from 5 on read both spellings. So what the project writes has the prefix, whoever writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

# class -> where its wrapped network stands, and the wrapper's prefix
_WRAPPED: Final = {
    "CLIPTextModel": ("", "text_model."),
    "StableDiffusionSafetyChecker": ("vision_model.", "vision_model."),
}


def name(kind: str, tensor: str) -> str:
    """Return the name under which a tensor of a class is stored.

    Examples
    --------
    >>> name("CLIPTextModel", "final_layer_norm.bias")
    'text_model.final_layer_norm.bias'
    >>> name("UNet2DConditionModel", "conv_in.weight")
    'conv_in.weight'
    """
    place, prefix = _WRAPPED.get(kind, ("", ""))
    inner = tensor.removeprefix(place)
    if not tensor.startswith(place) or inner.startswith(prefix):
        return tensor
    return f"{place}{prefix}{inner}"


def bare(kind: str, tensor: str) -> str:
    """Return a tensor's name without the wrapper, as transformers 5 has it; what is drawn by name is drawn by this.

    Examples
    --------
    >>> bare("CLIPTextModel", "text_model.final_layer_norm.bias")
    'final_layer_norm.bias'
    """
    place, prefix = _WRAPPED.get(kind, ("", ""))
    full = f"{place}{prefix}"
    return place + tensor.removeprefix(full) if prefix and tensor.startswith(full) else tensor


def save(module: Any, folder: Path) -> None:
    """Write a network's configuration and weights (safetensors) as ``save_pretrained`` does, under portable names."""
    from safetensors.torch import load_file, save_file

    module.save_pretrained(folder, safe_serialization=True)
    kind = type(module).__name__
    if kind not in _WRAPPED:
        return
    for path in folder.glob("*.safetensors"):
        tensors = {name(kind, tensor): value.clone() for tensor, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
