"""Does the converted package compute what the original PyTorch modules compute?

Steps: draw inputs from several seeds, run the original modules in float32 and the package with the runtime at hand
(Core ML on macOS, the reference runtime elsewhere), compare every output. The worst PSNR over seeds and outputs must
reach the bound of ``tolerances.toml``; the distance is reported as margin. References are computed before the package
is loaded, so that the two never share the memory.

PSNR's peak is the largest magnitude of the *reference*, so it does not depend on how wrong the candidate is. A
candidate with values that are not finite fails whatever its PSNR. Not proved: agreement on other inputs, or on other
hardware.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from parity import mil, tables
from parity.convert.job import Job
from parity.convert.samples import examples
from parity.errors import ParityError
from parity.metrics import measure

SEEDS: Final = (0, 1, 2)


class DriftError(ParityError):
    """A converted package differs from its original by more than the tolerance; it has been removed."""

    exit_code = 1


@dataclass(frozen=True)
class Agreement:
    """Result of a check.

    Attributes
    ----------
    psnr : float
        Worst over seeds and outputs, in dB; inf when all values are equal.
    output, seed : str, int
        Where the worst is.
    bound : float
        Least PSNR that passes.
    numerics : str
        What executed the package.
    """

    psnr: float
    output: str
    seed: int
    bound: float
    numerics: str

    @property
    def margin(self) -> float:
        """PSNR above the bound, in dB; negative when it fails."""
        return self.psnr - self.bound


@dataclass(frozen=True)
class Reference:
    """Inputs and outputs of the original modules for one seed."""

    seed: int
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def references(job: Job, network: Any, *, seeds: Sequence[int] = SEEDS) -> list[Reference]:
    """Run the original modules of a job on seeded inputs."""
    import torch

    results = []
    for seed in seeds:
        arrays = examples(job, seed=seed)
        outputs = network.reference(*(torch.from_numpy(array) for array in arrays))
        results.append(
            Reference(
                seed,
                {f.name: array for f, array in zip(job.inputs, arrays, strict=True)},
                {f.name: value.numpy() for f, value in zip(job.outputs, outputs, strict=True)},
            )
        )
    return results


def check(job: Job, package: Path, expected: Sequence[Reference], *, runtime: str = "auto") -> Agreement:
    """Compare a package with the references.

    Raises
    ------
    DriftError
        Below the bound; the message says which output and by how much.
    """
    from parity import coreml

    model = coreml.load(package, runtime=runtime)
    least = bound(job)
    worst = Agreement(math.inf, job.outputs[0].name, expected[0].seed, least, model.numerics)
    for reference in expected:
        actual = model.predict(reference.inputs)
        for name, value in reference.outputs.items():
            result = measure("tensor_psnr", value, np.asarray(actual[name]))
            if not result >= worst.psnr:
                worst = Agreement(result, name, reference.seed, least, model.numerics)
    if not worst.psnr >= least:
        inputs = next(reference.inputs for reference in expected if reference.seed == worst.seed)
        raise DriftError(_message(job, worst, package, inputs))
    return worst


def _message(job: Job, worst: Agreement, package: Path, inputs: Mapping[str, np.ndarray]) -> str:
    """Say how far the package is from PyTorch, which operation of it float16 does not carry, and what can be done."""
    from parity.mil import departure

    output = f"{job.key}: output {worst.output} of the converted package"
    where = f"(seed {worst.seed}, {worst.numerics})"
    try:
        model = mil.load(package)
        leaving, departing = departure.first(departure.values(model, departure.given(model, inputs)))
    except ParityError:  # no ML Program
        leaving = departing = None
    if leaving is not None:
        return (
            f"{output} is not finite {where}: {leaving.sentence}. The package was removed. The network needs "
            "float32 (--float32 all), or smaller activations"
        )
    agrees = "holds NaN or infinity, as in float32," if math.isnan(worst.psnr) else "agrees with PyTorch to only "
    agrees += "" if math.isnan(worst.psnr) else f"{worst.psnr:.1f} dB"
    cause = f" {departing.sentence}." if departing is not None else ""
    return (
        f"{output} {agrees} {where}; at least {worst.bound:g} dB are needed.{cause} "
        "The package was removed. Try --float32 all or another attention, or less compression"
    )


def bound(job: Job) -> float:
    """Return the least PSNR that a job's package must reach.

    For a recipe of mixed bits it is the mean of the error powers that the bounds of its numbers of bits allow, each
    weighted by the share of the network's weights that have them.
    """
    table = _table()
    plain = float(table["component"].get(job.component, table["precision"][job.compute]))
    if job.settings.recipe is not None and job.compression == "mixed":
        shapes = job.source.shapes(job.part)
        total = sum(math.prod(shape) for shape in shapes.values())
        power = 10 ** (-plain / 10)
        for layer, bits in job.settings.recipe:
            if bits < 16:
                share = math.prod(shapes[f"{layer}.weight"]) / total
                power += share * 10 ** (-table["compression"][f"palette{bits}"] / 10)
        return -10 * math.log10(power)
    return plain if job.compression is None else float(table["compression"][job.compression])


@cache
def _table() -> dict[str, Any]:
    return tables.read(Path(__file__).with_name("tolerances.toml"))
