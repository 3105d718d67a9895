"""Which component does a file name claim?

Two spellings exist: packages (``Stable_Diffusion_version_<model id>_<component>[_chunk1].mlpackage`` and
``ControlNet_<id>.mlpackage``) and compiled resources (``UnetChunk1.mlmodelc``, ``controlnet/<Name>.mlmodelc``). A name
is only a claim; :mod:`parity.contracts.identify` decides by the features.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

COMPONENTS = (
    "text_encoder",
    "text_encoder_2",
    "text_encoder_t5",
    "multilingual_projection",
    "vae_encoder",
    "unet",
    "refiner",
    "mmdit",
    "control-unet",
    "controlnet",
    "vae_decoder",
    "safety_checker",
)
"""Every component that a released converter or app knows, in the order in which a picture needs them."""
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
DENOISERS = ("unet", "refiner", "control-unet")
"""The UNets, each of which may lie in two halves."""
OF_EACH_STEP = (*DENOISERS, "controlnet")
"""What is asked at each step and written with a batch, an attention and a timestep embedding in float16.

``mmdit`` is not among them: released converters write it in float32 as a whole.
"""

_RESOURCES = {
    "TextEncoder": "text_encoder",
    "TextEncoder2": "text_encoder_2",
    "VAEDecoder": "vae_decoder",
    "VAEEncoder": "vae_encoder",
    "Unet": "unet",
    "UnetRefiner": "refiner",
    "ControlledUnet": "control-unet",
    "SafetyChecker": "safety_checker",
    "MultiModalDiffusionTransformer": "mmdit",
    "TextEncoderT5": "text_encoder_t5",
    "MultilingualTextEncoderProjection": "multilingual_projection",
}
_RESOURCES_ALONE = {"text_encoder_t5", "multilingual_projection", "controlnet"}  # a ControlNet's package begins with it
_PACKAGES = tuple(name for name in COMPONENTS if name not in _RESOURCES_ALONE)
_CHUNK_RESOURCE = re.compile(r"(.*?)Chunk([12])")
_CHUNK_PACKAGE = re.compile(r"(.*?)_chunk([12])")


def claimed(path: PurePosixPath) -> tuple[str, int]:
    """Return component and chunk number (0 for whole ones) that a path claims; an empty component when none.

    Examples
    --------
    >>> claimed(PurePosixPath("Stable_Diffusion_version_owner_model_unet_chunk2.mlpackage"))
    ('unet', 2)
    >>> claimed(PurePosixPath("Resources/ControlledUnet.mlmodelc"))
    ('control-unet', 0)
    """
    stem = path.name[: -len(path.suffix)] if path.suffix else path.name
    for pattern in (_CHUNK_RESOURCE, _CHUNK_PACKAGE):
        if match := pattern.fullmatch(stem):
            component, _ = claimed(PurePosixPath(match[1] + path.suffix))
            if component:
                return component, int(match[2])
    if stem in _RESOURCES:
        return _RESOURCES[stem], 0
    if stem.startswith("ControlNet_") or path.parent.name == "controlnet":
        return "controlnet", 0
    for component in _PACKAGES:
        if stem == component or stem.endswith("_" + component):
            return component, 0
    return "", 0
