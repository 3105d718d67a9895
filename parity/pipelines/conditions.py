"""What do the texts, and for SDXL the sizes, make a UNet predict? As diffusers' ``encode_prompt`` has it.

Stable Diffusion 1 and 2 have one text encoder. SDXL joins two on the width, gives the second's pooled text and the
picture's size beside it, and takes zeros for a negative prompt that nobody gave if its ``model_index.json`` says so
(``force_zeros_for_empty_prompt``). Its refiner reads the second encoder alone, and scores instead of a target size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from parity.models.model import Model
from parity.pipelines.loop import Networks
from parity.pipelines.request import Request


@dataclass(frozen=True)
class Condition:
    """What the UNet gets at every step.

    Attributes
    ----------
    hidden : numpy.ndarray
        float32 (batch, tokens, width), negative prompts first if the run is guided.
    guided : bool
        Whether there are two rows for each picture.
    extra : mapping
        SDXL: ``text_embeds`` (batch, width) and ``time_ids`` (batch, 6 or 5), float32.
    """

    hidden: np.ndarray
    guided: bool
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)


def encode(request: Request, model: Model, networks: Networks) -> Condition:
    """Encode a request's texts for a base model, or for a refiner in its place."""
    if not model.xl:
        texts = (
            {"negative": request.negative, "prompt": request.prompt} if request.guided else {"prompt": request.prompt}
        )
        states = [
            networks.call("text_encoder", label, input_ids=model.tokens(text), **_skip(request, label))["hidden"]
            for label, text in texts.items()
        ]
        return Condition(_rows(states, request), request.guided)
    return _encode_xl(request, model, networks, "")


def encode_for_refiner(request: Request, model: Model, networks: Networks) -> Condition:
    """Encode a request's texts for a refiner that takes over: by the base's second encoder, with its own rules.

    Parameters
    ----------
    request : Request
        What is drawn.
    model : Model
        The refiner, at the base's size.
    networks : Networks
        The base's networks.
    """
    return _encode_xl(request, model, networks, "refiner-")


def _encode_xl(request: Request, model: Model, networks: Networks, prefix: str) -> Condition:
    zeros = request.guided and request.negative_prompt is None and model.zeros_for_no_negative
    texts = {f"{prefix}prompt": request.prompt}
    if request.guided and not zeros:
        texts = {f"{prefix}negative": request.negative, **texts}
    hidden, pooled = [], []
    for label, text in texts.items():
        states = []
        if not model.refines:
            first = networks.call("text_encoder", label, input_ids=model.tokens(text), **_skip(request, label))
            states.append(first["hidden"])
        ids = model.tokens(text, second=True)
        second = networks.call("text_encoder_2", label, input_ids=ids, **_skip(request, label))
        hidden.append(np.concatenate([*states, second["hidden"]], axis=-1))
        pooled.append(second["pooled"])
    if zeros:
        hidden, pooled = [np.zeros_like(hidden[0]), *hidden], [np.zeros_like(pooled[0]), *pooled]
    sizes = [np.array([row], np.float32) for row in _time_ids(request, model)]
    if not request.guided:
        sizes = sizes[1:]
    extra = {"text_embeds": _rows(pooled, request), "time_ids": _rows(sizes, request)}
    return Condition(_rows(hidden, request), request.guided, extra)


def _skip(request: Request, label: str) -> dict[str, np.ndarray]:
    """Return the layers that are skipped: diffusers does so for the prompt alone."""
    return {"skip": np.array([request.clip_skip])} if request.clip_skip and label.endswith("prompt") else {}


def _time_ids(request: Request, model: Model) -> list[list[float]]:
    """Return the row of the negative prompt and that of the prompt: sizes, and the refiner's scores."""
    height, width = model.image_size
    if model.scores_pictures:
        scores = (request.negative_aesthetic_score, request.aesthetic_score)
        return [[height, width, 0, 0, score] for score in scores]
    return [[height, width, 0, 0, height, width]] * 2


def _rows(values: list[np.ndarray], request: Request) -> np.ndarray:
    """Repeat each text for each picture, and join the texts."""
    return np.concatenate([np.repeat(value, request.images, axis=0) for value in values])
