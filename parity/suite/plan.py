"""Which comparisons does a run consist of?

Every case is compared once with its golden (does the reference still draw what was accepted?) and once per candidate.
Compute units that resolve to the same numerics are one candidate: away from macOS all four are the reference runtime,
which is computed once and never reported as a statement about hardware. Backends that the user names are candidates in
the units' place. Producers that the user names draw every case, each in its own way; they can also be compared with
each other, or with a picture that was drawn elsewhere. The shipped model, as each converter release wrote it, also
meets the consumer releases, and where Core AI is installed, one case of it is drawn by Core AI.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from parity import coreml
from parity.backends import registry
from parity.coreai import availability
from parity.errors import MissingError, UnsupportedError, UsageError
from parity.pipelines.command import PRODUCT, SwiftCommand
from parity.pipelines.producer import DEFAULT, producer
from parity.suite import case as cases
from parity.suite import defaults
from parity.suite.case import Case
from parity.suite.options import Options
from parity.suite.questions import pairings as compatibility
from parity.suite.questions.pairings import Pairing
from parity.tables import nearest


@dataclass(frozen=True)
class Cell:
    """One comparison of the matrix.

    Attributes
    ----------
    model : str
        The original, as the user named it.
    case : Case
        The question.
    kind : str
        ``candidate``: converted model against the original; ``golden``: the original, or a candidate, against what was
        accepted of it;
        ``compatibility``: a converter release's models in a consumer release, against the contract tables;
        ``producer``: two producers, both by PyTorch; ``picture``: a picture drawn elsewhere,
        or by the Swift command line on one unit, against the original's.
    units : tuple of str
        Compute units that this candidate stands for; empty for goldens of the original.
    numerics : str
        What runs the candidate's networks.
    unavailable : str
        Why it cannot run here; empty if it can.
    backend : str
        What the user named with ``--backend``; empty for Core ML's compute units.
    pairing : Pairing, optional
        Converter and consumer release of a compatibility cell.
    against : str
        The other producer, or the file name of the picture drawn elsewhere.
    """

    model: str
    case: Case
    kind: str
    units: tuple[str, ...] = ()
    numerics: str = ""
    unavailable: str = ""
    pairing: Pairing | None = None
    backend: str = ""
    against: str = ""

    @property
    def id(self) -> str:
        """Exact name within a run, for ``--cell``: ``candidate/quick/coreml:CPU_AND_NE``, ``golden/txt2img-ddim``.

        Kind and case, the producer unless it is diffusers, and for a candidate what ``--backend`` would call it; what
        is the default is left out. The same question has the same id on every machine where it can be asked.
        """
        who = self.case.producer if self.case.released else ""
        return "/".join(part for part in (self.kind, self.case.name, who, self._candidate()) if part)

    def _candidate(self) -> str:
        """Return what ``--backend`` would call the candidate; empty for other kinds."""
        if self.backend or not self.units:
            return self.backend
        unit = self.units[0]
        shared = self.numerics == coreml.resolve("reference", unit)
        return "coreml:reference" if shared else f"coreml:{unit}"

    @property
    def sentence(self) -> str:
        """The cell as a sentence, used as test id."""
        if self.pairing is not None:
            return f"compatibility: {self.pairing.sentence}, {self.case.request.scheduler}"
        endings = {
            "golden": f"on {self.numerics} as accepted" if self._candidate() else "as accepted",
            "producer": f"compared with {self.against}",
            "picture": f"by {self.numerics}" if self.units else f"as in {self.against}",
        }
        return f"{self.model} draws {self.case.sentence}, {endings.get(self.kind, f'on {self.numerics}')}"


def cells(options: Options) -> list[Cell]:
    """Return the comparisons of a run in a fixed order, without loading any model.

    Raises
    ------
    UsageError
        ``--cell`` names one that is not among them; the nearest ids are suggested. Also what cases and backends say.
    """
    planned: dict[str, Cell] = {}
    for cell in _planned(options):  # a unit that is also named as backend is one candidate
        planned.setdefault(cell.id, cell)
    for text in options.cell:
        if text not in planned:
            near = [known for known in planned if text in known] or list(planned)
            hint = nearest(text, near, most=3) or f"; there is {near[0]}, for example"
            raise UsageError(f"--cell {text}: none of the {len(planned)} cells of this run has that id{hint}")
    return [cell for cell in planned.values() if not options.cell or cell.id in options.cell]


def by_backend(cells: Sequence[Cell]) -> list[int]:
    """Return the order in which cells are asked so that one backend's models are needed at a time, as indices.

    Cells without a backend of their own stay with those of the first one, and what old releases wrote comes release by
    release; within a backend the order is that of the run, which is also the order of its report.
    """
    keys = _models(cells)
    named = list(dict.fromkeys(keys))
    return sorted(range(len(cells)), key=lambda index: named.index(keys[index]))


def shares(cells: Sequence[Cell], workers: int) -> list[str]:
    """Return for each cell what one of several processes takes as a whole: cells of the same models, by name.

    A backend with more cells than half of what one process has to do is several shares, so that all have work to the
    end. The cells of one case are in one share, since its reference is drawn once for them.

    Parameters
    ----------
    cells : sequence of Cell
        All cells of a run.
    workers : int
        Processes.
    """
    limit = max(1, math.ceil(len(cells) / (2 * max(1, workers))))
    keys = _models(cells)
    names = [""] * len(cells)
    for key in dict.fromkeys(keys):
        cases: dict[str, list[int]] = {}
        for index, cell in enumerate(cells):
            if keys[index] == key:
                cases.setdefault(cell.case.name, []).append(index)
        number, taken = 1, 0
        for own in cases.values():
            if taken and taken + len(own) > limit:
                number, taken = number + 1, 0
            taken += len(own)
            for index in own:
                names[index] = f"{key}, {number}"
    return names


def _models(cells: Sequence[Cell]) -> list[str]:
    """Return which converted models each cell needs beside the original; where it needs none, those of the first."""
    keys = [_own_models(cell) for cell in cells]
    first = next((key for cell, key in zip(cells, keys, strict=True) if cell.kind == "candidate"), "PyTorch")
    return [key or first for key in keys]


def _own_models(cell: Cell) -> str:
    if cell.pairing is not None:
        return f"models of {cell.pairing.release.name}"
    return (cell.backend or cell.numerics) if cell.kind == "candidate" else ""


def _planned(options: Options) -> list[Cell]:
    candidates = _candidates(options)
    planned: list[Cell] = []
    for case, wrong in _cases(options):
        if options.goldens is not None:
            planned.append(Cell(options.model_version, case, "golden", (), f"PyTorch {options.device}", wrong))
        if options.golden_candidates:
            own = (replace(cell, unavailable=wrong or cell.unavailable) for cell in candidates(case))
            planned += [replace(cell, kind="golden") for cell in own]
        if options.against or options.picture:
            planned.append(_between(options, case, wrong))
            continue
        made = _commanded(options, case) if isinstance(case.who, SwiftCommand) else candidates(case)
        planned += [replace(cell, unavailable=wrong or cell.unavailable) for cell in made]
    if options.shipped and options.default_candidates and not availability.reason(convert=True):
        first = replace(cases.load(options.cases)[0], producer=DEFAULT)
        planned.append(Cell(options.model_version, first, "candidate", (), *_resolved("coreai"), backend="coreai"))
    if options.shipped and not options.backend:
        name = coreml.resolve("reference", "CPU_ONLY")
        for pairing, case in compatibility.cases(options.compatibility):
            planned.append(Cell(compatibility.MODEL, case, "compatibility", numerics=name, pairing=pairing))
    return planned


def _candidates(options: Options) -> Callable[[Case], list[Cell]]:
    """Return what makes the candidates of a case: units of equal numerics together, then the named backends."""
    units: dict[tuple[str, str], list[str]] = {}
    replaced = options.backend and options.compute_unit == coreml.COMPUTE_UNITS
    for unit in () if replaced else options.compute_unit:
        try:
            resolved = (coreml.resolve(options.coreml_runtime, unit), "")
        except UnsupportedError as error:
            resolved = (f"Core ML {unit}", str(error))
        units.setdefault(resolved, []).append(unit)
    model, named = options.model_version, {text: _resolved(text) for text in options.backend}

    def cells_of(case: Case) -> list[Cell]:
        shared = [Cell(model, case, "candidate", tuple(same), *resolved) for resolved, same in units.items()]
        own = [Cell(model, case, "candidate", (), *resolved, backend=text) for text, resolved in named.items()]
        return [*shared, *own]

    return cells_of


def _cases(options: Options) -> list[tuple[Case, str]]:
    """Return each case once for every producer that draws it, and why that one cannot be played.

    Raises
    ------
    UsageError
        No such producer, or no such release of it.
    """
    found = []
    if options.against:
        producer(options.against)
    for case in defaults.asked(options):
        for name in (case.producer,) if case.producer else options.producers or (DEFAULT,):
            try:
                who = producer(name)
            except UnsupportedError as error:  # the tables do not tell how it draws
                found.append((replace(case, producer=name), str(error)))
                continue
            drawn = replace(case, producer=name, rng=who.stream(case.rng))
            found.append((drawn, who.refusal(case.request)))
    return found


def _between(options: Options, case: Case, wrong: str) -> Cell:
    """Return the cell that compares a producer with another one, or with a picture drawn elsewhere."""
    kind, other = "producer", options.against
    if options.picture is not None:
        kind, other = "picture", options.picture.name
    return Cell(options.model_version, case, kind, (), f"PyTorch {options.device}", wrong, against=other)


def _commanded(options: Options, case: Case) -> list[Cell]:
    """Return the cells in which the Swift command line draws, one for each compute unit."""
    missing = (
        "" if options.swift_package else "--swift-package DIR says where the Swift command line is; none was named"
    )
    return [
        Cell(
            options.model_version, case, "picture", (unit,), f"the Swift command line, {unit}", missing, against=PRODUCT
        )
        for unit in options.compute_unit
    ]


def _resolved(text: str) -> tuple[str, str]:
    """Return the numerics of a backend that the user named, and why it cannot run here."""
    try:
        return registry.resolve(text), ""
    except (UnsupportedError, MissingError) as error:
        return text, str(error)
