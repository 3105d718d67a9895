"""Writes a diffusers checkpoint as one file with the original code's names, as web UIs and model sites hand it out.

Names are those of CompVis' code and of every Stable Diffusion 1 checkpoint since; written from the structure of the
networks, not by diffusers' converter, which reads it back.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def write(folder: Path, target: Path, *, layers: int = 1) -> None:
    """Write the checkpoint of a folder; ``layers`` is its ``layers_per_block``."""
    tensors: Tensors = {}
    for part, rename, prefix in (
        ("unet", lambda name: _unet(name, layers), "model.diffusion_model."),
        ("vae", _vae, "first_stage_model."),
        ("text_encoder", _text, "cond_stage_model.transformer."),
    ):
        for name, tensor in load_file(next((folder / part).glob("*.safetensors"))).items():
            linear = part == "vae" and ".attentions.0.to_" in name and tensor.ndim == 2
            tensors[prefix + rename(name)] = tensor[..., None, None].contiguous() if linear else tensor
    save_file(tensors, target)


def write_vae(folder: Path, target: Path) -> None:
    """Write a VAE alone, as those are handed out."""
    tensors = load_file(next((folder / "vae").glob("*.safetensors")))
    save_file(
        {_vae(n): t[..., None, None].contiguous() if ".to_" in n and t.ndim == 2 else t for n, t in tensors.items()},
        target,
    )


def _text(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _unet(name: str, layers: int) -> str:
    for ours, original in _OUTER.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, original, 1)
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, number, rest = match.groups()
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_inner(rest) if kind == 'resnets' else rest}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", name)
    assert match, name
    way, block, kind, number, rest = match.groups()
    first = int(block) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":  # behind the block's attention, where it has one: all but the first in these models
        return f"output_blocks.{first + layers}.{1 if block == '0' else 2}.{rest}"
    at = first + int(number) + (1 if way == "down" else 0)
    blocks = "input_blocks" if way == "down" else "output_blocks"
    return f"{blocks}.{at}.0.{_inner(rest)}" if kind == "resnets" else f"{blocks}.{at}.1.{rest}"


def _inner(rest: str) -> str:
    part, _, leaf = rest.rpartition(".")
    return f"{_RESNET[part]}.{leaf}"


def _vae(name: str) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
        for ours, original in _ATTENTION.items():
            name = name.replace(f"attn_1.{ours}.", f"attn_1.{original}.")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
