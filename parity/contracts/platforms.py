"""On which systems and compute units is which structure of a program known to fail?

``tables/platforms.toml`` and any table that a user adds are read into rules: a pattern of the program's structure
(:class:`parity.contracts.inspection.Structure`), systems, compute units, what happens, who says so, what helps.
:func:`select` reads texts such as ``macos>=27.2 CPU_AND_GPU``; :mod:`parity.contracts.survey` tries the rules on
models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from parity.contracts.consumers import VERDICTS
from parity.contracts.converters import converters
from parity.contracts.names import COMPONENTS
from parity.contracts.table import Table, read
from parity.errors import UsageError
from parity.tables import nearest

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
COMPONENT_FACTS = ("kind", "family", "attention", "compression", "specification", "coremltools")
"""What a rule's ``when`` can ask of a component, beside the sizes of the converters' table."""
_BUILT_IN = Path(__file__).parent / "tables" / "platforms.toml"
_SELECTION = re.compile(r"\s*([A-Za-z]+)\s*((?:(?:>=|<=|==|<|>)\s*[\d.]+\s*,?\s*)*)((?:[A-Z_]+[\s,]*)*)")
_BOUND = re.compile(r"(>=|<=|==|<|>)\s*([\d.]+)")

Version = tuple[int, ...]
WHOLE: tuple[Version, Version] = ((0,), (9999,))


@dataclass(frozen=True, order=True)
class Stretch:
    """Versions of one system from ``low`` on, before ``high``."""

    system: str
    low: Version
    high: Version

    def __str__(self) -> str:
        name, first = SYSTEMS[self.system], written(self.low)
        if (self.low, self.high) == WHOLE:
            return f"{name}, any version"
        if self.high == WHOLE[1]:
            return f"{name} {first} and later"
        if self.low == WHOLE[0]:
            return f"{name} before {written(self.high)}"
        if self.high == _after(self.low):
            return f"{name} {first}"
        return f"{name} {first} to before {written(self.high)}"

    def meets(self, other: Stretch) -> bool:
        """Tell whether they have a version in common."""
        return self.system == other.system and self.low < other.high and other.low < self.high


@dataclass(frozen=True)
class Selection:
    """Versions of a system and compute units that a text names."""

    stretch: Stretch
    units: tuple[str, ...]


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
    contracts = converters(extra)
    components = (*COMPONENTS, *contracts.components())
    facts = (*COMPONENT_FACTS, *contracts.sizes())
    rules: dict[str, Rule] = {}
    for table in tables:
        for entry in table.items("platform_rule"):
            _check_names(entry, components, facts)
            rule = _rule(entry)
            if rule.id in rules:
                raise entry.error("id", f"'{rule.id}' is taken; give the rule an id of its own")
            rules[rule.id] = rule
    return Platforms(tuple(rules.values()), oldest)


def _check_names(entry: Table, components: tuple[str, ...], facts: tuple[str, ...]) -> None:
    """Refuse components and facts that no model has; a rule that names them would never hold."""
    for name in entry.texts("components"):
        if name not in components:
            raise entry.error("components", f"has '{name}', which no converter writes{nearest(name, components)}")
    when = entry.table("when")
    for fact in when.values:
        if fact not in facts:
            raise when.error(fact, f"is no fact of a component{nearest(fact, facts)}; there are {', '.join(facts)}")


def _rule(entry: Table) -> Rule:
    pattern, when = entry.table("pattern"), entry.table("when")
    if not pattern.values and not when.values:
        raise entry.error("pattern", "or 'when' must state what the rule looks for")
    if pattern.values:
        kind = _one_of(pattern, "structure", tuple(STRUCTURES))
        unknown = [key for key in pattern.values if key not in ("structure", *STRUCTURES[kind])]
        if unknown:
            raise pattern.error(
                unknown[0], f"is no fact of '{kind}'; there are {', '.join(STRUCTURES[kind]) or 'none'}"
            )
    rule = Rule(
        id=entry.text("id"),
        components=entry.texts("components"),
        systems=tuple(_stretch(text, entry) for text in entry.texts("systems")),
        units=_units(entry, "units"),
        maybe=_units(entry, "maybe") if "maybe" in entry.values else (),
        chips=entry.text("chips", default=""),
        pattern={key: _conditions(pattern, key) for key in pattern.values},
        when={key: _conditions(when, key) for key in when.values},
        verdict=_one_of(entry, "verdict", tuple(v for v in VERDICTS if v != "yes")),
        effect=_one_of(entry, "effect", EFFECTS),
        title=entry.text("title"),
        failure=entry.text("failure"),
        basis=_one_of(entry, "basis", BASES),
        evidence=entry.text("evidence", default=""),
        remedy=entry.text("remedy", default=""),
        repair=entry.text("repair", default=""),
    )
    entry.finish()
    return rule


def _conditions(entry: Table, key: str) -> tuple[str, ...]:
    conditions = entry.texts(key)
    for condition in conditions:
        if re.match(r"[<>]", condition) and not re.fullmatch(r"[<>]=?\s*\d+(\.\d+)*", condition):
            raise entry.error(key, f"has '{condition}', which compares with no number; write e.g. '>=2'")
    return conditions


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
        selection = select(text)
    except UsageError as error:
        raise entry.error("systems", f"has an entry that cannot be read: {error}") from None
    if selection.units != UNITS:
        raise entry.error("systems", f"has '{text}'; compute units belong in 'units'")
    return selection.stretch


def _version(text: str, entry: Table, key: str) -> Version:
    if not re.fullmatch(r"\d+(\.\d+)*", text):
        raise entry.error(key, f"must be a version such as 14.1, not '{text}'")
    return numbers(text)


# ----------------------------------------------------------------------------------------------------------- selecting


def names_system(text: str) -> bool:
    """Tell whether a text begins with the name of a system, as ``macos>=14 CPU_AND_GPU`` does."""
    match = re.match(r"\s*([A-Za-z]+)", text)
    return match is not None and match[1].lower() in SYSTEMS


def select(text: str) -> Selection:
    """Return the versions and compute units that a text names.

    Parameters
    ----------
    text : str
        ``macos`` or ``ios`` with bounds on the version, then compute units: ``macos>=14,<26 CPU_AND_GPU``. ``==27``
        takes every version that starts with 27. Without units, all four.

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
    low, high = WHOLE
    for operator, number in _BOUND.findall(match[2]):
        if not re.fullmatch(r"\d+(\.\d+)*", number):
            raise UsageError(f"'{text}': '{number}' is not a version such as 27.2")
        first, end = _stretch_of(operator, numbers(number))
        low, high = max(low, first), min(high, end)
    if low >= high:
        raise UsageError(f"'{text}' leaves no version")
    units = tuple(re.findall(r"[A-Z_]+", match[3]))
    for unit in units:
        if unit not in UNITS:
            raise UsageError(f"'{text}': '{unit}' is no compute unit; there are {', '.join(UNITS)}")
    return Selection(Stretch(match[1].lower(), low, high), units or UNITS)


def _stretch_of(operator: str, version: Version) -> tuple[Version, Version]:
    """Return the first version that a bound allows, and the first after those that it allows."""
    low, high = WHOLE
    if operator in (">=", "=="):
        low = version
    if operator == ">":
        low = _after(version)
    if operator in ("<=", "=="):
        high = _after(version)
    return low, version if operator == "<" else high


def numbers(text: str) -> Version:
    """``27.2.0`` is 27.2: trailing zeros say nothing."""
    numbers = [int(part) for part in text.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _after(version: Version) -> Version:
    """Return the first version that does not start like this one."""
    return (*version[:-1], version[-1] + 1)


def written(version: Version) -> str:
    return ".".join(map(str, version))
