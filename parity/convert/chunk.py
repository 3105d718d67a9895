"""How is a denoiser cut into two packages that together compute the same?

Some devices cannot load a UNet whole, so the released converter can write ``…_chunk1`` and ``…_chunk2``, cut where
half of the weights lie. Steps: coremltools' ``bisect_model`` cuts the program; descriptions become those of the
window (the legacy chunker left coremltools' own keys only, with the source ``milinternal``, or none at all with the
libraries that described outputs without a shape; since C8b there are none); both halves run one after the other and are
compared with the whole.

Tensors that cross are float16 inside and float32 at the interface, which loses nothing; but each half is optimised by
itself, so other operations may be fused and the last bit may differ.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from parity.convert import workarounds
from parity.convert.check import DriftError
from parity.convert.samples import sample
from parity.convert.spec import read_spec, write_spec
from parity.convert.workarounds import Report
from parity.errors import MissingError, UsageError
from parity.files import replacing
from parity.metrics import measure

BOUND: Final = 60.0  # dB; the same program, fused otherwise: miniature UNets reach 76

_VERSION_KEY: Final = "com.github.apple.coremltools.version"
_SOURCE_KEY: Final = "com.github.apple.coremltools.source"


@dataclass(frozen=True)
class Chunks:
    """Two halves of a model.

    Attributes
    ----------
    first, second : pathlib.Path
    psnr : float or None
        Worst agreement with the whole in dB, inf when equal; None when not checked.
    """

    first: Path
    second: Path
    psnr: float | None


def chunk(
    package: Path,
    folder: Path | None = None,
    *,
    chunker: str = "bisect",
    check: bool = True,
    runtime: str = "auto",
    force: bool = False,
    report: Report | None = None,
) -> Chunks:
    """Cut a package in two.

    Parameters
    ----------
    package : pathlib.Path
        An ``.mlpackage`` with one function.
    folder : pathlib.Path, optional
        For the halves; the package's own by default.
    chunker : str
        ``legacy`` or ``bisect``: whose metadata the halves get.
    check : bool
        Compare the halves, one after the other, with the whole.
    runtime : str
        See :func:`parity.coreml.load`.
    force : bool
        Replace existing halves.
    report : callable, optional
        Called with (stage, done, total).

    Raises
    ------
    MissingError, UsageError
        No such package; existing halves.
    DriftError
        The halves compute something else; they are not kept.
    """
    package = Path(package)
    if not package.is_dir() or package.suffix != ".mlpackage":
        raise MissingError(f"{package}: no such .mlpackage")
    folder = package.parent if folder is None else Path(folder)
    targets = [folder / f"{package.stem}_chunk{i}.mlpackage" for i in (1, 2)]
    for target in targets:
        if target.exists() and not force:
            raise UsageError(f"{target} exists; remove it or use --force")
    ct = workarounds.coremltools()
    without_shapes = not any(f.type.multiArrayType.shape for f in read_spec(package).description.output)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".chunks-", dir=folder) as scratch:
        if report is not None:
            report("chunk", 0, 1)
        with workarounds.converting(report, folder=Path(scratch)), workarounds.cutting():
            ct.models.utils.bisect_model(str(package), scratch, check_output_correctness=False)
        halves = [Path(scratch) / target.name for target in targets]
        for half in halves:
            _label(half, chunker, without_shapes=without_shapes)
        agreement = _compare(package, halves, runtime) if check else None
        for half, target in zip(halves, targets, strict=True):
            with replacing(target) as path:
                half.rename(path)
    return Chunks(targets[0], targets[1], agreement)


def _label(half: Path, chunker: str, *, without_shapes: bool) -> None:
    """Describe a half as its chunker did; coremltools 6.x dropped all metadata where it dropped the outputs' shapes."""
    spec = read_spec(half)
    metadata = spec.description.metadata
    version = metadata.userDefined.get(_VERSION_KEY, workarounds.coremltools().__version__)
    metadata.Clear()
    if without_shapes:
        for feature in spec.description.output:
            feature.type.multiArrayType.ClearField("shape")
    elif chunker == "legacy":
        metadata.userDefined.update({_VERSION_KEY: version, _SOURCE_KEY: "milinternal"})
    write_spec(half, spec)


def _compare(package: Path, halves: list[Path], runtime: str) -> float:
    from parity import coreml

    whole = coreml.load(package, runtime=runtime)
    inputs = {f.name: sample(f.name, f.shape, "FLOAT16", seed=1) for f in whole.inputs}
    expected = whole.predict(inputs)
    del whole
    features: dict[str, Any] = dict(inputs)
    for half in halves:
        model = coreml.load(half, runtime=runtime)
        names = {f.name for f in model.inputs}
        if missing := names - features.keys():
            raise DriftError(f"{half.name} needs {', '.join(sorted(missing))}, which the first half does not give")
        features |= model.predict({name: features[name] for name in names})
    worst = _worst(features, expected)
    if not worst >= BOUND:
        raise DriftError(
            f"{package.name}: its two halves agree with the whole to only {worst:.1f} dB, {BOUND:g} dB are needed; "
            "they were removed"
        )
    return worst


def _worst(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    values = [measure("tensor_psnr", value, actual[name]) for name, value in expected.items()]
    return math.nan if any(math.isnan(v) for v in values) else min(values)
