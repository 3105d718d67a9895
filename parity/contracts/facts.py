"""Which facts of a folder of models may the rules of a table ask for, and what can each say?

:mod:`parity.contracts.crosscheck` states them, ``tables/consumers.toml`` and tables of users ask for them. A name that
is not declared here is an error on either side, so a slip cannot become a condition that nobody ever reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from parity.contracts.names import COMPONENTS, DENOISERS
from parity.contracts.windows import FAMILIES
from parity.tables import nearest

ANY_FACT: Final = ("absent", "assumed", "unread", "broken")
"""What a fact says of a component that is not there, that a single named model leaves open, that could not be read."""


@dataclass(frozen=True)
class Fact:
    """One fact.

    Attributes
    ----------
    says : str
        What it tells, for readers.
    values : tuple of str
        What it can say beside :data:`ANY_FACT`; empty where it is a number, a size or another text.
    """

    says: str
    values: tuple[str, ...] = ()


_FIT: Final = ("agree", "differ")
_YES: Final = ("yes", "no")
_DTYPE: Final = ("FLOAT16", "FLOAT32", "other")


def _part(name: str) -> Fact:
    if name in DENOISERS:
        return Fact(f"whether {name} is there", ("whole", "half", "chunks", "both"))
    if name == "controlnet":
        return Fact("number of ControlNets")
    if name == "vae_encoder":
        return Fact("form of the VAE encoder", ("present", "legacy", "z", "x", "other"))
    return Fact(f"whether {name} is there", ("present",))


FACTS: Final[Mapping[str, Fact]] = {
    "family": Fact("family of the denoiser", FAMILIES),
    "prediction": Fact("what the denoiser predicts", ("epsilon", "v", "other")),
    "prediction_source": Fact("who says so", ("scheduler", "id", "family", "contract")),
    "tokenizer": Fact("whether vocab.json and merges.txt are there", ("present",)),
    "palettes": Fact("whether palettized weights unpack to their values", ("right", "wrong")),
    "layout": Fact("form of the models", ("packages", "compiled", "mixed")),
    "specification": Fact("highest specification version"),
    **{name: _part(name) for name in COMPONENTS},
    "batch": Fact("batch of the UNet"),
    "unet_channels": Fact("channels that the UNet takes"),
    "unet_tokens": Fact("tokens that the UNet takes"),
    "xl_named": Fact("whether an SDXL's version holds 'xl', by which apps know it", _YES),
    "time_ids": Fact("form of SDXL's time_ids", ("flat", "rows", "none")),
    "attention": Fact("attention of the UNet"),
    "chunks": Fact("whether the UNet's halves fit", _FIT),
    "sizes": Fact("whether denoiser and decoder have one latent size", _FIT),
    "control_sizes": Fact("whether controlled UNet and decoder have one latent size", _FIT),
    "refiner_size": Fact("whether UNet, refiner and second text encoder fit", _FIT),
    "encoder_size": Fact("whether the VAE encoder fits", _FIT),
    "encoder_square": Fact("whether the VAE encoder takes square pictures", _YES),
    "image_size": Fact("height x width of the pictures in pixels"),
    "width_aligned": Fact("whether the pictures' width is a multiple of 16", _YES),
    "encoder_range": Fact("whether values fit into float16 in the VAE encoder", ("fits", "overflows", "untold")),
    "decoder_range": Fact("whether values fit into float16 in the VAE decoder", ("fits", "overflows", "untold")),
    "tokens": Fact("whether denoiser and text encoders fit", _FIT),
    "mask": Fact("causal mask of the text encoders", ("patched", "unpatched", "lost")),
    "control_channels": Fact("channels that the controlled UNet takes"),
    "control_batch": Fact("batch of the controlled UNet"),
    "control_square": Fact("whether all ControlNets are square", _YES),
    "controlnet_output": Fact("dtype that ControlNets give", _DTYPE),
    "residuals": Fact("whether ControlNets and controlled UNet fit", _FIT),
    "safety_size": Fact("picture of the safety checker: 512, or height x width"),
    "safety_fits": Fact("whether safety checker and decoder have one picture size", _YES),
    "outputs": Fact("dtype that text encoders, UNet and decoder give", _DTYPE),
    "decoder_output": Fact("dtype that the VAE decoder gives", _DTYPE),
    "encoder_output": Fact("dtype that the VAE encoder gives", _DTYPE),
}
"""All facts by name."""


def problem(name: str, values: Iterable[str]) -> str:
    """Say what is wrong with a fact's name or with what it is to say; empty when nothing is.

    >>> problem("batchs", ["1"]).partition(";")[2].partition(";")[0]
    ' did you mean batch?'
    >>> problem("chunks", ["!differ"])
    ''
    """
    if name not in FACTS:
        return f"is no fact of an inspection{nearest(name, FACTS)}; there are {', '.join(FACTS)}"
    known = FACTS[name].values
    for value in values:
        text = value.removeprefix("!")
        if known and text not in (*known, *ANY_FACT):
            listed = ", ".join((*known, *ANY_FACT))
            return f"has '{value}', which this fact never says{nearest(text, known)}; it says one of {listed}"
    return ""


class Facts(dict[str, str]):
    """Facts of one folder by name; stating one that is not declared, or a value that it cannot take, is an error."""

    def __setitem__(self, name: str, value: str) -> None:
        if text := problem(name, [value]):
            raise ValueError(f"'{name}' {text}")
        super().__setitem__(name, value)
