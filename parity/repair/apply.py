"""Carrying out a plan: edit, record where the model came from, prove, and only then give the result its name."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity import __version__, mil
from parity.contracts.converters import converters
from parity.errors import FormatError, UsageError
from parity.files import replacing
from parity.repair import attention, encoder, features, mask
from parity.repair.plan import Job, Plan
from parity.repair.program import Editor
from parity.repair.proof import Proof, proofs_of

PROVENANCE = "com.github.coreml-parity.repair"
"""Key of the user-defined metadata that records a repair, as JSON."""


@dataclass(frozen=True)
class Repaired:
    """One written model: where it lies, what was done, and the proofs (empty when none was asked for)."""

    source: str
    target: str
    changes: tuple[str, ...]
    proofs: tuple[Proof, ...]


def apply(
    plan: Plan,
    output: Path | str,
    *,
    force: bool = False,
    prove: bool = True,
    reference: Path | None = None,
    progress: Callable[[Job], None] | None = None,
) -> tuple[Repaired, ...]:
    """Write the repaired models of a plan.

    Parameters
    ----------
    plan : Plan
        What to do, see :func:`parity.repair.plan.plan`.
    output : path
        Folder for the results; for a plan of one model also a path ending in ``.mlpackage``.
    force : bool
        Replace existing packages. Otherwise nothing that exists is touched.
    prove : bool
        Execute each repaired model and its original in the reference runtime and compare.
    reference : path, optional
        Folder of the diffusers checkpoint; encoders are compared with its VAE as well.
    progress : callable, optional
        Called before each job.

    Raises
    ------
    UsageError
        When a target exists.
    FormatError
        When a model cannot be edited or the proof fails; then nothing of it is written.
    """
    output = Path(output)
    targets = [
        output if output.suffix == ".mlpackage" and len(plan.jobs) == 1 else output / job.name for job in plan.jobs
    ]
    if output.suffix == ".mlpackage" and len(plan.jobs) > 1:
        raise UsageError(f"{output}: {len(plan.jobs)} models are to be written; name a folder")
    for target in targets:
        if target.exists() and not force:
            raise UsageError(f"{target} exists; choose another output, or --force to replace it")
    results = []
    for job, target in zip(plan.jobs, targets, strict=True):
        if progress is not None:
            progress(job)
        results.append(_run(job, target, prove=prove, reference=reference))
    return tuple(results)


def _run(job: Job, target: Path, *, prove: bool, reference: Path | None) -> Repaired:
    model = mil.load(job.source)
    with tempfile.TemporaryDirectory(prefix="parity-repair-") as folder:
        editor = Editor(model)
        weights: Any = model.weights
        changes = []
        for name in job.repairs:
            text, patched = _edit(name, job, editor, model, Path(folder))
            changes.append(text)
            weights = patched or weights
        _record(editor, job, model, changes)
        with replacing(target) as path:
            mil.save(editor.specification, weights, path)
            proofs: tuple[Proof, ...] = ()
            if prove:
                proofs = proofs_of(job, model, mil.load(path), reference=reference)
                failed = [proof for proof in proofs if not proof.passed]
                if failed:
                    raise FormatError(
                        f"{job.source}: the repaired model differs from its original: {failed[0]}; not written"
                    )
    return Repaired(str(job.source), str(target), tuple(changes), proofs)


def _edit(name: str, job: Job, editor: Editor, model: mil.Model, folder: Path) -> tuple[str, Mapping[str, Path] | None]:
    """Do one repair; return what changed, and replaced weight files if any."""
    if name == "causal-mask":
        return _edit_mask(job, editor, model, folder)
    if name == "package":
        return "rebuilt as a package from the compiled program and its weights", None
    if name.startswith("encoder-"):
        return _edit_encoder(name.removeprefix("encoder-"), job, editor), None
    if name == "float32-outputs":
        return f"outputs declared FLOAT32: {', '.join(features.float32_outputs(editor)) or 'none left'}", None
    if name in ("time-ids-flat", "time-ids-rows"):
        shape = features.reshape_time_ids(editor, flat=name.endswith("flat"))
        return f"time_ids now of shape {shape}", None
    if name == "metadata":
        filled = features.fill_metadata(editor, _sibling_texts(job), _texts(job))
        return f"filled in {', '.join(filled) or 'nothing'}", None
    assert name == "attention-rank4", name
    count = attention.four_axes(editor)
    return f"{count} attention{'s' if count != 1 else ''} of three axes given a fourth", None


def _edit_encoder(form: str, job: Job, editor: Editor) -> str:
    """Give a VAE encoder another form: ``legacy`` or the name of its single input."""
    if form == "legacy":
        encoder.extend(editor)
        return "sampling, scaling and noise appended: five inputs, output latent_dist"
    if job.component.contract != "legacy":
        encoder.rename_input(editor, form)
    else:
        found = encoder.cut(editor, name=form)
        if form == "z":
            return f"cut at the moments ('{found}'): input z, output latent"
    return f"input renamed to {form}"


def _edit_mask(job: Job, editor: Editor, model: mil.Model, folder: Path) -> tuple[str, Mapping[str, Path]]:
    tokens = job.component.inputs[0].shape[-1]
    assert tokens is not None  # a text encoder whose mask was read
    replacements = mask.find(editor, model, tokens)
    files = {}
    for number, file in enumerate(model.weights.names()):
        files[file] = model.weights.path(file)
        if any(replacement.file == file for replacement in replacements):
            files[file] = folder / f"weights-{number}.bin"
            mask.patch(model.weights.path(file), files[file], model, replacements, file)
    count = sum(replacement.count for replacement in replacements)
    return f"{count} elements of the causal mask set to {mask.PATCHED:g}", files


def _record(editor: Editor, job: Job, model: mil.Model, changes: list[str]) -> None:
    metadata = editor.description.metadata.userDefined
    earlier = metadata.get(PROVENANCE, "")
    entry = {
        "tool": f"coreml-parity {__version__}",
        "source": Path(job.source).name,
        "source_digest": model.digest(),
        "repairs": list(job.repairs),
        "changes": changes,
    }
    if earlier:
        entry["before"] = earlier
    metadata[PROVENANCE] = json.dumps(entry, ensure_ascii=False, sort_keys=True)


def _sibling_texts(job: Job) -> dict[str, str]:
    if job.sibling is None:
        return {}
    other = job.sibling
    return {"author": other.author, "license": other.license, "version": other.version}


def _texts(job: Job) -> dict[str, str]:
    """Feature texts of the newest contract for this component."""
    found: dict[str, str] = {}
    for _, contract in converters().contracts(job.component.kind):
        if contract.family == job.component.family:
            found.update({rule.name: rule.role for rule in (*contract.inputs, *contract.outputs)})
    return found
