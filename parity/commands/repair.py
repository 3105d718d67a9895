"""``parity repair``: make models of old converter releases work again, without the PyTorch checkpoint."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parity.commands import documents
from parity.errors import FormatError, MissingError, UsageError
from parity.files import unless_empty

if TYPE_CHECKING:
    from parity.commands.records_of_models import Repairs
    from parity.contracts.consumers import Consumer
    from parity.contracts.inspection import Bundle, Inspection
    from parity.contracts.platforms import Selection
    from parity.repair import Plan, Repaired


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", metavar="PATH", help="folder, .mlpackage or .mlmodelc")
    parser.add_argument("-o", "--output", metavar="OUT", help="folder for the results (one model: also a .mlpackage)")
    parser.add_argument("--in-place", action="store_true", help="replace the models themselves instead of -o")
    parser.add_argument(
        "--for", dest="consumer", metavar="WHOM", help="an app (S3, swift==0.3.0) or a system (macos==27.2)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="REPAIR", help="do just this (several times: these)"
    )
    parser.add_argument("--packages", action="store_true", help="only rebuild compiled models as packages")
    parser.add_argument("--complete", action="store_true", help="copy the models that need nothing to OUT as well")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    parser.add_argument(
        "--no-proof", "--no-check", action="store_true", help="do not execute the repaired models and their originals"
    )
    parser.add_argument(
        "--model-version",
        "--reference",
        dest="reference",
        metavar="MODEL",
        help="the PyTorch original, diffusers folder or shipped model: compare encoders with it too",
    )
    parser.add_argument(
        "--tables", action="append", default=[], metavar="FILE", help="TOML file with further apps or platform rules"
    )
    parser.add_argument("--force", action="store_true", help="replace existing results")
    documents.declare(parser, "plan and results")


def main(arguments: argparse.Namespace) -> int:
    """Plan, and unless it is a dry run, write and prove.

    Raises
    ------
    FormatError
        When nothing is a component of Stable Diffusion, and at the end when a model is damaged; others are repaired.
    """
    from parity import recipes, repair
    from parity.commands.inspect import problems
    from parity.contracts.inspect import inspect

    if bool(arguments.output) == arguments.in_place and not arguments.dry_run:
        raise UsageError("say where to: either -o OUT or --in-place")
    extra = tuple(Path(name) for name in arguments.tables)
    system, consumer = _aim(arguments.consumer, extra)
    only = ("package",) if arguments.packages else tuple(arguments.only)
    inspection = inspect(arguments.path, extra=extra)
    problem = problems(inspection)
    if problem and all(component.kind in ("broken", "foreign") for component in inspection.components):
        if not arguments.json:
            _print_findings(inspection)
        raise FormatError(problem)
    plan = repair.plan(inspection, only=only, consumer=consumer, system=system, tables=extra)
    if not arguments.json:
        _print_plan(plan)
    if arguments.dry_run:
        return _finish(problem, _layout(plan) if arguments.json else None)
    if plan.jobs and not arguments.no_proof and importlib.util.find_spec("torch") is None:
        raise MissingError("the proof executes models, which needs torch: pip install 'coreml-parity[run]'")
    output = _output(arguments, inspection.single)
    with unless_empty(output):
        results = repair.apply(
            plan,
            output,
            force=arguments.force or arguments.in_place,
            prove=not arguments.no_proof,
            reference=(recipes.find(arguments.reference) or Path(arguments.reference)) if arguments.reference else None,
        )
    copied: list[Path] = []
    if arguments.complete and not arguments.in_place and not inspection.single:
        copied = _copy(Path(arguments.path), output, (*plan.kept, *_tokenizers(inspection.bundles)))
    if arguments.json:
        return _finish(problem, _layout(plan, results, copied))
    _print_results(results)
    for path in copied:
        print(f"copied {path}")
    return _finish(problem)


def _aim(text: str | None, tables: tuple[Path, ...]) -> tuple[Selection | None, Consumer | None]:
    """Return the system or the consumer that ``--for`` names; neither without it."""
    from parity.contracts import platforms
    from parity.contracts.consumers import consumers

    if not text:
        return None, None
    if platforms.names_system(text):
        return platforms.select(text), None
    chosen = consumers(tables).select(text)
    if len(chosen) > 1:
        names = ", ".join(consumer.id for consumer in chosen)
        raise UsageError(f"--for {text} names {len(chosen)} consumers ({names}); choose one")
    return None, chosen[0]


def _print_findings(inspection: Inspection) -> None:
    for finding in (*inspection.findings, *(f for bundle in inspection.bundles for f in bundle.findings)):
        print(f"{finding.where}: {finding.text}")


def _print_plan(plan: Plan) -> None:
    from parity.repair import REPAIRS

    for job in plan.jobs:
        print(f"{job.component.path}  ({job.component.kind})")
        for name in job.repairs:
            print(f"  {name}: {REPAIRS[name]}")
        if job.name != job.component.path:
            print(f"  written as {job.name}")
    for path, reason in plan.refused:
        print(f"{path}: cannot be repaired: {reason}")
    if not plan.jobs:
        print("nothing to repair")


def _print_results(results: Sequence[Repaired]) -> None:
    for result in results:
        print(f"wrote {result.target}")
        for text in (*result.changes, *map(str, result.proofs)):
            print(f"  {text}")


def _layout(plan: Plan, results: Sequence[Repaired] = (), copied: Sequence[Path] = ()) -> Repairs:
    from parity.commands.records_of_models import Planned, Proved, Repairs, Written

    written = [
        Written(
            result.source,
            result.target,
            result.changes,
            tuple(Proved(one.output, one.elements, one.largest, one.exact, one.passed) for one in result.proofs),
        )
        for result in results
    ]
    jobs = tuple(Planned(job.component.path, tuple(job.repairs), job.name) for job in plan.jobs)
    return Repairs(jobs, dict(plan.refused), tuple(written), tuple(map(str, copied)))


def _finish(problem: str, document: Repairs | None = None) -> int:
    if document is not None:
        documents.write(document)
    if problem:
        raise FormatError(problem)
    return 0


def _output(arguments: argparse.Namespace, single: bool) -> Path:
    if not arguments.in_place:
        return Path(arguments.output)
    path = Path(arguments.path)
    if single and path.suffix == ".mlmodelc":
        raise UsageError(f"{path}: a compiled model becomes a package; name an output with -o")
    return path if single else Path(arguments.path)


def _tokenizers(bundles: tuple[Bundle, ...]) -> list[str]:
    return [name if bundle.path == "." else f"{bundle.path}/{name}" for bundle in bundles for name in bundle.tokenizer]


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> list[Path]:
    copied = []
    for name in names:
        destination = target / name
        if destination.exists() or not (source / name).exists():
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, destination, symlinks=True)
        else:
            shutil.copyfile(source / name, destination)
        copied.append(destination)
    return copied
