"""Other VAEs, LoRAs, embeddings and single files: equal to diffusers' own loaders, nothing random, nothing left out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from parity import recipes, streams
from parity.backends.pytorch import TorchBackend
from parity.errors import FormatError, MissingError, ParityError, UnsupportedError, UsageError
from parity.models import assemble, pickles
from parity.models.ingredients import Ingredients
from parity.models.model import Model
from parity.pipelines import diffusers as tasks
from parity.pipelines.producer import producer
from parity.pipelines.request import TASK_COMPONENTS, Request
from parity.pipelines.trace import Trace
from tests.models import ldm

PROMPT = "a red circle"
PEFT = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_{}.weight"


@pytest.fixture(scope="module")
def base() -> Path:
    return recipes.build("tiny-sd")


def draw(location: str, prompt: str = PROMPT) -> tuple[np.ndarray, np.ndarray]:
    """Last latents and picture, by this project."""
    model, backend, trace = Model(location), TorchBackend(location), Trace()
    request = Request("txt2img", prompt, scheduler="ddim", steps=2)
    stream = streams.open("torch-cpu", seed=3)
    components = backend.components(TASK_COMPONENTS["txt2img"])
    image = tasks.run(request, model, components, stream.normal, observe=trace)
    return trace["latents/step01"], image


def theirs(pipeline: Any, prompt: str = PROMPT) -> tuple[np.ndarray, np.ndarray]:
    """The same by a diffusers pipeline."""
    from diffusers import DDIMScheduler

    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    seen: list[Any] = []

    def kept(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tensors["latents"])
        return tensors

    generator = torch.Generator().manual_seed(3)
    images = pipeline(prompt, num_inference_steps=2, generator=generator, callback_on_step_end=kept).images
    return seen[-1].numpy(), np.stack([np.asarray(image) for image in images])


def pipeline_of(base: Path, **parts: Any) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(base, **parts)


def assert_same(ours: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray]) -> None:
    assert np.abs(ours[0] - others[0]).max() == 0.0
    assert np.array_equal(ours[1], others[1])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def peft_lora(path: Path, **more: torch.Tensor) -> Path:
    key = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_{}.weight"
    tensors = {
        PEFT.format("A"): random(4, 32),
        PEFT.format("B"): random(32, 4, seed=1),
        key.format("A"): random(4, 32, seed=2),
        key.format("B"): random(32, 4, seed=3),
    }
    save_file({**tensors, **more}, path)
    return path


def kohya_lora(path: Path) -> Path:
    unet = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    text = "lora_te_text_model_encoder_layers_1_mlp_fc1"
    save_file(
        {
            f"{unet}.lora_down.weight": random(4, 32),
            f"{unet}.lora_up.weight": random(32, 4, seed=1),
            f"{unet}.alpha": torch.tensor(2.0),
            f"{text}.lora_down.weight": random(4, 32, seed=2),
            f"{text}.lora_up.weight": random(64, 4, seed=3),
            f"{text}.alpha": torch.tensor(4.0),
        },
        path,
    )
    return path


def test_a_plain_checkpoint_is_left_where_it_is(base: Path) -> None:
    assert assemble.location(Ingredients.read("tiny-sd")) == "tiny-sd"
    assert assemble.location(Ingredients.read(str(base))) == str(base)


@pytest.mark.long
@pytest.mark.parametrize("write", [peft_lora, kohya_lora])
def test_a_merged_lora_equals_diffusers(base: Path, tmp_path: Path, write: Any) -> None:
    pytest.importorskip("peft")
    file = write(tmp_path / "style.safetensors")
    location = assemble.location(Ingredients.read(str(base), loras=[f"{file}:0.7"]))
    pipeline = pipeline_of(base)
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    pipeline.fuse_lora(lora_scale=0.7)
    pipeline.unload_lora_weights()
    ours = draw(location)
    assert_same(ours, theirs(pipeline))
    assert not np.array_equal(ours[0], draw(str(base))[0])
    assert (Path(location) / "vae" / "config.json").read_bytes() == (base / "vae" / "config.json").read_bytes()
    (record,) = json.loads((Path(location) / "assembled.json").read_text()).items()
    assert record[0] == "lora style.safetensors"
    assert record[1].startswith("scale 0.7 ")


@pytest.mark.long
def test_two_loras_are_merged_one_after_the_other(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    first, second = peft_lora(tmp_path / "a.safetensors"), kohya_lora(tmp_path / "b.safetensors")
    location = assemble.location(Ingredients.read(str(base), loras=[f"{first}:0.5", str(second)]))
    pipeline = pipeline_of(base)
    for file, scale in ((first, 0.5), (second, 1.0)):
        pipeline.load_lora_weights(tmp_path, weight_name=file.name)
        pipeline.fuse_lora(lora_scale=scale)
        pipeline.unload_lora_weights()
    assert_same(draw(location), theirs(pipeline))


@pytest.mark.long
def test_a_lora_that_does_not_fit_is_refused_by_its_layers(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    other = tmp_path / "xl.safetensors"
    key = "unet.down_blocks.2.attentions.1.transformer_blocks.9.attn1.to_q.lora_{}.weight"
    save_file({key.format("A"): random(4, 32), key.format("B"): random(32, 4)}, other)
    with pytest.raises(FormatError, match=r"xl.safetensors: it (fits no layer|does not fit this model)"):
        assemble.location(Ingredients.read(str(base), loras=[str(other)]))
    extra = {key.format("A"): random(4, 32), key.format("B"): random(32, 4)}
    some = peft_lora(tmp_path / "some.safetensors", **extra)
    with pytest.raises(FormatError, match=r"fits 2 of 3 layers|does not fit this model"):
        assemble.location(Ingredients.read(str(base), loras=[str(some)]))
    save_file({PEFT.format("A"): random(4, 48), PEFT.format("B"): random(48, 4)}, other)
    with pytest.raises(FormatError, match=r"does not fit this model: .*size mismatch"):
        assemble.location(Ingredients.read(str(base), loras=[str(other)]))
    save_file({"conv.weight": random(4)}, other)
    with pytest.raises(FormatError, match="no LoRA: none of its tensors"):
        assemble.location(Ingredients.read(str(base), loras=[str(other)]))


def test_a_lora_needs_its_package(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "find_spec", lambda name: None)
    file = peft_lora(tmp_path / "style.safetensors")
    with pytest.raises(MissingError, match=r"style.safetensors: diffusers needs peft .*coreml-parity\[lora\]"):
        assemble.location(Ingredients.read(str(base), loras=[str(file)]))


@pytest.mark.long
@pytest.mark.parametrize("vectors", [1, 3])
def test_an_embedding_equals_diffusers(base: Path, tmp_path: Path, vectors: int) -> None:
    file = tmp_path / "cat.safetensors"
    save_file({"<cat>": random(32) if vectors == 1 else random(vectors, 32)}, file)
    location = assemble.location(Ingredients.read(str(base), embeddings=[str(file)]))
    pipeline = pipeline_of(base)
    pipeline.load_textual_inversion(str(file))
    prompt = "a <cat> and a circle"
    assert_same(draw(location, prompt), theirs(pipeline, prompt))
    ids = Model(location).tokens(prompt)[0]
    assert len(set(range(650, 650 + vectors)) & set(ids.tolist())) == vectors
    named = assemble.location(Ingredients.read(str(base), embeddings=[f"{file}:<dog>"]))
    assert_same(draw(named, "a <dog> and a circle"), draw(location, prompt))


@pytest.mark.parametrize(("model", "halves"), [("tiny-sdxl", {"clip_l", "clip_g"}), ("tiny-sdxl-refiner", {"clip_g"})])
def test_an_embedding_of_sdxl_equals_diffusers(tmp_path: Path, model: str, halves: set[str]) -> None:
    from diffusers import StableDiffusionXLPipeline

    base = recipes.build(model)
    pipeline = StableDiffusionXLPipeline.from_pretrained(base)
    widths = {"clip_l": pipeline.text_encoder, "clip_g": pipeline.text_encoder_2}
    vectors = {name: random(2, widths[name].config.hidden_size) for name in sorted(halves)}
    file = tmp_path / "cat.safetensors"
    save_file(vectors, file)
    location = Path(assemble.location(Ingredients.read(str(base), embeddings=[f"{file}:<cat>"])))
    prompt, ids = "a <cat> and a circle", []
    for half, text, words in (("clip_l", "text_encoder", "tokenizer"), ("clip_g", "text_encoder_2", "tokenizer_2")):
        if half not in halves:
            continue
        encoder, tokenizer = getattr(pipeline, text), getattr(pipeline, words)
        pipeline.load_textual_inversion(vectors[half], token="<cat>", text_encoder=encoder, tokenizer=tokenizer)
        wanted = tokenizer(pipeline.maybe_convert_prompt(prompt, tokenizer), padding="max_length")["input_ids"]
        ids.append(Model(str(location)).tokens(prompt, second=half == "clip_g")[0].tolist())
        assert ids[-1] == wanted
        table = load_file(location / text / "model.safetensors")
        (mine,) = (value for name, value in table.items() if name.endswith("token_embedding.weight"))
        assert torch.equal(mine, encoder.get_input_embeddings().weight)
    assert ids


def test_an_embedding_of_another_family_is_named(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "cat.safetensors"
    save_file({"clip_l": random(32), "clip_g": random(64)}, file)
    with pytest.raises(UsageError, match=r"cat.safetensors: it was made for SDXL \(clip_g, clip_l\)"):
        assemble.location(Ingredients.read(str(base), embeddings=[str(file)]))
    save_file({"<cat>": random(32)}, file)
    with pytest.raises(UsageError, match=r"cat.safetensors: an embedding of SDXL has clip_l and clip_g"):
        assemble.location(Ingredients.read("tiny-sdxl", embeddings=[str(file)]))


def test_the_swift_package_has_no_tokens_of_embeddings(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "cat.safetensors"
    save_file({"<cat>": random(32)}, file)
    location = assemble.location(Ingredients.read(str(base), embeddings=[str(file)]))
    backend, ignore = TorchBackend(location), lambda point, value: None
    request = Request("txt2img", "a <cat>", scheduler="pndm", steps=2)
    with pytest.raises(UnsupportedError, match=r"it has no token <cat>, an embedding's"):
        producer("swift==1.1.0").draw(request, Model(location), backend, seed=3, rng="swift-numpy", observe=ignore)
    plain = replace(request, prompt="a cat")
    producer("swift==1.1.0").draw(plain, Model(location), backend, seed=3, rng="swift-numpy", observe=ignore)


def test_a_unet_that_takes_the_guidance_is_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "time_cond_proj_dim": 256}))
    with pytest.raises(UnsupportedError, match="takes the guidance scale as an input"):
        Model(str(folder)).check_tasks()


def test_convert_takes_the_same(base: Path, tmp_path: Path) -> None:
    import argparse

    from parity.commands import convert

    file, vae = tmp_path / "mine.safetensors", tmp_path / "better.safetensors"
    ldm.write(base, file)
    ldm.write_vae(base, vae)
    parser = argparse.ArgumentParser()
    convert.configure(parser)
    arguments = parser.parse_args([str(file), "--model-config", str(base), "--vae", str(vae), "-o", "x"])
    where, name = convert._model(arguments)
    assert name == "mine"
    assert Path(arguments.vae) == Path(where) / "vae"
    assert assemble.location(Ingredients.read(str(file), config=str(base), vae=str(vae))) == where
    assert convert._model(parser.parse_args(["tiny-sd", "--vae", "other/vae"])) == ("tiny-sd", None)


def test_an_embedding_that_does_not_fit(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "cat.safetensors"
    save_file({"<cat>": random(48)}, file)
    with pytest.raises(UsageError, match=r"--embedding .*cat.safetensors: "):
        assemble.location(Ingredients.read(str(base), embeddings=[str(file)]))


@pytest.mark.long
def test_another_vae_by_folder_and_by_file(base: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    other = tmp_path / "vae"
    shutil.copytree(base / "vae", other)
    weights = next(other.glob("*.safetensors"))
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    expected = theirs(pipeline_of(base, vae=AutoencoderKL.from_pretrained(other)))
    assert_same(draw(assemble.location(Ingredients.read(str(base), vae=str(other)))), expected)
    single = tmp_path / "better.safetensors"
    ldm.write_vae(tmp_path, single)
    assert_same(draw(assemble.location(Ingredients.read(str(base), vae=str(single)))), expected)


def test_a_snapshot_of_the_hub_becomes_files(base: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--tiny" / "snapshots" / "0123"
    for file in base.rglob("*"):
        if file.is_file():
            target = snapshot / file.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    vae = tmp_path / "better.safetensors"
    ldm.write_vae(base, vae)
    location = Path(assemble.location(Ingredients.read(str(snapshot), vae=str(vae))))
    files = [file for file in location.rglob("*") if not file.is_dir()]
    assert {file.relative_to(location) for file in files} >= {
        file.relative_to(snapshot) for file in snapshot.rglob("*.*")
    }
    assert not any(file.is_symlink() for file in files)
    assert_same(draw(str(location)), draw(str(base)))


@pytest.mark.long
def test_a_single_file_is_the_checkpoint_it_was_written_from(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    ldm.write(base, file)
    ingredients = Ingredients.read(str(file), config=str(base))
    location = assemble.location(ingredients)
    assert_same(draw(location), draw(str(base)))
    assert ingredients.name == "mine"
    from diffusers import StableDiffusionPipeline

    own = StableDiffusionPipeline.from_single_file(
        str(file), config=str(base), local_files_only=True, safety_checker=None, feature_extractor=None
    )
    assert_same(draw(location), theirs(own))


def test_a_single_file_that_lacks_a_tensor_is_refused(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    ldm.write(base, file)
    tensors = load_file(file)
    name = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(FormatError, match=r"mine.safetensors"):
        assemble.location(Ingredients.read(str(file), config=str(base)))


def test_a_single_file_offline_says_what_to_put_where(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    ldm.write(base, file)
    with pytest.raises(MissingError, match=r"(?s)weights alone; .*--model-config DIR.*hf download "):
        assemble.location(Ingredients.read(str(file)))


@pytest.mark.parametrize("suffix", pickles.SUFFIXES)
def test_pickles_are_refused_with_the_command_that_converts_them(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(b"")
    for given in ({"model": str(file)}, {"vae": str(file)}, {"loras": [str(file)]}, {"embeddings": [f"{file}:x"]}):
        with pytest.raises(UnsupportedError, match=r"are pickles, .*\n  python -c "):
            Ingredients.read(**{"model": "tiny-sd", **given})


@pytest.mark.long
def test_the_command_writes_the_same_tensors(tmp_path: Path) -> None:
    import shlex

    tensors = {"a": random(3, 4), "b": random(4, 3).T}
    file = tmp_path / "my model.ckpt"
    torch.save({"state_dict": {**tensors, "step": 5}}, file)
    words = shlex.split(pickles.command(file))
    subprocess.run([sys.executable, *words[1:]], check=True)
    found = load_file(tmp_path / "my model.safetensors")
    assert {name: torch.equal(found[name], tensor) for name, tensor in tensors.items()} == {"a": True, "b": True}


def test_a_folder_of_pickled_weights_is_refused_with_the_command(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    weights = next((folder / "text_encoder").glob("*.safetensors"))
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(
        MissingError, match=r"there is a pickle, .*\n  python -c .*pytorch_model.bin .*model.safetensors"
    ):
        TorchBackend(str(folder)).component("text_encoder")


def test_a_checkpoint_without_tokenizer(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(MissingError, match="tokenizer/ is missing"):
        Model(str(folder)).tokens("x")


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"config": "tiny-sd"}, UsageError, "belongs to a single .safetensors file, and tiny-sd is none"),
        ({"loras": ["no.safetensors"]}, MissingError, "--lora no.safetensors: no such file"),
        ({"loras": [f"{__file__}:0.5"]}, UnsupportedError, "a .safetensors file is needed"),
        ({"model": "no.safetensors"}, MissingError, "--model-version no.safetensors: no such file"),
    ],
)
def test_bad_ingredients(given: dict[str, Any], kind: type[ParityError], says: str) -> None:
    with pytest.raises(kind, match=says):
        Ingredients.read(**{"model": "tiny-sd", **given})


@pytest.mark.parametrize("scale", ["much", "nan", ""])
def test_a_scale_is_a_number(tmp_path: Path, scale: str) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"x": random(1)}, file)
    if not scale:
        assert Ingredients.read("tiny-sd", loras=[f"{file}:"]).loras[0].scale == 1.0
        return
    with pytest.raises(UsageError, match="a number as scale"):
        Ingredients.read("tiny-sd", loras=[f"{file}:{scale}"])
