"""On which systems and compute units is a model of this structure known to fail?

``tables/platforms.toml`` and any table that a user adds are read into rules: a pattern of the program's structure
(:class:`parity.contracts.inspection.Structure`), systems, compute units, what happens, who says so, what helps.
:func:`survey` tries them on one folder of an inspection; :func:`require` answers a demand such as
``txt2img on macos==27.2 CPU_AND_GPU``.

No rule matching means that nothing is known, which is no promise. Not verified on hardware.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from parity.contracts.capability import Cell, Reason, Requirement
from parity.contracts.consumers import VERDICTS, Consumers, Task, consumers
from parity.contracts.inspection import Bundle, Component, Inspection, Structure
from parity.contracts.table import Table, read
from parity.errors import UsageError

UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")
SYSTEMS = {"macos": "macOS", "ios": "iOS"}
"""Systems as rules and demands name them; iPadOS counts as iOS."""
EFFECTS = ("crash", "load", "values", "slow")
BASES = ("reported", "read", "measured", "inferred")
STRUCTURES: Mapping[str, tuple[str, ...]] = {
    "attention": (
        "form", "rank", "batch", "heads", "queries", "keys", "width", "dtype", "bias", "elements", "count",
    ),
    "operator": ("operator", "dtype", "rank", "largest", "count"),
    "flexible": (),
    "scaled-palette": ("count",),
}  # fmt: skip
"""What a pattern can ask for, by kind of structure."""
_BUILT_IN = Path(__file__).parent / "tables" / "platforms.toml"
_SELECTION = re.compile(r"\s*([A-Za-z]+)\s*((?:(?:>=|<=|==|<|>)\s*[\d.]+\s*,?\s*)*)((?:[A-Z_]+[\s,]*)*)")
_BOUND = re.compile(r"(>=|<=|==|<|>)\s*([\d.]+)")
_CONDITION = re.compile(r"(>=|<=|<|>|!)?(.*)")
_DEMAND = re.compile(r"\s*([a-z][a-z0-9-]*)\s+on\s+(.+?)\s*")
_WHOLE = ((0,), (9999,))

Version = tuple[int, ...]


@dataclass(frozen=True, order=True)
class Stretch:
    """Versions of one system from ``low`` on, before ``high``."""

    system: str
    low: Version
    high: Version

    def __str__(self) -> str:
        name, first, last = SYSTEMS[self.system], _text(self.low), _text(_before(self.high))
        if (self.low, self.high) == _WHOLE:
            return f"{name}, any version"
        if self.high == _WHOLE[1]:
            return f"{name} {first} and later"
        if self.low == _WHOLE[0]:
            return f"{name} before {_text(self.high)}"
        return f"{name} {first}" if first == last else f"{name} {first} to {last}"

    def meets(self, other: Stretch) -> bool:
        """Tell whether they have a version in common."""
        return self.system == other.system and self.low < other.high and other.low < self.high


@dataclass(frozen=True)
class Rule:
    """One entry ``[[platform_rule]]``; fields as described at the top of ``tables/platforms.toml``."""

    id: str
    components: tuple[str, ...]
    systems: tuple[Stretch, ...]
    units: tuple[str, ...]
    maybe: tuple[str, ...]
    chips: str
    pattern: Mapping[str, tuple[str, ...]]
    when: Mapping[str, tuple[str, ...]]
    verdict: str
    effect: str
    title: str
    failure: str
    basis: str
    evidence: str
    remedy: str
    repair: str

    def verdict_on(self, unit: str) -> str:
        """``yes`` where nothing is known."""
        return self.verdict if unit in self.units else "unknown" if unit in self.maybe else "yes"


@dataclass(frozen=True)
class Platforms:
    """All rules; ``oldest`` gives, for each specification version, the oldest version of each system that loads it."""

    rules: tuple[Rule, ...]
    oldest: Mapping[int, Mapping[str, Version]]


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


# -------------------------------------------------------------------------------------------------------------- reading


@lru_cache(maxsize=8)
def platforms(extra: tuple[Path, ...] = ()) -> Platforms:
    """Read the built-in table, then tables that a user adds (their ``[[platform_rule]]`` and ``[[specification]]``).

    Raises
    ------
    FormatError
        Naming file, entry and field.
    """
    tables = [read(path) for path in (_BUILT_IN, *extra)]
    oldest = {
        entry.number("version"): {system: _version(entry.text(system), entry, system) for system in SYSTEMS}
        for table in tables
        for entry in table.items("specification")
    }
    rules: dict[str, Rule] = {}
    for table in tables:
        for entry in table.items("platform_rule"):
            rule = _rule(entry)
            if rule.id in rules:
                raise entry.error("id", f"'{rule.id}' is taken; give the rule an id of its own")
            rules[rule.id] = rule
    return Platforms(tuple(rules.values()), oldest)


def _rule(entry: Table) -> Rule:
    pattern, when = entry.table("pattern"), entry.table("when")
    if not pattern.values and not when.values:
        raise entry.error("pattern", "or 'when' must state what the rule looks for")
    if pattern.values:
        kind = _one_of(pattern, "structure", tuple(STRUCTURES))
        unknown = [key for key in pattern.values if key not in ("structure", *STRUCTURES[kind])]
        if unknown:
            raise pattern.error(unknown[0], f"is no fact of '{kind}'; there are {', '.join(STRUCTURES[kind]) or 'none'}")
    return Rule(
        id=entry.text("id"),
        components=entry.texts("components"),
        systems=tuple(_stretch(text, entry) for text in entry.texts("systems")),
        units=_units(entry, "units"),
        maybe=_units(entry, "maybe") if "maybe" in entry.values else (),
        chips=entry.text("chips", default=""),
        pattern={key: pattern.texts(key) for key in pattern.values},
        when={key: when.texts(key) for key in when.values},
        verdict=_one_of(entry, "verdict", tuple(v for v in VERDICTS if v != "yes")),
        effect=_one_of(entry, "effect", EFFECTS),
        title=entry.text("title"),
        failure=entry.text("failure"),
        basis=_one_of(entry, "basis", BASES),
        evidence=entry.text("evidence", default=""),
        remedy=entry.text("remedy", default=""),
        repair=entry.text("repair", default=""),
    )


def _one_of(entry: Table, key: str, allowed: tuple[str, ...]) -> str:
    value = entry.text(key)
    if value not in allowed:
        raise entry.error(key, f"must be one of {', '.join(allowed)}, not '{value}'")
    return value


def _units(entry: Table, key: str) -> tuple[str, ...]:
    units = entry.texts(key)
    for unit in units:
        if unit not in UNITS:
            raise entry.error(key, f"must name some of {', '.join(UNITS)}, not '{unit}'")
    return units


def _stretch(text: str, entry: Table) -> Stretch:
    try:
        stretch, units = select(text)
    except UsageError as error:
        raise entry.error("systems", f"has an entry that cannot be read: {error}") from None
    if units != UNITS:
        raise entry.error("systems", f"has '{text}'; compute units belong in 'units'")
    return stretch


def _version(text: str, entry: Table, key: str) -> Version:
    if not re.fullmatch(r"\d+(\.\d+)*", text):
        raise entry.error(key, f"must be a version such as 14.1, not '{text}'")
    return _numbers(text)


# ----------------------------------------------------------------------------------------------------------- selecting


def names_system(text: str) -> bool:
    """Tell whether a text begins with the name of a system, as ``macos>=14 CPU_AND_GPU`` does."""
    match = re.match(r"\s*([A-Za-z]+)", text)
    return match is not None and match[1].lower() in SYSTEMS


def select(text: str) -> tuple[Stretch, tuple[str, ...]]:
    """Return the versions and compute units that a text names.

    Parameters
    ----------
    text : str
        ``macos`` or ``ios`` with bounds on the version, then compute units: ``macos>=14,<26 CPU_AND_GPU``. ``==27``
        takes every version that starts with 27. Without units all four are meant.

    Raises
    ------
    UsageError
        When it cannot be read, or no version is left.
    """
    match = _SELECTION.fullmatch(text)
    if match is None or match[1].lower() not in SYSTEMS:
        raise UsageError(
            f"'{text}' names no system; give {' or '.join(SYSTEMS)} with an optional version and compute units "
            f"({', '.join(UNITS)}), e.g. 'macos==27.2 CPU_AND_GPU'"
        )
    low, high = _WHOLE
    for operator, number in _BOUND.findall(match[2]):
        if not re.fullmatch(r"\d+(\.\d+)*", number):
            raise UsageError(f"'{text}': '{number}' is not a version such as 27.2")
        version = _numbers(number)
        if operator in (">=", "=="):
            low = max(low, version)
        if operator == ">":
            low = max(low, _after(version))
        if operator in ("<=", "=="):
            high = min(high, _after(version))
        if operator == "<":
            high = min(high, version)
    if low >= high:
        raise UsageError(f"'{text}' leaves no version")
    units = tuple(re.findall(r"[A-Z_]+", match[3]))
    for unit in units:
        if unit not in UNITS:
            raise UsageError(f"'{text}': '{unit}' is no compute unit; there are {', '.join(UNITS)}")
    return Stretch(match[1].lower(), low, high), units or UNITS


def _numbers(text: str) -> Version:
    """``27.2.0`` is 27.2: trailing zeros say nothing."""
    numbers = [int(part) for part in text.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _after(version: Version) -> Version:
    """Return the first version that does not start like this one."""
    return (*version[:-1], version[-1] + 1)


def _before(version: Version) -> Version:
    return (*version[:-1], version[-1] - 1)


def _text(version: Version) -> str:
    return ".".join(map(str, version))


# -------------------------------------------------------------------------------------------------------------- judging


def survey(bundle: Bundle, tables: Platforms | None = None) -> Survey:
    """Say what is known about a folder's models on each system and unit."""
    tables = tables or platforms()
    found = [hazard for rule in tables.rules for hazard in _hazards(rule, bundle)]
    specification, needs = _needs(bundle, tables)
    return Survey(bundle.path, specification, needs, tuple(found), _rows(found))


def matches(rule: Rule, component: Component) -> bool:
    """Tell whether a rule's pattern holds for a component; False as well where its program was not read."""
    return _holds(rule, component) is True


def repairs_for(component: Component, tables: Platforms, stretch: Stretch | None = None) -> tuple[str, ...]:
    """Return the repairs that rules ask for.

    Parameters
    ----------
    component : Component
    tables : Platforms
    stretch : Stretch, optional
        For these versions of a system, whatever the verdict. Otherwise those against failures that were reported, on
        any system.
    """
    wanted = [
        rule.repair
        for rule in tables.rules
        if rule.repair
        and (rule.verdict == "no" if stretch is None else any(own.meets(stretch) for own in rule.systems))
        and matches(rule, component)
    ]
    return tuple(dict.fromkeys(wanted))


def check(text: str, apps: Consumers) -> tuple[Task, Stretch, tuple[str, ...]]:
    """Read a demand ``TASK on SYSTEM [UNITS]``; UsageError where it cannot be read."""
    match = _DEMAND.fullmatch(text)
    if match is None:
        raise UsageError(f"requirement '{text}' must read 'TASK on SYSTEM', e.g. 'txt2img on macos==27.2 CPU_AND_GPU'")
    return apps.task(match[1]), *select(match[2])


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
    degraded : bool
        Whether *degraded* counts as met.

    Raises
    ------
    UsageError
        When the text cannot be read.
    """
    tables = tables or platforms()
    task, stretch, units = check(text, apps or consumers())
    good = {"yes", "degraded"} if degraded else {"yes"}
    unmet = []
    for bundle in inspection.bundles:
        cells = [_cell(task, stretch, unit, bundle, tables) for unit in units]
        unmet += [(bundle.path, cell) for cell in cells if cell.verdict not in good]
    return Requirement(text, bool(inspection.bundles) and not unmet, tuple(unmet))


def _cell(task: Task, stretch: Stretch, unit: str, bundle: Bundle, tables: Platforms) -> Cell:
    where = f"{stretch}, {unit}:"
    reasons = []
    involved = [component for component in bundle.components if (component.kind in task.involves)]
    broken = [c for c in bundle.components if c.kind == "broken" and (not c.named or c.named in task.involves)]
    for component in broken:
        reasons.append(Reason("broken", "no", f"{component.path} cannot be read", "read", "", ""))
    if not involved and not broken:
        reasons.append(Reason("absent", "unknown", f"no model of the task {task.title} is here", "read", "", ""))
    for component in involved:
        for system, oldest in tables.oldest.get(component.specification, {}).items():
            if stretch.system == system and stretch.low < oldest:
                name = f"{component.path}: models of specification {component.specification} load on"
                text = f"{name} {SYSTEMS[system]} {_text(oldest)} and later only"
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
    return Cell(task.id, where, reasons[0].verdict if reasons else "yes", tuple(reasons))


def _hazards(rule: Rule, bundle: Bundle) -> tuple[Hazard, ...]:
    results: dict[bool, list[Component]] = {True: [], False: []}
    for component in bundle.components:
        holds = _holds(rule, component)
        if holds or holds is None:
            results[holds is True].append(component)
    return tuple(
        Hazard(
            rule,
            tuple(component.kind for component in found),
            tuple(component.path for component in found),
            tuple(_place(rule, component) for component in found),
            read=read_,
        )
        for read_, found in results.items()
        if found
    )


def _holds(rule: Rule, component: Component) -> bool | None:
    """Tell whether a rule holds; None when the program was not read, so that it cannot be told."""
    if component.kind not in rule.components:
        return False
    facts = _facts(component)
    if not all(_allowed(facts.get(key, ""), allowed) for key, allowed in rule.when.items()):
        return False
    if not rule.pattern:
        return True
    structure = component.fingerprint.structure
    return None if structure is None else bool(_found(rule, structure))


def _found(rule: Rule, structure: Structure) -> list[dict[str, str | int]]:
    kind = rule.pattern["structure"][0]
    entries: list[dict[str, str | int]] = []
    if kind == "attention":
        entries = [
            {**vars(item), "bias": "yes" if item.bias else "no", "elements": item.elements}
            for item in structure.attention
        ]
    elif kind == "operator":
        entries = [dict(vars(item)) for item in structure.operators]
    elif kind == "flexible":
        entries = [{"input": name} for name in structure.flexible]
    elif structure.scaled_palettes:
        entries = [{"count": structure.scaled_palettes}]
    wanted = {key: allowed for key, allowed in rule.pattern.items() if key != "structure"}
    return [e for e in entries if all(_allowed(e[key], allowed) for key, allowed in wanted.items())]


def _place(rule: Rule, component: Component) -> str:
    structure = component.fingerprint.structure
    if structure is None or not rule.pattern:
        return ""
    texts = []
    for entry in _found(rule, structure):
        if rule.pattern["structure"][0] == "attention":
            sizes = [f"{key} {entry[key]}" for key in ("batch", "heads", "queries", "keys", "width") if entry[key]]
            texts.append(f"{entry['count']} × ({', '.join(sizes)})")
        elif "operator" in entry:
            texts.append(f"{entry['count']} × {entry['operator']} of rank {entry['rank']}, {entry['dtype']}")
        else:
            texts.append(f"{entry['count']} weights" if "count" in entry else f"input {entry['input']}")
    return "; ".join(texts)


def _facts(component: Component) -> dict[str, str | int | tuple[str, ...]]:
    return {
        **component.sizes,
        "kind": component.kind,
        "family": component.family,
        "attention": component.fingerprint.attention,
        "compression": component.fingerprint.compression,
        "specification": component.specification,
        "coremltools": component.metadata.get("com.github.apple.coremltools.version", ""),
    }


def _allowed(value: str | int | tuple[str, ...], conditions: tuple[str, ...]) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return any(_fits(item, condition) for item in values for condition in conditions)


def _fits(value: str | int, condition: str) -> bool:
    match = _CONDITION.fullmatch(condition)
    operator, wanted = (match[1], match[2].strip()) if match else ("", condition)
    if operator in (None, "", "!"):
        return (str(value) == wanted) != (operator == "!")
    numbers = re.match(r"\d+(\.\d+)*", str(value))
    if numbers is None or not re.fullmatch(r"\d+(\.\d+)*", wanted):
        return False
    left, right = _numbers(numbers[0]), _numbers(wanted)
    return {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}[operator]


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
        for low, high in zip(cuts, cuts[1:], strict=False):
            stretch = Stretch(system, low, high)
            here = [i for i, h in enumerate(hazards) if any(s.meets(stretch) for s in h.rule.systems)]
            behind = {unit: tuple(i for i in here if hazards[i].verdict_on(unit) != "yes") for unit in UNITS}
            if any(behind.values()):
                rows.append(Row(stretch, {u: _worst(hazards, behind[u], u) for u in UNITS}, behind))
    return tuple(rows)


def _worst(hazards: list[Hazard], numbers: tuple[int, ...], unit: str) -> str:
    return max((hazards[i].verdict_on(unit) for i in numbers), key=VERDICTS.index, default="yes")
