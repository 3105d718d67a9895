"""What is asked of a producer: task, texts, pictures, scheduler, steps, guidance?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import FormatError, MissingError, UsageError
from parity.files import refuse_pointer
from parity.models.model import Model
from parity.pipelines.schedules import diffusers as schedulers
from parity.pipelines.schedules.diffusers import Schedule

TASK_COMPONENTS: dict[str, tuple[str, ...]] = {
    "txt2img": ("text_encoder", "unet", "vae_decoder"),
    "img2img": ("vae_encoder", "text_encoder", "unet", "vae_decoder"),
    "inpaint": ("text_encoder", "vae_encoder", "unet", "vae_decoder"),
    "controlnet": ("text_encoder", "controlnet-1", "control-unet", "vae_decoder"),
    "controlnet-inpaint": ("text_encoder", "controlnet-1", "control-unet", "vae_decoder"),
    "unconditional": ("unconditional-unet",),
}
"""Networks that each task needs with models of SD 1 and 2; :func:`components` says what a request needs."""

CONTROLLED = ("controlnet", "controlnet-inpaint")
"""Tasks that ControlNets take part in."""
_STARTED = ("img2img", "inpaint")  # tasks that begin with a picture
_GENERATORS = ("one", "each")


@dataclass(frozen=True)
class Request:
    """What is to be drawn.

    Attributes
    ----------
    task : str
        A key of :data:`TASK_COMPONENTS`. ``controlnet-inpaint`` is what apps call inpainting: a ControlNet to which
        transparent pixels of its control image are holes; ``inpaint`` is diffusers', with a mask.
    prompt : str
        What is drawn; empty for ``unconditional``.
    negative_prompt : str or None
        What is not; None says nothing, which SDXL takes for zeros (``force_zeros_for_empty_prompt``), while an empty
        text is encoded.
    scheduler : str
        A key of :data:`parity.pipelines.schedules.diffusers.SCHEDULERS`.
    steps : int
        Denoising steps asked of the scheduler, at least 1.
    guidance_scale : float
        Classifier-free guidance is used above 1, as in diffusers.
    guidance_rescale : float
        Share of the guided noise that is brought to the deviation of the prompt's, in [0, 1]; 0.7 goes with rescaled
        betas.
    clip_skip : int
        Layers of the text encoder that are skipped at its end, for the prompt alone, as in diffusers: 1 is what
        AUTOMATIC1111 and ComfyUI call 2 or -2.
    schedule : Schedule
        How the scheduler is set up otherwise than the model says.
    strength : float
        With a picture to start from: share of the steps that are run, in (0, 1].
    image : path, optional
        The picture to start from: image to image and inpainting.
    images : int
        Pictures drawn in one call.
    mask : path, optional
        Inpainting: white is drawn anew, black is kept.
    control : tuple of path
        One control image for each ControlNet.
    control_scale, control_start, control_end : tuple of float
        Conditioning scale of each ControlNet, and the shares of the steps between which it acts; one value stands for
        all nets.
    refiner_start : float, optional
        SDXL: share of the noise schedule after which the refiner takes over (``denoising_end`` of the base,
        ``denoising_start`` of the refiner), in (0, 1); None without a refiner.
    aesthetic_score, negative_aesthetic_score : float
        What SDXL's refiner is told about both prompts' pictures.
    height, width : int, optional
        Pixels, where they are not the model's own.
    generators : str
        ``one``: pictures of a call share one stream, as one diffusers generator does; ``each``: picture number i has
        a stream of its own, of the seed plus i, as a list of generators has.
    safety_checker : bool
        Whether the model's safety checker looks at the pictures and blackens what it flags.
    """

    task: str
    prompt: str = ""
    negative_prompt: str | None = None
    scheduler: str = "pndm"
    steps: int = 20
    guidance_scale: float = 7.5
    strength: float = 0.8
    image: Path | None = None
    images: int = 1
    guidance_rescale: float = 0.0
    clip_skip: int = 0
    schedule: Schedule = field(default_factory=Schedule)
    mask: Path | None = None
    control: tuple[Path, ...] = ()
    control_scale: tuple[float, ...] = (1.0,)
    control_start: tuple[float, ...] = (0.0,)
    control_end: tuple[float, ...] = (1.0,)
    refiner_start: float | None = None
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5
    height: int | None = None
    width: int | None = None
    generators: str = "one"
    safety_checker: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASK_COMPONENTS:
            raise UsageError(f"no task named {self.task!r}; there are {', '.join(TASK_COMPONENTS)}")
        schedulers.check(self.scheduler, self.schedule)
        if not 0 <= self.guidance_rescale <= 1:
            raise UsageError(f"guidance_rescale must lie in [0, 1], not {self.guidance_rescale}")
        if self.clip_skip < 0:
            raise UsageError(f"clip_skip must not be negative, not {self.clip_skip}; 1 skips the last layer")
        if self.steps < 1 or self.images < 1:
            raise UsageError(f"steps and images must be at least 1, not {self.steps} and {self.images}")
        if self.generators not in _GENERATORS:
            raise UsageError(f"generators = {self.generators!r}; there are {', '.join(_GENERATORS)}")
        _check_texts(self)
        _check_start(self)
        _check_control(self)
        _check_size(self)
        if self.refiner_start is not None and not 0 < self.refiner_start < 1:
            raise UsageError(f"refiner_start must lie in (0, 1), not {self.refiner_start}")
        if self.refiner_start is not None and self.task not in ("txt2img", "img2img"):
            raise UsageError(f"refiner_start: a refiner takes over in txt2img and img2img, not in {self.task}")

    @property
    def negative(self) -> str:
        """The negative prompt as a text."""
        return self.negative_prompt or ""

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is used."""
        return self.guidance_scale > 1.0

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Files that are read: the picture that is changed, the mask, the control images."""
        given = [value if isinstance(value, tuple) else (value,) for value in vars(self).values()]
        return tuple(value for values in given for value in values if isinstance(value, Path))

    def per_net(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Return one value for each ControlNet."""
        return values * len(self.control) if len(values) == 1 else values


def _check_texts(request: Request) -> None:
    if request.task == "unconditional" and (request.prompt or request.negative_prompt):
        raise UsageError("unconditional models know no texts: leave prompt and negative_prompt out")
    if request.task == "unconditional" and request.safety_checker:
        raise UsageError("unconditional models have no safety checker")


def _check_start(request: Request) -> None:
    started = request.task in _STARTED
    if started and request.image is None:
        raise UsageError(f'{request.task} needs a picture to start from: image = "picture.png"')
    if request.task == "inpaint" and request.mask is None:
        raise UsageError('inpaint needs a mask, white where it is drawn anew: mask = "mask.png"')
    if request.mask is not None and request.task != "inpaint":
        raise UsageError(f"mask: {request.task} takes none; inpaint does")
    if started and not 0 < request.strength <= 1:
        raise UsageError(f"strength must lie in (0, 1], not {request.strength}")
    if started and int(request.steps * request.strength) < 1:
        raise UsageError(f"strength {request.strength} of {request.steps} steps leaves no step to run; raise either")


def _check_control(request: Request) -> None:
    nets = len(request.control)
    if request.task not in CONTROLLED:
        if nets:
            raise UsageError(f"control: {request.task} takes no control images; controlnet does")
        return
    if not nets:
        raise UsageError(f'{request.task} needs a control image for each ControlNet: control = ["edges.png"]')
    for name in ("control_scale", "control_start", "control_end"):
        if len(getattr(request, name)) not in (1, nets):
            raise UsageError(
                f"{name} has {len(getattr(request, name))} values for {nets} control images; give 1 or {nets}"
            )
    for start, end in zip(request.per_net(request.control_start), request.per_net(request.control_end), strict=True):
        if not 0 <= start < end <= 1:
            raise UsageError(f"control_start {start} and control_end {end}: 0 <= start < end <= 1 is needed")


def _check_size(request: Request) -> None:
    if (request.height is None) != (request.width is None):
        raise UsageError("height and width: give both or neither")
    for name in ("height", "width"):
        pixels = getattr(request, name)
        if pixels is not None and (pixels < 8 or pixels % 8):
            raise UsageError(f"{name} {pixels}: a positive multiple of 8 is needed")


def components(request: Request, family: str) -> tuple[str, ...]:
    """Return the networks that diffusers needs for a request, in the order in which they are first called.

    Parameters
    ----------
    request : Request
        What is drawn.
    family : str
        Of the model, see :mod:`parity.models.family`.

    Examples
    --------
    >>> components(Request("txt2img", "a star", refiner_start=0.8), "sdxl")
    ('text_encoder', 'text_encoder_2', 'unet', 'refiner', 'vae_decoder')
    """
    both = ("text_encoder", "text_encoder_2")
    texts = {"sdxl": both, "sd3": both, "sdxl-refiner": ("text_encoder_2",)}
    found: list[str] = []
    for name in TASK_COMPONENTS[request.task]:
        if name == "text_encoder":
            found += texts.get(family, (name,))
        elif name == "controlnet-1":
            found += [f"controlnet-{number}" for number in range(1, len(request.control) + 1)]
        else:
            found.append("mmdit" if (family, name) == ("sd3", "unet") else name)
    if request.refiner_start is not None:
        found.insert(found.index("vae_decoder"), "refiner")
    return (*found, "safety_checker") if request.safety_checker else tuple(found)


def read_picture(path: Path, model: Model) -> np.ndarray:
    """Read a picture as the VAE encoder wants it.

    Returns
    -------
    numpy.ndarray
        float32 (1, 3, height, width) in [-1, 1], RGB, resized to the model's size as diffusers does (Lanczos).

    Raises
    ------
    MissingError, FormatError
        No such file, or not a picture that Pillow reads.
    """
    from diffusers.image_processor import VaeImageProcessor

    picture = open_picture(path)
    height, width = model.image_size
    processor = VaeImageProcessor(vae_scale_factor=model.vae_scale)
    return np.asarray(processor.preprocess(picture, height=height, width=width).numpy(), dtype=np.float32)


def open_picture(path: Path, mode: str = "RGB") -> Any:
    """Return a picture file as a PIL image in RGB, or as it is where ``mode`` is empty.

    Raises
    ------
    MissingError, FormatError
        No such file, or not a picture that Pillow reads.
    """
    from PIL import Image, UnidentifiedImageError

    refuse_pointer(path)
    try:
        with Image.open(path) as file:
            return file.convert(mode or file.mode)
    except FileNotFoundError:
        raise MissingError(f"{path}: no such picture") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FormatError(f"{path}: not a readable picture ({error}); PNG and JPEG work") from None
