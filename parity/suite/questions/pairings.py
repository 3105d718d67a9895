"""Which converter release meets which consumer release, for which task, and how is it asked?

Releases that wrote the same and consumers that behave alike for a task give the same execution. By default each
distinct one is one cell; ``--compatibility all`` asks every combination. :mod:`parity.suite.questions.played` executes
the cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from parity import assets
from parity.contracts import converter
from parity.contracts.consumers import Consumer, consumers
from parity.pipelines.request import Request
from parity.suite.case import Case
from parity.suite.questions import releases
from parity.suite.questions.play import conventions
from parity.suite.questions.releases import Release

MODEL = "tiny-sd"  # the smallest: what every release wrote of it is converted in a minute or two
_PROMPT, _NEGATIVE = "a photo of a red circle on a blue background", "blurry, low quality"
SAFETY = (Release("0.1.0"), Release("C3", safety_size=128), Release("main", safety_size=512))
# Which conventions decide what happens in a task; scheduler and random source are asked for
_DECISIVE = {
    "txt2img": ("decodes",),
    "img2img": ("decodes", "encoder"),
    "controlnet": ("decodes", "controlnets"),
    "multi-controlnet": ("decodes", "controlnets"),
    "inpaint": ("holes",),
    "refiner": ("refiner",),
    "safety-check": ("safety",),
}
COMPONENTS = {
    "txt2img": ("text_encoder", "text_encoder_2", "unet", "vae_decoder"),
    "img2img": ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder"),
    "controlnet": ("text_encoder", "control-unet", "controlnet", "vae_decoder"),
    "refiner": ("text_encoder", "text_encoder_2", "unet", "refiner", "vae_decoder"),
    "safety-check": ("safety_checker",),
}
COMPONENTS |= {"multi-controlnet": COMPONENTS["controlnet"], "inpaint": COMPONENTS["controlnet"]}


@dataclass(frozen=True)
class Pairing:
    """Which converter release's models meet which consumer, for which task.

    Attributes
    ----------
    release : Release
    consumer : str
    task : str
        Of ``tables/consumers.toml``.
    """

    release: Release
    consumer: str
    task: str

    @property
    def sentence(self) -> str:
        """The cell without the request."""
        return f"{self.consumer} does {self.task} with models of {self.release.name}"


def cases(scope: str = "distinct") -> list[tuple[Pairing, Case]]:
    """Return the cells of a run, without converting anything.

    Parameters
    ----------
    scope : str
        ``distinct``, ``all`` or ``none``.
    """
    if scope == "none":
        return []
    found = [(pairing, case) for pairing in _pairings() for case in _requests(pairing)]
    return found if scope == "all" else _distinct(found)


def _pairings() -> Iterator[Pairing]:
    plain = [Release(name) for name in releases.SD] + [Release(name, "xl") for name in releases.XL]
    for consumer in consumers().consumers:
        for task in COMPONENTS:
            for release in SAFETY if task == "safety-check" else plain:
                if task in consumer.tasks and _meets(release, consumer, task):
                    yield Pairing(release, consumer.id, task)


def _meets(release: Release, consumer: Consumer, task: str) -> bool:
    """Tell whether both know the family, and the release all components; a missing VAE encoder is a case, too."""
    if ("sd1" if release.family == "sd" else "sdxl") not in consumer.families:
        return False
    if task in ("controlnet", "multi-controlnet", "inpaint") and release.family == "xl":
        return False
    known = set(release.components())
    needed = set(COMPONENTS[task]) - ({"text_encoder_2"} if release.family == "sd" else set())
    return needed - {"vae_encoder"} <= known


def _requests(pairing: Pairing) -> list[Case]:
    """Return the requests of a pairing: the default scheduler, and DPM-Solver++ with several images where there are."""
    rules = conventions(consumers().consumer(pairing.consumer))
    image = assets.fixtures() / "pictures" / "start.png" if pairing.task == "img2img" else None
    several = 1 if rules.images == "one" else 2
    base = Request("img2img" if image else "txt2img", _PROMPT, _NEGATIVE, "pndm", steps=4, strength=0.7, image=image)
    solver = replace(base, scheduler="dpm++", steps=8)  # it begins at timestep 999: few steps from there are unstable
    asked = [base] if "pndm" in rules.schedulers else []
    drawable = {"txt2img": True, "img2img": "vae_encoder" in pairing.release.components()}.get(pairing.task, False)
    if "dpm++" in rules.schedulers and drawable and pairing.release.family == "sd":
        asked.append(replace(solver, images=several))
    if not asked or pairing.task in ("inpaint", "refiner"):
        asked = [solver]
    stream = "numpy-legacy" if rules.pipeline == "python" else "swift-numpy"
    release = pairing.release
    made = "-".join(filter(None, [release.contract, release.family.strip("sd"), f"{release.safety_size or ''}"]))
    name = f"{made}-in-{pairing.consumer}-{pairing.task}"
    if pairing.task == "safety-check":
        return [Case(name, base, 93, stream)]
    return [Case(f"{name}-{request.scheduler}", request, 93, stream) for request in asked]


def _distinct(found: list[tuple[Pairing, Case]]) -> list[tuple[Pairing, Case]]:
    """Choose one cell for each distinct execution, spread over the converter releases."""
    groups: dict[Any, list[tuple[Pairing, Case]]] = {}
    for pairing, case in found:
        rules = conventions(consumers().consumer(pairing.consumer))
        decisive = tuple(getattr(rules, name) for name in ("pipeline", "images", *_DECISIVE[pairing.task]))
        xl = pairing.release.family == "xl"
        spacing = rules.xl_spacing if case.request.scheduler == "dpm++" else ""
        extra = (rules.time_ids, spacing, rules.factor_xl) if xl else ()
        request = (case.request.scheduler, case.request.images)
        key = (pairing.task, pairing.release.family, _forms(pairing.release, pairing.task), decisive, extra, request)
        groups.setdefault(key, []).append((pairing, case))
    used: Counter[str] = Counter()
    chosen = []
    for group in groups.values():
        pairing, case = min(group, key=lambda entry: (used[entry[0].release.name], used[entry[0].consumer]))
        used.update([pairing.release.name, pairing.consumer])
        chosen.append((pairing, case))
    return chosen


def _forms(release: Release, task: str) -> tuple[Any, ...]:
    """Return the forms of the components that a task involves, as the converter tables state them."""
    family = "sd1" if release.family == "sd" else "sdxl"
    found = []
    for entry in converter(release.contract).components:
        if entry.component in COMPONENTS[task] and entry.family == family and not entry.variant:
            features = [(rule.name, str(rule.shape_formula), rule.dtype) for rule in (*entry.inputs, *entry.outputs)]
            found.append((entry.component, tuple(features), entry.compute))
    return (*found, release.safety_size)
