"""Playing consumer releases on models of converter releases: random sources, strength, dtypes, repaired encoders.

The grid converter release x consumer release x task is part of the parity suite (``parity.suite.compatibility``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from parity.contracts.conventions import Execution, execute
from parity.contracts.inspect import inspect

LOWEST_PSNR = 40.0  # dB; measured 46 to 55 on the miniature model, float16 against float32
IDS = np.random.RandomState(5).randint(0, 40, (2, 1, 77))
IMAGE = np.random.RandomState(93).uniform(-1, 1, (1, 3, 128, 128)).astype(np.float32)

Converted = Callable[..., Path]


def models(converted: Converted, encoder: str) -> dict[str, Path]:
    return {
        "text_encoder": converted("1.1.0", "text_encoder"),
        "unet": converted("0.4.0", "unet"),
        "vae_decoder": converted("1.1.0", "vae_decoder"),
        "vae_encoder": converted(encoder, "vae_encoder"),
    }


def play(chosen: dict[str, Path], consumer: str, checkpoint: Path, **options) -> Execution:  # type: ignore[no-untyped-def]
    prompt, negative = IDS
    return execute(chosen, consumer, checkpoint=checkpoint, prompt=prompt, negative=negative, steps=3, **options)


def test_random_sources_and_releases_draw_different_pictures(converted: Converted, checkpoint: Path) -> None:
    chosen = models(converted, "0.4.0")
    pictures = [
        play(chosen, consumer, checkpoint, image=IMAGE, rng=rng).picture
        for consumer, rng in (("S4", "numpy"), ("S4", "torch"), ("S7", "numpy"))
    ]
    for first, second in ((0, 1), (0, 2)):
        assert np.abs(pictures[first] - pictures[second]).max() > 0.01


def test_the_image_is_ignored_at_full_strength(converted: Converted, checkpoint: Path) -> None:
    result = play(models(converted, "0.4.0"), "S7", checkpoint, image=IMAGE, strength=1.0)
    assert result.task == "txt2img"


def test_float16_outputs_crash_old_releases_only(converted: Converted, checkpoint: Path) -> None:
    chosen = models(converted, "0.4.0")
    chosen["vae_decoder"] = converted("0.4.0", "vae_decoder", outputs="FLOAT16")
    old, new = (play(chosen, consumer, checkpoint) for consumer in ("S5", "S7"))
    assert "read without conversion" in old.failure
    assert new.psnr >= LOWEST_PSNR


def test_repaired_encoders_work_where_the_tables_promise(
    converted: Converted, checkpoint: Path, tmp_path: Path
) -> None:
    from parity.contracts import repair
    from parity.contracts.consumers import consumers

    legacy, modern = converted("0.3.0", "vae_encoder"), converted("1.1.0", "vae_encoder")
    cut = repair.apply(repair.plan(inspect(legacy)), tmp_path / "cut", prove=False)[0].target
    plan = repair.plan(inspect(modern), consumer=consumers().consumer("S3"))
    extended = repair.apply(plan, tmp_path / "extended", prove=False)[0].target
    chosen = models(converted, "0.3.0")
    for encoder, consumer in ((cut, "S4"), (cut, "S8"), (extended, "S3")):
        result = play({**chosen, "vae_encoder": Path(encoder)}, consumer, checkpoint, image=IMAGE)
        assert result.psnr >= LOWEST_PSNR, (encoder, result.failure)
