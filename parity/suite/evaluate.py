"""How is a cell decided?

Steps for a candidate: run the reference (once per case) and the candidate with the same stream; compare where both
start; feed the reference's recorded inputs to each of the candidate's components (teacher forcing), which says *which
component* differs, free of inherited error; compare the pictures. For a golden: compare the reference's trace with the
accepted one. For compatibility: see :mod:`parity.suite.player`. Each comparison has its own tolerance; the
cell's verdict combines them.

The verdict is about the numerics named in the cell and nothing else: the reference runtime never speaks for hardware.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from parity import streams
from parity.backends.base import Backend
from parity.errors import MissingError
from parity.pipelines import tasks
from parity.pipelines.components import SIGNATURES, TASK_COMPONENTS
from parity.pipelines.model import Model
from parity.suite import comparison, compatibility, golden, player, provenance, tolerance
from parity.suite.case import Case
from parity.suite.comparison import Check
from parity.suite.options import Options
from parity.suite.outcome import Outcome, reproduce
from parity.suite.plan import Cell
from parity.suite.trace import Trace

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

    @cached_property
    def model(self) -> Model:
        """The PyTorch original."""
        return Model(self.options.model_version)

    @cached_property
    def reference(self) -> Backend:
        """The original's networks."""
        from parity.backends.pytorch import TorchBackend

        return TorchBackend(self.model.location, device=self.options.device)

    @cached_property
    def _player(self) -> player.Player:
        return player.Player(Model(compatibility.MODEL))

    @cached_property
    def packages(self) -> dict[str, Path]:
        """The converted components: the user's, or converted here and cached.

        Raises
        ------
        MissingError
            The user's folder lacks a component that every task needs.
        """
        if self.options.models is None:
            from parity import convert

            self._progress("converting the model (kept for later runs)")
            return dict(convert.cached(self.model.location))
        from parity.backends import coreml

        found = coreml.find(self.options.models)
        for name in TASK_COMPONENTS["txt2img"]:
            if name not in found:
                wanted = " or ".join(f"*{ending}" for ending in coreml.FILE_NAMES[name])
                raise MissingError(f"--models {self.options.models}: no {name} in it ({wanted})")
        return found

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
        request = case.request
        stream = streams.open(case.rng, seed=case.seed)
        trace = Trace()

        def observe(point: str, value: np.ndarray) -> None:
            trace(point, value)
            if point.startswith("latents/step"):
                self._progress(f"{case.name} on {backend.numerics}: {point.removeprefix('latents/')}")

        def noise(shape: tuple[int, ...]) -> np.ndarray:
            return stream.normal(shape).astype(np.float32)

        components = backend.components(TASK_COMPONENTS[request.task])
        start = time.perf_counter()
        tasks.run(request, self.model, components, noise, observe=observe)
        return trace, time.perf_counter() - start

    @lru_cache(maxsize=32)  # noqa: B019 - an evaluator lives as long as its run
    def _reference_run(self, case: Case) -> tuple[Trace, float]:
        return self.run(self.reference, case)

    def _candidate(self, cell: Cell) -> Outcome:
        case = cell.case
        components = TASK_COMPONENTS[case.request.task]
        if missing := [name for name in components if name not in self.packages]:
            return self._unknown(cell, f"the models have no {', '.join(missing)}, which {case.request.task} needs")
        backend = self._backend(cell)
        reference, reference_seconds = self._reference_run(case)
        candidate, seconds = self.run(backend, case)
        checks = compare(reference, candidate, self.reference, backend, components, self._tolerances)
        return Outcome(
            cell,
            checks,
            {"reference": reference_seconds, "candidate": seconds},
            reproduce(self.options, cell),
            {"reference": reference["image"], "candidate": candidate["image"]},
        )

    def _backend(self, cell: Cell) -> Backend:
        if cell.numerics not in self._candidates:
            from parity.backends.coreml import CoreMLBackend

            self._candidates[cell.numerics] = CoreMLBackend(
                self.packages, compute_unit=cell.units[0], runtime=self.options.coreml_runtime
            )
        return self._candidates[cell.numerics]

    def _golden(self, cell: Cell) -> Outcome:
        assert self.options.goldens is not None  # the plan has no such cell otherwise
        trace, seconds = self._reference_run(cell.case)
        if self.options.update_golden:
            where = golden.save(self.options.goldens, self.model.name, cell.case, trace, weights=self.weights)
            return self._unknown(cell, f"accepted now as golden {where}; look at image.png, then run again")
        accepted = golden.load(self.options.goldens, self.model.name, cell.case, weights=self.weights)
        checks = []
        for point, pairs in golden.pairs(accepted.trace, trace).items():
            bound = self._tolerance(point, self.reference)
            checks.append(comparison.worst(point, pairs, bound, names=("accepted", self.reference.numerics)))
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

    def _tolerance(self, point: str, backend: Backend) -> tolerance.Tolerance | None:
        return tolerance.find(self._tolerances, point, precision=backend.precision, numerics=backend.numerics)

    def _unknown(self, cell: Cell, reason: str) -> Outcome:
        return Outcome(cell, (comparison.unknown("image", reason),), {}, reproduce(self.options, cell))


def compare(
    reference: Trace,
    candidate: Trace,
    reference_backend: Backend,
    backend: Backend,
    components: tuple[str, ...],
    table: list[tolerance.Tolerance],
) -> tuple[Check, ...]:
    """Compare a candidate's run with the reference's, point by point.

    Parameters
    ----------
    reference, candidate : Trace
        Both runs of the same case.
    reference_backend, backend : Backend
        Who made them; the candidate's components are run again on the reference's inputs.
    components : tuple of str
        The components of the task.
    table : list of Tolerance
        See :func:`parity.suite.tolerance.load`.

    Returns
    -------
    tuple of Check
        ``latents/initial``, each component under teacher forcing, ``image``.
    """
    names = (reference_backend.numerics, backend.numerics)

    def check(point: str, pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> Check:
        bound = tolerance.find(table, point, precision=backend.precision, numerics=backend.numerics)
        return comparison.worst(point, pairs, bound, names=names)

    start = "latents/initial" if "vae_encoder" not in components else "latents/encoded"
    checks = [check(start, {"latents/initial": (reference["latents/initial"], candidate["latents/initial"])})]
    for name in components:
        checks.append(check(name, forced(reference, backend, name)))
    checks.append(check("image", {"image": (reference["image"], candidate["image"])}))
    return tuple(checks)


def forced(reference: Trace, backend: Backend, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Run a component on the reference's recorded inputs: the reference's and the candidate's outputs by point.

    Of many calls the first, the middle and the last are run: the UNet's inputs change from noise to picture, and a
    full-size network is expensive.
    """
    component = backend.component(name)
    calls = list(reference.calls(name).items())
    chosen = {0, len(calls) // 2, len(calls) - 1} if len(calls) > 2 else set(range(len(calls)))
    return {
        f"{name}/{label}/{SIGNATURES[name].output}": (reference.output(name, label), component(inputs))
        for index, (label, inputs) in enumerate(calls)
        if index in chosen
    }
