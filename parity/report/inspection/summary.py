"""The texts that the terminal table and the page share: columns, short forms, and reasons numbered once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from parity.contracts.capability import Matrix, Reason, shown
from parity.contracts.consumers import Consumer, Task
from parity.contracts.inspection import Bundle, Component
from parity.contracts.names import COMPONENTS
from parity.contracts.platforms import SYSTEMS
from parity.contracts.survey import Hazard, Survey
from parity.contracts.windows import FAMILY_NAMES, Converters

MARKS = {"yes": "✓", "degraded": "~", "no": "✗", "unknown": "?"}
LEGEND = "✓ works   ~ with a flaw or only on some systems   ✗ fails   ? cannot be told   · no such task in the release"
SYSTEM_LEGEND = "✗ fails   ~ with a flaw   ? cannot be told   – nothing known, which is no promise"
NOTHING_KNOWN = "on systems and compute units: nothing known against these models, which is no promise"
APPS = {
    "swift": "Swift package",
    "python": "Python pipeline",
    "mochi": "Mochi Diffusion",
    "diffusers-app": "swift-coreml-diffusers",
}


@dataclass(frozen=True)
class Row:
    """One task's cells for one app: (consumer, verdict, number of its note or 0)."""

    task: Task
    cells: tuple[tuple[Consumer, str, int], ...]


@dataclass(frozen=True)
class Note:
    """A numbered reason, and the cells that it stands for as ``img2img on Swift package 0.4.0 to 1.0.0``.

    Remarks on whole apps have the number 0 and come last.
    """

    number: int
    reason: Reason
    where: str


@dataclass(frozen=True)
class Block:
    """One app's part of the matrix."""

    app: str
    consumers: tuple[Consumer, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Overview:
    """A matrix made ready for reading: blocks by app, notes in order of appearance."""

    blocks: tuple[Block, ...]
    notes: tuple[Note, ...]


def overview(matrix: Matrix, bundle: Bundle) -> Overview:
    """Arrange a matrix by app and number its reasons; equal reasons get one number.

    A task that a release does not have gets no number: its column head says enough.
    """
    numbers: dict[Reason, int] = {}
    remarks: dict[Reason, int] = {}
    places: dict[Reason, dict[str, list[Consumer]]] = {}
    blocks = []
    tasks = shown(matrix, bundle)
    for app in dict.fromkeys(consumer.app for consumer in matrix.consumers):
        columns = tuple(consumer for consumer in matrix.consumers if consumer.app == app)
        rows = []
        for task in tasks:
            cells = []
            for consumer in columns:
                cell = matrix.cell(task.id, consumer.id)
                number = 0
                for reason in (r for r in cell.reasons if r.rule):
                    places.setdefault(reason, {}).setdefault(task.id, []).append(consumer)
                    if reason.general or reason.request:
                        remarks[reason] = 0
                    else:
                        number = number or numbers.setdefault(reason, len(numbers) + 1)
                        numbers.setdefault(reason, len(numbers) + 1)
                cells.append((consumer, "absent" if _no_task(cell.reasons, consumer, task) else cell.verdict, number))
            if any(verdict != "absent" for _, verdict, _ in cells):
                rows.append(Row(task, tuple(cells)))
        if rows:
            blocks.append(Block(app, columns, tuple(rows)))
    ordered = {**numbers, **remarks}
    notes = [Note(number, reason, _places(places[reason], matrix.consumers)) for reason, number in ordered.items()]
    return Overview(tuple(blocks), tuple(notes))


def letter(number: int) -> str:
    """``a``, ``b``, … ``z``, ``aa``: how hazards are numbered, since reasons of the other table have figures."""
    text = ""
    while number >= 0:
        number, rest = divmod(number, 26)
        text, number = chr(ord("a") + rest) + text, number - 1
    return text


def needs(survey: Survey) -> str:
    """Say which systems load the models, empty if that is unknown."""
    if not survey.needs:
        return ""
    oldest = " or ".join(f"{SYSTEMS[name]} {'.'.join(map(str, version))}" for name, version in survey.needs.items())
    return f"needs {oldest} (specification {survey.specification})"


def found_in(hazard: Hazard) -> str:
    """Say where a hazard was found: ``text_encoder, 12 × (heads 12, queries 77, keys 77, width 64)``."""
    texts = [
        f"{kind}, {place}" if place else kind for kind, place in zip(hazard.components, hazard.places, strict=True)
    ]
    return "; ".join(dict.fromkeys(texts))


def where_known(hazard: Hazard) -> str:
    """Say on which systems, units and chips a hazard holds."""
    rule = hazard.rule
    parts = [" and ".join(map(str, rule.systems)), " and ".join(rule.units)]
    if rule.maybe:
        parts.append(f"perhaps {' and '.join(rule.maybe)}")
    if rule.chips:
        parts.append(f"chips: {rule.chips}")
    return " · ".join(parts)


def headline(bundle: Bundle, tables: Converters) -> str:
    """Say in one line what a folder is."""
    family = FAMILY_NAMES.get(bundle.family, "unknown family").removeprefix("the ")
    if bundle.family == "sd1" and not any(c.sizes.get("D") == 768 for c in bundle.components):
        family = "Stable Diffusion 1 or 2"  # the width that tells them apart is that of neither
    parts = [family]
    if bundle.facts["unet_channels"] == "9":
        parts.append("inpainting (9 channels)")
    if bundle.facts["image_size"] not in ("absent", "assumed"):
        parts.append(f"{bundle.facts['image_size']} pixels")
    if bundle.prediction == "v":
        parts.append("v-prediction")
    size = sum(c.weight_bytes for c in bundle.components)
    count = len(bundle.components)
    parts.append(f"{count} model{'s' if count != 1 else ''}, {megabytes(size)} of weights")
    parts.append({"packages": "packages", "compiled": "compiled", "mixed": "packages and compiled"}[bundle.layout])
    if bundle.windows:
        parts.append(f"made by {windows(bundle.windows, tables)}")
    return " · ".join(parts)


def windows(ids: tuple[str, ...], tables: Converters) -> str:
    """Name windows for people: tags where there are, else the days of main, e.g. ``0.4.0 to 2023-09-25``."""
    if not ids:
        return "no known release"
    following = [*tables.windows[1:], None]
    firsts = {w.id: w.releases[0] if w.releases else str(w.since) for w in tables.windows}
    lasts = {
        w.id: w.releases[-1] if w.releases or after is None else str(after.since - timedelta(days=1))
        for w, after in zip(tables.windows, following, strict=True)
    }
    order = [window.id for window in tables.windows]
    positions = sorted(order.index(name) for name in ids)
    if len(positions) == len(order):
        return "any release"
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][-1] + 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    texts = []
    for run in runs:
        first, last = firsts[order[run[0]]], lasts[order[run[-1]]]
        texts.append(first if first == last or order[run[0]] == order[run[-1]] else f"{first} to {last}")
    return ", ".join(texts)


def precision(component: Component) -> str:
    """Say how weights are stored, the largest part first."""
    total = sum(component.fingerprint.storage.values())
    parts = sorted(component.fingerprint.storage.items(), key=lambda item: -item[1])
    shown_parts = [name for name, size in parts if total and size / total >= 0.02]
    return " + ".join(shown_parts) or "–"


def sizes(component: Component) -> str:
    """Say the sizes that matter for a component."""
    known = component.sizes
    parts = []
    if "h" in known:
        parts.append(f"latents {known['h']}×{known['w']}")
    if "B" in known:
        parts.append(f"batch {known['B']}")
    width = known.get("D", known.get("E1", known.get("E2")))
    if width:
        parts.append(f"width {width}")
    if "Hs" in known:
        parts.append(f"images {known['Hs']}×{known['Ws']}")
    return ", ".join(parts)


def ordered(components: tuple[Component, ...]) -> list[Component]:
    """Put components in the order in which a picture passes them, the rest behind."""
    position = {kind: index for index, kind in enumerate(COMPONENTS)}
    return sorted(components, key=lambda c: (position.get(c.kind, len(COMPONENTS)), c.chunk, c.path))


def title(component: Component) -> str:
    """Name a component for a table: kind, chunk and form."""
    name = component.kind if component.kind != "broken" else f"{component.named or 'model'} (broken)"
    if component.kind == "controlnet" and component.version:
        name += f" {component.version.rpartition('/')[2]}"
    if component.chunk:
        name += f" chunk {component.chunk}"
    return f"{name} ({component.contract})" if component.contract else name


def megabytes(size: int) -> str:
    """Bytes for people, in powers of 1000."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"


def _no_task(reasons: tuple[Reason, ...], consumer: Consumer, task: Task) -> bool:
    return task.id not in consumer.tasks and not any(reason.rule for reason in reasons)


def _places(tasks: dict[str, list[Consumer]], order: tuple[Consumer, ...]) -> str:
    """``img2img on Swift package 0.4.0 to 1.0.0; Mochi Diffusion 3.2``: runs of releases shortened."""
    chosen = {consumer.id for consumers in tasks.values() for consumer in consumers}
    texts = []
    for app in dict.fromkeys(consumer.app for consumer in order):
        columns = [consumer for consumer in order if consumer.app == app]
        runs: list[list[Consumer]] = []
        for position, consumer in enumerate(columns):
            if consumer.id in chosen:
                if runs and columns[position - 1] is runs[-1][-1]:
                    runs[-1].append(consumer)
                else:
                    runs.append([consumer])
        labels = [run[0].label if len(run) == 1 else f"{run[0].label} to {run[-1].label}" for run in runs]
        if labels:
            texts.append(f"{APPS.get(app, app)} {', '.join(labels)}")
    return f"{', '.join(tasks)} on {'; '.join(texts)}"
