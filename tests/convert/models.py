"""Miniature diffusers folders of every family, with random weights (seeds named), for the tests of conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

TEXT = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": 32,
    "bos_token_id": 298,
    "eos_token_id": 299,
    "pad_token_id": 299,
}
UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
UNET_XL = {
    **UNET,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 1,
    "attention_head_dim": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "cross_attention_dim": 64,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
}
VAE = {
    "sample_size": 64,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "norm_num_groups": 4,
}


def _seeded(network: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():  # also moves norms, biases and zero convolutions off their constants
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval().requires_grad_(False)


def clip_text(seed: int = 1, *, projected: bool = False, **changes: Any) -> Any:
    """Return a CLIP text encoder."""
    torch.manual_seed(seed)
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return _seeded(kind(transformers.CLIPTextConfig(**{**TEXT, **changes})), seed)


def unet(seed: int = 2, **config: Any) -> Any:
    """Return a UNet."""
    torch.manual_seed(seed)
    return _seeded(diffusers.UNet2DConditionModel(**(config or UNET)), seed)


def controlnet(seed: int = 4, **changes: Any) -> Any:
    """Return a ControlNet for :data:`UNET`."""
    torch.manual_seed(seed)
    config = {key: UNET[key] for key in UNET.keys() - {"sample_size", "up_block_types"}}
    config |= {"conditioning_embedding_out_channels": (8, 8, 8, 8), **changes}
    return _seeded(diffusers.ControlNetModel(**config), seed)


def safety_checker(seed: int = 5) -> Any:
    """Return a safety checker."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    torch.manual_seed(seed)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 224, "patch_size": 56, "projection_dim": 16}
    text = {**TEXT, "num_hidden_layers": 1}
    config = transformers.CLIPConfig(projection_dim=16, text_config=text, vision_config=vision)
    checker = StableDiffusionSafetyChecker(config)
    for name in ("concept_embeds", "special_care_embeds"):
        parameter = getattr(checker, name)
        parameter.data = torch.randn(parameter.shape)
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        getattr(checker, name).data.fill_(0.3)
    return checker.eval().requires_grad_(False)


def save(folder: Path, pipeline: str, parts: dict[str, Any], **options: Any) -> Path:
    """Write a diffusers folder from its parts."""
    index: dict[str, Any] = {"_class_name": pipeline, **options}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        library = "transformers" if isinstance(part, transformers.PreTrainedModel) else "diffusers"
        index[name] = [library, type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def build(name: str, folder: Path) -> Path:
    """Write the folder of a family: sd1, sd2, inpaint, sdxl or sdxl-refiner."""
    vae = _seeded(diffusers.AutoencoderKL(**VAE), 3)
    scheduler = diffusers.PNDMScheduler()
    if name == "sd1":
        parts = {"text_encoder": clip_text(), "unet": unet(), "vae": vae, "safety_checker": safety_checker()}
        return save(folder, "StableDiffusionPipeline", {**parts, "scheduler": scheduler})
    if name == "sd2":
        parts = {"text_encoder": clip_text(hidden_act="gelu"), "unet": unet(**UNET, use_linear_projection=True)}
        v_prediction = diffusers.DDIMScheduler(prediction_type="v_prediction")
        return save(folder, "StableDiffusionPipeline", {**parts, "vae": vae, "scheduler": v_prediction})
    if name == "inpaint":
        parts = {"text_encoder": clip_text(), "unet": unet(**UNET, in_channels=9), "vae": vae, "scheduler": scheduler}
        return save(folder, "StableDiffusionInpaintPipeline", parts)
    if name == "sdxl":
        parts = {"text_encoder": clip_text(), "text_encoder_2": clip_text(6, projected=True, hidden_act="gelu")}
        parts |= {"unet": unet(**UNET_XL), "vae": vae, "scheduler": scheduler}
        return save(folder, "StableDiffusionXLPipeline", parts)
    if name == "sdxl-refiner":
        config = {**UNET_XL, "cross_attention_dim": 32, "projection_class_embeddings_input_dim": 32 + 5 * 8}
        parts = {"text_encoder_2": clip_text(6, projected=True, hidden_act="gelu"), "unet": unet(7, **config)}
        parts |= {"vae": vae, "scheduler": scheduler}
        return save(folder, "StableDiffusionXLImg2ImgPipeline", parts, requires_aesthetics_score=True)
    raise ValueError(name)
