"""Why is this picture another one? Two producers with the same request, or a picture that was drawn elsewhere.

Both producers compute their networks by PyTorch, so what differs is how they draw. The pictures are compared, and the
message walks along both runs to the first thing that is not the same: the texts, the noise at the start, the timesteps,
the latents after a step, what is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from parity.errors import FormatError, MissingError
from parity.metrics import registry
from parity.pipelines.request import open_picture
from parity.pipelines.trace import Trace
from parity.suite import comparison, tolerance
from parity.suite.comparison import Check
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict

_SAME = 90.0  # dB: float32 rounding of equal steps in another order stays above (tests/pipelines: 100 and more)
ELSEWHERE = "Core ML (drawn elsewhere)"


def compare(
    traces: tuple[Trace, Trace], names: tuple[str, str], bounds: Mapping[str, Sequence[Tolerance]]
) -> tuple[Check, ...]:
    """Compare the runs of two producers.

    Parameters
    ----------
    traces : (Trace, Trace)
        Of the two producers, in the order of their names.
    names : (str, str)
        The producers.
    bounds : mapping
        Tolerances for ``start`` and ``image``, those of equal numerics.

    Returns
    -------
    tuple of Check
        ``latents/initial`` and ``image``; where pictures differ, the message says what differs first.
    """
    first, second = traces
    starts = (first["latents/initial"], second["latents/initial"])
    start: tuple[Check, ...] = ()
    if starts[0].shape == starts[1].shape:
        pair = {"latents/initial": (np.float32(starts[0]), np.float32(starts[1]))}
        start = comparison.judge("latents/initial", pair, bounds["start"], names=names)
    if first["image"].shape != second["image"].shape:
        text = f"pictures of {first['image'].shape} by {names[0]} and {second['image'].shape} by {names[1]}"
        return (*start, comparison.unknown("image", text))
    images = {"image": (first["image"], second["image"])}
    found = comparison.judge("image", images, bounds["image"], names=names)
    reason = "\n".join(f"  {line}" for line in differences(first, second, names))
    told = tuple(
        replace(check, message=f"{check.message}\n{reason}") if check.verdict is Verdict.FAIL else check
        for check in found
    )
    return (*start, *told)


def differences(first: Trace, second: Trace, names: tuple[str, str]) -> list[str]:
    """Say what two runs do differently, in the order of a run; empty if they do the same."""
    found = [
        _differs(point, said, first, second)
        for point, said in (
            ("text_encoder/negative/hidden", "the negative prompt's text"),
            ("text_encoder/prompt/hidden", "the prompt's text"),
            ("vae_encoder/start/moments", "the starting picture's moments"),
            ("latents/initial", "the latents at the start"),
            ("unet/step00/hidden", "the texts that the UNet gets"),
        )
    ]
    steps = [_timesteps(trace) for trace in (first, second)]
    if steps[0] != steps[1]:
        found.append(f"timesteps: {_short(steps[0])} by {names[0]}, {_short(steps[1])} by {names[1]}")
    else:
        labels = [point for point in first if point.startswith("latents/step") and point in second]
        changed = (_differs(point, f"the latents after {point[8:]}", first, second) for point in labels)
        found.append(next((text for text in changed if text), ""))
    for trace, name in ((first, names[0]), (second, names[1])):
        last = [trace[point] for point in trace if point.startswith("latents/step") and "-image" not in point]
        decoded = trace.get("latents/decoded")
        if decoded is not None and last and _agreement(last[-1], decoded) < _SAME:
            found.append(f"{name} decodes the clean latents that its last step implies, not the last latents")
    return [text for text in found if text]


def _differs(point: str, said: str, first: Trace, second: Trace) -> str:
    if point not in first or point not in second:
        return ""
    if first[point].shape != second[point].shape:
        return f"{said}: shapes {first[point].shape} and {second[point].shape} ({point})"
    value = _agreement(first[point], second[point])
    return "" if value >= _SAME else f"{said} differ: {value:.1f} dB ({point})"


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    if first.shape != second.shape:
        return -math.inf
    return registry.measure("tensor_psnr", np.float32(first), np.float32(second))


def _timesteps(trace: Trace) -> list[float]:
    calls = [call for name in ("unet", "control-unet", "mmdit") for call in trace.calls(name).items()]
    return [float(inputs["timestep"][0]) for label, inputs in calls if "-image" not in label]


def _short(values: Sequence[float]) -> str:
    texts = [f"{value:g}" for value in values]
    return ", ".join(texts if len(texts) <= 8 else [*texts[:4], "…", *texts[-2:]])


def read(path: Path) -> np.ndarray:
    """Read what was drawn elsewhere.

    Returns
    -------
    numpy.ndarray
        uint8 (1, H, W, 3) of a picture; float32 (n, L, h, w) of latents in an ``.npy`` file.

    Raises
    ------
    MissingError, FormatError
        No such file; neither a picture nor latents.
    """
    if path.suffix.lower() != ".npy":
        return np.asarray(open_picture(path))[None]
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise MissingError(f"--picture {path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"--picture {path}: not a readable .npy array: {error}") from None
    if not isinstance(found, np.ndarray) or found.ndim not in (3, 4) or found.dtype.kind != "f":
        shape = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise FormatError(f"--picture {path}: latents are floating-point (n, channels, height, width), not {shape}")
    return found.astype(np.float32).reshape(-1, *found.shape[-3:])


def elsewhere(
    reference: Trace, drawn: np.ndarray, path: Path, table: Sequence[Tolerance]
) -> tuple[tuple[Check, ...], dict[str, np.ndarray]]:
    """Compare what was drawn elsewhere with PyTorch's run.

    Parameters
    ----------
    reference : Trace
        PyTorch's run.
    drawn : numpy.ndarray
        As :func:`read` gives it.
    path : pathlib.Path
        As the user named it.
    table : sequence of Tolerance
        Bounds are those of Core ML's units: nothing is known about where it was drawn.

    Returns
    -------
    checks : tuple of Check
        One for each metric.
    pictures : dict
        By role, for the report; of latents the reference's alone.
    """
    names, pictures = ("PyTorch", path.name), {"reference": reference["image"]}
    if drawn.dtype == np.uint8:
        pictures["candidate"] = drawn
        point, wanted = "image", reference["image"]
    else:
        point = "latents/final"
        wanted = np.float32(reference[[p for p in reference if p.startswith("latents/step")][-1]])
    if wanted.shape != drawn.shape:
        text = f"--picture {path}: {_size(drawn)}, and this case draws {_size(wanted)}"
        return (comparison.unknown(point, text, bad_input=True),), pictures
    bounds = tolerance.find_all(table, point, precision="float16", numerics=ELSEWHERE)
    return comparison.judge(point, {point: (wanted, drawn)}, bounds, names=names), pictures


def _size(value: np.ndarray) -> str:
    if value.dtype == np.uint8:
        return f"{len(value)} picture{'s' * (len(value) > 1)} of {value.shape[2]}x{value.shape[1]}"
    return f"latents of {value.shape}"
