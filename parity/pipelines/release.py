"""How does a release of an app draw: what does it accept, how does it set itself up, how does it fail?

A release is one stretch of versions of ``tables/consumers.toml``; its conventions say which of the two pipelines it
runs (:mod:`parity.pipelines.swift`, :mod:`parity.pipelines.python`) and with which deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parity.contracts.consumers import Consumer, consumers
from parity.contracts.release import Conventions, conventions
from parity.errors import UnsupportedError, UsageError
from parity.models import checkpoint
from parity.models.model import Model
from parity.models.projection import DIMENSION
from parity.networks.backend import Backend
from parity.networks.signature import Observe
from parity.pipelines import pictures, python, swift, swift_sd3
from parity.pipelines.loop import Networks
from parity.pipelines.request import TASK_COMPONENTS, Request, read_picture
from parity.pipelines.schedules import flow, played
from parity.pipelines.schedules import swift as schedules
from parity.pipelines.settings import LAST_SEED, ConsumerFailureError, Material, Settings
from parity.pipelines.trace import Trace

REFINER_START = 0.8  # of the Swift package, which no app and no option changes
FACTOR = 0.18215  # of SD 1 and 2; consumers set SDXL's own themselves


@dataclass(frozen=True)
class Ask:
    """One call of a release, as its user makes it.

    Attributes
    ----------
    task : str
        ``txt2img``, ``img2img``, ``controlnet``, ``multi-controlnet``, ``inpaint``, ``refiner`` or ``multilingual``,
        which needs token vectors; by default image to image when there is an image, ControlNet when there are control
        images, else text to image.
    scheduler : str
        ``pndm``, ``dpm++`` and for the Python pipeline more; the release's default if empty.
    spacing : str
        Of DPM-Solver++; what the consumer sets for the family if empty.
    source : str
        ``numpy``, ``torch`` or ``nvidia``: the package's random source.
    seed, steps, images : int
    strength, guidance : float
    """

    task: str = ""
    scheduler: str = ""
    spacing: str = ""
    source: str = "numpy"
    seed: int = 93
    steps: int = 4
    images: int = 1
    strength: float = 0.5
    guidance: float = 7.5

    @classmethod
    def of(cls, request: Request, *, seed: int, task: str = "", source: str = "numpy") -> Ask:
        """Return what a request asks of a release; ``task`` where it is one that requests do not know."""
        return cls(
            task=task or request.task,
            scheduler=request.scheduler,
            source=source,
            seed=seed,
            steps=request.steps,
            images=request.images,
            strength=request.strength,
            guidance=request.guidance_scale,
        )


def settings_of(who: Consumer, ask: Ask, material: Material, *, refiner: bool = False) -> Settings:
    """Return the settings with which a release takes a call.

    Parameters
    ----------
    who : Consumer
        The release.
    ask : Ask
        What its user asks.
    material : Material
        Texts and pictures of the call.
    refiner : bool
        Whether the models hold a refiner, which takes over where the release knows it.

    Raises
    ------
    UsageError, UnsupportedError
        A request that the release does not have, or that the facts do not let us play.
    """
    rules = conventions(who)
    given = "controlnet" if material.controls else "img2img" if material.image is not None else "txt2img"
    task = ask.task or given
    if task == "img2img" and not ask.strength < 1:  # Swift ignores the image
        task = "txt2img"
    settings = Settings(
        rules,
        task,
        ask.seed,
        ask.source,
        next(iter(flow.SCHEDULERS)) if material.sd3 and rules.sd3 else ask.scheduler or rules.schedulers[0],
        ask.spacing or (rules.xl_spacing if material.xl else rules.spacings[0]),
        ask.steps,
        ask.images,
        ask.strength,
        ask.guidance,
        rules.factor_sd3 if material.sd3 else rules.factor_xl if material.xl else FACTOR,
        rules.shift_sd3 if material.sd3 else 0.0,
        refined=material.xl and rules.refiner and (refiner or task == "refiner"),
    )
    _check(settings, who)
    _check_embeddings(settings, material)
    return settings


def _check(settings: Settings, who: Consumer) -> None:
    rules = settings.conventions
    for name, value, allowed in (
        ("scheduler", settings.scheduler, (*rules.schedulers, *_flows(rules))),
        ("random source", settings.source, rules.sources),
        ("spacing", settings.spacing, dict.fromkeys((*rules.spacings, rules.xl_spacing))),
    ):
        if value not in allowed:
            raise UsageError(f"{who.id} has no {name} '{value}'; it has {', '.join(allowed)}")
    if settings.task not in who.tasks:
        raise UnsupportedError(f"{who.id} has no task {settings.task}; it has {', '.join(who.tasks)}")
    if not 0 <= settings.seed <= LAST_SEED:
        raise UsageError(
            f"seed {settings.seed}: releases take 0 to {LAST_SEED}; a seed modulo 2**32 is another request"
        )
    if rules.pipeline == "swift" and rules.images == "one" and settings.images != 1:
        raise UsageError(f"{who.id} draws one picture a call, not {settings.images}")
    if settings.task in ("safety-check", "negative-prompt"):
        raise UnsupportedError(f"task {settings.task} draws no picture of its own; it is not played here")


def _check_embeddings(settings: Settings, material: Material) -> None:
    if settings.task != "multilingual":
        return
    if len(material.embeddings) != 2:
        raise UsageError(
            "task multilingual needs the token vectors of prompt and negative prompt, Material(embeddings=(…, …)): "
            "they come from a closed model inside Apple's systems, which nothing away from macOS can ask"
        )
    for vectors in material.embeddings:
        if vectors.ndim != 2 or vectors.shape[1] != DIMENSION:
            raise UsageError(f"token vectors are (tokens, {DIMENSION}), not {vectors.shape}")


def _flows(rules: Conventions) -> tuple[str, ...]:
    """Return schedulers of flows, whose names a release with Stable Diffusion 3 can be asked for: it takes its own."""
    return tuple(flow.SCHEDULERS) if rules.sd3 else ()


def play(
    settings: Settings, networks: Networks, material: Material, location: str, *, by_diffusers: bool = False
) -> np.ndarray:
    """Draw a call's pictures over anybody's networks.

    Parameters
    ----------
    settings : Settings
        The call.
    networks : Networks
        Who computes.
    material : Material
        Texts and pictures.
    location : str
        The checkpoint: the Python pipeline takes its scheduler's configuration.
    by_diffusers : bool
        Take the Swift package's steps by diffusers' schedulers instead of the project's: an independent witness.

    Returns
    -------
    numpy.ndarray
        (images, H, W, 3), float32 in [0, 1]; as 8-bit picture it is also the point ``image`` of the trace.

    Raises
    ------
    ConsumerFailureError
        The release fails.
    """
    if material.xl and settings.conventions.time_ids == "none":
        raise ConsumerFailureError("this release does not know SDXL")
    if settings.task == "multilingual" and (material.xl or material.sd3):
        raise ConsumerFailureError("this family has no multilingual text encoder", rule="multilingual-xl")
    if material.sd3 and not settings.conventions.sd3:
        raise ConsumerFailureError("this release does not know Stable Diffusion 3")
    if not material.sd3 and settings.scheduler in flow.SCHEDULERS:
        raise UsageError(f"scheduler {settings.scheduler!r} steps along a flow, which only Stable Diffusion 3 predicts")
    if material.sd3:
        witness = played.flow if by_diffusers else swift_sd3.schedule
        drawn = swift_sd3.pictures(networks, witness, settings, material)
    elif settings.conventions.pipeline == "swift":
        schedule = played.schedule if by_diffusers else schedules.make
        drawn = swift.pictures(networks, schedule, settings, material)
    else:
        scheduler = python.scheduler(Model(location).scheduler_config, settings.scheduler)
        zero = python.zeroed(checkpoint.index(location), settings, material)
        drawn = python.pictures(networks, scheduler, settings, material, zero_negative=zero)
    networks.observe("image", as_bytes(drawn))
    return drawn


def as_bytes(pictures: np.ndarray) -> np.ndarray:
    """Return pictures in [0, 1] as uint8."""
    return (np.clip(np.nan_to_num(pictures), 0, 1) * 255).round().astype(np.uint8)


def stated(failure: ConsumerFailureError, who: Consumer, task: str) -> str:
    """Return the tables' text for a failure; the finding itself where they have none for this release and task."""
    table = consumers()
    ids = {consumer.id for consumer in table.consumers}
    name = next(name for name in who.lineage if name in ids)  # an app of one's own has the rules of its like
    known = {rule.id: rule for rule in table.rules if name in rule.consumers and task in rule.tasks}
    return next((known[name].failure for name in failure.rule.split() if name in known), str(failure))


# tasks of the tables that are asked for by another name: pictures with a ControlNet are told apart by their images
_ASKED = {"controlnet": "controlnet", "multi-controlnet": "controlnet", "inpaint": "controlnet-inpaint"}
_WHOLE = ((1.0,), (0.0,), (1.0,))  # scale, start and end of ControlNets that act as in an app


def _task(request: Request) -> str:
    """Return what the tables call a request's task; empty for one that no app has."""
    if request.task == "controlnet":
        return "controlnet" if len(request.control) == 1 else "multi-controlnet"
    return {"controlnet-inpaint": "inpaint", "inpaint": "", "unconditional": ""}.get(request.task, request.task)


_SOURCES = {
    "numpy-legacy": "numpy",
    "swift-numpy": "numpy",
    "torch-cpu": "torch",
    "swift-torch": "torch",
    "torch-cuda": "nvidia",
    "swift-nvidia": "nvidia",
}


class Release:
    """A release as a producer: it draws a request with any model and any backend.

    Parameters
    ----------
    name : str
        As the user named it, e.g. ``swift==1.1.0``.
    consumer : Consumer
        The row of the tables that covers it.
    """

    def __init__(self, name: str, consumer: Consumer) -> None:
        self.name = name
        self.consumer = consumer
        self.conventions: Conventions = conventions(consumer)

    def has_stream(self, rng: str) -> bool:
        """Tell whether the release has its own kind of a stream; otherwise it draws from its first source."""
        return _SOURCES.get(rng) in self.conventions.sources

    def stream(self, rng: str) -> str:
        """Return the stream that the release draws from: its own kind of the one that is asked for, else its first."""
        return "numpy-legacy" if self.conventions.pipeline == "python" else f"swift-{self._source(rng)}"

    def _source(self, rng: str) -> str:
        return _SOURCES[rng] if self.has_stream(rng) else self.conventions.sources[0]

    def refusal(self, request: Request) -> str:
        """Return why the release has no such request, whatever the models; empty if it has."""
        who, rules = self.consumer, self.conventions
        if (task := _task(request)) not in who.tasks:
            named = dict.fromkeys(_ASKED.get(name, name) for name in who.tasks)
            known = [name for name in named if name in TASK_COMPONENTS]
            return f"{self.name} has no task {request.task}; it has {', '.join(known)}"
        if request.scheduler not in (known := [*rules.schedulers, *_flows(rules)]):
            return f"{self.name} has no scheduler {request.scheduler}; it has {', '.join(known)}"
        if own := self._own(request, task):
            return own
        if rules.pipeline == "swift" and rules.images == "one" and request.images != 1:
            return f"{self.name} draws one picture a call, not {request.images}"
        return ""

    def _own(self, request: Request, task: str) -> str:
        """Return what a request says that is the release's own business; empty if nothing."""
        rules = self.conventions
        own = [name for name in ("guidance_rescale", "clip_skip") if getattr(request, name)]
        if own := [*request.schedule.given(), *own]:
            return f"{self.name} takes no {' or '.join(own)}: the schedule and the layer are its own"
        if task in _ASKED and (request.control_scale, request.control_start, request.control_end) != _WHOLE:
            return f"{self.name} knows no scales and no shares of ControlNets: each acts fully at every step"
        if request.refiner_start not in (None, REFINER_START) or (request.refiner_start and not rules.refiner):
            after = f"after {REFINER_START:g} of the steps, always" if rules.refiner else "never"
            return f"{self.name} lets a refiner take over {after}; refiner_start = {request.refiner_start} is asked"
        if request.generators != "one":
            return f"{self.name} has no list of generators: it takes one seed"
        if request.safety_checker:
            return f"{self.name}: safety checks of releases are played by the cells of old models, not by cases"
        return ""

    def failure(self, failure: ConsumerFailureError, request: Request) -> str:
        """Return what a user of the release sees, in the words of the tables, and what was found."""
        text, found = stated(failure, self.consumer, _task(request)), str(failure)
        return text if text == found else f"{text} ({found})"

    def involved(self, request: Request, trace: Trace) -> tuple[str, ...]:
        """Return the networks that the release called."""
        return trace.components

    def networks(self, backend: Backend) -> Backend:
        """Return a backend's networks as the release binds them."""
        return backend.as_release(self.conventions)

    def draw(
        self, request: Request, model: Model, backend: Backend, *, seed: int, rng: str, observe: Observe
    ) -> np.ndarray:
        """Draw a request; see :meth:`parity.pipelines.producer.Producer.draw`."""
        image = None if request.image is None else read_picture(request.image, model)
        known = "negative-prompt" in self.consumer.tasks
        texts = (request.prompt, request.negative if known else "")
        if self.conventions.pipeline == "swift" and (tokens := [name for text in texts for name in model.added(text)]):
            raise UnsupportedError(
                f"{self.name} reads vocab.json and merges.txt alone: it has no token {tokens[0]}, an embedding's; "
                "draw the case as diffusers or python, or without it"
            )
        material = Material(
            model.tokens(texts[0]),
            model.tokens(texts[1]),
            image,
            tuple(pictures.control_layers(path, model) for path in request.control),
            xl=model.xl,
            sd3=model.sd3,
        )
        if model.xl and material.controls:
            raise UnsupportedError(f"{self.name} has no ControlNets of SDXL")
        ask = Ask.of(request, seed=seed, task=_task(request), source=self._source(rng))
        settings = settings_of(self.consumer, ask, material, refiner=request.refiner_start is not None)
        latent = (1, *model.latent_shape)
        width = int(model.config("transformer")["joint_attention_dim"]) if model.sd3 else 0
        networks = Networks(self.networks(backend).component, observe, latent, refines=model.refines, width=width)
        return as_bytes(play(settings, networks, material, model.location))
