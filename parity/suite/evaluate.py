"""How is a cell decided?

A candidate and the reference (run once per case) draw with the same stream and are compared by
:mod:`parity.suite.questions.candidate`. For a golden the reference's trace is compared with the accepted one; for
compatibility see :mod:`parity.suite.questions.played`. Each comparison has its own tolerance; the cell's verdict
combines them.

The verdict is about the numerics named in the cell and nothing else: the reference runtime never speaks for hardware.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from parity.backends import packages, registry
from parity.backends.packages import Packages
from parity.backends.registry import Subject
from parity.errors import ParityError, UnsupportedError
from parity.models.model import Model
from parity.networks.backend import Backend
from parity.pipelines.producer import DEFAULT, producer
from parity.pipelines.request import TASK_COMPONENTS
from parity.pipelines.trace import Trace
from parity.suite import case as cases
from parity.suite import comparison, provenance, tolerance
from parity.suite.case import Case
from parity.suite.once import once
from parity.suite.options import Options
from parity.suite.outcome import Outcome, reproduce
from parity.suite.plan import Cell
from parity.suite.questions import candidate, golden
from parity.suite.questions import pairings as compatibility
from parity.suite.questions import played as player
from parity.suite.questions.candidate import Situation
from parity.suite.remarks import remarks

Progress = Callable[[str], None]
"""Called with a short text whenever something that takes time begins or advances."""


class Evaluator:
    """Decides cells; keeps models and the reference's traces between them.

    Parameters
    ----------
    options : Options
        What to run.
    progress : callable, optional
        Told what is going on.
    """

    def __init__(self, options: Options, progress: Progress | None = None) -> None:
        self.options = options
        self._progress: Progress = progress or (lambda text: None)
        self._tolerances = tolerance.load(options.tolerances)
        self._candidates: dict[str, Backend] = {}

    @once
    def model(self) -> Model:
        """The PyTorch original, at the size of the user's models where there are some.

        Raises
        ------
        UnsupportedError
            The tasks do not draw with such a model.
        """
        model = Model(self.options.model_version)
        model.check_tasks()
        if self.options.models is None or self._only_core_ai or self.packages.latent is None:
            return model
        return model.resized(self.packages.latent)

    @cached_property
    def _only_core_ai(self) -> bool:
        """Whether the user's folder holds Core AI files and a named backend reads them."""
        folder = self.options.models
        return bool(self.options.backend) and folder is not None and any(folder.glob("*.aimodel"))

    @cached_property
    def reference(self) -> Backend:
        """The original's networks."""
        from parity.backends.pytorch import TorchBackend

        return TorchBackend(self.model.location, device=self.options.device)

    @cached_property
    def _player(self) -> player.Player:
        return player.Player(Model(compatibility.MODEL))

    @once
    def packages(self) -> Packages:
        """The converted components: the user's, or converted here and cached."""
        if self.options.models is not None:
            return packages.find(self.options.models)
        from parity import convert

        location = self.model.location
        self._progress("converting the model (kept for later runs)")
        return packages.converted(convert.cached(location))

    @cached_property
    def _cases(self) -> list[Case]:
        return cases.load(self.options.cases, seed=self.options.seed, rng=self.options.rng)

    @cached_property
    def weights(self) -> str:
        """Digest of the original's weights; empty for a hub id."""
        return provenance.digest(Path(self.model.location))

    def evaluate(self, cell: Cell) -> Outcome:
        """Decide one cell.

        Raises
        ------
        ParityError
            The question cannot be asked: a model, picture or golden is missing or damaged.
        """
        if cell.unavailable:
            return self._unknown(cell, cell.unavailable)
        decide = {"golden": self._golden, "candidate": self._candidate, "compatibility": self._compatibility}
        return decide[cell.kind](cell)

    def run(self, backend: Backend, case: Case) -> tuple[Trace, float]:
        """Run one case on one backend; return its trace and the seconds it took."""
        trace = Trace()

        def observe(point: str, value: np.ndarray) -> None:
            trace(point, value)
            if point.startswith("latents/step"):
                self._progress(f"{case.name} on {backend.numerics}: {point.removeprefix('latents/')}")

        who = producer(DEFAULT)
        backend.components(TASK_COMPONENTS[case.request.task])  # loading is not counted
        start = time.perf_counter()
        who.draw(case.request, self.model, backend, seed=case.seed, rng=case.rng, observe=observe)
        return trace, time.perf_counter() - start

    @lru_cache(maxsize=32)  # noqa: B019 - an evaluator lives as long as its run
    def _reference_run(self, case: Case) -> tuple[Trace, float]:
        return self.run(self.reference, case)

    def _candidate(self, cell: Cell) -> Outcome:
        case = cell.case
        components = TASK_COMPONENTS[case.request.task]
        try:
            backend = self._backend(cell)
        except UnsupportedError as error:
            if not cell.backend:
                raise
            return self._unknown(cell, str(error))
        situation = self._situation(backend, components, named=bool(cell.backend))
        reference, reference_seconds = self._reference_run(case)
        seconds = {"reference": reference_seconds}
        pictures = {"reference": reference["image"]}
        drawn = None
        if not situation.blocked:
            try:
                drawn, seconds["candidate"] = self.run(backend, case)
                pictures["candidate"] = drawn["image"]
            except ParityError as error:  # a component takes other shapes: comparing it alone tells which
                self._progress(str(error))
        found = candidate.compare(reference, drawn, (self.reference, backend), components, self._tolerances, situation)
        return Outcome(
            cell,
            found if cell.backend else tuple(replace(c, message=self.packages.say(c.message)) for c in found),
            seconds,
            reproduce(self.options, cell),
            pictures,
            (*remarks(case, self.model, self._cases), *(() if cell.backend else self._about_models(components))),
        )

    def _situation(self, backend: Backend, components: Sequence[str], *, named: bool) -> Situation:
        """Find out which components cannot run, and which are compressed; a named backend knows its own models."""
        parts = {} if named else {name: self.packages.parts[name] for name in components}
        blocked = {name: part.problem for name, part in parts.items() if part.problem}
        damaged = {name for name, part in parts.items() if part.damaged}
        for name in components:
            if name in blocked:
                continue
            try:
                backend.component(name)
            except ParityError as error:
                blocked[name] = str(error)
                damaged.add(name)
        compression = {name: part.compression for name, part in parts.items() if part.compression}
        return Situation(blocked, frozenset(damaged), compression)

    def _about_models(self, components: Sequence[str]) -> tuple[str, ...]:
        found = list(self.packages.remarks)
        for name in components:
            if form := self.packages.parts[name].compression:
                found.append(f"{name}: its weights are compressed ({form}); the shipped bounds are for float16 weights")
        return tuple(found)

    def _backend(self, cell: Cell) -> Backend:
        if cell.backend:
            if cell.backend not in self._candidates:
                subject = Subject(self.model.location, self.options.models, lambda: self.packages.paths, self._progress)
                self._candidates[cell.backend] = registry.open_backend(cell.backend, subject)
            return self._candidates[cell.backend]
        if cell.numerics not in self._candidates:
            from parity.backends.coreml import CoreMLBackend

            self._candidates[cell.numerics] = CoreMLBackend(
                self.packages.paths, compute_unit=cell.units[0], runtime=self.options.coreml_runtime
            )
        return self._candidates[cell.numerics]

    def _golden(self, cell: Cell) -> Outcome:
        assert self.options.goldens is not None  # the plan has no such cell otherwise
        trace, seconds = self._reference_run(cell.case)
        size = self.model.image_size if self.model.has_other_size else None
        if self.options.update_golden:
            where = golden.save(
                self.options.goldens, self.model.name, cell.case, trace, weights=self.weights, size=size
            )
            return self._unknown(cell, f"accepted now as golden {where}; look at image.png, then run again")
        accepted = golden.load(self.options.goldens, self.model.name, cell.case, weights=self.weights, size=size)
        checks: list[comparison.Check] = []
        for point, pairs in golden.pairs(accepted.trace, trace).items():
            bounds = self._tolerances_of(point, self.reference)
            checks += comparison.judge(point, pairs, bounds, names=("accepted", self.reference.numerics))
        pictures = {"reference": accepted.trace["image"], "candidate": trace["image"]}
        return Outcome(cell, tuple(checks), {"candidate": seconds}, reproduce(self.options, cell), pictures)

    def _compatibility(self, cell: Cell) -> Outcome:
        assert cell.pairing is not None  # only these cells are of this kind
        self._progress(f"playing {cell.pairing.sentence}")
        bound = tolerance.find(self._tolerances, player.POINT, precision="float16", numerics=cell.numerics)
        start = time.perf_counter()
        check, pictures = self._player.judge(cell.pairing, cell.case, bound)
        seconds = {"candidate": time.perf_counter() - start}
        return Outcome(cell, (check,), seconds, reproduce(self.options, cell), pictures)

    def _tolerances_of(self, point: str, backend: Backend) -> tuple[tolerance.Tolerance, ...]:
        return tolerance.find_all(self._tolerances, point, precision=backend.precision, numerics=backend.numerics)

    def _unknown(self, cell: Cell, reason: str) -> Outcome:
        return Outcome(cell, (comparison.unknown("image", reason),), {}, reproduce(self.options, cell))
