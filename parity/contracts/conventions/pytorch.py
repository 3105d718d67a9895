"""The same task by PyTorch: the checkpoint's own modules, diffusers' own scheduler, the same draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from parity import quiet
from parity.contracts.conventions.draws import SCALE, TRAIN_STEPS, Settings, draw, starting_latents, to_picture


class PyTorch:
    """The same task with the checkpoint's own modules and diffusers' scheduler."""

    def __init__(self, checkpoint: Path, settings: Settings) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel

        def load(kind: Any, part: str) -> Any:
            return kind.from_pretrained(checkpoint, subfolder=part, local_files_only=True).eval()

        self.settings = settings
        with quiet.loading():
            self.text = load(CLIPTextModel, "text_encoder")
            self.unet = load(UNet2DConditionModel, "unet")
            self.vae = load(AutoencoderKL, "vae")

    def picture(self, prompt: np.ndarray, negative: np.ndarray, image: np.ndarray | None) -> np.ndarray:
        import torch
        from diffusers import PNDMScheduler

        settings = self.settings
        scheduler = PNDMScheduler(
            num_train_timesteps=TRAIN_STEPS,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        )
        scheduler.set_timesteps(settings.steps)
        with torch.inference_mode():
            ids = torch.from_numpy(np.concatenate([negative, prompt]).astype(np.int64))
            hidden = self.text(ids).last_hidden_state
            size = self.unet.config.sample_size
            shape = (1, self.unet.config.in_channels, size, size)
            if image is not None:
                factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
                shape = (1, shape[1], image.shape[2] // factor, image.shape[3] // factor)
            draws = draw(settings, shape)
            start = draws.noise
            if settings.task == "img2img":
                assert image is not None
                encoded = self.vae.encode(torch.from_numpy(image.astype(np.float32))).latent_dist
                start = starting_latents(settings, encoded.parameters.numpy(), draws)
            latents = torch.from_numpy(start)
            estimate = first = latents
            for index, step in enumerate(scheduler.timesteps[settings.start :]):
                noise = self.unet(torch.cat([latents, latents]), step, hidden).sample
                noise = noise[:1] + settings.guidance * (noise[1:] - noise[:1])
                before = latents
                latents = scheduler.step(noise, step, latents).prev_sample
                first = before if index == 0 else first
                estimate = _estimate(scheduler, index, int(step), first if index == 1 else before, noise)
            decoded = latents if settings.release < 6 else estimate
            return to_picture(self.vae.decode(decoded / SCALE).sample.numpy())


def _estimate(scheduler: Any, index: int, step: int, sample: Any, noise: Any) -> Any:
    """Clean latent that diffusers' last step implies: its sample minus its combined noise.

    The second step repeats the first one from the first sample, with the mean of both noises.
    """
    past = scheduler.ets
    if index == 1:
        step += scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        noise = (noise + past[-1]) / 2
    elif len(past) >= 4:
        noise = (55 * past[-1] - 59 * past[-2] + 37 * past[-3] - 9 * past[-4]) / 24
    elif len(past) == 3:
        noise = (23 * past[-1] - 16 * past[-2] + 5 * past[-3]) / 12
    elif len(past) == 2:
        noise = (3 * past[-1] - past[-2]) / 2
    alpha = scheduler.alphas_cumprod[step]
    return (sample - (1 - alpha) ** 0.5 * noise) / alpha**0.5
