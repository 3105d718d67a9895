"""How is a single-file checkpoint read, and is every weight of its networks from that file?

A single ``.safetensors`` file, as the original code and its successors write it, holds weights alone. Configurations,
tokenizer and scheduler come from a diffusers folder of the same architecture: the one that the user names, or the one
that diffusers recognises by the file's tensors, from the hub or its cache. diffusers converts the names; whatever it
could not find in the file would keep its random start, so each tensor of a converted network is looked for in the file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from parity import quiet, recipes
from parity.errors import FormatError, MissingError, ParityError
from parity.models import checkpoint, source

_PARTS: Final = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
_CONFIGS: Final = ("*.json", "*.txt", "*/*.json", "*/*.txt")


def config_folder(file: Path, config: str) -> Path:
    """Return the diffusers folder whose configurations a single file gets.

    Parameters
    ----------
    file : pathlib.Path
        The single file.
    config : str
        Folder, shipped name or hub id that the user named; empty to let diffusers recognise the file.

    Raises
    ------
    MissingError, FormatError
        There is none; the message says what to put where. The file is damaged.
    """
    if config:
        shipped = recipes.find(config)
        return shipped if shipped is not None else source.folder_of(config, patterns=_CONFIGS)
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    name = str(fetch_diffusers_config(tensors(file))["pretrained_model_name_or_path"])
    try:
        return source.folder_of(name, patterns=_CONFIGS)
    except MissingError:
        raise MissingError(
            f"{file}: a single file holds weights alone; by its tensors it is one of {name}, whose configurations and "
            f"tokenizer are not in the hub's cache. Name a diffusers folder of that architecture: --model-config DIR "
            f"(weights in it are not read), or fetch them once while online: hf download {name} "
            "--include '*.json' '*/*.json' '*.txt' '*/*.txt'"
        ) from None


def tensors(file: Path) -> dict[str, Any]:
    """Read a file's tensors.

    Raises
    ------
    FormatError
        It is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{file}: not a readable safetensors file: {error}") from None


def networks(file: Path, config: Path) -> dict[str, Any]:
    """Return the networks of a single file, by their folder's name, in float32.

    Raises
    ------
    FormatError
        A network is not in the file as a whole.
    """
    index = checkpoint.index(config)
    wanted = {part: index[part][-1] for part in _PARTS if isinstance(index.get(part), list) and index[part][-1]}
    pipeline = _open(file, config, index)
    stored = _digests(file)
    found = {}
    for part in wanted:
        module = getattr(pipeline, part, None)
        if module is None:
            raise FormatError(f"{file}: no {part} in it; {config} has one")
        found[part] = _checked(module.float(), stored, file, part)
    return found


def network(kind: str, file: Path, config: Path, part: str) -> Any:
    """Return one network of a single file, e.g. a VAE of its own."""
    import diffusers

    try:
        module = getattr(diffusers, kind).from_single_file(str(file), config=str(config), subfolder=part)
    except (ValueError, KeyError, RuntimeError, OSError, TypeError, AttributeError) as error:
        raise FormatError(f"{file}: cannot be read as {kind}: {checkpoint.reason(error)}") from error
    return _checked(module.float(), _digests(file), file, part)


def _open(file: Path, config: Path, index: dict[str, Any]) -> Any:
    import diffusers

    name = str(index.get("_class_name", ""))
    kind = getattr(diffusers, name, None) if name.startswith("StableDiffusion") else None
    if kind is None or not hasattr(kind, "from_single_file"):
        raise FormatError(f"{config}: its model_index.json says {name}, which diffusers does not read from one file")
    try:
        with quiet.loading():
            return kind.from_single_file(
                str(file), config=str(config), local_files_only=True, safety_checker=None, feature_extractor=None
            )
    except ParityError:
        raise
    except Exception as error:  # whatever its conversion meets first, of any kind
        text = f"{file}: diffusers cannot read it as a {name} with the configurations of {config}"
        raise FormatError(f"{text}: {checkpoint.reason(error)}") from error


def _digests(file: Path) -> set[bytes]:
    """Digest each tensor of a file in float32, and thirds of it: open_clip keeps three projections in one tensor."""
    found = set()
    for name, tensor in tensors(file).items():
        values = tensor.float().contiguous()
        found.add(_digest(values))
        if "in_proj" in name and len(values) % 3 == 0:
            found |= {_digest(part) for part in values.chunk(3)}
        if name.endswith("text_projection"):
            found.add(_digest(values.T.contiguous()))
    return found


def _digest(tensor: Any) -> bytes:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).digest()


def _checked(module: Any, stored: set[bytes], file: Path, part: str) -> Any:
    """Return a module once each of its parameters is known to be one of the file's tensors."""
    strange = [
        name for name, tensor in module.named_parameters() if tensor.is_meta or _digest(tensor.detach()) not in stored
    ]
    checkpoint.complete(file, f"{type(module).__name__} ({part})", missing=strange, unexpected=())
    checkpoint.finite(f"{file}, {part}", module.state_dict())
    return module.eval()
