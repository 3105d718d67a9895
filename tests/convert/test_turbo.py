"""A distilled model: one step, no guidance, a UNet of batch 1; converted, executed and compared as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parity import convert, recipes, streams
from parity.backends.coreml import CoreMLBackend
from parity.backends.pytorch import TorchBackend
from parity.convert.spec import read_spec
from parity.errors import UsageError
from parity.metrics import measure
from parity.models.model import Model
from parity.pipelines import diffusers as tasks
from parity.pipelines.request import Request
from parity.pipelines.trace import Trace

COMPONENTS = ("text_encoder", "unet", "vae_decoder")


@pytest.mark.slow  # its parts are asked in tests/suite/test_tasks.py (batch 1) and tests/pipelines
def test_one_step_without_guidance() -> None:
    """diffusers' own pipeline, the tasks over PyTorch, and the tasks over the packages draw the same picture."""
    import torch
    from diffusers import StableDiffusionPipeline

    model = Model("tiny-sd-turbo")
    packages = convert.cached(recipes.build("tiny-sd-turbo"), components=COMPONENTS, batch=1)
    unet = read_spec(packages["unet"]).description
    assert [list(f.type.multiArrayType.shape) for f in unet.input] == [[1, 4, 16, 16], [1], [1, 32, 1, 77]]

    request = Request("txt2img", "a photo of a red circle", scheduler="euler", steps=1, guidance_scale=0.0)
    pictures = {}
    for backend in (TorchBackend(model.location), CoreMLBackend(packages)):
        stream = streams.open("torch-cpu", seed=7)
        components = backend.components(COMPONENTS)
        pictures[backend.name] = tasks.run(request, model, components, stream.normal, observe=Trace())
    pipeline = StableDiffusionPipeline.from_pretrained(model.location)
    pipeline.set_progress_bar_config(disable=True)
    (theirs,) = pipeline(
        request.prompt, num_inference_steps=1, guidance_scale=0.0, generator=torch.Generator().manual_seed(7)
    ).images
    np.testing.assert_array_equal(pictures["torch"][0], np.asarray(theirs))
    candidate, reference = (pictures[name].astype(np.float64) for name in ("coreml", "torch"))
    assert measure("tensor_psnr", reference, candidate) > 40
    assert np.ptp(reference) > 50, "a picture, not one colour"


@pytest.mark.parametrize("contract", ["0.3.0", "1.1.1"])
def test_batch_one_needs_a_release_that_has_it(tmp_path: Path, contract: str) -> None:
    with pytest.raises(UsageError, match="batch 1: unet of family sd2 is written with batch 2 by"):
        convert.convert(recipes.build("tiny-sd-turbo"), tmp_path, components=["unet"], batch=1, contract=contract)
