"""The same request by PyTorch: the checkpoint's own modules and diffusers' own schedulers.

Networks run in float32 on the CPU. The schedulers are diffusers', set to the package's schedule; where a release
deviates from diffusers (two steps of first order at the end of short DPM-Solver++ runs, other timesteps), the same
deviation is asked of diffusers' class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parity import quiet
from parity.models import checkpoint
from parity.pipelines.draws import TRAIN_STEPS, Settings
from parity.pipelines.schedules.swift import SHORT, dpm_timesteps

_CLASSES = {
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}
_SCHEDULE = {
    "num_train_timesteps": TRAIN_STEPS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


class TorchNetworks:
    """The checkpoint's modules.

    Parameters
    ----------
    checkpoint : path
        Folder of the diffusers checkpoint.
    latent : tuple of int
        Shape of one image's latents.
    factor : float
        Scale of the VAE's latents, for the encoder of five inputs.
    controlnets : sequence of path
        Folders of diffusers ControlNets.
    refiner : path, optional
    kept : dict
        Modules by folder, for later runs.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        latent: tuple[int, ...],
        factor: float,
        controlnets: Sequence[Path] = (),
        refiner: Path | None = None,
        kept: dict[Any, Any],
    ) -> None:
        self._checkpoint, self._refiner, self._controlnets = checkpoint, refiner, controlnets
        self._latent, self._factor, self._kept = latent, factor, kept

    @property
    def latent(self) -> tuple[int, ...]:
        """Shape of one image's latents, as given."""
        return self._latent

    @property
    def refines(self) -> bool:
        """Whether the checkpoint is a refiner: it has no first text encoder."""
        return not (self._checkpoint / "text_encoder").is_dir()

    def text(self, ids: np.ndarray) -> np.ndarray:
        """Encode token ids (1, S): the last hidden state."""
        with self._torch().inference_mode():
            return self._module("text_encoder")(self._ids(ids)).last_hidden_state.numpy()

    def text_xl(self, ids: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
        """Encode for SDXL: last but one hidden state and pooled text."""
        model = self._module("text_encoder" if which == 1 else "text_encoder_2")
        with self._torch().inference_mode():
            result = model(self._ids(ids), output_hidden_states=True)
        pooled = result.text_embeds if which == 2 else result.pooler_output
        return result.hidden_states[-2].numpy(), pooled.numpy()

    def noise(
        self, unet: str, sample: np.ndarray, timestep: float, hidden: np.ndarray, extra: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Predict noise by diffusers' UNet."""
        torch = self._torch()
        model = self._module("unet", self._refiner) if unet == "refiner" else self._module("unet")
        tensors = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in extra.items()}
        keywords: dict[str, Any] = {}
        if "time_ids" in tensors:
            keywords["added_cond_kwargs"] = tensors
        elif tensors:
            ordered = [tensors[f"additional_residual_{index}"] for index in range(len(tensors))]
            keywords["down_block_additional_residuals"] = tuple(ordered[:-1])
            keywords["mid_block_additional_residual"] = ordered[-1]
        with torch.inference_mode():
            return model(self._float(sample), timestep, self._float(hidden), **keywords).sample.numpy()

    def residuals(
        self, net: int, sample: np.ndarray, timestep: float, hidden: np.ndarray, image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Run one ControlNet."""
        model = self._module("", self._controlnets[net])
        with self._torch().inference_mode():
            down, middle = model(
                self._float(sample), timestep, self._float(hidden), self._float(image), return_dict=False
            )
        return {f"additional_residual_{index}": value.numpy() for index, value in enumerate([*down, middle])}

    def moments(self, image: np.ndarray) -> np.ndarray:
        """Encode an image: mean and logarithm of the variance."""
        with self._torch().inference_mode():
            return self._module("vae").encode(self._float(image)).latent_dist.parameters.numpy()

    def noised(
        self, image: np.ndarray, diagonal: np.ndarray, noise: np.ndarray, signal: float, sigma: float
    ) -> np.ndarray:
        """Encode, sample with ``diagonal``, scale and add ``noise``."""
        with self._torch().inference_mode():
            found = self._module("vae").encode(self._float(image)).latent_dist
        sampled = found.mean.numpy() + found.std.numpy() * diagonal
        return (signal * (self._factor * sampled) + sigma * noise).astype(np.float32)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Decode latents that are divided by the scale."""
        with self._torch().inference_mode():
            return self._module("vae").decode(self._float(latents)).sample.numpy()

    def unsafe(self, clip_input: np.ndarray, picture: np.ndarray) -> bool:
        """Ask diffusers' safety checker about a picture (1, H, W, 3)."""
        with self._torch().inference_mode(), quiet.loading():
            _, flags = self._module("safety_checker")(self._float(clip_input), np.array(picture))
        return bool(flags[0])

    def _module(self, part: str, folder: Path | None = None) -> Any:
        import importlib

        folder = folder or self._checkpoint
        key = ("module", str(folder), part)
        if key not in self._kept:
            if part == "safety_checker":
                kind = importlib.import_module(
                    "diffusers.pipelines.stable_diffusion.safety_checker"
                ).StableDiffusionSafetyChecker
            else:
                library, name = _CLASSES.get(part, ("diffusers", "ControlNetModel"))
                kind = getattr(importlib.import_module(library), name)
            self._kept[key] = checkpoint.load(kind, folder / part).float()
        return self._kept[key]

    @staticmethod
    def _torch() -> Any:
        import torch

        return torch

    def _float(self, value: np.ndarray) -> Any:
        return self._torch().from_numpy(np.ascontiguousarray(value, np.float32))

    def _ids(self, ids: np.ndarray) -> Any:
        return self._torch().from_numpy(np.asarray(ids, np.int64))


def schedule(settings: Settings) -> DiffusersPNDM | DiffusersDPM:
    """Return diffusers' scheduler for one image, set to the package's schedule."""
    return DiffusersPNDM(settings.steps) if settings.scheduler == "pndm" else DiffusersDPM(settings)


class DiffusersPNDM:
    """diffusers' ``PNDMScheduler`` without Runge-Kutta steps."""

    def __init__(self, steps: int) -> None:
        from diffusers import PNDMScheduler

        self._scheduler = PNDMScheduler(**_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
        self._scheduler.set_timesteps(steps)
        self.timesteps = [int(timestep) for timestep in self._scheduler.timesteps]
        self.estimate = np.zeros(0, np.float32)
        self._count = 0
        self._first: Any = None

    def step(self, noise: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        import torch

        predicted, before = torch.from_numpy(noise), torch.from_numpy(sample)
        result = self._scheduler.step(predicted, timestep, before).prev_sample
        self._first = before if self._count == 0 else self._first
        start = self._first if self._count == 1 else before
        self.estimate = np.asarray(_estimate(self._scheduler, self._count, timestep, start, predicted))
        self._count += 1
        return result.numpy()


class DiffusersDPM:
    """diffusers' ``DPMSolverMultistepScheduler``, its schedule ending at timestep 0."""

    def __init__(self, settings: Settings) -> None:
        from diffusers import DPMSolverMultistepScheduler

        self.timesteps = dpm_timesteps(settings.steps, settings.spacing)
        karras = settings.spacing == "karras"
        self._scheduler = DPMSolverMultistepScheduler(
            **_SCHEDULE, final_sigmas_type="sigma_min", use_karras_sigmas=karras
        )
        self._scheduler.set_timesteps(
            **({"num_inference_steps": settings.steps} if karras else {"timesteps": self.timesteps})
        )
        self._levels = self._scheduler.sigmas.clone()
        self._index: int | None = None
        self.estimate = np.zeros(0, np.float32)

    def step(self, noise: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        import torch

        count = len(self.timesteps)
        place = self.timesteps.index(timestep)
        if count < SHORT and place == max(count - 2, 0):
            self._scheduler.lower_order_nums = 0  # the release takes this step, too, with first order
        self._look_up(place)
        result = self._scheduler.step(torch.from_numpy(noise), timestep, torch.from_numpy(sample)).prev_sample
        self.estimate = self._scheduler.model_outputs[-1].numpy()
        return result.numpy()

    def _look_up(self, place: int) -> None:
        """Give diffusers the levels that the release finds: those of a timestep's first place in the list."""
        if self._index is None:
            self._index = place
            self._scheduler.set_begin_index(place)
        for step, wanted in enumerate((place - 1, place, place + 1), start=self._index - 1):
            if 0 <= wanted < len(self.timesteps):
                self._scheduler.sigmas[step] = self._levels[self.timesteps.index(self.timesteps[wanted])]
        self._index += 1


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
