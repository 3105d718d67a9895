"""What does a pipeline need to know about a model, apart from its networks?

The tokenizer, the scheduler's configuration, the latent geometry and the VAE's scaling factor; read from the diffusers
folder or hub repository without loading any weights.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from parity import recipes
from parity.errors import FormatError, MissingError, UnsupportedError
from parity.models import checkpoint


class Checkpoint:
    """A PyTorch original by path or id.

    Parameters
    ----------
    source : str
        Path of a diffusers folder, the name of a shipped model (see :func:`parity.recipes.find`), or a hub id, which
        needs the hub or its local cache.
    latent_size : tuple of (int, int), optional
        Height and width of the latents instead of the model's own, e.g. those of converted models.
    name : str, optional
        What it is called; by default as ``source`` says.

    Raises
    ------
    MissingError
        A path without ``model_index.json``.
    """

    def __init__(self, source: str, *, latent_size: tuple[int, int] | None = None, name: str = "") -> None:
        self.name = self._source = source
        self._latent_size = latent_size
        if (shipped := recipes.find(source)) is not None:
            self.location = str(shipped)
        elif Path(source).exists() or source.startswith((".", "/", "~")):
            folder = Path(source).expanduser()
            if not (folder / "model_index.json").is_file():
                raise MissingError(
                    f"{folder}: no model_index.json; a diffusers folder is needed (pipeline.save_pretrained)"
                )
            self.location, self.name = str(folder), folder.resolve().name
        else:
            self.location = source
        self.name = name or self.name

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r})"

    def config(self, part: str) -> dict[str, Any]:
        """Return the configuration of ``unet``, ``transformer``, ``vae`` or ``scheduler``.

        Raises
        ------
        MissingError
            The model has no such part, or the hub cannot be reached; the message names the part and the file.
        """
        from diffusers import AutoencoderKL, SchedulerMixin, SD3Transformer2DModel, UNet2DConditionModel
        from diffusers.configuration_utils import ConfigMixin

        kinds: dict[str, type[ConfigMixin]] = {
            "unet": UNet2DConditionModel,
            "transformer": SD3Transformer2DModel,
            "vae": AutoencoderKL,
            "scheduler": SchedulerMixin,
        }
        kind = kinds[part]
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        try:
            if part == "scheduler":
                from diffusers import DDIMScheduler  # any scheduler class reads any scheduler's file

                kind = DDIMScheduler
            return dict(kind.load_config(self.location, subfolder=part))
        except OSError as error:
            raise MissingError(
                f"model {self.name}: {part}/{file} is missing or unreadable: {_first_line(error)}"
            ) from None

    @cached_property
    def tokenizer(self) -> Any:
        """The CLIP tokenizer."""
        from transformers import CLIPTokenizer

        try:
            found = CLIPTokenizer.from_pretrained(self.location, subfolder="tokenizer")
            if found.vocab_size <= len(found.all_special_tokens):  # what transformers 5 makes of no files at all
                raise OSError("no vocabulary (vocab.json and merges.txt, or tokenizer.json)")
            return found
        except (OSError, ValueError, TypeError) as error:
            raise MissingError(
                f"model {self.name}: tokenizer/ is missing or unreadable: {_first_line(error)}"
            ) from None

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        """The scheduler's configuration: betas, offsets, prediction type."""
        return self.config("scheduler")

    @cached_property
    def scaling_factor(self) -> float:
        """The factor by which the VAE's latents are multiplied before denoising (0.18215 for SD 1.x)."""
        return float(self.config("vae").get("scaling_factor", 0.18215))

    @cached_property
    def shift_factor(self) -> float:
        """What is taken from the VAE's latents before they are scaled: 0 but for Stable Diffusion 3 (0.0609)."""
        return float(self.config("vae").get("shift_factor") or 0)

    @cached_property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents: of the size that was asked for, else of the model's own."""
        unet = self.config("transformer" if self.sd3 else "unet")
        size = self._latent_size or unet.get("sample_size") or 64
        height, width = size if isinstance(size, list | tuple) else (size, size)
        channels = int(unet["in_channels"])
        if channels != 4 and not self.sd3:
            raise FormatError(
                f"model {self.name}: unet/config.json: in_channels is {channels}; txt2img and img2img need 4 "
                "(9 is an inpainting model)"
            )
        return channels, int(height), int(width)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        _, height, width = self.latent_shape
        factor = self.vae_scale
        return height * factor, width * factor

    @cached_property
    def vae_scale(self) -> int:
        """Pixels per latent along one axis: 8 for Stable Diffusion."""
        return int(2 ** (len(self.config("vae")["block_out_channels"]) - 1))

    @cached_property
    def xl(self) -> bool:
        """Whether it is SDXL: there is a second text encoder, or the second alone (its refiner)."""
        return self.has("text_encoder_2") and not self.sd3

    @cached_property
    def sd3(self) -> bool:
        """Whether it is Stable Diffusion 3: its denoiser is the multi-modal transformer."""
        return (checkpoint.index(self.location).get("transformer") or [None])[-1] == "SD3Transformer2DModel"

    def has(self, part: str) -> bool:
        """Return whether the model has a part, e.g. ``text_encoder_3``."""
        return bool((checkpoint.index(self.location).get(part) or [None])[-1])

    @cached_property
    def refines(self) -> bool:
        """Whether it is SDXL's refiner: there is no first text encoder."""
        return self.xl and not self.has("text_encoder")

    def resized(self, latent_size: tuple[int, int]) -> Model:
        """Return the same model at another height and width of its latents."""
        if latent_size == self.latent_shape[1:]:
            return self
        return Model(self._source, latent_size=latent_size, name=self.name)

    @property
    def has_other_size(self) -> bool:
        """Whether another size than the model's own was asked for."""
        return self._latent_size is not None

    def check_tasks(self) -> None:
        """Refuse a model whose pictures are not drawn by txt2img and img2img of Stable Diffusion 1 and 2.

        Raises
        ------
        UnsupportedError
            Another pipeline; the message says what can be asked about it.
        """
        index = checkpoint.index(self.location)
        kind = str(index.get("_class_name", "a folder without _class_name"))
        parts = {part: entry[-1] for part, entry in index.items() if isinstance(entry, list) and entry}
        other = [name for name in ("text_encoder", "unet", "vae") if not parts.get(name)]
        extra = [name for name in ("text_encoder_2", "transformer", "text_encoder_3") if parts.get(name)]
        lacks = f" (it has no {', '.join(other)})" if other else f" (it has a {', a '.join(extra)})" if extra else ""
        conditioned = not other and self.config("unet").get("addition_embed_type")
        if not other and self.config("unet").get("time_cond_proj_dim") is not None:
            raise UnsupportedError(
                f"model {self.name}: unet/config.json: time_cond_proj_dim: this UNet takes the guidance scale as an "
                "input (distilled latent consistency models do), which the tasks do not give it; use its LoRA form"
            )
        if other or extra or conditioned:
            raise UnsupportedError(
                f"model {self.name} is a {kind}{lacks}: the suite's tasks, txt2img and img2img, draw with "
                "models of Stable Diffusion 1 and 2 so far. 'parity convert' compares each component that it writes "
                "with PyTorch; 'parity inspect' tells which apps take the models"
            )

    def cut(self, text: str) -> str:
        """Return the end of a text that its tokens leave out, as words; empty if nothing is cut."""
        limit = self.tokenizer.model_max_length
        ids = self.tokenizer(self._expanded(text), truncation=False, verbose=False)["input_ids"]
        # what diffusers' pipelines warn about: of `limit` tokens one is the start and one the end
        return str(self.tokenizer.decode(ids[limit - 1 : -1])).strip() if len(ids) > limit else ""

    def tokens(self, text: str) -> np.ndarray:
        """Return the padded token ids of one text, int64 (1, tokens); longer texts are truncated, as diffusers does."""
        encoded = self.tokenizer(
            self._expanded(text),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="np",
        )
        return np.asarray(encoded["input_ids"], dtype=np.int64)

    def added(self, text: str) -> list[str]:
        """Return the tokens of embeddings (textual inversions) in a text."""
        own = {*self.tokenizer.added_tokens_encoder} - {*self.tokenizer.all_special_tokens}
        return [token for token in self.tokenizer.tokenize(text) if token in own] if own else []

    def _expanded(self, text: str) -> str:
        """Write out the tokens of an embedding of several vectors, as diffusers does: ``<x>`` is ``<x> <x>_1 …``."""
        added = self.tokenizer.added_tokens_encoder
        if not any(f"{token}_1" in added for token in added):
            return text
        from diffusers.loaders import TextualInversionLoaderMixin

        return str(TextualInversionLoaderMixin().maybe_convert_prompt(text, self.tokenizer))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


Model = Checkpoint  # its earlier name
