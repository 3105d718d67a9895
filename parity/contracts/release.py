"""How does a consumer release run its models? The conventions of one, read from ``tables/consumers.toml``.

A consumer inherits the conventions of the one that it is ``like``; a table of one's own can change single ones. What
the public sources do not tell is not in the table, and asking for it is an :class:`parity.errors.UnsupportedError`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from parity.contracts.consumers import Consumer
from parity.errors import FormatError, UnsupportedError

_CHOICES = {
    "pipeline": ("swift", "python"),
    "decodes": ("latents", "estimate"),
    "reads": ("float32", "any"),
    "encoder": ("none", "five", "z", "any"),
    "controlnets": ("none", "all", "first"),
    "images": ("one", "stream", "seed"),
    "time_ids": ("none", "flat", "rank"),
    "empty_negative": ("encode", "zeros", "config"),
    "guidance": ("always", "from-one"),
    "xl_spacing": ("linspace", "leading", "karras"),
    "safety": ("none", "dummy", "picture"),
}
_LISTS = {
    "schedulers": ("pndm", "dpm++", "ddim", "euler", "lms"),
    "sources": ("numpy", "torch", "nvidia"),
    "spacings": ("linspace", "leading", "karras"),
}
_FLAGS = ("holes", "serial", "refiner", "sd3")
_NUMBERS = ("factor_xl", "factor_sd3", "shift_sd3")


@dataclass(frozen=True)
class Conventions:
    """What a release does with its models.

    Attributes
    ----------
    pipeline : str
        ``swift`` or ``python``.
    schedulers : tuple of str
        By name, the default first.
    spacings : tuple of str
        Of DPM-Solver++.
    sources : tuple of str
        Random sources.
    decodes : str
        ``latents`` (the last ones) or ``estimate`` (the clean latents that the last step implies).
    reads : str
        Output dtypes of VAE and ControlNet that it can read: ``float32`` alone, or ``any``.
    encoder : str
        VAE encoder: ``none``, ``five`` literal inputs, one literal ``z``, or ``any`` single input.
    controlnets : str
        Whether residuals of ``all`` nets act, of the ``first``, or there are ``none``.
    images : str
        Several images of a call: ``one`` only, consecutive tensors of one ``stream``, or one call each with the next
        ``seed``.
    time_ids : str
        SDXL's ids always ``flat``, or as the model's ``rank`` asks.
    empty_negative : str
        An empty negative prompt is encoded, becomes ``zeros``, or as the model's ``config`` says.
    guidance : str
        Whether both rows are computed ``always``, or ``from-one``: below a guidance scale of 1 the prompt's alone.
    xl_spacing : str
        Spacing that an app sets for SDXL.
    factor_xl : float
        Scale of SDXL's latents that it sets.
    factor_sd3, shift_sd3 : float
        Scale and shift of Stable Diffusion 3's latents that it sets.
    safety : str
        Image that the safety checker gets: a ``dummy`` of 512x512, or the ``picture``.
    start_pixels : int
        Height and width that a starting image must have; 0 for those of the model.
    holes : bool
        Transparent pixels of control images become -1.
    serial : bool
        UNets of batch one are called twice a step.
    refiner : bool
    sd3 : bool
        Whether it knows Stable Diffusion 3.
    """

    pipeline: str
    schedulers: tuple[str, ...]
    sources: tuple[str, ...]
    spacings: tuple[str, ...] = ("linspace",)
    decodes: str = "latents"
    reads: str = "any"
    encoder: str = "none"
    controlnets: str = "none"
    images: str = "one"
    time_ids: str = "none"
    empty_negative: str = "encode"
    safety: str = "none"
    guidance: str = "always"
    xl_spacing: str = "linspace"
    factor_xl: float = 0.13025
    factor_sd3: float = 1.5305
    shift_sd3: float = 0.0609
    start_pixels: int = 0
    holes: bool = False
    serial: bool = False
    refiner: bool = False
    sd3: bool = False


def conventions(consumer: Consumer) -> Conventions:
    """Return the conventions of a consumer.

    Raises
    ------
    UnsupportedError
        The tables state none for it: it cannot be played.
    FormatError
        A field is unknown or has a value that means nothing.
    """
    given = dict(consumer.conventions)
    if not given:
        raise UnsupportedError(
            f"{consumer.id}: the tables state no conventions; give it `like` a release that has them"
        )
    known = {field.name: field for field in fields(Conventions)}
    where = f"conventions of consumer {consumer.id}"
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise FormatError(f"{where}: unknown field '{name}'; there are {', '.join(known)}")
        if name in _FLAGS:
            good = isinstance(value, bool)
        elif name == "start_pixels":
            good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        elif name in _NUMBERS:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            good = number and (value >= 0 if name.startswith("shift") else value > 0)
        elif name in _CHOICES:
            good = value in _CHOICES[name]
        else:
            good = isinstance(value, list) and bool(value) and all(item in _LISTS[name] for item in value)
            value = tuple(value) if good else value
        if not good:
            allowed = _CHOICES.get(name) or _LISTS.get(name) or ("true or false" if name in _FLAGS else "a number",)
            raise FormatError(f"{where}: field '{name}' must be {', '.join(allowed)}, not {value!r}")
        values[name] = value
    missing = [name for name in ("pipeline", "schedulers", "sources") if name not in values]
    if missing:
        raise FormatError(f"{where}: field '{missing[0]}' is missing")
    return Conventions(**values)
