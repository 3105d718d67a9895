"""The rewritten networks equal diffusers' and transformers' own modules in float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.convert import attention, layout, text
from parity.errors import UnsupportedError

diffusers = pytest.importorskip("diffusers")

SMALL = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
XL = {
    **SMALL,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 20 + 6 * 8,
}


def unet(config: dict, seed: int = 3) -> torch.nn.Module:
    torch.manual_seed(seed)
    network = diffusers.UNet2DConditionModel(**config).eval().requires_grad_(False)
    for parameter in network.parameters():  # norms and biases start at constants, which would hide swaps
        parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(height: int, width: int, config: dict) -> tuple[tuple[torch.Tensor, ...], dict]:
    draw = torch.Generator().manual_seed(5)
    tensors = (
        torch.randn(2, 4, height, width, generator=draw),
        torch.tensor([981.0, 981.0]),
        torch.randn(2, 77, config["cross_attention_dim"], generator=draw),
    )
    if "addition_embed_type" not in config:
        return tensors, {}
    added = {"text_embeds": torch.randn(2, 20, generator=draw), "time_ids": torch.full((2, 6), 512.0)}
    return tensors, {"added_cond_kwargs": added}


@pytest.mark.parametrize("kind", attention.KINDS)
@pytest.mark.parametrize("config", [SMALL, XL], ids=["sd", "sdxl"])
@pytest.mark.parametrize("size", [(16, 16), (24, 48), (15, 22)], ids=str)
def test_unet_equals_diffusers(kind: str, config: dict, size: tuple[int, int]) -> None:
    """(24, 48) has 1152 tokens: not a multiple of 512, which the released V2 could not convert."""
    original = unet(config)
    (sample, timestep, context), keywords = inputs(*size, config)
    expected = original(sample, timestep, context, return_dict=False, **keywords)[0]
    rewritten = layout.rewrite(original, kind)
    actual = rewritten(sample, timestep, context.transpose(1, 2)[:, :, None], return_dict=False, **keywords)[0]
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


def test_controlnet_equals_diffusers() -> None:
    config = {key: SMALL[key] for key in SMALL.keys() - {"sample_size", "up_block_types"}}
    torch.manual_seed(3)
    original = diffusers.ControlNetModel(**config, conditioning_embedding_out_channels=(8, 8, 8, 8)).eval()
    for parameter in original.parameters():  # the output convolutions start at zero
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    (sample, timestep, context), _ = inputs(16, 16, SMALL)
    image = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        down, middle = original(sample, timestep, context, image, return_dict=False)
        rewritten = layout.rewrite(original, "SPLIT_EINSUM")
        context = context.transpose(1, 2)[:, :, None]
        down_2, middle_2 = rewritten(sample, timestep, context, image, return_dict=False)
    for actual, expected in zip((*down_2, middle_2), (*down, middle), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


def test_rewriting_shares_weights_and_leaves_the_original_alone() -> None:
    original = unet(SMALL)
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    names = [type(module).__name__ for module in original.modules()]
    rewritten = layout.rewrite(original, "ORIGINAL")
    assert [type(module).__name__ for module in original.modules()] == names
    assert all(torch.equal(before[name], tensor) for name, tensor in original.state_dict().items())
    owned = {tensor.untyped_storage().data_ptr() for tensor in original.state_dict().values()}
    assert {tensor.untyped_storage().data_ptr() for tensor in rewritten.state_dict().values()} <= owned


def test_half_precision_modules_are_converted_in_a_copy() -> None:
    original = unet(SMALL).half()
    rewritten = layout.rewrite(original, "ORIGINAL")
    assert {tensor.dtype for tensor in rewritten.state_dict().values()} == {torch.float32}
    assert {tensor.dtype for tensor in original.state_dict().values()} == {torch.float16}


@given(
    heads=st.integers(1, 3),
    width=st.sampled_from([1, 4, 8]),
    queries=st.sampled_from([1, 7, 511, 512, 513, 1024, 1300, 2304]),
    keys=st.integers(1, 90),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_attention_kinds_equal_torch(heads: int, width: int, queries: int, keys: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    channels = heads * width
    q = torch.randn(2, channels, 1, queries, generator=draw)
    k, v = (torch.randn(2, channels, 1, keys, generator=draw) for _ in range(2))
    split = [x.view(2, heads, width, -1).transpose(2, 3) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*split).transpose(2, 3).reshape(2, channels, 1, queries)
    for name, compute in attention.KINDS.items():
        torch.testing.assert_close(compute(q, k, v, heads), expected, rtol=0, atol=3e-6, msg=name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("only_cross_attention", True),
        ("only_cross_attention", (True, False)),
        ("addition_embed_type", "image"),
        ("class_embed_type", "timestep"),
        ("resnet_time_scale_shift", "scale_shift"),
        ("encoder_hid_dim_type", "text_proj"),
    ],
)
def test_features_without_contract_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(UnsupportedError, match=field):
        layout.refuse({field: value}, "UNet")


def clip(*, projection: bool, eos: int) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(7)
    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=20,
        projection_dim=24,
        eos_token_id=eos,
        bos_token_id=1,
        hidden_act="gelu" if projection else "quick_gelu",
    )
    network = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("eos", [2, 99])
@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("penultimate", [False, True])
def test_text_encoder_equals_transformers(projection: bool, penultimate: bool, eos: int) -> None:
    original = clip(projection=projection, eos=eos)
    ids = torch.tensor([[1, 5, 17, 40, 99, *[99] * 15]])
    with torch.no_grad():
        out = original(ids, output_hidden_states=True)
        ours = text.TextEncoder(original, tokens=20, penultimate=penultimate)
        hidden, pooled = ours(ids.float())
    expected = out.hidden_states[-2] if penultimate else out.last_hidden_state
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled, out.text_embeds if projection else out.pooler_output, rtol=0, atol=1e-5)
