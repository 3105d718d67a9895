"""Programs' own conventions, against torch, torchsde and diffusers, and against what their sources print."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity import streams
from parity.cli import main
from parity.streams import semantics
from parity.streams.brownian import BrownianTree
from parity.streams.draw_things import draw_things, torch_array, xorshift
from parity.streams.pcg import seed_words32
from parity.streams.programs import PROGRAMS, Asked, draw_like
from parity.streams.webui import Variation, webui

SHAPE = (4, 16, 24)


def randn(seed: int, shape: Any = SHAPE, draws: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(draws)][-1]


def test_comfyui(torch_options: dict[str, Any]) -> None:
    shape = (3, 4, 8, 8)
    assert np.array_equal(semantics.comfyui(93, shape, **torch_options), randn(93, shape).numpy())
    index = [2, 0, 2]
    expected = torch.cat([randn(93, (1, 4, 8, 8), draws=i + 1) for i in index]).numpy()
    assert np.array_equal(semantics.comfyui(93, shape, batch_index=index, **torch_options), expected)
    with pytest.raises(ValueError, match="3 indices"):
        semantics.comfyui(93, shape, batch_index=[1])


def test_step_noise_of_diffusers(torch_options: dict[str, Any]) -> None:
    """The latents, then one call of randn_tensor a step, on the same generators."""
    from diffusers.utils.torch_utils import randn_tensor

    shape = (2, 4, 8, 8)
    for seeds in ([93], [93, 94]):
        generators: Any = [torch.Generator().manual_seed(seed) for seed in seeds]
        for draw in range(3):
            drawn = randn_tensor(shape, generator=generators if len(seeds) > 1 else generators[0])
            assert np.array_equal(semantics.diffusers(seeds, shape, draw=draw, **torch_options), drawn.numpy())


def test_invokeai(torch_options: dict[str, Any]) -> None:
    expected = randn(93, (1, 4, 8, 8), dtype=torch.float16).numpy()
    assert np.array_equal(semantics.invokeai(2**32 + 93, (1, 9, 8, 8), **torch_options), expected)
    with pytest.raises(ValueError, match="one image"):
        semantics.invokeai(93, (2, 4, 8, 8))


@pytest.mark.parametrize("delta", [0, 31337])
def test_webui_continues_each_generator(torch_options: dict[str, Any], delta: int) -> None:
    for draw in range(3):
        nth = draw + 1 if draw == 0 or not delta else draw
        seeds = [s + (delta if draw else 0) for s in (93, 94)]
        expected = torch.stack([randn(s, draws=nth) for s in seeds]).numpy()
        drawn = webui([93, 94], SHAPE, rng="torch-cpu", seed_delta=delta, draw=draw, **torch_options)
        assert np.array_equal(drawn, expected)


def test_webui_variation(torch_options: dict[str, Any]) -> None:
    low, high, share = randn(93), randn(5), 0.3
    cosine = torch.cosine_similarity(low, high, dim=1)
    angle = torch.acos(cosine).unsqueeze(1)
    expected = (torch.sin((1 - share) * angle) * low + torch.sin(share * angle) * high) / torch.sin(angle)
    drawn = webui([93], SHAPE, rng="torch-cpu", variation=Variation((5,), share), **torch_options)[0]
    assert np.allclose(drawn, expected.numpy(), atol=2e-6)
    nearly = webui([93], SHAPE, rng="torch-cpu", variation=Variation((93,), share), **torch_options)[0]
    assert np.allclose(nearly, low.numpy(), atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (24, 8), (8, 40), (20, 30)])
def test_webui_seed_resize(torch_options: dict[str, Any], size: tuple[int, int]) -> None:
    """The middle of the noise of one size lies over the middle of noise of the other."""
    drawn = webui([93], SHAPE, rng="torch-cpu", variation=Variation(resize_from=size), **torch_options)[0]
    whole, inner = randn(93).numpy(), randn(93, (4, *size)).numpy()
    spans = []
    for wanted, given in zip(SHAPE[1:], size, strict=True):
        margin = abs(wanted - given) // 2 if given <= wanted else -((wanted - given) // 2)
        length = given if given <= wanted else given - 2 * margin
        to, of = (margin, 0) if given <= wanted else (0, margin)
        spans.append((slice(to, to + length), slice(of, of + length)))
    (rows, inner_rows), (columns, inner_columns) = spans
    whole[:, rows, columns] = inner[:, inner_rows, inner_columns]
    assert np.array_equal(drawn, whole)


def test_webui_nv() -> None:
    """The values that the source's documentation prints as a GPU's, and the streams that it is not."""
    printed = [
        *(-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564),
        *(-0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497),
    ]
    stream = streams.open("webui-nv", 0)
    assert stream.normal((3, 4)).reshape(-1).tolist() == pytest.approx(printed, abs=5e-7)
    other = streams.open("webui-nv", 93).normal(4096)
    for name in ("torch-cuda", "swift-nvidia"):
        assert np.allclose(other, streams.open(name, 93).normal(4096), atol=2e-6)
        assert np.mean(other != streams.open(name, 93).normal(4096)) > 0.5


def test_draw_things_scale_alike() -> None:
    """A larger picture has the smaller one's noise in its middle; no value is lost."""
    small, large = (draw_things(93, (1, 4, side, side)) for side in (16, 64))
    assert np.array_equal(large[:, :, 24:40, 24:40], small)
    values = torch_array(93, 4 * 64 * 64).astype(np.float16)
    assert np.array_equal(np.sort(large, axis=None), np.sort(values))
    wide = draw_things(93, (1, 4, 16, 48))
    assert np.array_equal(wide[..., 16:32], small)
    ragged = draw_things(93, (1, 4, 12, 12))
    assert np.array_equal(ragged.transpose(0, 2, 3, 1).reshape(-1), torch_array(93, 576).astype(np.float16))


def test_draw_things_batch_and_modes() -> None:
    both = draw_things(93, (2, 4, 16, 16))
    assert np.array_equal(both[1], draw_things(xorshift(93), (1, 4, 16, 16))[0])
    assert xorshift(1) == 270369  # Marsaglia, "Xorshift RNGs" (2003), the triple 13, 17, 5
    close = draw_things(93, (2, 4, 16, 16), mode="torch-cpu").astype(np.float32)
    kernel = streams.open("torch-cpu", 93, kernel="libm").normal((2, 4, 16, 16))
    assert np.allclose(close, kernel, atol=2e-3)
    assert np.allclose(torch_array(93, 1000), streams.open("torch-cpu", 93).normal(1000), atol=3e-6)
    assert np.array_equal(
        draw_things(93, (1, 4, 8, 8), mode="nvidia-gpu"),
        streams.open("swift-nvidia", 93).normal((1, 4, 8, 8)).astype(np.float16),
    )
    with pytest.raises(NotImplementedError, match="own library"):
        draw_things(93, (1, 4, 8, 8), mode="legacy")


def test_coreai_before_and_after_its_fix() -> None:
    old, new = (semantics.coreai("swift-torch", 93, 1000, fixed=fixed) for fixed in (False, True))
    torch_values = streams.open("torch-cpu", 93).normal(1000)
    assert np.allclose(new, torch_values, atol=3e-6)  # the ragged end too, unlike the Swift package's
    assert not np.allclose(streams.open("swift-torch", 93).normal(1000)[-16:], torch_values[-16:], atol=0.1)
    assert np.array_equal(old, streams.open("swift-torch", 93).normal_each(1000))  # type: ignore[attr-defined]
    for fixed in (False, True):
        numpy = semantics.coreai("swift-numpy", 93, 1000, fixed=fixed)
        assert np.array_equal(numpy, np.random.RandomState(93).randn(1000).astype(np.float32))


def test_mflux(mx: Any) -> None:
    assert semantics.mflux(93, 512, 768).shape == (1, 1536, 64)
    with mx.stream(mx.cpu):
        expected = np.array(mx.random.normal((1, 16, 64), key=mx.random.key(93)))
    assert np.array_equal(semantics.mflux(93, 64, 64), expected)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 100, 20_000])
def test_permutation(torch_options: dict[str, Any], count: int) -> None:
    generator, stream = torch.Generator().manual_seed(93), streams.open("torch-cpu", 93, **torch_options)
    assert np.array_equal(stream.permutation(count), torch.randperm(count, generator=generator).numpy())  # type: ignore[attr-defined]
    assert stream.uniform(1)[0] == torch.rand(1, generator=generator).item()


def test_seed_sequences_of_any_pool() -> None:
    for entropy in (0, 93, 2**70, [1, 2, 3]):
        for key in ((), (0, 0), (5, 3), (2**40, 7)):
            for pool in (4, 24):
                theirs = np.random.SeedSequence(entropy, spawn_key=key, pool_size=pool).generate_state(9)  # type: ignore[arg-type]
                assert seed_words32(entropy, 9, spawn_key=key, pool_size=pool) == theirs.tolist()


def test_brownian_tree(torch_options: dict[str, Any], torchsde: Any) -> None:
    start, end, shape = 0.0291675, 14.614647, (1, 4, 8, 8)
    for seed in (0, 93, 2**32 + 5):
        theirs = torchsde.BrownianTree(t0=start, w0=torch.zeros(shape), t1=end, entropy=seed)
        ours = BrownianTree(seed, shape, start, end, **torch_options)
        rng = np.random.default_rng(seed)
        for low, high in [(start, end), (start, 3.0), *np.sort(rng.uniform(start, end, (8, 2))).tolist()]:
            assert np.array_equal(ours.increment(low, high), theirs(low, high).numpy()), (seed, low, high)
    assert not ours.increment(3.0, 3.0).any()
    with pytest.raises(ValueError, match="must not lie above"):
        ours.increment(3.0, 2.0)
    with pytest.raises(ValueError, match="must lie above"):
        BrownianTree(93, shape, 1.0, 1.0)


@pytest.mark.usefixtures("torchsde")
def test_noise_of_dpm_sde_samplers(torch_options: dict[str, Any]) -> None:
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    shape, levels = (1, 4, 8, 8), torch.tensor([14.6, 9.1, 3.0, 0.4, 0.03])
    theirs = BrownianTreeNoiseSampler(torch.zeros(shape), sigma_min=levels[-1], sigma_max=levels[0], seed=93)
    ours = BrownianTree(93, shape, levels[-1].item(), levels[0].item(), **torch_options)
    for level, following in itertools.pairwise(levels):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # levels beyond the tree's rounded ends
            expected = theirs(level, following).numpy()
        assert np.allclose(ours.noise(level.item(), following.item()), expected, rtol=2.4e-7, atol=0)


REQUESTS: dict[str, dict[str, Any]] = {
    "diffusers": {"shape": (1, 4, 8, 8), "draw": 1},
    "python": {"shape": (1, 4, 8, 8)},
    "swift": {"shape": (1, 4, 8, 8), "rng": "swift-torch", "images": 2},
    "mochi": {"shape": (1, 4, 8, 8), "images": 2},
    "comfyui": {"shape": (1, 4, 8, 8), "batch_index": (1,)},
    "a1111": {"shape": (4, 8, 8), "rng": "webui-nv", "variation": Variation((1,), 0.2, (4, 4))},
    "invokeai": {"shape": (1, 4, 8, 8), "options": {"torch_version": "2.11"}},
    "draw-things": {"shape": (1, 4, 8, 8), "mode": "nvidia-gpu"},
    "coreai": {"shape": (1, 4, 8, 8), "rng": "swift-torch"},
    "coreai-before-fix": {"shape": (1, 4, 8, 8), "rng": "swift-torch"},
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_command_knows_every_program(program: str, tmp_path: Path) -> None:
    asked = Asked(seeds=(93,), **REQUESTS[program])
    values, _ = draw_like(program, asked)
    words = ["latents", "--like", program, "--seed", "93", "--shape", ",".join(map(str, asked.shape))]
    words += ["-o", str(tmp_path / "drawn.npy")]
    if asked.rng:
        words += ["--rng", asked.rng]
    for option, text in (
        ("--draw", asked.draw),
        ("--images", asked.images if asked.images > 1 else 0),
        ("--batch-index", ",".join(map(str, asked.batch_index or ()))),
        ("--subseed", asked.variation.subseeds[0] if asked.variation.subseeds else 0),
        ("--subseed-strength", asked.variation.strength),
        ("--resize-from", ",".join(map(str, asked.variation.resize_from or ()))),
        ("--torch-version", asked.options.get("torch_version")),
        ("--seed-mode", asked.mode if program == "draw-things" else 0),
    ):
        words += [option, str(text)] if text else []
    assert main(words) == 0
    assert np.array_equal(np.load(tmp_path / "drawn.npy"), values)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--like", "comfyui", "--draw", "1"], "--like comfyui has no --draw; diffusers, a1111 has"),
        (["--like", "swift", "--seed-delta", "31337"], "has no --seed-delta"),
        (["--like", "draw-things", "--rng", "torch-cpu"], "leave out --rng"),
        (["--like", "a1111", "--rng", "torch-mps"], "torch-cuda or torch-cpu or webui-nv"),
        (["--like", "coreai", "--dtype", "float16"], "draws float32"),
        (["--rng", "torch-cpu", "--draw", "1"], "give --like NAME"),
        (["--like", "a1111", "--resize-from", "8"], "expected H,W"),
        (["--like", "swift", "--images", "0"], "at least 1 image"),
    ],
)
def test_command_refuses_what_a_program_lacks(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latents", "--seed", "93", "--shape", "1,4,8,8", *words]) == 2
    assert says in capsys.readouterr().err
