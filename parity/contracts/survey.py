"""Which rules on systems and compute units hold for the models of a folder, and does a demand hold?

:func:`survey` tries every rule of :mod:`parity.contracts.platforms` on one folder of an inspection; :func:`require`
answers a demand such as ``txt2img on macos==27.2 CPU_AND_GPU``. No rule holding means that nothing is known, which is
no promise. Not verified on hardware.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from parity.contracts.capability import Cell, Reason, Requirement
from parity.contracts.consumers import VERDICTS, Consumers, Task, consumers
from parity.contracts.inspection import Bundle, Component, Inspection
from parity.contracts.pattern import holds, place
from parity.contracts.platforms import (
    SYSTEMS,
    UNITS,
    WHOLE,
    Platforms,
    Rule,
    Selection,
    Stretch,
    Version,
    platforms,
    select,
    written,
)
from parity.errors import UsageError

_DEMAND = re.compile(r"\s*([a-z][a-z0-9-]*)\s+on\s+(.+?)\s*")
_TEXTS = ("effect", "title", "chips", "basis", "evidence", "remedy", "repair")


@dataclass(frozen=True)
class Hazard:
    """A rule that holds for some models of a folder.

    Attributes
    ----------
    rule : Rule
    components, paths : tuple of str
        Kinds and paths of the models.
    places : tuple of str
        What was found, e.g. ``12 x (heads 12, queries 77, keys 77, width 64)``, one text for each model.
    read : bool
        False when a program could not be read, so that the rule may hold.
    """

    rule: Rule
    components: tuple[str, ...]
    paths: tuple[str, ...]
    places: tuple[str, ...]
    read: bool = True

    def verdict_on(self, unit: str) -> str:
        """``yes`` where nothing is known."""
        verdict = self.rule.verdict_on(unit)
        return verdict if self.read or verdict == "yes" else "unknown"

    @property
    def failure(self) -> str:
        """What happens, or would."""
        return self.rule.failure if self.read else f"cannot be told, the program was not read; {self.rule.failure}"


@dataclass(frozen=True)
class Row:
    """Stretch of a system with the worst verdict on each unit (``yes``: nothing known) and the hazards behind it."""

    stretch: Stretch
    verdicts: Mapping[str, str]
    hazards: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Survey:
    """What is known about one folder.

    Attributes
    ----------
    bundle : str
        Path of the folder, relative to what was inspected.
    specification : int
        The newest among the models, 0 when none was read.
    needs : mapping of str to Version
        Oldest version of each system that loads all models; empty when unknown.
    hazards : tuple of Hazard
    rows : tuple of Row
        Stretches of systems on which a hazard holds; none when nothing is known.
    """

    bundle: str
    specification: int
    needs: Mapping[str, Version]
    hazards: tuple[Hazard, ...]
    rows: tuple[Row, ...]


def survey(bundle: Bundle, tables: Platforms | None = None) -> Survey:
    """Say what is known about a folder's models on each system and unit."""
    tables = tables or platforms()
    found = [hazard for rule in tables.rules for hazard in _hazards(rule, bundle)]
    specification, needs = _needs(bundle, tables)
    return Survey(bundle.path, specification, needs, tuple(found), _rows(found))


def check(text: str, apps: Consumers) -> tuple[Task, Selection]:
    """Read a demand ``TASK on SYSTEM [UNITS]``; UsageError where it cannot be read."""
    match = _DEMAND.fullmatch(text)
    if match is None:
        raise UsageError(f"requirement '{text}' must read 'TASK on SYSTEM', e.g. 'txt2img on macos==27.2 CPU_AND_GPU'")
    return apps.task(match[1]), select(match[2])


def require(
    text: str,
    inspection: Inspection,
    *,
    tables: Platforms | None = None,
    apps: Consumers | None = None,
    degraded: bool = False,
) -> Requirement:
    """Check a demand on all folders of an inspection: nothing known to fail there, on each unit that it names.

    Parameters
    ----------
    text : str
        ``TASK on SYSTEM [UNITS]``, see :func:`select`.
    inspection : Inspection
        Each of its folders must meet the demand.
    tables, apps : Platforms, Consumers, optional
        The built-in tables by default; of the apps' tables the tasks are used.
    degraded : bool
        Whether *degraded* counts as met.

    Raises
    ------
    UsageError
        When the text cannot be read.
    """
    tables = tables or platforms()
    task, selection = check(text, apps or consumers())
    good = {"yes", "degraded"} if degraded else {"yes"}
    unmet = []
    for bundle in inspection.bundles:
        cells = [_cell(task, selection.stretch, unit, bundle, tables) for unit in selection.units]
        unmet += [(bundle.path, cell) for cell in cells if cell.verdict not in good]
    return Requirement(text, bool(inspection.bundles) and not unmet, tuple(unmet))


def _cell(task: Task, stretch: Stretch, unit: str, bundle: Bundle, tables: Platforms) -> Cell:
    reasons = []
    involved = [component for component in bundle.components if component.kind in task.involves]
    broken = [c for c in bundle.components if c.kind == "broken" and (not c.named or c.named in task.involves)]
    for component in broken:
        reasons.append(Reason("broken", "no", f"{component.path} cannot be read", "read", "", ""))
    if not involved and not broken:
        reasons.append(Reason("absent", "unknown", f"no model of the task {task.title} is here", "read", "", ""))
    for component in involved:
        for system, oldest in tables.oldest.get(component.specification, {}).items():
            if stretch.system == system and WHOLE[0] < stretch.low < oldest:  # no lower bound: any that loads it
                name = f"{component.path}: models of specification {component.specification} load on"
                text = f"{name} {SYSTEMS[system]} {written(oldest)} and later only"
                remedy = "convert with an older --min-deployment-target, where the model allows it"
                reasons.append(Reason("specification", "no", text, "read", "", remedy))
    for rule in tables.rules:
        if any(own.meets(stretch) for own in rule.systems):
            for hazard in _hazards(rule, bundle):
                verdict = hazard.verdict_on(unit)
                if verdict != "yes" and set(hazard.components) & set(task.involves):
                    failure = f"{', '.join(hazard.paths)}: {hazard.failure}"
                    texts = (rule.basis, rule.evidence, rule.remedy, rule.repair)
                    reasons.append(Reason(rule.id, verdict, failure, *texts))
    reasons.sort(key=lambda reason: -VERDICTS.index(reason.verdict))
    return Cell(task.id, f"{stretch}, {unit}", reasons[0].verdict if reasons else "yes", tuple(reasons))


def _hazards(rule: Rule, bundle: Bundle) -> tuple[Hazard, ...]:
    results: dict[bool, list[Component]] = {True: [], False: []}
    for component in bundle.components:
        held = holds(rule, component)
        if held or held is None:
            results[held is True].append(component)
    return tuple(
        Hazard(
            rule,
            tuple(component.kind for component in found),
            tuple(component.path for component in found),
            tuple(place(rule, component) for component in found),
            read=read_,
        )
        for read_, found in results.items()
        if found
    )


def _needs(bundle: Bundle, tables: Platforms) -> tuple[int, dict[str, Version]]:
    known = [c.specification for c in bundle.components if c.specification in tables.oldest]
    if not known:
        return 0, {}
    oldest = [tables.oldest[version] for version in known]
    return max(known), {system: max(entry[system] for entry in oldest) for system in SYSTEMS}


def _rows(hazards: list[Hazard]) -> tuple[Row, ...]:
    """Cut each system's versions where a hazard begins or ends; leave out stretches without any."""
    rows: list[Row] = []
    for system in SYSTEMS:
        own = [stretch for hazard in hazards for stretch in hazard.rule.systems if stretch.system == system]
        cuts = sorted({*(s.low for s in own), *(s.high for s in own)})
        for low, high in pairwise(cuts):
            stretch = Stretch(system, low, high)
            here = [i for i, h in enumerate(hazards) if any(s.meets(stretch) for s in h.rule.systems)]
            behind = {unit: tuple(i for i in here if hazards[i].verdict_on(unit) != "yes") for unit in UNITS}
            if any(behind.values()):
                rows.append(Row(stretch, {u: _worst(hazards, behind[u], u) for u in UNITS}, behind))
    return tuple(rows)


def _worst(hazards: list[Hazard], numbers: tuple[int, ...], unit: str) -> str:
    return max((hazards[i].verdict_on(unit) for i in numbers), key=VERDICTS.index, default="yes")


# ------------------------------------------------------------------------------------------------------------- as data


def plain(found: Survey) -> dict[str, Any]:
    """Return a survey as JSON can hold it; open ends and "nothing known" are None (``docs/contracts.md`` lists all)."""
    return {
        "bundle": found.bundle,
        "specification": found.specification,
        "needs": {system: written(version) for system, version in found.needs.items()},
        "hazards": [
            {
                "rule": hazard.rule.id,
                "read": hazard.read,
                "components": list(hazard.components),
                "paths": list(hazard.paths),
                "places": list(hazard.places),
                "systems": [_plain_stretch(stretch) for stretch in hazard.rule.systems],
                "units": {unit: _known(hazard.verdict_on(unit)) for unit in UNITS},
                "failure": hazard.failure,
                **{key: getattr(hazard.rule, key) for key in _TEXTS},
            }
            for hazard in found.hazards
        ],
        "rows": [
            {
                **_plain_stretch(row.stretch),
                "verdicts": {unit: _known(verdict) for unit, verdict in row.verdicts.items()},
                "hazards": {unit: list(numbers) for unit, numbers in row.hazards.items()},
            }
            for row in found.rows
        ],
    }


def _plain_stretch(stretch: Stretch) -> dict[str, str | None]:
    low, high = stretch.low, stretch.high
    return {
        "system": stretch.system,
        "from": None if low == WHOLE[0] else written(low),
        "before": None if high == WHOLE[1] else written(high),
    }


def _known(verdict: str) -> str | None:
    return None if verdict == "yes" else verdict
