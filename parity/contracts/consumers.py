"""Who reads Core ML Stable Diffusion models, and which rules decide what works?

Steps: ``tables/consumers.toml`` and any table that a user adds are read into tasks, consumers (one stretch of releases
of one app each) and rules; a selector such as ``swift>=1.1`` or ``S4..S6`` names consumers. Rules are evaluated in
:mod:`parity.contracts.capability`.

Proved by tests: every selector in the tables names a consumer, every consumer and task is reachable, versions are in
order. Not proved: the behaviour that the rules state; each carries its evidence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from parity.contracts import facts
from parity.contracts.table import Table, read
from parity.contracts.windows import FAMILIES
from parity.errors import UsageError

VERDICTS = ("yes", "unknown", "degraded", "no")
"""From best to worst; the worst of all matching rules counts."""
_BUILT_IN = Path(__file__).parent / "tables" / "consumers.toml"
_SELECTION = re.compile(r"([A-Za-z][\w.-]*?)\s*((?:(?:>=|<=|==|<|>)\s*[\w.]+\s*,?\s*)*)")
_BOUND = re.compile(r"(>=|<=|==|<|>)\s*([\w.]+)")


@dataclass(frozen=True)
class Task:
    """What a user wants; ``involves`` lists its components, a table leaves it out without one of ``shown_with``."""

    id: str
    title: str
    involves: tuple[str, ...]
    shown_with: tuple[str, ...]


@dataclass(frozen=True)
class Consumer:
    """A stretch of releases of one app that behaves in one way.

    Attributes
    ----------
    id, app, name, summary : str
    label : str
        Version for table heads, e.g. ``1.1.0``.
    first, last : tuple of int
        Versions that it covers.
    families, tasks : tuple of str
    lineage : tuple of str
        Its own id and app, then those of the consumers that it behaves like.
    conventions : mapping
        How it runs its models, as the table states it; :mod:`parity.suite.questions.play` reads it.
    """

    id: str
    app: str
    name: str
    summary: str
    label: str
    first: tuple[int, ...]
    last: tuple[int, ...]
    families: tuple[str, ...]
    tasks: tuple[str, ...]
    lineage: tuple[str, ...]
    conventions: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Rule:
    """For these tasks and consumers, when these facts hold, this happens.

    Attributes
    ----------
    id : str
    tasks, consumers : frozenset of str
    when : mapping of str to tuple of str
        Fact to allowed values; a value with a leading ``!`` is forbidden instead.
    verdict : str
        ``yes`` (a remark only), ``unknown``, ``degraded`` or ``no``.
    failure, remedy, evidence, repair : str
        What the user sees, what to do, who saw it, and which repair of :mod:`parity.repair` helps.
    basis : str
        ``reported``, ``read`` or ``run``.
    general : bool
        A remark on whole apps, which tables state once and not in each cell.
    request : str
        What a request must ask for that the rule concerns, e.g. ``guidance below 1``; empty when all are concerned.
    """

    id: str
    tasks: frozenset[str]
    consumers: frozenset[str]
    when: Mapping[str, tuple[str, ...]]
    verdict: str
    failure: str
    basis: str
    evidence: str
    remedy: str
    repair: str
    general: bool = False
    request: str = ""


@dataclass(frozen=True)
class Consumers:
    """All tasks, consumers in order of app and time, and rules."""

    tasks: tuple[Task, ...]
    consumers: tuple[Consumer, ...]
    rules: tuple[Rule, ...]

    def task(self, name: str) -> Task:
        """Return the task of that id; UsageError names those that exist."""
        for task in self.tasks:
            if task.id == name:
                return task
        raise UsageError(f"unknown task '{name}'; known are {', '.join(task.id for task in self.tasks)}")

    def consumer(self, name: str) -> Consumer:
        """Return the consumer of that id; UsageError names those that exist."""
        for consumer in self.consumers:
            if consumer.id == name:
                return consumer
        raise UsageError(f"unknown consumer '{name}'; known are {', '.join(c.id for c in self.consumers)}")

    def select(self, text: str) -> tuple[Consumer, ...]:
        """Return the consumers that a text names.

        Parameters
        ----------
        text : str
            An id (``S7``), a range of ids (``S4..S6``), an app (``swift``) or an app with bounds on its version
            (``swift>=1.1``, ``mochi>=4.3,<6``). ``==1.1`` takes every release that starts with 1.1; ``main`` is the
            newest.

        Raises
        ------
        UsageError
            When nothing is named.
        """
        ids = [consumer.id for consumer in self.consumers]
        text = text.strip()
        if text in ids:
            return (self.consumer(text),)
        if ".." in text:
            first, _, last = (part.strip() for part in text.partition(".."))
            if first in ids and last in ids and ids.index(first) <= ids.index(last):
                return self.consumers[ids.index(first) : ids.index(last) + 1]
        match = _SELECTION.fullmatch(text)
        apps = list(dict.fromkeys(consumer.app for consumer in self.consumers))
        if match is None or match[1] not in apps:
            raise UsageError(
                f"'{text}' names no consumer; give an app with an optional version ({', '.join(apps)}; swift>=1.1) "
                f"or an id ({', '.join(ids)})"
            )
        found = [consumer for consumer in self.consumers if consumer.app == match[1]]
        for bound in _BOUND.finditer(match[2]):
            version = found[-1].last if bound[2] == "main" and found else _version(bound[2], text)
            found = [consumer for consumer in found if _holds(bound[1], consumer, version)]
        if not found:
            known = ", ".join(f"{c.label}" for c in self.consumers if c.app == match[1])
            raise UsageError(f"'{text}' names no release of {match[1]}; known are {known}")
        return tuple(found)


@lru_cache(maxsize=8)
def consumers(extra: tuple[Path, ...] = ()) -> Consumers:
    """Read the built-in table, then tables that a user adds.

    Parameters
    ----------
    extra : tuple of pathlib.Path
        TOML files with further ``[[task]]``, ``[[consumer]]`` and ``[[rule]]`` entries. An app of your own usually
        needs one consumer with ``like`` the release of the Swift package that it is built with.
    """
    tables = [read(path) for path in (_BUILT_IN, *extra)]
    tasks = tuple(_task(entry) for table in tables for entry in table.items("task"))
    known: dict[str, Consumer] = {}
    for table in tables:
        for entry in table.items("consumer"):
            consumer = _consumer(entry, known, {task.id for task in tasks})
            if consumer.id in known:
                raise entry.error("id", f"'{consumer.id}' is taken; give the consumer an id of its own")
            known[consumer.id] = consumer
    result = Consumers(tasks, tuple(known.values()), ())
    rules = tuple(_rule(entry, result) for table in tables for entry in table.items("rule"))
    return Consumers(tasks, result.consumers, rules)


def _task(entry: Table) -> Task:
    task = Task(entry.text("id"), entry.text("title"), entry.texts("involves"), entry.texts("shown_with", default=()))
    entry.finish()
    return task


def _consumer(entry: Table, known: dict[str, Consumer], tasks: set[str]) -> Consumer:
    name = entry.text("id")
    like = entry.text("like", default="")
    if like and like not in known:
        raise entry.error("like", f"'{like}' is not a consumer stated before; known are {', '.join(known)}")
    parent = known.get(like)
    families = entry.texts("families", default=parent.families) if parent else entry.texts("families")
    offered = entry.texts("tasks", default=parent.tasks) if parent else entry.texts("tasks")
    for key, values, allowed in (("families", families, set(FAMILIES)), ("tasks", offered, tasks)):
        if not allowed.issuperset(values):
            raise entry.error(key, f"must name some of {', '.join(sorted(allowed))}")
    first = entry.text("first", default="0")
    app = entry.text("app")
    consumer = Consumer(
        id=name,
        app=app,
        name=entry.text("name", default=name),
        summary=entry.text("summary", default=""),
        label=entry.text("label", default="main" if entry.text("last", default="9999") == "9999" else first),
        first=_version(first, entry.where),
        last=_version(entry.text("last", default="9999"), entry.where),
        families=families,
        tasks=offered,
        lineage=(name, app, *(parent.lineage if parent else ())),
        conventions={**(parent.conventions if parent else {}), **entry.table("conventions").values},
    )
    entry.finish()
    return consumer


def _rule(entry: Table, table: Consumers) -> Rule:
    tasks = entry.texts("tasks")
    for task in tasks:
        table.task(task)
    chosen = _resolve(entry.texts("consumers"), table, inherit=True)
    chosen -= _resolve(entry.texts("except", default=()), table, inherit=False)
    verdict = entry.text("verdict")
    if verdict not in VERDICTS:
        raise entry.error("verdict", f"must be one of {', '.join(VERDICTS)}, not '{verdict}'")
    when = entry.table("when")
    for fact in when.values:
        if problem := facts.problem(fact, when.texts(fact)):
            raise when.error(fact, problem)
    rule = Rule(
        id=entry.text("id"),
        tasks=frozenset(tasks),
        consumers=frozenset(chosen),
        when={fact: when.texts(fact) for fact in when.values},
        verdict=verdict,
        failure=entry.text("failure"),
        basis=entry.text("basis"),
        evidence=entry.text("evidence", default=""),
        remedy=entry.text("remedy", default=""),
        repair=entry.text("repair", default=""),
        general=entry.flag("general", default=False),
        request=entry.text("request", default=""),
    )
    entry.finish()
    return rule


def _resolve(selectors: tuple[str, ...], table: Consumers, *, inherit: bool) -> set[str]:
    named = {consumer.id for text in selectors for consumer in table.select(text)}
    if inherit:
        named |= {consumer.id for consumer in table.consumers if named & set(consumer.lineage)}
    return named


def _version(text: str, where: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(\.\d+)*", text):
        raise UsageError(f"{where}: '{text}' is not a version such as 1.1.0")
    return tuple(int(part) for part in text.split("."))


def _holds(operator: str, consumer: Consumer, version: tuple[int, ...]) -> bool:
    if operator == "==":  # a fourth number marks the untagged commits after a release; `==1.1` does not mean them
        tagged = len(consumer.first) <= 3 and consumer.first[: len(version)] == version
        return tagged or consumer.first <= version <= consumer.last
    if operator == ">=":
        return consumer.last >= version
    if operator == ">":
        return consumer.last > version
    return consumer.first <= version if operator == "<=" else consumer.first < version
