"""Converter release × consumer release × task: is what the contract tables say what happens when it is executed?

A cell takes every component as a converter release wrote it (:mod:`parity.suite.releases`), inspects the folder, plays
one consumer on it in the reference runtime (:mod:`parity.contracts.conventions`), and holds the result against the
tables: *yes* and *degraded* must give PyTorch's picture (with the release's own flaws), *no* must end with a failure
that the tables quote. The consumers themselves are not run.

Releases that wrote the same and consumers that behave alike for a task give the same execution. By default each
distinct one is one cell; ``--compatibility all`` asks every combination, where equal executions are looked up.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from parity import assets, mil
from parity.contracts import converter
from parity.contracts.capability import Cell, Matrix, capabilities
from parity.contracts.consumers import Consumer, consumers
from parity.contracts.conventions import Execution, conventions, execute
from parity.contracts.conventions.safety import check_safety
from parity.contracts.inspect import inspect
from parity.errors import UnsupportedError
from parity.pipelines.model import Model
from parity.pipelines.tasks import Request, read_picture
from parity.suite import comparison, releases
from parity.suite.case import Case
from parity.suite.comparison import Check
from parity.suite.releases import Release
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict

POINT = "compatibility"

_PROMPT, _NEGATIVE = "a photo of a red circle on a blue background", "blurry, low quality"
_SAFETY = (Release("0.1.0"), Release("C3", safety_size=128), Release("main", safety_size=512))
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
_COMPONENTS = {
    "txt2img": ("text_encoder", "text_encoder_2", "unet", "vae_decoder"),
    "img2img": ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder"),
    "controlnet": ("text_encoder", "control-unet", "controlnet", "vae_decoder"),
    "refiner": ("text_encoder", "text_encoder_2", "unet", "refiner", "vae_decoder"),
    "safety-check": ("safety_checker",),
}
_COMPONENTS |= {"multi-controlnet": _COMPONENTS["controlnet"], "inpaint": _COMPONENTS["controlnet"]}


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
        for task in _COMPONENTS:
            for release in _SAFETY if task == "safety-check" else plain:
                if task in consumer.tasks and _meets(release, consumer, task):
                    yield Pairing(release, consumer.id, task)


def _meets(release: Release, consumer: Consumer, task: str) -> bool:
    """Tell whether both know the family, and the release all components; a missing VAE encoder is a case, too."""
    if ("sd1" if release.family == "sd" else "sdxl") not in consumer.families:
        return False
    if task in ("controlnet", "multi-controlnet", "inpaint") and release.family == "xl":
        return False
    known = set(release.components())
    needed = set(_COMPONENTS[task]) - ({"text_encoder_2"} if release.family == "sd" else set())
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
        if pairing.release.family == "xl" and rules.xl_spacing == "karras" and case.request.scheduler != "pndm":
            continue  # not played: unknown
        decisive = tuple(getattr(rules, name) for name in ("pipeline", "images", *_DECISIVE[pairing.task]))
        extra = (rules.time_ids, rules.xl_spacing) if pairing.release.family == "xl" else ()
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
        if entry.component in _COMPONENTS[task] and entry.family == family and not entry.variant:
            features = [(rule.name, str(rule.shape_formula), rule.dtype) for rule in (*entry.inputs, *entry.outputs)]
            found.append((entry.component, tuple(features), entry.compute))
    return (*found, release.safety_size)


class Player:
    """Executes cells; keeps packages, inspections, loaded models and equal executions between them.

    Parameters
    ----------
    model : Model
        The PyTorch original of the SD releases.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._kept: dict[Any, Any] = {}
        self._played: dict[Any, Any] = {}

    def judge(self, pairing: Pairing, case: Case, tolerance: Tolerance | None) -> tuple[Check, dict[str, np.ndarray]]:
        """Execute one cell and compare it with the tables.

        Parameters
        ----------
        pairing, case
            Who meets whom, and what is asked.
        tolerance : Tolerance or None
            For the pictures, where some are expected.

        Returns
        -------
        check : Check
            *Pass* where execution and tables agree; its message says how a known failure looks. *Unknown* where the
            consumer cannot be played.
        pictures : dict
            uint8 (images, height, width, 3) by role, empty where none was drawn.
        """
        expected = self.matrix(pairing.release).cell(pairing.task, pairing.consumer)
        try:
            if pairing.task == "safety-check":
                return self._safety(pairing, expected), {}
            result = self._play(pairing, case)
        except UnsupportedError as error:
            return comparison.unknown(POINT, str(error)), {}
        if result.failure:
            return _failed(result.failure, result.detail, pairing, expected), {}
        pictures = _pictures(result)
        if expected.verdict not in ("yes", "degraded"):
            return _disagree(pairing, "draws a picture", expected), pictures
        pair = (pictures["reference"], pictures["candidate"])
        return comparison.worst(POINT, {"image": pair}, tolerance, names=("PyTorch", pairing.consumer)), pictures

    @lru_cache(maxsize=64)  # noqa: B019 - a player lives as long as its run
    def packages(self, release: Release) -> dict[str, Path]:
        """Return the packages of a release."""
        safety = release in _SAFETY and bool(release.safety_size)
        return releases.packages(release, self.model.location, ("safety_checker", "vae_decoder") if safety else ())

    @lru_cache(maxsize=64)  # noqa: B019
    def matrix(self, release: Release) -> Matrix:
        """Inspect the folder of a release and return its capabilities."""
        models = self.packages(release)
        if release.safety_size:  # a checker of another size lies beside a decoder of the model's own
            models = {name: models[name] for name in ("safety_checker",)} | self._decoder()
        with tempfile.TemporaryDirectory(prefix="parity-compatibility-") as folder:
            return capabilities(inspect(releases.assemble(models, Path(folder))).bundles[0])

    def _decoder(self) -> dict[str, Path]:
        return releases.packages(Release("main"), self.model.location, ("vae_decoder",))

    def _play(self, pairing: Pairing, case: Case) -> Execution:
        release, request = pairing.release, case.request
        involved = _COMPONENTS[pairing.task]
        models = {n: path for n, path in self.packages(release).items() if n.partition(":")[0] in involved}
        if pairing.task == "controlnet":  # one of the two
            second = [name for name in models if name.startswith("controlnet:")][1:]
            models = {name: path for name, path in models.items() if name not in second}
        consumer = consumers().consumer(pairing.consumer)
        rules = conventions(consumer)
        digests = tuple(sorted((name, _program(path)) for name, path in models.items()))
        key = (digests, consumer.app, rules, pairing.task, request)
        known = self._played.get(key)
        if known is None or (known.failure and known.consumer != consumer.id):  # each has its own message
            self._played[key] = execute(
                models,
                pairing.consumer,
                releases.original(release, self.model.location),
                prompt=self._tokens(request.prompt),
                negative=self._tokens(request.negative_prompt if "negative-prompt" in consumer.tasks else ""),
                task=pairing.task,
                image=self._image(release, request),
                controls=self._controls(pairing),
                scheduler=request.scheduler,
                spacing=rules.xl_spacing if release.family == "xl" else "linspace",
                seed=case.seed,
                steps=request.steps,
                images=request.images,
                strength=request.strength,
                guidance=request.guidance_scale,
                kept=self._kept,
            )
        return replace(self._played[key], consumer=pairing.consumer)

    def _safety(self, pairing: Pairing, expected: Cell) -> Check:
        release = pairing.release
        location = releases.safety(Path(self.model.location))
        side = self.model.image_size[0]
        pictures = np.stack([np.linspace(low, 1, 3 * side * side).reshape(side, side, 3) for low in (0.0, 0.5, 0.9)])
        models = {"safety_checker": self.packages(release)["safety_checker"]}
        result = check_safety(models, pairing.consumer, location, pictures.astype(np.float32), kept=self._kept)
        if result.failure:
            return _failed(result.failure, result.detail, pairing, expected)
        if expected.verdict != "yes" or result.flags != result.references:
            return _disagree(pairing, f"flags {result.flags}, PyTorch {result.references}", expected)
        return Check(POINT, "flags as PyTorch's checker", "", math.nan, math.nan, Verdict.PASS, "")

    def _tokens(self, text: str) -> np.ndarray:
        return self.model.tokens(text)

    def _image(self, release: Release, request: Request) -> np.ndarray | None:
        if request.image is None:
            return None
        model = self.model if release.family == "sd" else _xl_model()
        return read_picture(request.image, model)

    def _controls(self, pairing: Pairing) -> list[np.ndarray]:
        """Control images: a gradient and its mirror image; for inpainting the middle is transparent."""
        if pairing.task not in ("controlnet", "multi-controlnet", "inpaint"):
            return []
        height, width = self.model.image_size
        image = np.ones((1, 4, height, width), np.float32)
        image[0, :3] = np.linspace(0, 1, width, dtype=np.float32)
        if pairing.task == "inpaint":
            image[0, 3, height // 4 : -height // 4, width // 4 : -width // 4] = 0
        return [image, image[..., ::-1]] if pairing.task == "multi-controlnet" else [image]


def _xl_model() -> Model:
    return Model("tiny-sdxl")


@lru_cache(maxsize=256)
def _program(path: Path) -> str:
    """Digest of what a package computes: program, features and weights, without texts."""
    model = mil.load(path)
    total = hashlib.sha256(model.specification.mlProgram.SerializeToString(deterministic=True))
    for name in model.weights.names():
        total.update(model.weights.path(name).read_bytes())
    return total.hexdigest()


def _failed(failure: str, detail: str, pairing: Pairing, expected: Cell) -> Check:
    quoted = {reason.failure for reason in expected.reasons if reason.verdict == "no"}
    if failure not in quoted:
        return _disagree(pairing, f"fails: {failure} ({detail})", expected)
    text = f"fails as the tables say: {failure}"
    return Check(POINT, "fails as the tables say", "", math.nan, math.nan, Verdict.PASS, text)


def _disagree(pairing: Pairing, text: str, expected: Cell) -> Check:
    said = f"{expected.verdict} {expected.failure}".strip()
    message = f"{POINT}: {pairing.sentence}: {text}, but the tables say: {said}"
    return Check(POINT, POINT, "", math.nan, math.nan, Verdict.FAIL, message)


def _pictures(result: Execution) -> dict[str, np.ndarray]:
    assert result.pictures is not None
    assert result.references is not None
    roles = {"reference": result.references, "candidate": result.pictures}
    return {role: (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8) for role, pixels in roles.items()}
