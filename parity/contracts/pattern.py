"""Does a platform rule's pattern hold for a model?

Conditions are texts of the table (``3``, ``>=2``, ``!3``); what they are compared with are facts of the program's
structure and of the component. A program that was not read gives neither yes nor no.
"""

from __future__ import annotations

import re

from parity.contracts.inspection import Component, Structure
from parity.contracts.platforms import Platforms, Rule, Selection, numbers

_CONDITION = re.compile(r"(>=|<=|<|>|!)?(.*)")


def matches(rule: Rule, component: Component) -> bool:
    """Tell whether a rule's pattern holds for a component; False as well where its program was not read."""
    return holds(rule, component) is True


def repairs_for(component: Component, tables: Platforms, selection: Selection | None = None) -> tuple[str, ...]:
    """Return the repairs that rules ask for.

    Parameters
    ----------
    component : Component
        With its fingerprint.
    tables : Platforms
        The rules.
    selection : Selection, optional
        For these systems and units, whatever the verdict. Otherwise those against known failures, on any system.
    """
    asking = [rule for rule in tables.rules if rule.repair and _asks(rule, selection) and matches(rule, component)]
    return tuple(dict.fromkeys(rule.repair for rule in asking))


def _asks(rule: Rule, selection: Selection | None) -> bool:
    if selection is None:
        return rule.verdict == "no"
    return any(rule.verdict_on(unit) != "yes" for unit in selection.units) and any(
        stretch.meets(selection.stretch) for stretch in rule.systems
    )


def holds(rule: Rule, component: Component) -> bool | None:
    """Tell whether a rule holds; None when the program was not read, so that it cannot be told."""
    if component.kind not in rule.components:
        return False
    facts = _facts(component)
    if not all(_allowed(facts.get(key, ""), allowed) for key, allowed in rule.when.items()):
        return False
    if not rule.pattern:
        return True
    structure = component.fingerprint.structure
    return None if structure is None else bool(found(rule, structure))


def found(rule: Rule, structure: Structure) -> list[dict[str, str | int]]:
    """Return the parts of a structure that a rule's pattern describes, as the facts that it asked for."""
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


def place(rule: Rule, component: Component) -> str:
    """Say what was found, e.g. ``12 × (heads 12, queries 77, keys 77, width 64)``; empty without a pattern."""
    structure = component.fingerprint.structure
    if structure is None or not rule.pattern:
        return ""
    texts = []
    for entry in found(rule, structure):
        if rule.pattern["structure"][0] == "attention":
            sizes = [
                f"{key} {entry[key]}"
                for key in ("batch", "heads", "queries", "keys", "width")
                if entry[key] not in (0, key == "batch")
            ]
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
    start = re.match(r"\d+(\.\d+)*", str(value))
    if start is None or not re.fullmatch(r"\d+(\.\d+)*", wanted):
        return False
    left, right = numbers(start[0]), numbers(wanted)
    return {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}[operator]
