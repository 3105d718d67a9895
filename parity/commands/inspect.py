"""``parity inspect``: what a folder of Core ML models is, who made it, and what each app release can do with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parity.commands import documents
from parity.errors import FormatError, UsageError
from parity.files import replacing

if TYPE_CHECKING:
    from parity.contracts.consumers import Consumers
    from parity.contracts.inspection import Inspection
    from parity.contracts.memory import Memory


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", metavar="PATH", help="folder, .mlpackage, .mlmodelc, .aimodel or .zip")
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="DEMAND",
        help="exit with 1 unless it holds, e.g. 'img2img on swift>=1.1' or 'txt2img on macos==27.2 CPU_AND_GPU'; "
        "may be given several times",
    )
    parser.add_argument("--accept-degraded", action="store_true", help="let a demand be met by 'with a flaw' too")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write all records as JSON (to the terminal)"
    )
    parser.add_argument("--html", metavar="FILE", help="write a self-contained page")
    parser.add_argument(
        "--memory", action="store_true", help="estimate what the models need, and which machines that exceeds"
    )
    parser.add_argument("--evidence", action="store_true", help="say why each component is ascribed to its releases")
    parser.add_argument(
        "--tables",
        action="append",
        default=[],
        metavar="FILE",
        help="TOML file with further releases, apps or platform rules",
    )


def main(arguments: argparse.Namespace) -> int:
    """Inspect, print or write, check the demands; 0 when all hold.

    Raises
    ------
    FormatError
        At the end, when a model is damaged or nothing is a component of Stable Diffusion.
    """
    if arguments.path.rstrip("/").endswith(".aimodel"):
        return _core_ai(arguments)
    from parity.contracts import capability, platforms, survey
    from parity.contracts.consumers import consumers
    from parity.contracts.converters import converters
    from parity.contracts.inspect import inspect

    extra = tuple(Path(name) for name in arguments.tables)
    apps = consumers(extra)
    _check_demands(arguments.require, apps)
    inspection = inspect(arguments.path, extra=extra)
    matrices = [capability.capabilities(bundle, tables=apps) for bundle in inspection.bundles]
    systems = platforms.platforms(extra)
    surveys = [survey.survey(bundle, systems) for bundle in inspection.bundles]
    memories = _memories(inspection, extra) if arguments.memory else []
    requirements = [
        survey.require(demand, inspection, tables=systems, apps=apps, degraded=arguments.accept_degraded)
        if platforms.names_system(demand.partition(" on ")[2])
        else capability.require(demand, inspection, tables=apps, degraded=arguments.accept_degraded)
        for demand in arguments.require
    ]
    if arguments.json is not None:
        from parity.commands.records_of_models import Capabilities, Inspected

        document = Inspected(
            inspection,
            tuple(Capabilities(matrix.bundle, tuple(matrix.cells.values())) for matrix in matrices),
            tuple(survey.plain(found) for found in surveys),
            tuple(requirements),
            tuple(memories),
        )
        documents.write(document, arguments.json)
    if arguments.html:
        from parity.report.inspection.page import render

        with replacing(arguments.html) as path:
            path.write_text(render(inspection, matrices, surveys, requirements, converters(extra)), encoding="utf-8")
    if arguments.json != "-":
        from rich.console import Console

        from parity.report.inspection.terminal import show, show_memory, show_requirements

        console = Console(highlight=False, soft_wrap=False)
        show(inspection, matrices, surveys, converters(extra), console, evidence=arguments.evidence)
        for bundle, memory in zip(inspection.bundles, memories, strict=False):
            show_memory(bundle, memory, console)
        show_requirements(requirements, console)
        if arguments.html:
            console.print(f"page: {arguments.html}")
    if problem := problems(inspection):
        raise FormatError(problem)
    return 0 if all(requirement.met for requirement in requirements) else 1


def _memories(inspection: Inspection, extra: tuple[Path, ...]) -> list[Memory]:
    """Estimate the memory of each folder's models.

    Raises
    ------
    UsageError
        It is an archive: programs are read from files.
    """
    from parity.contracts.memory import budgets, memory

    root = Path(inspection.path)
    if root.is_file() and root.suffix == ".zip":
        raise UsageError(f"{root}: --memory reads programs from a folder; unpack the archive first")
    return [memory(bundle, root, budgets(extra)) for bundle in inspection.bundles]


def _check_demands(demands: Sequence[str], apps: Consumers) -> None:
    """Refuse a slip in a demand before it costs an inspection."""
    from parity.contracts import platforms, survey

    for demand in demands:
        task, _, rest = demand.partition(" on ")
        if not rest:
            raise UsageError(
                f"requirement '{demand}' must read 'TASK on CONSUMER' or 'TASK on SYSTEM', e.g. 'img2img on swift>=1.1'"
            )
        if platforms.names_system(rest):
            survey.check(demand, apps)
        else:
            apps.task(task.strip()), apps.select(rest)


def problems(inspection: Inspection) -> str:
    """Say why an inspection is one of bad input: damaged models, or nothing of Stable Diffusion; empty if it is not."""
    broken = [component.path for component in inspection.components if component.kind == "broken"]
    if broken:
        several = len(broken) > 1
        listed = ", ".join(broken[:6]) + (f" and {len(broken) - 6} more" if len(broken) > 6 else "")
        return f"{inspection.path}: {listed} {'are' if several else 'is'} damaged or incomplete, see above"
    if not inspection.components:
        return f"{inspection.path}: no Core ML models here (.mlpackage or .mlmodelc)"
    if all(component.kind == "foreign" for component in inspection.components):
        return f"{inspection.path}: no Stable Diffusion component of any known converter, see above"
    return ""


def _core_ai(arguments: argparse.Namespace) -> int:
    """Say what a Core AI file is; apps' releases read none, so there are no capabilities."""
    from parity.coreai import asset

    if arguments.require or arguments.html:
        raise UsageError(f"{arguments.path}: a Core AI model; --require and --html speak of Core ML models only")
    described = asset.describe(arguments.path)
    if arguments.json is None:
        print("\n".join(asset.lines(described)))
        return 0
    from parity.commands.records_of_models import CoreAI

    documents.write(CoreAI(documents.plain(described)), arguments.json)
    return 0
