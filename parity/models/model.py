"""What does a pipeline need to know about a model, apart from its networks?

The tokenizer, the scheduler's configuration, the latent geometry and the VAE's scaling factor; read from the diffusers
folder or hub repository without loading any weights.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from parity import memory, quiet, recipes
from parity.errors import FormatError, MissingError, UnsupportedError
from parity.models import checkpoint, family


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
    refiner : str, optional
        Checkpoint of the SDXL refiner that takes over, named as ``source``.

    Raises
    ------
    MissingError
        A path without ``model_index.json``.
    """

    def __init__(
        self,
        source: str,
        *,
        latent_size: tuple[int, int] | None = None,
        name: str = "",
        refiner: str | None = None,
    ) -> None:
        self.name = self._source = source
        self._latent_size = latent_size
        self._refiner = refiner
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
        with memory.importing():
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
        """The CLIP tokenizer; of SDXL's refiner its only one, the second."""
        return self._tokenizer("tokenizer_2" if self.refines else "tokenizer")

    @cached_property
    def tokenizer_2(self) -> Any:
        """SDXL's second CLIP tokenizer, which pads with another token."""
        return self._tokenizer("tokenizer_2")

    def _tokenizer(self, part: str) -> Any:
        from transformers import CLIPTokenizer

        try:
            found = CLIPTokenizer.from_pretrained(self.location, subfolder=part)
            if found.vocab_size <= len(found.all_special_tokens):  # what transformers 5 makes of no files at all
                raise OSError("no vocabulary (vocab.json and merges.txt, or tokenizer.json)")
            return found
        except (OSError, ValueError, TypeError) as error:
            raise MissingError(f"model {self.name}: {part}/ is missing or unreadable: {_first_line(error)}") from None

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
        if self.family == "sd-inpaint":  # beside the latents it takes a mask and the masked picture
            channels = int(self.config("vae").get("latent_channels", 4))
        elif self.family != "unconditional" and channels != 4 and not self.sd3:
            raise FormatError(
                f"model {self.name}: unet/config.json: in_channels is {channels}; the tasks need 4 "
                "(9 is an inpainting model)"
            )
        return channels, int(height), int(width)

    @cached_property
    def unet_channels(self) -> int:
        """Channels of the UNet's input."""
        return int(self.config("unet")["in_channels"])

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        _, height, width = self.latent_shape
        factor = self.vae_scale
        return height * factor, width * factor

    @cached_property
    def vae_scale(self) -> int:
        """Pixels per latent along one axis: 8 for Stable Diffusion, 1 for a model that draws pixels."""
        if self.family == "unconditional":
            return 1
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

    @cached_property
    def family(self) -> str:
        """Its kind, a key of :data:`parity.models.family.TASKS`; empty for one that no task draws with."""
        index = checkpoint.index(self.location)
        return family.of(index, self.config("unet") if (index.get("unet") or [None])[-1] else {})

    @cached_property
    def refiner(self) -> Model | None:
        """The refiner that takes over, at this model's size; None where none was named.

        Raises
        ------
        UnsupportedError
            It is no refiner, or refines latents of another kind.
        """
        if self._refiner is None:
            return None
        found = Model(self._refiner, latent_size=self.latent_shape[1:])
        if found.family != "sdxl-refiner" or self.family != "sdxl":
            kinds = [family.SAID.get(each.family, "of another kind") for each in (found, self)]
            raise UnsupportedError(
                f"--refiner {self._refiner}: it is {kinds[0]} and {self.name} is {kinds[1]}; SDXL's refiner takes over "
                "from a base model of SDXL"
            )
        wanted, given = found.config("unet").get("cross_attention_dim"), self._second_width
        if wanted != given:
            raise UnsupportedError(
                f"--refiner {self._refiner}: it reads embeddings of width {wanted}, and the second text encoder of "
                f"{self.name} gives {given}; take the refiner of this base model"
            )
        return found

    @cached_property
    def _second_width(self) -> int:
        """Width of the second text encoder's embeddings."""
        from transformers import CLIPTextConfig

        return int(CLIPTextConfig.from_pretrained(self.location, subfolder="text_encoder_2").hidden_size)

    @cached_property
    def latent_statistics(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation of the VAE's latents by channel, where an SDXL model states them."""
        config = self.config("vae") if self.xl else {}
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        return None if mean is None or deviation is None else (list(mean), list(deviation))

    @cached_property
    def zeros_for_no_negative(self) -> bool:
        """Whether SDXL takes zeros for a negative prompt that was not given."""
        return bool(checkpoint.index(self.location).get("force_zeros_for_empty_prompt", self.xl))

    @cached_property
    def scores_pictures(self) -> bool:
        """Whether an SDXL refiner is told aesthetic scores instead of a target size."""
        return bool(checkpoint.index(self.location).get("requires_aesthetics_score", False))

    @cached_property
    def has_safety_checker(self) -> bool:
        """Whether the checkpoint holds a safety checker."""
        return bool((checkpoint.index(self.location).get("safety_checker") or [None])[-1])

    @cached_property
    def _feature_extractor(self) -> Any:
        from transformers import CLIPImageProcessor

        with quiet.loading():  # it remarks that torchvision, which resizes with other rounding, is not installed
            if not (checkpoint.index(self.location).get("feature_extractor") or [None])[-1]:
                return CLIPImageProcessor()
            return self._stored_extractor()

    def _stored_extractor(self) -> Any:
        from transformers import CLIPImageProcessor

        try:
            return CLIPImageProcessor.from_pretrained(self.location, subfolder="feature_extractor")
        except (OSError, ValueError, TypeError) as error:
            raise MissingError(
                f"model {self.name}: feature_extractor/ is missing or unreadable: {_first_line(error)}"
            ) from None

    def clip_input(self, picture: np.ndarray) -> np.ndarray:
        """Prepare a picture for the safety checker.

        Parameters
        ----------
        picture : numpy.ndarray
            uint8 (H, W, 3).

        Returns
        -------
        numpy.ndarray
            float32 (1, 3, 224, 224).
        """
        from PIL import Image

        prepared = self._feature_extractor([Image.fromarray(picture)], return_tensors="pt")
        return np.asarray(prepared.pixel_values.numpy(), np.float32)

    def resized(self, latent_size: tuple[int, int]) -> Model:
        """Return the same model at another height and width of its latents."""
        if latent_size == self.latent_shape[1:]:
            return self
        return Model(self._source, latent_size=latent_size, name=self.name, refiner=self._refiner)

    @property
    def has_other_size(self) -> bool:
        """Whether another size than the model's own was asked for."""
        return self._latent_size is not None

    def check_task(self, task: str) -> None:
        """Refuse a task that the suite does not draw with this model.

        Raises
        ------
        UnsupportedError
            The message says which tasks it does, or what else can be asked about it.
        """
        self.check_tasks()
        if task not in (known := family.TASKS[self.family]):
            raise UnsupportedError(
                f"model {self.name} is {family.SAID[self.family]}: it does {', '.join(known)}, not {task}"
            )

    def check_tasks(self) -> None:
        """Refuse a model that no task draws with.

        Raises
        ------
        UnsupportedError
            Another pipeline; the message says what can be asked about it.
        """
        if self.family and not self.sd3 and self.config("unet").get("time_cond_proj_dim") is not None:
            raise UnsupportedError(
                f"model {self.name}: unet/config.json: time_cond_proj_dim: this UNet takes the guidance scale as an "
                "input (distilled latent consistency models do), which the tasks do not give it; use its LoRA form"
            )
        if self.family:
            return
        index = checkpoint.index(self.location)
        kind = str(index.get("_class_name", "a folder without _class_name"))
        parts = {part: entry[-1] for part, entry in index.items() if isinstance(entry, list) and entry}
        other = [name for name in ("text_encoder", "unet", "vae") if not parts.get(name)]
        extra = [name for name in ("transformer", "text_encoder_3") if parts.get(name)]
        lacks = f" (it has no {', '.join(other)})" if other else f" (it has a {', a '.join(extra)})" if extra else ""
        if not lacks:
            lacks = f" (its UNet takes {self.unet_channels} channels)"
        raise UnsupportedError(
            f"model {self.name} is a {kind}{lacks}: the suite draws with Stable Diffusion 1 and 2, SDXL, its refiner, "
            "inpainting UNets of 9 channels and unconditional models. 'parity convert' compares each component that it "
            "writes with PyTorch; 'parity inspect' tells which apps take the models"
        )

    def cut(self, text: str) -> str:
        """Return the end of a text that its tokens leave out, as words; empty if nothing is cut."""
        limit = self.tokenizer.model_max_length
        ids = self.tokenizer(_expanded(text, self.tokenizer), truncation=False, verbose=False)["input_ids"]
        # what diffusers' pipelines warn about: of `limit` tokens one is the start and one the end
        return str(self.tokenizer.decode(ids[limit - 1 : -1])).strip() if len(ids) > limit else ""

    def tokens(self, text: str, *, second: bool = False) -> np.ndarray:
        """Return the padded token ids of one text, int64 (1, tokens); longer texts are truncated, as diffusers does.

        Parameters
        ----------
        text : str
            The text.
        second : bool
            Whether SDXL's second tokenizer reads it.
        """
        tokenizer = self.tokenizer_2 if second else self.tokenizer
        encoded = tokenizer(
            _expanded(text, tokenizer),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="np",
        )
        return np.asarray(encoded["input_ids"], dtype=np.int64)

    def added(self, text: str) -> list[str]:
        """Return the tokens of embeddings (textual inversions) in a text."""
        own = {*self.tokenizer.added_tokens_encoder} - {*self.tokenizer.all_special_tokens}
        return [token for token in self.tokenizer.tokenize(text) if token in own] if own else []


def _expanded(text: str, tokenizer: Any) -> str:
    """Write out the tokens of an embedding of several vectors, as diffusers does: ``<x>`` is ``<x> <x>_1 …``."""
    added = tokenizer.added_tokens_encoder
    if not any(f"{token}_1" in added for token in added):
        return text
    from diffusers.loaders import TextualInversionLoaderMixin

    return str(TextualInversionLoaderMixin().maybe_convert_prompt(text, tokenizer))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


Model = Checkpoint  # its earlier name
