"""Which request made this package, and how well does it agree with its original?

``conversion.json`` in an output folder answers for every package that the converter wrote there: the request's key,
the package's content hash and the result of the check. The key is the hash of everything that decides a package's
content: weights and configuration of the part, the concrete contract, all settings, the converter's own source and
the versions of the libraries. The cache uses the same key. No torch is needed to compute it for a model in a folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parity import cache
from parity.contracts.names import OF_EACH_STEP
from parity.convert.job import Job
from parity.convert.spec import content_hash
from parity.files import replacing
from parity.models.content import folder_hash

if TYPE_CHECKING:
    from parity.convert.check import Agreement

FILE: Final = "conversion.json"
_MODELS: Final = ("checkpoint", "source", "weights")
_LIBRARIES: Final = ("torch", "coremltools", "diffusers", "transformers", "numpy")


def request_key(job: Job) -> str:
    """Return the name of everything that decides a package's content."""
    return cache.key(
        part=folder_hash(job.folder) if job.folder is not None else job.source.fingerprint(job.part),
        component=job.component,
        inputs=[asdict(f) for f in job.inputs],
        outputs=[asdict(f) for f in job.outputs],
        compute=job.compute,
        labels={**job.labels, "metadata": dict(job.labels["metadata"])},
        file_name=job.file_name,
        settings=asdict(job.settings),
        libraries={name: importlib.metadata.version(name) for name in _LIBRARIES},
        converter=own_source(),
    )


def program_key(job: Job) -> str:
    """Return the name of everything that decides a package's program and weights: :func:`request_key` without texts.

    Releases that wrote the same network under other names and metadata share it, and so do requests of other sizes, or
    of another attention, whose component has neither.
    """
    of_features = dict.fromkeys(("batch", "height", "width", "tokens", "outputs"))  # inputs and outputs say it
    no_attention = {} if job.component in OF_EACH_STEP else {"attention": ""}
    others = {"contract": "", "compression": "", "output_shapes": True, **of_features, **no_attention}
    return cache.key(
        part=folder_hash(job.folder) if job.folder is not None else job.source.fingerprint(job.part),
        component=job.component,
        inputs=[(f.name, f.shape, f.dtype) for f in job.inputs],
        outputs=[(f.name, f.shape, f.dtype) for f in job.outputs],
        compute=job.compute,
        vocabulary=dict(job.vocabulary),
        compression=job.compression,
        settings={**asdict(job.settings), **others},
        libraries={name: importlib.metadata.version(name) for name in _LIBRARIES},
        converter=own_source(),
    )


@once
def own_source() -> str:
    """Digest of the converter's own source, which decides what it writes."""
    here = Path(__file__).parent
    # of other rooms: what decides which tensors of a checkpoint a network gets
    sources = [*sorted(here.glob("*.py")), *(here.parent / "models" / f"{name}.py" for name in _MODELS)]
    return cache.key(files=[path.read_text(encoding="utf-8") for path in sources])


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return a folder's record by file name; empty when there is none or it is damaged."""
    try:
        record = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or damaged: then every package counts as another request's
        return {}
    return {name: entry for name, entry in record.items() if isinstance(entry, dict)}


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace a folder's record."""
    with replacing(folder / FILE) as path:
        path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def entry(request: str, target: Path, agreement: Agreement | None = None) -> dict[str, Any]:
    """Return what the record says of one package."""
    result: dict[str, Any] = {"request": request, "content": content_hash(target)}
    if agreement is not None:
        psnr = None if math.isinf(agreement.psnr) else round(agreement.psnr, 2)  # JSON has no infinity
        result["agreement"] = {**asdict(agreement), "psnr": psnr}
    return result


def describe(folder: str | Path, packages: Mapping[str, Path]) -> dict[str, tuple[Path, str]]:
    """Return for each package its path and one line on its check, as the folder's record has it."""
    record = read(Path(folder))
    result = {}
    for key, path in packages.items():
        found = record.get(path.name, {})
        agreement = found.get("agreement")
        note = f"{str(found.get('content', ''))[:12]}, not checked"
        if agreement:
            worst = "equal" if agreement["psnr"] is None else f"{agreement['psnr']:.1f} dB"
            note = f"{found['content'][:12]}, {worst} (bound {agreement['bound']:g}) by the {agreement['numerics']}"
        result[key] = (path, note)
    return result
