"""How do a checkpoint, another VAE, LoRAs and embeddings become one model?

By diffusers' own loaders, into one diffusers folder in the cache: a single file by ``from_single_file``, a LoRA by
``load_lora_weights`` and ``fuse_lora`` (which need peft), an embedding by ``load_textual_inversion``. Everybody else,
reference, converter and digests alike, then sees an ordinary folder. What is merged is merged in float32. Parts that
nothing was done to are the checkpoint's own files.

Nothing is random and nothing is lost silently: a network of a single file consists of that file's tensors, and a LoRA
whose layers do not all fit is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from parity import cache, quiet, recipes
from parity.errors import FormatError, MissingError, UnsupportedError
from parity.files import link_or_copy, replacing
from parity.models import checkpoint, inversion, single, source
from parity.models.content import folder_hash
from parity.models.ingredients import Ingredients, Lora

_EDITION: Final = 1  # raised when the same ingredients must give other files
_PAIR: Final = re.compile(r"(.*?)[._](lora_down|lora_A|lora\.down|down)\.(?:.*\.)?weight$")
_TEXTS: Final = ("text_encoder", "text_encoder_2")


def location(ingredients: Ingredients, progress: Callable[[str], None] = lambda text: None) -> str:
    """Return where the model lies as a diffusers folder, or its hub id; it is assembled on first use.

    Parameters
    ----------
    ingredients : Ingredients
        What the user named.
    progress : callable, optional
        Told what is going on.

    Raises
    ------
    ParityError
        Something is missing or damaged, fits no layer, or needs a package that is not installed.
    """
    if ingredients.plain:
        return ingredients.model
    single_file = ingredients.single_file
    base = single.config_folder(single_file, ingredients.config) if single_file else _folder(ingredients.model)
    target = cache.folder("assembled", _key(base, ingredients))
    with cache.locked(target):
        if not (target / "model_index.json").is_file():
            progress("assembling the model (kept for later runs)")
            with quiet.loading(), replacing(target) as folder:
                folder.mkdir()
                _assemble(base, ingredients, folder)
    return str(target)


def _folder(model: str) -> Path:
    shipped = recipes.find(model)
    return shipped if shipped is not None else source.folder_of(model)


def _key(base: Path, ingredients: Ingredients) -> str:
    versions = {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    parts = {part.name: folder_hash(part) for part in sorted(base.iterdir()) if part.is_dir()}
    return cache.key(edition=_EDITION, versions=versions, base=parts, top=ingredients.record())


def _assemble(base: Path, ingredients: Ingredients, folder: Path) -> None:
    made: dict[str, Any] = {}
    if ingredients.single_file is not None:
        made = single.networks(ingredients.single_file, base)
    if ingredients.vae:
        made["vae"] = _vae(ingredients.vae, base)
    if ingredients.loras or ingredients.embeddings:
        made |= _upon(base, ingredients, made)
    for entry in base.iterdir():
        if entry.is_file():
            link_or_copy(entry.resolve(), folder / entry.name)  # a hub's snapshot is links
        elif entry.name not in made:
            _copy(entry, folder / entry.name)
    for part, module in made.items():
        module.save_pretrained(folder / part)
    (folder / "assembled.json").write_text(json.dumps(ingredients.record(), indent=2) + "\n", encoding="utf-8")


def _copy(entry: Path, target: Path) -> None:
    target.mkdir()
    for path in entry.iterdir():
        if path.is_file():
            link_or_copy(path.resolve(), target / path.name)


def _vae(vae: str, base: Path) -> Any:
    path = Path(vae).expanduser()
    if path.is_file():
        return single.network("AutoencoderKL", path, base, "vae")
    _, folder, _ = source.open_network(vae, "AutoencoderKL")
    return source.load_module(folder, "AutoencoderKL")


def _upon(base: Path, ingredients: Ingredients, made: Mapping[str, Any]) -> dict[str, Any]:
    """Put LoRAs and embeddings upon the networks that they change; return those and the tokenizer."""
    index = checkpoint.index(base)
    modules = dict(made)
    for part in (*_TEXTS, "unet", "vae"):  # diffusers below 0.33 asks the autoencoder for its scale
        entry = index.get(part)
        if part not in modules and isinstance(entry, list) and entry[-1] is not None:
            modules[part] = source.load_module(base / part, str(entry[-1]))
    pipeline = _pipeline(base, index, modules)
    for number, lora in enumerate(ingredients.loras):
        _merge(pipeline, lora, f"lora{number}")
    changed: dict[str, Any] = {name: modules[name] for name in (*_TEXTS, "unet") if name in modules}
    for embedding in ingredients.embeddings:
        changed |= inversion.embed(pipeline, embedding.file, embedding.token)
    return changed


def _pipeline(base: Path, index: Mapping[str, Any], modules: Mapping[str, Any]) -> Any:
    """Open a pipeline of the checkpoint's class over networks that are loaded already, without any others."""
    import diffusers

    name = str(index.get("_class_name", ""))
    kind = getattr(diffusers, name, None) if name.startswith("StableDiffusion") else None
    if kind is None or not hasattr(kind, "load_lora_weights"):
        raise UnsupportedError(f"{base}: a {name or 'folder without _class_name'} takes no LoRA and no embedding here")
    used = {part: modules[part] for part in (*_TEXTS, "unet", "vae") if part in modules}
    listed = {part: None for part, entry in index.items() if isinstance(entry, list) and part not in used}
    without = {part: None for part in listed if not part.startswith(("tokenizer", "scheduler"))}
    try:
        return kind.from_pretrained(base, local_files_only=True, **without, **used)
    except (OSError, ValueError, TypeError) as error:
        raise FormatError(f"{base}: cannot be opened as {name}: {checkpoint.reason(error)}") from error


def _merge(pipeline: Any, lora: Lora, name: str) -> None:
    """Merge a LoRA into the networks of a pipeline.

    Raises
    ------
    MissingError
        peft is not installed.
    FormatError
        The file is damaged, no LoRA, or has layers that the networks do not have.
    """
    if find_spec("peft") is None:
        raise MissingError(
            f"--lora {lora.file}: diffusers needs peft for LoRAs; install the extra: coreml-parity[lora]"
        )
    asked = _layers(lora.file)
    if not asked:
        raise FormatError(f"--lora {lora.file}: no LoRA: none of its tensors is one of a pair (lora_down, lora_A)")
    try:
        pipeline.load_lora_weights(
            lora.file.parent, weight_name=lora.file.name, adapter_name=name, local_files_only=True
        )
    except (ValueError, KeyError, RuntimeError, OSError, AttributeError, TypeError, IndexError) as error:
        text = f"--lora {lora.file}: it does not fit this model: {checkpoint.reason(error)}"
        raise FormatError(text) from error
    networks = [getattr(pipeline, part, None) for part in (*_TEXTS, "unet")]
    fitted = sum(
        1
        for network in networks
        if network is not None
        for key, _ in network.named_parameters()
        if f"lora_A.{name}" in key
    )
    if fitted != len(asked):
        some = ", ".join(asked[:3]) + (", …" if len(asked) > 3 else "")
        few = "no layer" if not fitted else f"{fitted} of {len(asked)} layers"
        raise FormatError(
            f"--lora {lora.file}: it fits {few} of this model (its layers: {some}); it was made for another "
            "architecture, and what does not fit would be left out silently"
        )
    pipeline.fuse_lora(adapter_names=[name], lora_scale=lora.scale)
    pipeline.unload_lora_weights()


def _layers(file: Path) -> list[str]:
    """Return the layers of a LoRA file, one for each pair of matrices."""
    from parity.models.weights import header

    found = (_PAIR.fullmatch(name) for name in header(file))
    return sorted({match[1] for match in found if match is not None})
