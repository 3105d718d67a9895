"""``parity diff``: what changed between two models or two folders of models, before any picture is drawn."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from parity.commands import documents

if TYPE_CHECKING:
    from rich.console import Console

    from parity.contracts.diff import FieldChange, ModelDiff

_LISTED = 12  # weights and operators listed in the terminal; --json has all


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("before", metavar="A", help=".mlpackage, .mlmodelc or a folder of them")
    parser.add_argument("after", metavar="B", help="the same kind of thing, or for a model its Core AI file (.aimodel)")
    documents.declare(parser)
    parser.add_argument("--metadata", action="store_true", help="count different metadata as a difference")


def main(arguments: argparse.Namespace) -> int:
    """Compare and print; 0 when features, programs and weights are equal, else 1."""
    if any(path.endswith(".aimodel") for path in (arguments.before, arguments.after)):
        return _across_formats(arguments)
    from parity.contracts.diff import diff

    result = diff(arguments.before, arguments.after)
    same = all(model.same and not (arguments.metadata and model.metadata) for model in result.models)
    same = same and not (result.only_before or result.only_after)
    if arguments.json:
        documents.write(result)
        return 0 if same else 1
    from rich.console import Console

    console = Console(highlight=False)
    for model in result.models:
        _show(model, console)
    for name in result.only_before:
        console.print(f"only before: {name}", markup=False)
    for name in result.only_after:
        console.print(f"only after: {name}", markup=False)
    return 0 if same else 1


def _across_formats(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from parity.coreai import comparison
    from parity.errors import UsageError

    before, after = Path(arguments.before), Path(arguments.after)
    if before.suffix == ".aimodel" or after.suffix != ".aimodel":
        raise UsageError(f"{before} and {after}: give the Core ML model first, then its .aimodel")
    result = comparison.compare(before, after)
    if arguments.json:
        documents.write(result)
    else:
        for line in comparison.lines(result, listed=_LISTED):
            print(line)
    return 0 if result.same else 1


def _show(model: ModelDiff, console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble(("before ", "dim"), model.before), soft_wrap=True)
    console.print(Text.assemble(("after  ", "dim"), model.after), soft_wrap=True)
    if model.same and not model.metadata:
        console.print(Text(f"equal: features, program and {model.equal_weights} weights\n", style="green"))
        return
    _changes("features", model.features, console)
    _changes("metadata", model.metadata, console)
    _changes("operators", model.operators, console)
    if model.parts_at:
        console.print(Text(f"programs part at {model.parts_at}"))
    if model.weights:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
        for head in ("weight", "shape", "largest difference", "of largest value"):
            table.add_column(head, justify="left" if head in ("weight", "shape") else "right")
        for weight in model.weights[:_LISTED]:
            name = weight.name if weight.name == weight.other else f"{weight.name} → {weight.other}"
            shape = "×".join(map(str, weight.shape))
            table.add_row(name, shape, f"{weight.largest:.3g}", f"{weight.largest / max(weight.scale, 1e-30):.2g}")
        console.print(table)
        if len(model.weights) > _LISTED:
            console.print(Text(f"and {len(model.weights) - _LISTED} more weights (--json lists all)", style="dim"))
    alone = f", {len(model.only_before)} only before, {len(model.only_after)} only after"
    summary = f"{model.equal_weights} weights equal, {len(model.weights)} differ{alone}\n"
    console.print(Text(summary, style="dim"))


def _changes(name: str, changes: tuple[FieldChange, ...], console: Console) -> None:
    from rich.text import Text

    for change in changes[:_LISTED]:
        before, after = (_short(value) or "absent" for value in (change.before, change.after))
        line = f"{name}: {change.field}: {before} → {after}"
        console.print(Text(line))
    if len(changes) > _LISTED:
        console.print(Text(f"{name}: and {len(changes) - _LISTED} more (--json lists all)", style="dim"))


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"
