"""Write the adapter of the Swift package's multilingual text encoder, as the released converter means to.

The package hands the token vectors of Apple's language model, (1, 256, 512), to this model and its output, as it is,
to the UNet: so the graph is the adapter's, transposed to (1, width, 256), with an axis inserted before the tokens. The
model has no texts and no metadata of the converter's own, and needs macOS 14. The published script stops before it has
saved anything, by reading; what it would have written is written here.

Not told: the precision inside. coremltools' default is taken, as the script does not choose.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity import cache
from parity.contracts import converter
from parity.convert import disk
from parity.convert import record as records
from parity.convert.job import Job, Settings, TensorSpec
from parity.errors import UsageError
from parity.files import replacing, sha256
from parity.models import projection
from parity.models.content import module_hash
from parity.models.source import Source

if TYPE_CHECKING:
    from parity.convert.networks import Network

COMPONENT = "multilingual_projection"


def multilingual_projection(
    adapter: Any, output: str | Path, *, contract: str = "main", force: bool = False, check: bool = True
) -> Path:
    """Convert an adapter to ``MultilingualTextEncoderProjection.mlpackage``.

    Parameters
    ----------
    adapter : path or torch.nn.Module
        A TorchScript file, or a network in memory: (1, 256, 512) to (1, 256, width), float32.
    output : path
        Folder; created if need be.
    contract : str
        Release or window that has the component: 1.0.0 (C5) and later.
    force : bool
        Replace a package that another adapter made.
    check : bool
        Compare the package with the adapter.

    Returns
    -------
    pathlib.Path
        The package.

    Raises
    ------
    ParityError
        No such file, not an adapter, a contract without it, an existing package of another adapter.
    DriftError
        The package differs from the adapter by more than the tolerance; it is removed.
    """
    window = converter(contract)
    rules = window.component(COMPONENT, family="sd1")
    by_path = isinstance(adapter, (str, Path))
    module = projection.load(adapter) if by_path else adapter.eval()
    job = _job(
        rules,
        Settings(contract=contract, target="macOS14"),
        projection.width(module, str(adapter) if by_path else type(adapter).__name__),
    )
    target = Path(output) / job.file_name
    digest = sha256(Path(adapter).expanduser()).hexdigest() if by_path else module_hash({}, module)
    key = cache.key(adapter=digest, inputs=job.inputs, outputs=job.outputs, compute=rules.compute)
    record = records.read(target.parent)
    if target.exists() and not force:
        if record.get(target.name, {}).get("request") == key:
            return target
        raise UsageError(f"{target} exists and was made from another adapter; remove it or use --force")
    target.parent.mkdir(parents=True, exist_ok=True)
    record[target.name] = records.entry(key, target, _write(job, module, target, check=check))
    records.write(target.parent, record)
    return target


def _job(rules: Any, settings: Settings, width: int) -> Job:
    sizes = {"D": width}
    (given,), (made,) = rules.inputs, rules.outputs
    texts = {"author": "", "license": "", "version": "", "description": "", "metadata": {}, "output_shapes": True}
    return Job(
        key=COMPONENT,
        contract=rules,
        source=Source("", None),
        part="",
        folder=None,
        inputs=(TensorSpec(given.name, given.shape(sizes), given.dtype),),
        outputs=(TensorSpec(made.name, made.shape(sizes), made.dtype),),
        file_name=f"{rules.resource}.mlpackage",
        labels=texts,
        vocabulary={},
        settings=settings,
    )


def _write(job: Job, module: Any, target: Path, *, check: bool) -> Any:
    from parity.convert import build
    from parity.convert import check as checks

    network = _network(module)
    agreement = None
    with disk.writing(target), replacing(target) as path:
        build.write(job, network, path)
        if check:
            agreement = checks.check(job, path, checks.references(job, network))
    return agreement


def _network(module: Any) -> Network:
    from parity.convert.networks import projected

    return projected(module)
