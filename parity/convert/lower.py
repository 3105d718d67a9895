"""How does a network become an ``.mlpackage``?

Steps: trace with torch, convert with coremltools to an ML Program, then finish the package: descriptions and metadata
of the contract, no date, fixed item ids, deterministic serialisation. So equal input gives equal bytes.

Proved by tests: two conversions in processes with different hash seeds give identical packages. Nothing here executes
the program; see :mod:`parity.convert.check`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from parity.convert import workarounds
from parity.convert.job import TensorSpec
from parity.convert.networks import Network
from parity.convert.spec import read_spec, write_spec
from parity.convert.workarounds import Report
from parity.files import link_or_copy
from parity.mil.allocator import returning_memory
from parity.models.scratch import Scratch

_NUMPY: Final = {"FLOAT16": np.float16, "FLOAT32": np.float32, "INT32": np.int32}


@dataclass(frozen=True)
class Labels:
    """Texts that go into a package's description, and whether the outputs' shapes do."""

    author: str
    license: str
    version: str
    description: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    output_shapes: bool = True


def lower(
    network: Network,
    path: Path,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    examples: Sequence[np.ndarray],
    compute: str = "FLOAT16",
    target: str = "macOS13",
    labels: Labels,
    scratch: Scratch | None = None,
    report: Report | None = None,
    exact: Callable[[Any], bool] | None = None,
) -> None:
    """Write a network as ``.mlpackage``.

    Parameters
    ----------
    network : Network
        What is traced.
    path : pathlib.Path
        Does not exist yet; ends in ``.mlpackage``.
    inputs, outputs : sequence of TensorSpec
        In the order of the network's arguments and results.
    examples : sequence of ndarray
        One value for each input, float32.
    compute : str
        Precision of the program, ``FLOAT16`` or ``FLOAT32``.
    target : str
        A key of :data:`parity.convert.job.TARGETS`.
    labels : Labels
        Texts of the description.
    scratch : Scratch, optional
        Takes large arrays, see :mod:`parity.models.scratch`.
    report : callable, optional
        Called with (stage, done, total).
    exact : callable, optional
        Tells which of coremltools' operations stay in float32 in a program of ``FLOAT16``.
    """
    import torch

    ct = workarounds.coremltools()
    if report is not None:
        report("trace", 0, 1)
    frugal = returning_memory() if scratch is not None else nullcontext()
    with workarounds.tracing(), torch.no_grad(), frugal:
        tensors = tuple(torch.from_numpy(example) for example in examples)
        traced = torch.jit.trace(network.module, tensors, check_trace=False)
    precision = ct.precision.FLOAT16 if compute == "FLOAT16" else ct.precision.FLOAT32
    if exact is not None and compute == "FLOAT16":
        precision = ct.transform.FP16ComputePrecision(op_selector=lambda operation: not exact(operation))
    with workarounds.converting(report, folder=path.parent, scratch=scratch):
        model = ct.convert(
            traced,
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, target),
            compute_precision=precision,
            compute_units=ct.ComputeUnit.CPU_ONLY,
            inputs=[ct.TensorType(name=f.name, shape=f.shape, dtype=_NUMPY[f.dtype]) for f in inputs],
            outputs=[ct.TensorType(name=f.name, dtype=_NUMPY[f.dtype]) for f in outputs],
            skip_model_load=True,
            package_dir=str(path),
        )
    # coremltools' own keys (its version, the source framework) are in the object it returns, not yet in the package
    metadata = {**dict(model.user_defined_metadata), **labels.metadata}
    finish(path, inputs=inputs, outputs=outputs, labels=replace(labels, metadata=metadata))


def finish(path: Path, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], labels: Labels) -> None:
    """Write descriptions and metadata into a package and make its bytes depend on its content alone."""
    spec = read_spec(path)
    description = spec.description
    texts = {feature.name: feature.role for feature in (*inputs, *outputs)}
    for feature in (*description.input, *description.output):
        feature.shortDescription = texts.get(feature.name, "")
    for feature in description.output if not labels.output_shapes else ():
        feature.type.multiArrayType.ClearField("shape")
    meta = description.metadata
    meta.author, meta.license = labels.author, labels.license
    meta.versionString, meta.shortDescription = labels.version, labels.description
    meta.userDefined.update(dict(labels.metadata))
    write_spec(path, spec)


def relabel(
    source: Path, target: Path, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], labels: Labels
) -> None:
    """Copy a package under other descriptions and metadata; weights are linked where the file system can."""

    def copy(original: str, duplicate: str) -> None:
        if Path(original).suffix == ".bin":
            link_or_copy(original, duplicate)
        else:  # these are written to, and a link would change the original
            shutil.copyfile(original, duplicate)

    shutil.copytree(source, target, copy_function=copy)
    finish(target, inputs=inputs, outputs=outputs, labels=labels)
