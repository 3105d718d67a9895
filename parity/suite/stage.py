"""What do all cells of a run share: the original, its converted models, the backends and the runs themselves?

Everything is opened on first use and kept; what cannot be opened says so to each cell that needs it, without another
try.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parity.backends import packages, registry
from parity.backends.packages import Packages
from parity.backends.registry import Subject
from parity.errors import ParityError
from parity.models.content import file_hash
from parity.models.model import Model
from parity.networks.backend import Backend
from parity.pipelines.request import TASK_COMPONENTS
from parity.pipelines.settings import ConsumerFailureError
from parity.pipelines.trace import Trace
from parity.suite import case as cases
from parity.suite import factors, provenance, tolerance
from parity.suite.case import Case
from parity.suite.once import once
from parity.suite.options import Options
from parity.suite.plan import Cell
from parity.suite.questions import compression
from parity.suite.tolerance import Tolerance
from parity.suite.yardstick import Standard, Yardstick

if TYPE_CHECKING:
    from parity.backends.pytorch import TorchBackend

Progress = Callable[[str], None]
"""Called with a short text whenever something that takes time begins or advances."""


class Stage:
    """Opens models and runs cases; keeps both.

    Parameters
    ----------
    options : Options
        What to run.
    progress : callable, optional
        Told what is going on.
    """

    def __init__(self, options: Options, progress: Progress | None = None) -> None:
        self.options = options
        self.progress: Progress = progress or (lambda text: None)
        self.tolerances = tolerance.load(options.tolerances)
        self.factors = factors.load(options.tolerances)
        self._candidates: dict[str, Backend] = {}

    @once
    def model(self) -> Model:
        """The PyTorch original, at the size of the user's models where there are some."""
        ingredients = self.options.ingredients
        if ingredients.plain:
            model = Model(ingredients.model)
        else:
            from parity.models import assemble

            model = Model(assemble.location(ingredients, self.progress), name=ingredients.name)
        if not model.xl:
            model.check_tasks()
        if self.options.models is None or self._only_core_ai or self.packages.latent is None:
            return model
        return model.resized(self.packages.latent)

    def require(self, case: Case) -> None:
        """Refuse a case that its producer cannot draw with this model.

        Raises
        ------
        UnsupportedError
            The message says what can be asked about the model.
        """
        if not case.released:
            self.model.check_tasks()

    @cached_property
    def _only_core_ai(self) -> bool:
        """Whether the user's folder holds Core AI files and a named backend reads them."""
        folder = self.options.models_folder
        return bool(self.options.backend) and folder is not None and any(folder.glob("*.aimodel"))

    @cached_property
    def reference(self) -> TorchBackend:
        """The original's networks."""
        from parity.backends.pytorch import TorchBackend

        return TorchBackend(self.model.location, device=self.options.device)

    @once
    def packages(self) -> Packages:
        """The converted components: the user's, or converted here and cached."""
        if self.options.models is not None:
            return packages.find(self.options.models)
        from parity import convert
        from parity.convert.plan import DEFAULT_COMPONENTS

        location = self.model.location
        self.progress("converting the model (kept for later runs)")
        second = ("text_encoder_2",) if self.model.xl else ()
        return packages.converted(convert.cached(location, components=(*DEFAULT_COMPONENTS, *second)))

    @cached_property
    def cases(self) -> list[Case]:
        """All cases of the run."""
        return cases.load(self.options.cases, seed=self.options.seed, rng=self.options.rng)

    @cached_property
    def weights(self) -> str:
        """Digest of the original's weights; empty for a hub id."""
        return provenance.digest(Path(self.model.location))

    def candidate(self, cell: Cell) -> Backend:
        """Return the backend of a candidate's networks, bound by nobody yet."""
        if cell.backend:
            if cell.backend not in self._candidates:
                subject = Subject(
                    self.model.location, self.options.models_folder, lambda: self.packages.played, self.progress
                )
                self._candidates[cell.backend] = registry.open_backend(cell.backend, subject)
            return self._candidates[cell.backend]
        if cell.numerics not in self._candidates:
            from parity.backends.coreml import CoreMLBackend

            self._candidates[cell.numerics] = CoreMLBackend(
                self.packages.played, compute_unit=cell.units[0], runtime=self.options.coreml_runtime
            )
        return self._candidates[cell.numerics]

    def run(self, backend: Backend, case: Case) -> tuple[Trace, float]:
        """Run one case on one backend; return its trace and the seconds it took.

        Raises
        ------
        ConsumerFailureError
            The producer, an app's release, fails; its ``trace`` is what came before.
        """
        trace = Trace()

        def observe(point: str, value: np.ndarray) -> None:
            trace(point, value)
            if point.startswith("latents/step"):
                self.progress(f"{case.name} on {backend.numerics}: {point.removeprefix('latents/')}")

        who = case.who
        for name in TASK_COMPONENTS[case.request.task]:  # loading is not counted
            try:
                who.networks(backend).component(name)
            except (ParityError, ConsumerFailureError):  # said when it is called
                continue
        start = time.perf_counter()
        who.draw(case.request, self.model, backend, seed=case.seed, rng=case.rng, observe=observe)
        return trace, time.perf_counter() - start

    @lru_cache(maxsize=32)  # noqa: B019 - a stage lives as long as its run
    def reference_run(self, case: Case) -> tuple[Trace, float]:
        """Run a case by PyTorch, once."""
        return self.run(self.reference, case)

    def standard(self, case: Case, compressed: tuple[str, ...] = ()) -> Standard:
        """Return half precision by itself as the standard of a float16 candidate of a case.

        Parameters
        ----------
        case : Case
            What is drawn.
        compressed : tuple of str
            Networks whose weights are compressed in the packages: half precision computes with these.
        """
        yardstick = self._yardstick(tuple(sorted(compressed)))
        pictures = [value for value in vars(case.request).values() if isinstance(value, Path)]
        settings = {**case.settings(), "size": self.model.image_size, "as": case.producer}
        settings["pictures"] = [file_hash(path) for path in pictures]

        def drawn() -> Trace | str:
            self.progress(f"{case.name} in half precision (kept for later runs)")
            try:
                return yardstick.run(settings, lambda backend: self.run(backend, case)[0])
            except (ParityError, ConsumerFailureError) as error:
                return f"half precision's own run ended: {error}"

        return Standard(yardstick, self.factors, drawn)

    @lru_cache(maxsize=8)  # noqa: B019
    def _yardstick(self, compressed: tuple[str, ...]) -> Yardstick:
        from parity.backends.pytorch import parameters

        found = {}
        for name in compressed:
            part = self.packages.part(name)
            if values := compression.parameters(part.paths, parameters(self.reference, name)):
                found[name] = values
        return Yardstick(self.reference, found)

    def bounds(self, point: str, backend: Backend) -> tuple[Tolerance, ...]:
        """Return the tolerances of a point for a backend's numbers."""
        return tolerance.find_all(self.tolerances, point, precision=backend.precision, numerics=backend.numerics)
