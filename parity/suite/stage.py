"""What do all cells of a run share: the original, its converted models, the backends and the runs themselves?

Everything is opened on first use and kept; what cannot be opened says so to each cell that needs it, without another
try.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity import memory, recipes
from parity.backends import packages, registry
from parity.backends.coreml import by_component
from parity.backends.packages import Packages
from parity.backends.registry import Subject
from parity.errors import ParityError, UsageError
from parity.models.content import file_hash
from parity.models.model import Model
from parity.networks.backend import Backend
from parity.pipelines.release import REFINER_START, Release
from parity.pipelines.request import Request, components, open_picture
from parity.pipelines.settings import ConsumerFailureError
from parity.pipelines.trace import Trace
from parity.suite import defaults, factors, provenance, tolerance
from parity.suite.case import Case
from parity.suite.once import once
from parity.suite.options import Options
from parity.suite.plan import Cell
from parity.suite.questions import compression
from parity.suite.tolerance import Tolerance
from parity.suite.yardstick import Standard, Yardstick

if TYPE_CHECKING:
    from parity.backends.pytorch import TorchBackend

_FURTHER = ("text_encoder_2", "control-unet", "controlnet", "refiner", "safety_checker")
"""Components that are converted where a case needs them; all four of the default ones are converted in any case."""

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
        self._candidates: dict[tuple[str, tuple[int, int] | None], Backend] = {}

    @once
    def model(self) -> Model:
        """The PyTorch original, at the size of the user's models where there are some."""
        ingredients = self.options.ingredients
        refiner = self.options.refiner or None
        if ingredients.plain:
            model = Model(ingredients.model, refiner=refiner)
        else:
            from parity.models import assemble

            model = Model(assemble.location(ingredients, self.progress), name=ingredients.name, refiner=refiner)
        model.check_tasks()
        if self.options.models is None or self._only_core_ai or self.packages.latent is None:
            return model
        return model.resized(self.packages.latent)

    def model_of(self, case: Case) -> Model:
        """Return the original at the size of a case.

        Raises
        ------
        UsageError
            The user's models have another size.
        """
        request = case.request
        if request.height is None or request.width is None:
            return self.model
        scale = self.model.vae_scale
        latent = (request.height // scale, request.width // scale)
        if self.options.models is not None and not self._only_core_ai and self.packages.latent not in (None, latent):
            height, width = self.model.image_size
            raise UsageError(
                f"case {case.name}: {request.width}x{request.height} pixels are asked, and the models in "
                f"{self.options.models} draw {width}x{height}; convert for that size with 'parity convert --height "
                f"{request.height} --width {request.width}'"
            )
        return self.model.resized(latent)

    def require(self, case: Case) -> None:
        """Refuse a case that its producer cannot draw with this model.

        Raises
        ------
        UnsupportedError, UsageError
            The message says which tasks the model does, or what is not given for this one.
        MissingError, FormatError
            A picture of the case is not there, or none: found before a model is converted.
        """
        request = case.request
        for path in request.pictures:
            open_picture(path, "")
        if not case.released:
            self.model.check_task(request.task)
        if request.refiner_start is not None and self.model.refiner is None:
            raise UsageError(f"case {case.name}: refiner_start needs a refiner; name its checkpoint with --refiner")
        if (nets := len(self.controlnets)) < len(request.control):
            raise UsageError(
                f"case {case.name}: {len(request.control)} control images, and {nets} ControlNets are given; name one "
                "for each image with --controlnet"
            )
        if request.safety_checker and not self.model.has_safety_checker:
            raise UsageError(f"case {case.name}: the model {self.model.name} has no safety checker")

    @once
    def controlnets(self) -> dict[str, Path]:
        """Folders of the original's ControlNets by name, each known to be made for this base.

        Raises
        ------
        UsageError, UnsupportedError, MissingError
            One is of another base, is no ControlNet, or is not there.
        """
        from parity.convert import base
        from parity.models.source import open_model, open_network

        found = {}
        for text in self.options.controlnet:
            shipped = recipes.find(text)
            name, folder, config = open_network(shipped or text, "ControlNetModel")
            base.require(open_model(self.model.location), text, folder, config)
            found[text if shipped else name] = folder
        return found

    @cached_property
    def _only_core_ai(self) -> bool:
        """Whether the user's folder holds Core AI files and a named backend reads them."""
        folder = self.options.models_folder
        return bool(self.options.backend) and folder is not None and any(folder.glob("*.aimodel"))

    @cached_property
    def reference(self) -> TorchBackend:
        """The original's networks."""
        from parity.backends.pytorch import TorchBackend

        return TorchBackend(
            self.model.location,
            device=self.options.device,
            controlnets=tuple(self.controlnets.values()),
            refiner=self._refiner,
        )

    @property
    def _refiner(self) -> str | None:
        """Where the refiner's checkpoint lies."""
        return None if self.model.refiner is None else self.model.refiner.location

    @once
    def packages(self) -> Packages:
        """The converted components: the user's, or converted here and cached, at the model's own size."""
        if self.options.models is not None:
            return packages.find(self.options.models, self.options.controlnet)
        return self._converted(None)

    def packages_of(self, case: Case) -> Packages:
        """Return the converted components for a case: at its size, where they are converted here."""
        if self.options.models is not None or self.model_of(case) is self.model:
            return self.packages
        return self._converted(self.model_of(case).image_size)

    @lru_cache(maxsize=8)  # noqa: B019 - a stage lives as long as its run
    def _converted(self, size: tuple[int, int] | None) -> Packages:
        from parity import convert
        from parity.convert import pixels
        from parity.convert.plan import DEFAULT_COMPONENTS, SD3_COMPONENTS

        model = self.model
        self.progress("converting the model (kept for later runs)")
        if model.family == "unconditional":
            return packages.converted({"unet": (pixels.cached(model.location, size=size)["unet"],)})
        needed = {name.split("-")[0] if name.startswith("controlnet-") else name for name in self._involved()}
        if model.sd3:
            sides: dict[str, Any] = {} if size is None else {"height": size[0], "width": size[1]}
            return packages.converted(by_component(convert.cached(model.location, components=SD3_COMPONENTS, **sides)))
        own = tuple(name for name in DEFAULT_COMPONENTS if name != "text_encoder" or not model.refines)
        more = tuple(name for name in _FURTHER if name in needed)
        if model.xl:  # no converter release wrote a ControlNet or a controlled UNet of SDXL
            more = tuple(name for name in more if "control" not in name)
            more = tuple(dict.fromkeys(("text_encoder_2", *more)))
        named: dict[str, Any] = {} if size is None else {"height": size[0], "width": size[1]}
        found = convert.cached(
            model.location,
            components=(*own, *more),
            controlnets=tuple(self.controlnets.values()) if "controlnet" in more else (),
            refiner=self._refiner if "refiner" in more else None,
            **named,
        )
        return packages.converted(by_component(found))

    def _involved(self) -> set[str]:
        """Return all networks that the run's cases need."""
        found = {name for case in self.cases for name in components(case.request, self.model.family)}
        return found | ({"refiner"} if self.options.refiner else set())

    @cached_property
    def cases(self) -> list[Case]:
        """All cases of the run."""
        return defaults.asked(self.options)

    @cached_property
    def weights(self) -> str:
        """Digest of the original's weights; empty for a hub id."""
        return provenance.digest(Path(self.model.location))

    def candidate(self, cell: Cell) -> Backend:
        """Return the backend of a candidate's networks, bound by nobody yet."""
        packages = partial(self.packages_of, cell.case)
        other = self.options.models is None and self.model_of(cell.case) is not self.model
        key = (cell.backend or cell.numerics, self.model_of(cell.case).image_size if other else None)
        if key not in self._candidates:
            self._candidates[key] = self._opened(cell, packages)
            self._candidates[key].frugal = self.options.reduce_memory
        return self._candidates[key]

    def _opened(self, cell: Cell, packages: Callable[[], Packages]) -> Backend:
        if cell.backend:
            subject = Subject(
                self.model.location,
                self.options.models_folder,
                lambda: packages().played,
                self.progress,
                tuple(self.controlnets.values()),
                self._refiner,
            )
            return registry.open_backend(cell.backend, subject)
        from parity.backends.coreml import CoreMLBackend

        return CoreMLBackend(packages().played, compute_unit=cell.units[0], runtime=self.options.coreml_runtime)

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

        who, model, request = case.who, self.model_of(case), self._request(case)
        if self.options.reduce_memory:  # one backend's networks at a time, and none before it is called
            self._only(backend)
        for name in () if backend.frugal else components(request, model.family):  # loading is not counted
            try:
                who.networks(backend).component(name)
            except (ParityError, ConsumerFailureError):  # said when it is called
                continue
        start = time.perf_counter()
        who.draw(request, model, backend, seed=case.seed, rng=case.rng, observe=observe)
        return trace, time.perf_counter() - start

    def _only(self, backend: Backend) -> None:
        """Let all other backends forget their networks; what this one loads, it keeps no longer than needed."""
        backend.frugal = True
        for other in (self.reference, *self._candidates.values()):
            other.frugal = True
            if other is not backend:
                other.release()
        memory.give_back()

    def release(self) -> None:
        """Let go of the candidates' models."""
        for backend in self._candidates.values():
            backend.release()
        self._candidates.clear()

    def _request(self, case: Case) -> Request:
        """Return what a case asks: a release refines whatever it draws, where its folder holds a refiner."""
        who = case.who
        refines = isinstance(who, Release) and who.conventions.refiner and self.model.refiner is not None
        if refines and case.request.refiner_start is None and self._holds_refiner:
            return replace(case.request, refiner_start=REFINER_START)
        return case.request

    @once
    def _holds_refiner(self) -> bool:
        """Whether a refiner lies among the user's models, or is converted here."""
        return self.options.models is None or self._only_core_ai or bool(self.packages.part("refiner").paths)

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
        settings = {**case.settings(), "size": self.model_of(case).image_size, "as": case.producer}
        settings["pictures"] = [file_hash(path) for path in case.request.pictures]

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
        return Yardstick(self.reference, found, alone=self._only if self.options.reduce_memory else None)

    def bounds(self, point: str, backend: Backend) -> tuple[Tolerance, ...]:
        """Return the tolerances of a point for a backend's numbers."""
        return tolerance.find_all(self.tolerances, point, precision=backend.precision, numerics=backend.numerics)
