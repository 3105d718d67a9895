"""Is what the contract tables say what happens when a consumer release is played on a converter release's models?

A cell takes every component as a converter release wrote it (:mod:`parity.suite.questions.releases`), inspects the
folder, plays one consumer on it in the reference runtime (:mod:`parity.suite.questions.play`), and compares the result
with the tables: *yes* and *degraded* must give PyTorch's picture (with the release's own flaws), *no* must end with a
failure that the tables quote; where the files do not tell (*unknown*), a picture must be PyTorch's. Equal executions
are looked up. The consumers themselves are not run.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from parity import mil
from parity.contracts.capability import Cell, Matrix, capabilities
from parity.contracts.consumers import consumers
from parity.contracts.inspect import inspect
from parity.errors import UnsupportedError
from parity.models.model import Model
from parity.pipelines.release import as_bytes
from parity.pipelines.request import Request, read_picture
from parity.suite import comparison
from parity.suite.case import Case
from parity.suite.comparison import Check
from parity.suite.questions import candidate, releases
from parity.suite.questions import pairings as compatibility
from parity.suite.questions.pairings import Pairing
from parity.suite.questions.play import Ask, Execution, Material, conventions, execute
from parity.suite.questions.releases import Release
from parity.suite.questions.safety import check_safety
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict

POINT = "compatibility"


class Player:
    """Executes cells; keeps packages, inspections, loaded models and equal executions between them.

    Parameters
    ----------
    model : Model
        The PyTorch original of the SD releases.
    table : sequence of Tolerance
        For the networks of a picture that is wrong.
    """

    def __init__(self, model: Model, table: Sequence[Tolerance] = ()) -> None:
        self.model = model
        self._table = table
        self._kept: dict[Any, Any] = {}
        self._played: dict[Any, Any] = {}

    def judge(
        self, pairing: Pairing, case: Case, tolerance: Tolerance | None
    ) -> tuple[tuple[Check, ...], dict[str, np.ndarray]]:
        """Execute one cell and compare it with the tables.

        Parameters
        ----------
        pairing, case
            Who meets whom, and what is asked.
        tolerance : Tolerance or None
            For the pictures, where some are expected.

        Returns
        -------
        checks : tuple of Check
            *Pass* where execution and tables agree; its message says how a known failure looks. *Unknown* where the
            consumer cannot be played. Where a picture is wrong, the checks of its networks follow.
        pictures : dict
            uint8 (images, height, width, 3) by role, empty where none was drawn.
        """
        expected = self.matrix(pairing.release).cell(pairing.task, pairing.consumer)
        try:
            if pairing.task == "safety-check":
                return (self._safety(pairing, expected),), {}
            result = self._play(pairing, case)
        except UnsupportedError as error:
            return (comparison.unknown(POINT, str(error)),), {}
        if result.failure:
            return (_failed(result.failure, result.detail, pairing, expected),), {}
        pictures = _pictures(result)
        if expected.verdict == "no":
            return (_disagree(pairing, "draws a picture", expected),), pictures
        pair = (pictures["reference"], pictures["candidate"])
        check = comparison.worst(POINT, {"image": pair}, tolerance, names=("PyTorch", pairing.consumer))
        if check.verdict is not Verdict.FAIL or result.backends is None:
            return (check,), pictures
        drawn, reference = result.traces  # which network is it?
        involved = reference.components
        networks = candidate.compare(reference, drawn, result.backends, involved, self._table)
        return (check, *(each for each in networks if each.point in involved)), pictures

    @lru_cache(maxsize=64)  # noqa: B019 - a player lives as long as its run
    def packages(self, release: Release) -> dict[str, Path]:
        """Return the packages of a release."""
        return releases.packages(release, self.model.location, ("safety_checker",) if release.safety_size else ())

    @lru_cache(maxsize=64)  # noqa: B019
    def matrix(self, release: Release) -> Matrix:
        """Inspect the folder of a release and return its capabilities."""
        models = self.packages(release)
        if release.safety_size:  # a checker of another size lies beside a decoder of the model's own
            models = models | releases.packages(Release("main"), self.model.location, ("vae_decoder",))
        with tempfile.TemporaryDirectory(prefix="parity-compatibility-") as folder:
            return capabilities(inspect(releases.assemble(models, Path(folder))).bundles[0])

    def _play(self, pairing: Pairing, case: Case) -> Execution:
        release, request = pairing.release, case.request
        involved = compatibility.COMPONENTS[pairing.task]
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
            negative = request.negative if "negative-prompt" in consumer.tasks else ""
            material = Material(
                self.model.tokens(request.prompt),
                self.model.tokens(negative),
                self._image(release, request),
                tuple(self._controls(pairing)),
            )
            ask = Ask.of(request, seed=case.seed, task=pairing.task)
            original = releases.original(release, self.model.location)
            self._played[key] = execute(models, pairing.consumer, original, material, ask, kept=self._kept)
        return replace(self._played[key], consumer=pairing.consumer)

    def _safety(self, pairing: Pairing, expected: Cell) -> Check:
        release = pairing.release
        location = releases.safety(Path(self.model.location))
        side = self.model.image_size[0]
        shades = [np.linspace(low, 1, 3 * side * side).reshape(side, side, 3) for low in (0.0, 0.5)]
        plain = np.full((side, side, 3), 0.6) * (1, 0.5, 1)  # this one the drawn checker flags
        pictures = np.stack([*shades, plain])
        models = {"safety_checker": self.packages(release)["safety_checker"]}
        result = check_safety(models, pairing.consumer, location, pictures.astype(np.float32), kept=self._kept)
        if result.failure:
            return _failed(result.failure, result.detail, pairing, expected)
        if expected.verdict != "yes" or result.flags != result.references or len(set(result.flags)) != 2:
            return _disagree(pairing, f"flags {result.flags}, PyTorch {result.references}", expected)
        return Check(POINT, "flags as PyTorch's checker", "", math.nan, math.nan, Verdict.PASS, "")

    def _image(self, release: Release, request: Request) -> np.ndarray | None:
        if request.image is None:
            return None
        model = self.model if release.family == "sd" else Model("tiny-sdxl")
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


@lru_cache(maxsize=256)
def _program(path: Path) -> str:
    """Digest of what a package computes: program and weights, without texts."""
    return mil.load(path).program_digest()


def _failed(failure: str, detail: str, pairing: Pairing, expected: Cell) -> Check:
    quoted = {reason.failure for reason in expected.reasons if reason.verdict == "no"}
    if expected.verdict == "unknown":
        return comparison.unknown(POINT, f"fails: {failure} ({detail}); the tables say: {expected.failure}")
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
    return {role: as_bytes(pixels) for role, pixels in roles.items()}
