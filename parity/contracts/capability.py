"""What can each consumer release do with these models, how does it fail otherwise, and what helps?

For each task and consumer: a task that the release does not have, or a family that it does not know, is *no*. Otherwise
every rule of ``tables/consumers.toml`` for the pair is tried against the facts of the inspection; the worst verdict of
the rules that hold counts, and a rule whose facts could not be read makes the verdict *unknown* unless another rule
already says *no*. No rule holding means *yes*.

The verdicts are read off files; :mod:`parity.suite.questions.play` executes what can be executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from parity.contracts.consumers import VERDICTS, Consumer, Consumers, Rule, Task, consumers
from parity.contracts.inspection import Bundle, Inspection
from parity.contracts.windows import FAMILY_NAMES
from parity.errors import UsageError

_REQUIREMENT = re.compile(r"\s*([a-z][a-z0-9-]*)\s+on\s+(.+?)\s*")


@dataclass(frozen=True)
class Reason:
    """Why a verdict is not a plain *yes*.

    Attributes
    ----------
    rule : str
        Id of the rule; ``family`` when the release does not know the family, empty when it has no such task.
    verdict, failure, basis, evidence, remedy, repair, general, request
        See :class:`parity.contracts.consumers.Rule`.
    """

    rule: str
    verdict: str
    failure: str
    basis: str
    evidence: str
    remedy: str
    repair: str = ""
    general: bool = False
    request: str = ""


@dataclass(frozen=True)
class Cell:
    """Verdict for one task and consumer, with its reasons, the decisive ones first."""

    task: str
    consumer: str
    verdict: str
    reasons: tuple[Reason, ...]

    @property
    def failure(self) -> str:
        """What the user sees, empty for a plain *yes*."""
        return self.reasons[0].failure if self.reasons else ""


@dataclass(frozen=True)
class Matrix:
    """All verdicts for one folder.

    Attributes
    ----------
    bundle : str
        Path of the folder, relative to what was inspected.
    tasks, consumers
        Rows and columns, in the tables' order.
    cells : mapping of (task id, consumer id) to Cell
    """

    bundle: str
    tasks: tuple[Task, ...]
    consumers: tuple[Consumer, ...]
    cells: Mapping[tuple[str, str], Cell]

    def cell(self, task: str, consumer: str) -> Cell:
        """Return one verdict."""
        return self.cells[task, consumer]


@dataclass(frozen=True)
class Requirement:
    """A demand such as ``img2img on swift>=1.1`` and whether it is met; ``unmet`` are the cells that are in the way."""

    text: str
    met: bool
    unmet: tuple[tuple[str, Cell], ...]


def capabilities(bundle: Bundle, *, tables: Consumers | None = None) -> Matrix:
    """Judge every task on every consumer.

    Parameters
    ----------
    bundle : Bundle
        One folder of an inspection.
    tables : Consumers, optional
        The built-in tables by default.
    """
    tables = tables or consumers()
    cells = {
        (task.id, consumer.id): _cell(task, consumer, bundle, tables)
        for task in tables.tasks
        for consumer in tables.consumers
    }
    return Matrix(bundle.path, tables.tasks, tables.consumers, cells)


def shown(matrix: Matrix, bundle: Bundle) -> tuple[Task, ...]:
    """Return the tasks that a table for people should have: those whose components are there at all."""
    if all(component.kind == "foreign" and not component.named for component in bundle.components):
        return ()
    present = {name for name, state in bundle.facts.items() if state not in ("absent", "assumed", "unread")}
    assumed = "assumed" in bundle.facts.values()
    rows = []
    for task in matrix.tasks:
        involved = present.intersection(task.involves) if assumed else present
        if involved and (not task.shown_with or present.intersection(task.shown_with)):
            rows.append(task)
    return tuple(rows)


def require(
    text: str, inspection: Inspection, *, tables: Consumers | None = None, degraded: bool = False
) -> Requirement:
    """Check a demand on all folders of an inspection.

    Parameters
    ----------
    text : str
        ``TASK on CONSUMERS``; for the consumers see :meth:`parity.contracts.consumers.Consumers.select`.
    inspection : Inspection
        Each of its folders must meet the demand.
    tables : Consumers, optional
        The built-in tables by default.
    degraded : bool
        Whether *degraded* counts as met.

    Raises
    ------
    UsageError
        When the text cannot be read or names an unknown task or consumer.
    """
    tables = tables or consumers()
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        raise UsageError(f"requirement '{text}' must read 'TASK on CONSUMER', e.g. 'img2img on swift>=1.1'")
    task, chosen = tables.task(match[1]), tables.select(match[2])
    good = {"yes", "degraded"} if degraded else {"yes"}
    unmet = []
    for bundle in inspection.bundles:
        cells = [_cell(task, consumer, bundle, tables) for consumer in chosen]
        unmet += [(bundle.path, cell) for cell in cells if cell.verdict not in good]
    return Requirement(text, bool(inspection.bundles) and not unmet, tuple(unmet))


def _cell(task: Task, consumer: Consumer, bundle: Bundle, tables: Consumers) -> Cell:
    if task.id not in consumer.tasks:
        return Cell(task.id, consumer.id, "no", (_missing_task(task, consumer, tables),))
    family = bundle.facts["family"]
    if family != "unread" and family not in consumer.families:
        return Cell(task.id, consumer.id, "no", (_missing_family(family, consumer, tables),))
    reasons = []
    for rule in tables.rules:
        if task.id in rule.tasks and consumer.id in rule.consumers:
            reason = _apply(rule, bundle.facts)
            if reason is not None:
                reasons.append(reason)
    reasons.sort(key=lambda reason: -VERDICTS.index(reason.verdict))
    return Cell(task.id, consumer.id, reasons[0].verdict if reasons else "yes", tuple(reasons))


def _apply(rule: Rule, facts: Mapping[str, str]) -> Reason | None:
    unread = []
    for fact, allowed in rule.when.items():
        value = facts.get(fact, "unread")
        if value == "unread" and "unread" not in allowed:
            unread.append(fact)
        elif not _matches(value, allowed):
            return None
    if unread:
        if rule.verdict == "yes":
            return None
        text = f"cannot be told, {' and '.join(unread)} could not be read; it would be: {rule.failure}"
        return Reason(rule.id, "unknown", text, rule.basis, rule.evidence, rule.remedy)
    texts = (rule.failure, rule.basis, rule.evidence, rule.remedy, rule.repair)
    return Reason(rule.id, rule.verdict, *texts, general=rule.general, request=rule.request)


def _matches(value: str, allowed: tuple[str, ...]) -> bool:
    forbidden = [text[1:] for text in allowed if text.startswith("!")]
    if forbidden:
        return value not in (*forbidden, "absent", "assumed", "broken")
    return value in allowed


def _missing_task(task: Task, consumer: Consumer, tables: Consumers) -> Reason:
    having = [c for c in tables.consumers if task.id in c.tasks]
    same = [c for c in having if c.app == consumer.app]
    later = next((c for c in same if c.first > consumer.first), None)
    if later is not None:
        remedy = f"use {later.name} or later"
    else:
        remedy = f"use another app: {', '.join(dict.fromkeys(c.app for c in having))}" if having else ""
    return Reason("", "no", f"{consumer.name} has no {task.title}", "read", "", remedy)


def _missing_family(family: str, consumer: Consumer, tables: Consumers) -> Reason:
    same = [c for c in tables.consumers if c.app == consumer.app and family in c.families]
    if same:
        remedy = f"use {same[0].name}, or later" if same[0].first > consumer.first else f"use {same[0].name}"
    else:
        remedy = f"no release of {consumer.app} runs this family"
    return Reason("family", "no", f"the release does not know {FAMILY_NAMES[family]}", "read", "", remedy)
