"""Which schedulers go with a model that predicts a flow (Stable Diffusion 3), and how are they made?

A flow model knows no betas: its noise level sigma runs from 1 to 0, and a step adds the predicted flow times the change
of sigma. The schedulers are diffusers'; those of the other models cannot take such a prediction, nor these theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from parity.errors import UsageError

SCHEDULERS: Final[dict[str, str]] = {
    "flow-euler": "FlowMatchEulerDiscreteScheduler",
    "flow-heun": "FlowMatchHeunDiscreteScheduler",
}


def make(name: str, config: Mapping[str, Any], *, tokens: int, steps: int) -> Any:
    """Return a diffusers scheduler with its timesteps set.

    Parameters
    ----------
    name : str
        A key of :data:`SCHEDULERS`.
    config : mapping
        The model's own ``scheduler_config.json``: its shift is taken from it.
    tokens : int
        Patches of the picture, by which some configurations choose the shift (``use_dynamic_shifting``).
    steps : int
        Denoising steps.

    Raises
    ------
    UsageError
        A scheduler that takes no flow.
    """
    if name not in SCHEDULERS:
        raise UsageError(
            f"scheduler {name!r} cannot step along a flow, which Stable Diffusion 3 predicts; there are "
            f"{', '.join(SCHEDULERS)}"
        )
    import diffusers

    scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(dict(config))
    scheduler.set_timesteps(steps, **_shift(scheduler.config, tokens))
    return scheduler


def _shift(config: Mapping[str, Any], tokens: int) -> dict[str, float]:
    if not config.get("use_dynamic_shifting"):
        return {}
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    usual = (256, 4096, 0.5, 1.16)  # of the pipeline
    return {"mu": calculate_shift(tokens, *(config.get(name, value) for name, value in zip(names, usual, strict=True)))}
