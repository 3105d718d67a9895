"""Which schedulers can a case name, how are they set up, and how are they made from a model's configuration?

The schedulers themselves are diffusers'; their arithmetic runs in float32 on the CPU for every backend, so a difference
between backends comes from networks alone. Those that draw noise at each step take it from the case's stream, see
:mod:`parity.pipelines.schedules.noise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any, Final

from parity.errors import MissingError, UnsupportedError, UsageError
from parity.pipelines.schedules import flow

PREDICTIONS: Final = ("epsilon", "v_prediction", "sample")
"""What a network may predict: the noise, the velocity of Salimans and Ho, the clean latents."""
SPACINGS: Final = ("leading", "linspace", "trailing")
SIGMAS: Final = ("karras", "exponential", "beta")

_NO_SAMPLE: Final = PREDICTIONS[:2]


@dataclass(frozen=True)
class Scheduler:
    """One of diffusers' schedulers and what can be asked of it; a test compares this with diffusers' signatures.

    Attributes
    ----------
    kind : str
        diffusers' class.
    draws : str
        Whether its steps need noise: ``always``, ``eta`` (if eta is above 0), ``tree`` (a Brownian tree) or not.
    sigmas, spacing, rescales, eta : bool
        Which fields of :class:`Schedule` it takes.
    predictions : tuple of str
        What the network may predict.
    config : mapping
        What tells it from others of its class.
    """

    kind: str
    draws: str = ""
    sigmas: bool = True
    spacing: bool = True
    rescales: bool = False
    eta: bool = False
    predictions: tuple[str, ...] = PREDICTIONS
    config: Mapping[str, Any] = field(default_factory=dict)


SCHEDULERS: Final[Mapping[str, Scheduler]] = {
    "ddim": Scheduler("DDIMScheduler", "eta", sigmas=False, rescales=True, eta=True),
    "ddpm": Scheduler("DDPMScheduler", "always", sigmas=False, rescales=True),
    "deis": Scheduler("DEISMultistepScheduler"),
    "dpm++": Scheduler("DPMSolverMultistepScheduler", rescales=True),
    "dpm++-2m-sde": Scheduler(
        "DPMSolverMultistepScheduler", "always", rescales=True, config={"algorithm_type": "sde-dpmsolver++"}
    ),
    "dpm++-2s": Scheduler("DPMSolverSinglestepScheduler", spacing=False),
    "dpm++-sde": Scheduler("DPMSolverSDEScheduler", "tree", predictions=_NO_SAMPLE),
    "dpm2": Scheduler("KDPM2DiscreteScheduler", predictions=_NO_SAMPLE),
    "dpm2-ancestral": Scheduler("KDPM2AncestralDiscreteScheduler", "always", predictions=_NO_SAMPLE),
    "euler": Scheduler("EulerDiscreteScheduler", rescales=True),
    "euler-ancestral": Scheduler(
        "EulerAncestralDiscreteScheduler", "always", sigmas=False, rescales=True, predictions=_NO_SAMPLE
    ),
    "heun": Scheduler("HeunDiscreteScheduler"),
    "lcm": Scheduler("LCMScheduler", "always", sigmas=False, rescales=True),
    "lms": Scheduler("LMSDiscreteScheduler"),
    "pndm": Scheduler("PNDMScheduler", sigmas=False, predictions=_NO_SAMPLE),
    "tcd": Scheduler("TCDScheduler", "eta", sigmas=False, rescales=True, eta=True),
    "unipc": Scheduler("UniPCMultistepScheduler", rescales=True),
}
"""By the names that cases use."""


@dataclass(frozen=True)
class Schedule:
    """How a scheduler is set up beyond the model's own configuration; what is empty is left as the model has it.

    Attributes
    ----------
    sigmas : str
        How noise levels are spaced: ``karras``, ``exponential`` or ``beta``.
    timestep_spacing : str
        ``leading``, ``linspace`` or ``trailing``.
    prediction_type : str
        What the network predicts: ``epsilon``, ``v_prediction`` or ``sample``.
    rescale_betas_zero_snr : bool
        Rescale the betas so that the last timestep is noise alone.
    eta : float
        Share of fresh noise in each step, 0 to 1: DDIM's and TCD's.
    """

    sigmas: str = ""
    timestep_spacing: str = ""
    prediction_type: str = ""
    rescale_betas_zero_snr: bool = False
    eta: float = 0.0

    def __post_init__(self) -> None:
        for key, allowed in (("sigmas", SIGMAS), ("timestep_spacing", SPACINGS), ("prediction_type", PREDICTIONS)):
            value = getattr(self, key)
            if value and value not in allowed:
                raise UsageError(f"{key} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {value!r}")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"eta must lie in [0, 1], not {self.eta}")

    def given(self) -> dict[str, Any]:
        """Return the fields that say something, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def config(self) -> dict[str, Any]:
        """Return the same as keys of a diffusers scheduler's configuration."""
        found = self.given()
        found.pop("eta", None)
        if chosen := found.pop("sigmas", ""):
            found |= {f"use_{name}_sigmas": name == chosen for name in SIGMAS}
        return found


def check(name: str, schedule: Schedule | None = None) -> None:
    """Refuse a scheduler that is not known, and a set-up that it does not take.

    Raises
    ------
    UsageError
        The message lists the schedulers that would do.
    """
    given = (schedule or Schedule()).given()
    if name in flow.SCHEDULERS:
        if given:
            raise UsageError(f"scheduler {name} takes no {', '.join(given)}: it steps along a flow")
        return
    if name not in SCHEDULERS:
        raise UsageError(
            f"no scheduler named {name!r}; there are {', '.join(SCHEDULERS)} and, for Stable Diffusion 3, "
            f"{', '.join(flow.SCHEDULERS)}"
        )
    for key, flag in (
        ("sigmas", "sigmas"),
        ("timestep_spacing", "spacing"),
        ("rescale_betas_zero_snr", "rescales"),
        ("eta", "eta"),
    ):
        if key in given and not getattr(SCHEDULERS[name], flag):
            others = ", ".join(other for other, entry in SCHEDULERS.items() if getattr(entry, flag))
            raise UsageError(f"scheduler {name} takes no {key}; those that do: {others}")
    if "prediction_type" in given:
        _check_prediction(name, given["prediction_type"], "the case says")


def _check_prediction(name: str, prediction: str, who: str) -> None:
    if prediction not in SCHEDULERS[name].predictions:
        others = ", ".join(other for other, entry in SCHEDULERS.items() if prediction in entry.predictions)
        raise UsageError(
            f"scheduler {name} cannot do prediction_type {prediction!r} ({who}); those that can: {others or 'none'}"
        )


def make(name: str, config: Mapping[str, Any], schedule: Schedule | None = None) -> Any:
    """Return a fresh diffusers scheduler.

    Parameters
    ----------
    name : str
        A key of :data:`SCHEDULERS`.
    config : mapping
        The model's own ``scheduler_config.json``: training betas, prediction type and offsets are taken from it, as
        ``Scheduler.from_config(pipeline.scheduler.config)`` does in diffusers.
    schedule : Schedule, optional
        What is set up otherwise than the model says.

    Raises
    ------
    UsageError
        Unknown name, or a scheduler of models that predict a flow; a prediction type or a set-up that it does not take.
    UnsupportedError
        The model's configuration does not fit this scheduler: diffusers' own reason.
    MissingError
        diffusers' class needs a package that is not installed.
    """
    chosen = schedule or Schedule()
    check(name, chosen)
    if name in flow.SCHEDULERS:
        raise UsageError(f"scheduler {name!r} steps along a flow, which only Stable Diffusion 3 predicts")
    entry = SCHEDULERS[name]
    full = {**config, **entry.config, **chosen.config()}
    _check_prediction(name, str(full.get("prediction_type", "epsilon")), "scheduler_config.json of the model says")
    if entry.draws == "tree" and find_spec("torchsde") is None:
        raise MissingError(f"scheduler {name}: {entry.kind} needs torchsde; install the extra: coreml-parity[sde]")
    import diffusers

    try:
        return getattr(diffusers, entry.kind).from_config(full)
    except (ValueError, NotImplementedError) as error:
        raise UnsupportedError(f"scheduler {name} with this model's scheduler_config.json: {error}") from None
