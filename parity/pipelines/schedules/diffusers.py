"""Which schedulers can a case name, and how are they made from a model's configuration?

The schedulers themselves are diffusers'; their arithmetic runs in float32 on the CPU for every backend, so a difference
between backends comes from networks alone. Listed are those whose steps are deterministic: a scheduler that draws noise
of its own would need a torch generator and is refused by not being here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parity.errors import UsageError
from parity.pipelines.schedules import flow

SCHEDULERS: dict[str, str] = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def check(name: str) -> None:
    """Raise UsageError, listing the known ones, unless ``name`` is a scheduler."""
    if name not in SCHEDULERS and name not in flow.SCHEDULERS:
        raise UsageError(
            f"no scheduler named {name!r}; there are {', '.join(SCHEDULERS)} and, for Stable Diffusion 3, "
            f"{', '.join(flow.SCHEDULERS)}"
        )


def make(name: str, config: Mapping[str, Any]) -> Any:
    """Return a fresh diffusers scheduler.

    Parameters
    ----------
    name : str
        A key of :data:`SCHEDULERS`.
    config : mapping
        The model's own ``scheduler_config.json``: training betas, prediction type and offsets are taken from it, as
        ``Scheduler.from_config(pipeline.scheduler.config)`` does in diffusers.

    Raises
    ------
    UsageError
        Unknown name, or a scheduler of models that predict a flow.
    """
    check(name)
    if name in flow.SCHEDULERS:
        raise UsageError(f"scheduler {name!r} steps along a flow, which only Stable Diffusion 3 predicts")
    import diffusers

    return getattr(diffusers, SCHEDULERS[name]).from_config(dict(config))
