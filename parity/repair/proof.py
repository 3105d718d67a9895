"""Does a repaired model compute what its original computed?

Both are executed by the reference runtime on the same seeded inputs, every operation by itself (no fusion). A cut
encoder is compared with the original's own moments, asked for by name inside the original program; an extended encoder
with the formula over those moments; everything else with the original's outputs. All but the extension must agree bit
for bit; a replaced mask must agree to the precision of float16, since the two masks are different numbers. A lost mask
is given to the original by name, and then all must agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parity import mil
from parity.errors import MissingError
from parity.metrics import measure
from parity.models import checkpoint
from parity.repair import encoder, mask
from parity.repair.plan import Job
from parity.repair.program import Editor

if TYPE_CHECKING:
    from parity.mil.session import Session

Values = dict[str, np.ndarray]

SEED = 93
_DTYPES = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32}
_PYTORCH_PSNR = 40.0  # dB; a float16 encoder of random weights reaches more than 55


@dataclass(frozen=True)
class Proof:
    """Outcome of executing a repaired model against its original.

    Attributes
    ----------
    output : str
        What was compared, e.g. ``latent against the original's own moments``.
    elements : int
    largest : float
        Largest absolute difference.
    exact : bool
        Whether all elements are equal bit for bit.
    passed : bool
    """

    output: str
    elements: int
    largest: float
    exact: bool
    passed: bool

    def __str__(self) -> str:
        how = "bit-identical" if self.exact else f"largest difference {self.largest:.3g}"
        return f"{self.output}: {how} over {self.elements:,} values"


def proofs_of(
    job: Job, original: mil.Model, repaired: mil.Model, *, reference: Path | None = None
) -> tuple[Proof, ...]:
    """Execute a repaired model and its original and compare.

    Parameters
    ----------
    job : Job
        What was done.
    original, repaired : Model
        The model before and after.
    reference : path, optional
        Folder of the diffusers checkpoint, for encoders.

    Returns
    -------
    tuple of Proof
    """
    from parity.mil.session import Session

    after = Session(repaired, fuse=False)
    before = Session(original, fuse=False)
    inputs = _inputs(repaired)
    if job.component.kind == "vae_encoder" and job.component.contract != _form(repaired):
        results = after.predict(inputs)
        found = _moments(original)
        image = next(value for value in inputs.values() if value.ndim == 4 and value.shape[1] == 3)
        source = next(f.name for f in original.inputs if len(f.shape) == 4 and f.shape[1] == 3)
        own = np.asarray(before.values([found], {source: image})[found], np.float32)
        if "latent_dist" in results:
            expected = _legacy(own, inputs)
            proofs = [
                _compare(
                    "latent_dist against the formula over the original's own moments",
                    expected,
                    results["latent_dist"],
                    0.01,
                )
            ]
        else:
            proofs = [_compare("latent against the original's own moments", own, results["latent"], 0.0)]
        if reference is not None:
            proofs.append(_against_pytorch(reference, image, own if "latent_dist" in results else results["latent"]))
        return tuple(proofs)
    restored = _restored_masks(original, job)
    answers, results = _answers(original, (before, after), inputs, restored)
    tolerance = 0.01 if "causal-mask" in job.repairs and not restored else 0.0
    return tuple(
        _compare(f"{name} against the original", np.asarray(answers[name]), np.asarray(results[name]), tolerance)
        for name in results
    )


def _answers(
    original: mil.Model, sessions: tuple[Session, Session], inputs: Values, restored: Values
) -> tuple[Values, Values]:
    """Return what the original and the repaired model answer.

    A second half takes what the first one computed, variances among it, whose roots are NaN where they are negative:
    if the original's answer is not finite, both are asked with the magnitudes of the inputs.
    """
    for given in (inputs, {name: np.abs(value) for name, value in inputs.items()}):
        known = {f.name: given[f.name].reshape(f.shape) for f in original.inputs}
        results = sessions[1].predict(given)
        expected = sessions[0].values(tuple(results), {**known, **restored}) if restored else sessions[0].predict(known)
        if all(np.isfinite(value).all() for value in expected.values()):
            break
    return expected, results


def _restored_masks(original: mil.Model, job: Job) -> dict[str, np.ndarray]:
    """Return what the original computes with where its mask was lost: the mask, given to it by name."""
    if "causal-mask" not in job.repairs or job.component.fingerprint.mask != "lost":
        return {}
    tokens = original.inputs[0].shape[-1]
    found = mask.lost(Editor(original).block, tokens)
    names = [operation.outputs[0] for operation in found]
    return {o.name: np.full([d.constant.size for d in o.type.tensorType.dimensions], mask.PATCHED) for o in names}


def _inputs(model: mil.Model) -> dict[str, np.ndarray]:
    random = np.random.RandomState(SEED)
    inputs: dict[str, np.ndarray] = {}
    value: np.ndarray
    for feature in model.inputs:
        if feature.name == "input_ids":
            value = random.randint(0, 40, feature.shape)  # below the size of every vocabulary
        elif len(feature.shape) == 4 and feature.shape[1] == 3:
            value = random.uniform(-1, 1, feature.shape)
        elif "alphas_cumprod" in feature.name:
            value = np.full(feature.shape, 0.6 if "one_minus" in feature.name else 0.8)
        elif feature.name == "timestep":
            value = np.full(feature.shape, 481.0)
        else:
            value = random.standard_normal(feature.shape)
        inputs[feature.name] = value.astype(_DTYPES[feature.dtype])
    return inputs


def _form(model: mil.Model) -> str:
    return "legacy" if len(model.inputs) == 5 else model.inputs[0].name


def _moments(model: mil.Model) -> str:
    if len(model.inputs) == 5:
        return encoder.moments(Editor(model))
    return model.outputs[0].name


def _legacy(moments: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
    mean, logvar = np.split(moments.astype(np.float64), 2, axis=1)
    sampled = mean + np.exp(0.5 * np.clip(logvar, -30, 20)) * inputs["diagonal_noise"]
    return (
        inputs["sqrt_alphas_cumprod"] * (encoder.SCALE * sampled)
        + inputs["sqrt_one_minus_alphas_cumprod"] * inputs["noise"]
    )


def _compare(text: str, expected: np.ndarray, actual: np.ndarray, tolerance: float) -> Proof:
    if expected.shape != actual.shape:
        return Proof(f"{text}: shape {actual.shape}, expected {expected.shape}", 0, float("inf"), False, False)
    wide, narrow = expected.astype(np.float64), actual.astype(np.float64)
    exact = bool(np.array_equal(wide, narrow)) and bool(np.isfinite(narrow).all())
    largest = float(np.abs(wide - narrow).max(initial=0.0)) if narrow.size else float("nan")
    bound = tolerance * max(1.0, float(np.abs(wide).max(initial=0.0)))
    finite = narrow.size > 0 and bool(np.isfinite(narrow).all())
    return Proof(text, narrow.size, largest, exact, finite and (exact or (tolerance > 0 and largest <= bound)))


def _against_pytorch(folder: Path, image: np.ndarray, moments: np.ndarray) -> Proof:
    import torch
    from diffusers import AutoencoderKL

    if not (folder / "vae" / "config.json").is_file():
        raise MissingError(f"{folder}: no vae/config.json; --reference takes the folder of a diffusers checkpoint")
    vae = checkpoint.load(AutoencoderKL, folder, part="vae").float()
    with torch.inference_mode():
        expected = vae.encode(torch.from_numpy(image.astype(np.float32))).latent_dist.parameters.numpy()
    if expected.shape != moments.shape:
        return Proof(
            f"moments against PyTorch: shape {moments.shape}, expected {expected.shape}", 0, float("inf"), False, False
        )
    error = expected.astype(np.float64) - moments.astype(np.float64)
    largest = float(np.abs(error).max())
    psnr = measure("tensor_psnr", expected, moments)
    text = f"moments against PyTorch, PSNR {psnr:.1f} dB (peak: largest reference value)"
    return Proof(text, expected.size, largest, largest == 0.0, bool(psnr >= _PYTORCH_PSNR))
