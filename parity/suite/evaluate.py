"""How is a cell decided?

A candidate and the reference (run once per case) draw with the same stream and are compared by
:mod:`parity.suite.questions.candidate`. For a golden the reference's trace is compared with the accepted one; for
compatibility see :mod:`parity.suite.questions.played`, for producers and pictures drawn elsewhere
:mod:`parity.suite.questions.between`. Each comparison has its own tolerance; the cell's verdict combines them.

The verdict is about the numerics named in the cell and nothing else: the reference runtime never speaks for hardware.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from parity.errors import ParityError, UnsupportedError
from parity.models.model import Model
from parity.networks.backend import Backend
from parity.pipelines import command
from parity.pipelines.command import PRODUCT, Setting, SwiftCommand
from parity.pipelines.producer import producer
from parity.pipelines.release import Release
from parity.pipelines.settings import ConsumerFailureError
from parity.pipelines.trace import Trace
from parity.suite import comparison, provenance, tolerance, traces
from parity.suite.case import Case
from parity.suite.comparison import Check
from parity.suite.course import follow
from parity.suite.goldens.keys import here
from parity.suite.goldens.store import Asked
from parity.suite.outcome import Outcome, reproduce
from parity.suite.plan import Cell
from parity.suite.questions import between, candidate, golden, overflow, played
from parity.suite.questions import pairings as compatibility
from parity.suite.questions.candidate import Situation
from parity.suite.remarks import remarks
from parity.suite.stage import Progress, Stage
from parity.suite.verdict import Verdict

__all__ = ["Evaluator", "Progress"]


class Evaluator(Stage):
    """Decides cells; keeps models and the reference's traces between them.

    Parameters
    ----------
    options : Options
        What to run.
    progress : callable, optional
        Told what is going on.
    """

    @cached_property
    def _player(self) -> played.Player:
        return played.Player(Model(compatibility.MODEL), self.tolerances)

    def evaluate(self, cell: Cell) -> Outcome:
        """Decide one cell.

        Raises
        ------
        ParityError
            The question cannot be asked: a model, picture or golden is missing or damaged.
        """
        if cell.unavailable:
            return self._unknown(cell, cell.unavailable)
        decide = {
            "golden": self._golden,
            "candidate": self._candidate,
            "compatibility": self._compatibility,
            "producer": self._producer,
            "picture": self._picture,
        }
        return decide[cell.kind](cell)

    def _candidate(self, cell: Cell) -> Outcome:
        case = cell.case
        self.require(case)
        who = case.who
        try:
            backend = who.networks(self.candidate(cell))
        except UnsupportedError as error:
            if not cell.backend:
                raise
            return self._unknown(cell, str(error))
        try:
            reference, reference_seconds = self.reference_run(case)
        except ConsumerFailureError as failure:  # whatever computes the networks
            return self._outcome(cell, (candidate.failed(failure, who, case),), {}, {})
        components = who.involved(case.request, reference)
        refines = isinstance(who, Release) and who.conventions.refiner and not cell.backend
        if refines and not self.options.refiner and self.packages_of(case).part("refiner").paths:
            text = f"{who.name} lets the refiner among these models take over, and its original is not given here"
            return self._unknown(cell, f"{text}; name its checkpoint with --refiner, or take it out of the folder")
        situation = self._situation(cell, backend, components)
        seconds, pictures = {"reference": reference_seconds}, {"reference": reference["image"]}
        drawn: Trace | None = None
        broken: RuntimeError | None = None
        failures: tuple[Check, ...] = ()
        if not situation.blocked:
            try:
                drawn, seconds["candidate"] = self.run(self.candidate(cell), case)
                pictures["candidate"] = drawn["image"]
            except ConsumerFailureError as failure:
                failures = (candidate.failed(failure, who, case),)
                situation = replace(situation, stopped=f"{who.name} fails before it")
            except (ParityError, RuntimeError) as error:  # comparing each component alone tells which
                situation = replace(situation, stopped=f"the run ended with {type(error).__name__}: {error}")
                broken = error if isinstance(error, RuntimeError) and not isinstance(error, ParityError) else None
        found = candidate.compare(reference, drawn, (self.reference, backend), components, self.tolerances, situation)
        if broken is not None and not any(check.verdict is Verdict.FAIL for check in found):
            raise broken  # no network by itself: whatever it was, the picture was not drawn
        checks = tuple(replace(check, message=self._say(cell, check.message)) for check in (*failures, *found))
        about = (*backend.remarks, *(() if cell.backend else self._about_models(case, components)))
        traces.keep(self.options, cell, {"reference": reference, "candidate": drawn})
        return replace(self._outcome(cell, checks, seconds, pictures, about), course=follow(reference, drawn))

    def _say(self, cell: Cell, text: str) -> str:
        """Name files as the user named them."""
        return text if cell.backend else self.packages_of(cell.case).say(text)

    def _situation(self, cell: Cell, backend: Backend, components: Sequence[str]) -> Situation:
        """Find out which components cannot run, and which are compressed; a named backend knows its own models."""
        parts = {} if cell.backend else {name: self.packages_of(cell.case).part(name) for name in components}
        # what a release cannot run ends as it does in the app
        tried = {name for name, part in parts.items() if cell.case.released and part.paths}
        blocked = {name: part.problem for name, part in parts.items() if part.problem and name not in tried}
        blocked |= {name: part.problem for name, part in parts.items() if part.damaged}
        damaged = {name for name, part in parts.items() if part.damaged}
        for name in components:
            if name in blocked:
                continue
            try:
                backend.component(name)
            except ConsumerFailureError:
                continue
            except ParityError as error:
                blocked[name] = str(error)
                damaged.add(name)
        compression = {name: part.compression for name, part in parts.items() if part.compression}
        return Situation(
            blocked, frozenset(damaged), compression, standard=self.standard(cell.case, tuple(compression))
        )

    def _about_models(self, case: Case, components: Sequence[str]) -> tuple[str, ...]:
        found = list(self.packages_of(case).remarks)
        for name in components:
            part = self.packages_of(case).part(name)
            if form := part.compression:
                found.append(
                    f"{name}: its weights are compressed ({form}); it is judged by half precision with these weights"
                )
            if text := overflow.finding(name, part.paths):
                found.append(text)
        return tuple(found)

    def _golden(self, cell: Cell) -> Outcome:
        """Compare what the reference, or a candidate, draws with what was accepted of it."""
        directory, case = self.options.goldens, cell.case
        assert directory is not None  # the plan has no such cell otherwise
        self.require(case)
        if cell.units or cell.backend:
            backend = self.candidate(cell)
            trace, seconds = self.run(backend, case)
        else:
            backend = self.reference
            trace, seconds = self.reference_run(case)
        model = self.model_of(case)
        size = model.image_size if model.has_other_size else None
        asked = Asked(self.model.name, case, self.weights, here(backend.numerics), size, self._beside(case))
        own = self.options.golden_dir is not None or self.options.update_golden
        goldens = golden.Goldens(directory, lambda point: self.bounds(point, backend), writable=own)
        answer = (goldens.accept if self.options.update_golden else goldens.compare)(asked, trace)
        course = follow(answer.accepted, trace) if answer.accepted is not None else None
        command, pictures = reproduce(self.options, cell), dict(answer.pictures)
        seconds_by = {"candidate": seconds}
        about = None if answer.golden is None else {**asdict(answer.golden), "sentence": answer.golden.sentence}
        outcome = Outcome(cell, answer.checks, seconds_by, command, pictures, answer.remarks, course=course)
        return replace(outcome, golden=about)

    def _beside(self, case: Case) -> dict[str, str | list[str]]:
        """Return the digests of the other checkpoints that a case takes part of its picture from."""
        found: dict[str, str | list[str]] = {}
        if used := list(self.controlnets.values())[: len(case.request.control)]:
            found["controlnet"] = [provenance.digest(folder) for folder in used]
        if case.request.refiner_start is not None and self.model.refiner is not None:
            found["refiner"] = provenance.digest(Path(self.model.refiner.location))
        return found

    def _producer(self, cell: Cell) -> Outcome:
        """Compare two producers, both by PyTorch."""
        case = cell.case
        other = replace(case, producer=cell.against, rng=producer(cell.against).stream(case.rng))
        drawn: list[Trace] = []
        for asked in (other, case):
            self.require(asked)
            try:
                drawn.append(self.reference_run(asked)[0])
            except ConsumerFailureError as failure:
                return self._outcome(cell, (candidate.failed(failure, asked.who, asked),), {}, {})
        names = (cell.against, case.producer)
        bounds = {point: self.bounds(f"golden/{point}", self.reference) for point in ("start", "image")}
        checks = between.compare((drawn[0], drawn[1]), names, bounds)
        found = self._outcome(cell, checks, {}, {"reference": drawn[0]["image"], "candidate": drawn[1]["image"]})
        return replace(found, course=follow(*drawn))

    def _picture(self, cell: Cell) -> Outcome:
        """Compare a picture, or latents, drawn elsewhere with what the producer draws by PyTorch."""
        if cell.units:
            return self._command(cell)
        assert self.options.picture is not None  # the plan has no such cell otherwise
        self.require(cell.case)
        elsewhere = between.read(self.options.picture)
        try:
            reference, seconds = self.reference_run(cell.case)
        except ConsumerFailureError as failure:
            return self._outcome(cell, (candidate.failed(failure, cell.case.who, cell.case),), {}, {})
        checks, pictures = between.elsewhere(reference, elsewhere, self.options.picture, self.tolerances)
        return self._outcome(cell, checks, {"reference": seconds}, pictures)

    def _command(self, cell: Cell) -> Outcome:
        """Let the Swift command line draw, and compare its pictures with what its release draws by PyTorch."""
        case, who = cell.case, cell.case.who
        assert isinstance(who, SwiftCommand)  # the plan has no such cell otherwise
        assert self.options.swift_package is not None
        program = tuple(command.program(self.options.swift_package))
        resources = command.resources(self.options.models_folder)
        try:
            reference, seconds = self.reference_run(case)
            with tempfile.TemporaryDirectory(prefix="parity-") as folder:
                setting = Setting(program, cell.units[0], resources, Path(folder))
                self.progress(f"{case.name} by {cell.numerics}")
                start = time.perf_counter()
                drawn = who.pictures(case.request, self.model, seed=case.seed, rng=case.rng, setting=setting)
                took = time.perf_counter() - start
        except ConsumerFailureError as failure:
            return self._outcome(cell, (candidate.failed(failure, who, case),), {}, {})
        except UnsupportedError as error:
            return self._unknown(cell, str(error))
        if drawn.shape != reference["image"].shape:
            text = f"it drew pictures of {drawn.shape[:3]}, and by PyTorch they are {reference['image'].shape[:3]}"
            return self._unknown(cell, f"{text} (images, height, width): models of another size lie in {resources}")
        checks, pictures = between.elsewhere(reference, drawn, Path(PRODUCT), self.tolerances)
        about = ("drawn by the Swift command line; parity's way of asking it was not verified on hardware",)
        return self._outcome(cell, checks, {"reference": seconds, "candidate": took}, pictures, about)

    def _compatibility(self, cell: Cell) -> Outcome:
        assert cell.pairing is not None  # only these cells are of this kind
        self.progress(f"playing {cell.pairing.sentence}")
        bound = tolerance.find(self.tolerances, played.POINT, precision="float16", numerics=cell.numerics)
        start = time.perf_counter()
        checks, pictures = self._player.judge(cell.pairing, cell.case, bound)
        seconds = {"candidate": time.perf_counter() - start}
        return Outcome(cell, checks, seconds, reproduce(self.options, cell), pictures)

    def _outcome(
        self,
        cell: Cell,
        checks: Sequence[Check],
        seconds: dict[str, float],
        pictures: dict[str, np.ndarray],
        about: Sequence[str] = (),
    ) -> Outcome:
        merged = self.options.ingredients.sentence()
        on_top = (merged,) if merged else ()
        made = remarks(cell.case, self.model_of(cell.case), self.cases)
        said = (*on_top, *made, *self._stream(cell.case), *self.reference.remarks, *about)
        return Outcome(cell, tuple(checks), seconds, reproduce(self.options, cell), pictures, said)

    def _stream(self, case: Case) -> tuple[str, ...]:
        """Say where a release draws from another stream than the case asks for."""
        asked = next((other.rng for other in self.cases if other.name == case.name), case.rng)
        if case.who.has_stream(asked):
            return ()
        return (f"{case.producer} draws its noise from {case.rng}; it has no {asked}, which the case asks for",)

    def _unknown(self, cell: Cell, reason: str) -> Outcome:
        return Outcome(cell, (comparison.unknown("image", reason),), {}, reproduce(self.options, cell))
