"""Is a group norm of staged means the same function, and does Core AI lose less by it?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from parity import assets
from parity.backends import registry
from parity.backends.pytorch import TorchBackend
from parity.backends.registry import Subject
from parity.coreai import converter, means
from parity.coreai.process import Process
from parity.metrics import registry as metrics
from parity.models.model import Model
from parity.pipelines.request import read_picture


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (1, 8, 9), (3, 4)])
def test_it_is_torchs_group_norm(shape: tuple[int, ...], affine: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw, dtype=torch.float64) * 3 + 7
    weight, bias = (torch.randn(shape[1], generator=draw, dtype=torch.float64) if affine else None for _ in range(2))
    size = x[0, 0].numel()
    wanted = torch.ops.aten.native_group_norm(x, weight, bias, shape[0], shape[1], size, 2, 1e-5)
    found = means.staged_group_norm(x, weight, bias, shape[0], shape[1], size, 2, 1e-5)
    for right, own in zip(wanted, found, strict=True):
        torch.testing.assert_close(own, right, rtol=1e-12, atol=1e-12)


@pytest.mark.long
@pytest.mark.coreai
def test_long_sums_lose_less(tmp_path) -> None:
    module = nn.GroupNorm(1, 4).eval()
    x = torch.rand((1, 4, 128, 128), generator=torch.Generator().manual_seed(0)) + 1
    with torch.inference_mode():
        exact = nn.GroupNorm(1, 4).double()(x.double()).numpy().astype(np.float32)
    reached = {}
    for staged in (False, True):
        path = tmp_path / f"{staged}.aimodel"
        converter.convert(module, {"x": x}, path, outputs=("y",), staged=staged)
        with Process(path) as process:
            reached[staged] = metrics.measure("tensor_psnr", exact, process.run({"x": x.numpy()})["y"])
    assert reached[False] < 110 < 125 < reached[True], reached


@pytest.mark.long
@pytest.mark.coreai
@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl"])
def test_where_an_encoder_is_far_from_pytorch_it_is_pytorchs_layout(name: str) -> None:
    model = Model(name)
    picture = read_picture(assets.fixtures() / "pictures" / "start.png", model)
    assert not picture.flags.c_contiguous, "diffusers' image processor gives channels last"
    plain = np.ascontiguousarray(picture)
    torchs, own = TorchBackend(model.location), registry.open_backend("coreai", Subject(model.location, None, dict))
    as_drawn, laid_out, core = (
        backend.component("vae_encoder")({"image": given})["moments"]
        for backend, given in ((torchs, picture), (torchs, plain), (own, picture))
    )
    assert metrics.measure("tensor_psnr", laid_out, as_drawn) < 98
    assert metrics.measure("tensor_psnr", laid_out, core) > 120
    own.release()
