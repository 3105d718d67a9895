"""An inspection as a table in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.contracts.capability import Matrix, Requirement
from parity.contracts.inspection import Bundle, Finding, Inspection
from parity.contracts.memory import LEFT_OUT, SUMS, Memory
from parity.contracts.platforms import UNITS
from parity.contracts.survey import Survey
from parity.contracts.windows import Converters
from parity.report.inspection.summary import (
    APPS,
    LEGEND,
    MARKS,
    NOTHING_KNOWN,
    SYSTEM_LEGEND,
    found_in,
    headline,
    letter,
    megabytes,
    needs,
    ordered,
    overview,
    precision,
    sizes,
    title,
    where_known,
    windows,
)

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"yes": "green", "degraded": "yellow", "no": "red", "unknown": "magenta", "absent": "dim"}
_SEVERITY = {"error": "red", "warning": "yellow", "note": "dim"}


def show(
    inspection: Inspection,
    matrices: list[Matrix],
    surveys: list[Survey],
    tables: Converters,
    console: Console,
    *,
    evidence: bool,
) -> None:
    """Print an inspection.

    Parameters
    ----------
    inspection : Inspection
        What was found.
    matrices : list of Matrix
        One for each bundle, in order.
    surveys : list of Survey
        Likewise.
    tables : Converters
        For the names of releases.
    console : rich.console.Console
        Where it is printed.
    evidence : bool
        Whether to print why each component is ascribed to its converter windows, and remarks on single requests.
    """
    from rich.text import Text

    console.print(Text.assemble((inspection.path, "bold"), (f"  inspected in {inspection.seconds:.2f} s", "dim")))
    for finding in inspection.findings:
        _finding(finding, console)
    for bundle, matrix, survey in zip(inspection.bundles, matrices, surveys, strict=True):
        console.print()
        if bundle.path != "." and not inspection.single:
            console.print(Text(bundle.path, style="bold underline"))
        console.print(Text(headline(bundle, tables)))
        console.print()
        _components(bundle, tables, console, evidence=evidence)
        console.print()
        for finding in bundle.findings:
            _finding(finding, console)
        if inspection.single:
            console.print(Text("judged alone: other components are taken to be present and fitting", style="dim"))
        if bundle.findings or inspection.single:
            console.print()
        _matrix(bundle, matrix, console, evidence=evidence)
        if any(component.kind not in ("broken", "foreign") for component in bundle.components):
            _systems(survey, console)


def show_requirements(requirements: list[Requirement], console: Console) -> None:
    """Print which demands are met and what is in the way of the others."""
    from rich.text import Text

    if requirements:
        console.print()
    for requirement in requirements:
        mark, style = ("met", "green") if requirement.met else ("not met", "bold red")
        console.print(Text.assemble(("required: ", "bold"), requirement.text, "  ", (mark, style)))
        seen = set()
        for bundle, cell in requirement.unmet:
            reason = cell.reasons[0]
            line = f"{cell.consumer} {cell.verdict}: {reason.failure}"
            if (bundle, line) not in seen:
                seen.add((bundle, line))
                place = "" if bundle == "." else f"{bundle}: "
                console.print(Text(f"  {place}{line}"))
                if reason.remedy:
                    console.print(Text(f"     → {reason.remedy}", style="cyan"))


def show_memory(bundle: Bundle, memory: Memory, console: Console) -> None:
    """Print what a folder's models need, and what machines give a program."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("memory")
    for column in ("weights", "expanded", "values", "at least", "unpacked"):
        table.add_column(column, justify="right")
    rows = [(title(one), memory.components.get(one.path)) for one in ordered(bundle.components)]
    if len(memory.components) > 1:
        rows += [("one at a time", memory.one), ("all together", memory.all)]
    for name, own in rows:
        sizes = () if own is None else (own.stored, own.expanded, own.alive, own.least, own.most)
        cells = [megabytes(size) for size in sizes] or ["unread"]
        table.add_row(Text(f"{name}, free sizes" if own is not None and own.flexible else name), *cells)
    console.print(table)
    console.print(Text(SUMS, style="dim"))
    for path, why in memory.unread.items():
        console.print(Text(f"{path}: {why}", style="dim"))
    console.print()
    for fit in memory.fits:
        one = "" if fit.one == fit.all else f"one at a time {fit.one}, "
        text = f"{one}all together {fit.all}" if len(memory.components) > 1 else fit.one
        beyond = f": {fit.budget.beyond}" if "too large" in (fit.one, fit.all) else ""
        style = "red" if fit.one == "too large" else "yellow" if fit.all != "may fit" else ""
        console.print(Text(f"{fit.budget.name} ({megabytes(fit.budget.bytes)}): {text}{beyond}", style=style))
    console.print(Text(f"left out: {LEFT_OUT}; so what may fit may still not", style="dim"))


def _components(bundle: Bundle, tables: Converters, console: Console, *, evidence: bool) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("component", "weights", "size", "attention", "sizes", "written by"):
        table.add_column(column, justify="right" if column == "size" else "left")
    for component in ordered(bundle.components):
        attention = component.fingerprint.attention
        denoiser = component.kind in ("unet", "control-unet", "refiner", "controlnet", "mmdit")
        table.add_row(
            Text(title(component), style="red" if component.kind == "broken" else ""),
            precision(component),
            megabytes(component.weight_bytes),
            attention if denoiser else "",
            sizes(component),
            windows(component.windows, tables) if component.kind not in ("broken", "foreign") else "",
        )
    console.print(table)
    if evidence:
        for component in ordered(bundle.components):
            for item in component.evidence:
                left = windows(item.windows, tables)
                console.print(Text(f"  {title(component)}: {item.text} → {left}", style="dim"))
            for hint in component.hints:
                console.print(Text(f"  {title(component)}: {hint}", style="dim"))


def _finding(finding: Finding, console: Console) -> None:
    from rich.text import Text

    where = "" if finding.where == "." else f"{finding.where}: "
    console.print(Text.assemble((f"{finding.severity} ", _SEVERITY[finding.severity]), where, finding.text))


def _matrix(bundle: Bundle, matrix: Matrix, console: Console, *, evidence: bool) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    arranged = overview(matrix, bundle)
    for block in arranged.blocks:
        narrow = console.width < 100
        padding = (0, 1, 0, 0) if narrow else (0, 1)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=padding)
        table.add_column(APPS.get(block.app, block.app), min_width=16 if narrow else 26)
        for consumer in block.consumers:
            table.add_column(consumer.label, justify="left", min_width=5)
        for row in block.rows:
            cells = []
            for _, verdict, number in row.cells:
                mark = MARKS.get(verdict, "·")
                cells.append(Text(f"{mark}{f' {number}' if number else ''}", style=_STYLES[verdict]))
            table.add_row(row.task.title, *cells)
        console.print(table)
        console.print()
    if arranged.blocks:
        console.print(Text(LEGEND, style="dim"))
    notes = Table.grid(padding=(0, 1))
    notes.add_column(width=3, justify="right")
    notes.add_column()
    requests = {note.reason.request: None for note in arranged.notes if note.reason.request and not evidence}
    for note in arranged.notes:
        reason = note.reason
        if reason.request in requests:
            continue
        source = f"{reason.basis}: {reason.evidence}" if reason.evidence else f"{reason.basis} in the source"
        body = Text(reason.failure)
        if reason.remedy:
            body.append(f"\n→ {reason.remedy}", "cyan")
        body.append(f"\n{note.where} · {source}", "dim")
        notes.add_row(Text(str(note.number or "i"), style=_STYLES[reason.verdict] if note.number else "dim"), body)
    if requests:
        notes.add_row(
            Text("i", style="dim"), Text(f"some requests fail ({'; '.join(requests)}): --evidence", style="dim")
        )
    console.print(notes)


def _systems(survey: Survey, console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print()
    if not survey.rows:
        console.print(Text("; ".join(filter(None, (NOTHING_KNOWN, needs(survey)))), style="dim"))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("system and compute unit", min_width=26)
    for unit in UNITS:
        table.add_column(unit)
    for row in survey.rows:
        cells = []
        for unit in UNITS:
            verdict = row.verdicts[unit]
            letters = " ".join(letter(number) for number in row.hazards[unit])
            mark = "–" if verdict == "yes" else f"{MARKS[verdict]} {letters}"
            cells.append(Text(mark, style="dim" if verdict == "yes" else _STYLES[verdict]))
        table.add_row(str(row.stretch), *cells)
    console.print(table)
    console.print()
    console.print(Text("\n".join(filter(None, (SYSTEM_LEGEND, needs(survey)))), style="dim"))
    notes = Table.grid(padding=(0, 1))
    notes.add_column(width=3, justify="right")
    notes.add_column()
    for number, hazard in enumerate(survey.hazards):
        rule = hazard.rule
        verdict = rule.verdict if hazard.read else "unknown"
        body = Text(f"{rule.title}: {found_in(hazard)}\n{rule.effect}: {hazard.failure}")
        if rule.remedy:
            body.append(f"\n→ {rule.remedy}", "cyan")
        body.append(f"\n{where_known(hazard)} · {rule.basis}: {rule.evidence}", "dim")
        notes.add_row(Text(letter(number), style=_STYLES[verdict]), body)
    console.print(notes)
