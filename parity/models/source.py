"""What is this model, and where are its parts?

A source is a diffusers folder, a hub id (downloaded once by ``huggingface_hub`` and then read from its folder) or a
loaded pipeline. Opening one reads only JSON: family, sizes and names are known, and bad input is refused, before
torch is imported. Weights are loaded one component at a time, in float32, from safetensors files only.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from parity import recipes
from parity.errors import FormatError, MissingError, UnsupportedError, UsageError
from parity.models import checkpoint, weights
from parity.models.config import read as read_config
from parity.models.content import folder_hash, module_hash
from parity.models.scratch import Scratch

# component of a contract -> folder of a diffusers pipeline
PARTS: Final = {
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder_2",
    "unet": "unet",
    "refiner": "unet",
    "control-unet": "unet",
    "mmdit": "transformer",
    "controlnet": "controlnet",
    "vae_decoder": "vae",
    "vae_encoder": "vae",
    "safety_checker": "safety_checker",
}

_CLASSES: Final = {
    "text_encoder": {"CLIPTextModel", "CLIPTextModelWithProjection"},
    "text_encoder_2": {"CLIPTextModelWithProjection"},
    "unet": {"UNet2DConditionModel"},
    "transformer": {"SD3Transformer2DModel"},
    "controlnet": {"ControlNetModel"},
    "vae": {"AutoencoderKL"},
    "safety_checker": {"StableDiffusionSafetyChecker"},
}

MAPPABLE: Final = frozenset({"UNet2DConditionModel", "ControlNetModel"})  # their state is parameters alone

_OTHER_PIPELINES: Final = {
    "Flux": "no converter release writes Flux",
    "PixArt": "no converter release writes PixArt",
    "Kandinsky": "no converter release writes Kandinsky",
    "DeepFloyd": "no converter release writes DeepFloyd IF",
    "StableCascade": "no converter release writes Stable Cascade",
    "Wuerstchen": "no converter release writes Würstchen",
}

_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """A model that can be converted.

    Attributes
    ----------
    identifier : str
        Goes into file names and metadata: the hub id, or the folder's name.
    folder : pathlib.Path or None
        The diffusers folder; None when the model exists in memory only.
    pipeline : object or None
        The loaded pipeline that was given.
    configs : mapping of str to mapping
        Part (``unet``, ``vae``, …; ``model_index``) to its ``config.json``.
    """

    identifier: str
    folder: Path | None
    pipeline: Any = field(repr=False, default=None)
    configs: Mapping[str, Mapping[str, Any]] = field(repr=False, default_factory=dict)

    @property
    def family(self) -> str:
        """``sd1``, ``sd2``, ``sdxl``, ``sdxl-refiner`` or ``sd3``."""
        if "transformer" in self.configs:
            return "sd3"
        unet = self.configs["unet"]
        if unet.get("addition_embed_type") == "text_time":
            return "sdxl" if "text_encoder" in self.configs else "sdxl-refiner"
        return "sd2" if unet.get("use_linear_projection") else "sd1"

    @property
    def denoiser(self) -> Mapping[str, Any]:
        """Configuration of the network that denoises: the UNet, or Stable Diffusion 3's transformer."""
        return self.config("transformer" if self.family == "sd3" else "unet")

    def config(self, part: str) -> Mapping[str, Any]:
        """Return a part's configuration.

        Raises
        ------
        MissingError
            The model has no such part.
        """
        if part not in self.configs:
            there = ", ".join(sorted(self.configs.keys() - {"model_index"}))
            raise MissingError(f"model {self.identifier} has no {part}; it has {there}")
        return self.configs[part]

    def module(self, part: str, *, scratch: Scratch | None = None) -> Any:
        """Load a part as a torch module in float32 (a loaded pipeline's own part as it is); see :func:`load_module`."""
        self.config(part)
        if self.pipeline is not None:
            module = getattr(self.pipeline, part)
            checkpoint.finite(f"{self.identifier}, {part}", module.state_dict())
            return module
        assert self.folder is not None
        return load_module(self.folder / part, self._class(part), scratch=scratch)

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of a part, without loading it."""
        self.config(part)
        if self.pipeline is not None:
            return {name: tuple(t.shape) for name, t in getattr(self.pipeline, part).state_dict().items()}
        assert self.folder is not None
        return weights.shapes(self.folder / part)

    def fingerprint(self, part: str) -> str:
        """Return the SHA-256 of a part: configuration and weights, not names or dates."""
        if self.pipeline is not None:
            return module_hash(self.config(part), getattr(self.pipeline, part))
        assert self.folder is not None
        return folder_hash(self.folder / part)

    def _class(self, part: str) -> str:
        config = self.config(part)
        name = str(config.get("_class_name") or (config.get("architectures") or [""])[0])
        index = self.configs["model_index"].get(part)
        if isinstance(index, list) and len(index) == 2:
            name = str(index[1])
        if name not in _CLASSES[part]:
            allowed = " or ".join(sorted(_CLASSES[part]))
            raise UnsupportedError(f"model {self.identifier}: {part} is a {name}; the converter writes {allowed}")
        return name


def open_model(model: Any, *, identifier: str | None = None) -> Source:
    """Open a model without loading weights.

    Parameters
    ----------
    model : path, str or DiffusionPipeline
        Diffusers folder, hub id, name of a shipped model, or loaded pipeline.
    identifier : str, optional
        Name for files and metadata.

    Raises
    ------
    MissingError
        No such folder, no ``model_index.json``, a part without configuration.
    FormatError
        A configuration is not JSON.
    UnsupportedError
        A pipeline class that no contract expresses; the message says which release could.
    """
    if not isinstance(model, (str, Path)):
        return _open_pipeline(model, identifier)
    shipped = recipes.find(model) if isinstance(model, str) else None
    folder = shipped or Path(model).expanduser()
    identifier = identifier or (f"parity/{model}" if shipped else None)
    if not folder.exists() and _HUB_ID.fullmatch(str(model)):
        identifier = identifier or str(model)
        folder = _download(str(model))
    if not folder.is_dir():
        raise MissingError(f"model {model}: no such folder, not a shipped model, and not a hub id (OWNER/NAME)")
    index = read_config(folder / "model_index.json", "a diffusers folder has one; save with pipeline.save_pretrained")
    name = identifier or _identifier(folder)
    _check_class(str(index.get("_class_name", "")), name)
    configs: dict[str, Mapping[str, Any]] = {"model_index": index}
    for part in sorted({*PARTS.values(), "scheduler"} - {"controlnet"}):
        entry = index.get(part)
        if isinstance(entry, list) and entry[-1] is not None:
            file = "scheduler_config.json" if part == "scheduler" else "config.json"
            configs[part] = read_config(folder / part / file, f"model_index.json lists {part}")
    return _checked(Source(name, folder, None, configs))


def _open_pipeline(pipeline: Any, identifier: str | None) -> Source:
    kind = type(pipeline).__name__
    if not hasattr(pipeline, "components"):
        raise UsageError(f"model: a folder, a hub id or a diffusers pipeline is needed, not {kind}")
    origin = identifier or str(pipeline.config.get("_name_or_path") or "model")
    _check_class(kind, origin)
    configs: dict[str, Mapping[str, Any]] = {"model_index": {"_class_name": kind, **pipeline.config}}
    for part in sorted({*PARTS.values(), "scheduler"} - {"controlnet"}):
        module = getattr(pipeline, part, None)
        if module is not None:
            configs[part] = module.config if isinstance(module.config, dict) else module.config.to_dict()
    name = identifier or (_identifier(Path(origin)) if Path(origin).exists() else origin)
    return _checked(Source(name, None, pipeline, configs))


def _checked(source: Source) -> Source:
    third = str(source.configs["model_index"]["_class_name"]).startswith("StableDiffusion3")
    source.config("transformer" if third else "unet")
    if "scheduler" not in source.configs:
        raise MissingError(
            f"model {source.identifier} has no scheduler configuration (scheduler/scheduler_config.json); "
            "pipelines need it to know the noise schedule and the kind of prediction"
        )
    return source


def _check_class(name: str, model: str) -> None:
    for prefix, reason in _OTHER_PIPELINES.items():
        if name.startswith(prefix):
            raise UnsupportedError(f"model {model} is a {name}: {reason}")
    if not name.startswith(("StableDiffusion", "LatentConsistency", "DiffusionPipeline")):
        raise UnsupportedError(f"model {model} is a {name or 'folder without _class_name'}: no contract expresses it")


def load_module(folder: Path, class_name: str, *, scratch: Scratch | None = None) -> Any:
    """Load one part in float32 from safetensors.

    Parameters
    ----------
    folder : pathlib.Path
        Where the part lies.
    class_name : str
        One that a contract knows.
    scratch : Scratch, optional
        Where the parameters of a UNet or ControlNet are put; in memory by default.

    Raises
    ------
    FormatError, MissingError
        Weights are damaged, of another network (tensors missing or unknown), no finite numbers, or not there.
    """
    import diffusers
    import transformers

    library: Any = transformers if class_name.startswith("CLIP") else diffusers
    if class_name == "StableDiffusionSafetyChecker":
        library = importlib.import_module("diffusers.pipelines.stable_diffusion.safety_checker")
    kind = getattr(library, class_name)
    if scratch is not None and class_name in MAPPABLE:
        return _mapped(kind, folder, scratch)
    module = checkpoint.load(kind, folder)
    return module.float().requires_grad_(False)  # the argument for the dtype has another name each year


def _mapped(kind: Any, folder: Path, scratch: Scratch) -> Any:
    """Load a diffusers network whose parameters lie in a scratch file; only one at a time is in memory."""
    import torch
    from safetensors import SafetensorError, safe_open

    with torch.device("meta"):
        module = kind.from_config(kind.load_config(folder, local_files_only=True))
    tensors = {}
    try:
        for path in weights.files(folder):
            with safe_open(path, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 (no mapping)
                    read = stored.get_tensor(name)
                    checkpoint.finite(folder, {name: read})
                    array = scratch.put(read.float().numpy())
                    tensors[name] = torch.from_numpy(array)
                    scratch.release()
        expected = module.state_dict().keys()
        unknown = tensors.keys() - expected
        checkpoint.complete(folder, kind.__name__, missing=expected - tensors.keys(), unexpected=unknown)
        module.load_state_dict({name: tensors[name] for name in expected}, assign=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise FormatError(f"{folder}: cannot be loaded as {kind.__name__}: {checkpoint.reason(error)}") from error
    return module.eval().requires_grad_(False)


def open_network(model: str | Path, class_name: str) -> tuple[str, Path, Mapping[str, Any]]:
    """Open a network that is no pipeline, by folder or hub id: its identifier, folder and configuration.

    Parameters
    ----------
    model : path or hub id
        Folder or hub id of the network.
    class_name : str
        ``ControlNetModel`` or ``AutoencoderKL``: what it must be.

    Raises
    ------
    MissingError, UnsupportedError
        There is none; it is of another class.
    """
    folder = Path(model).expanduser()
    name = str(model)
    if not folder.exists() and _HUB_ID.fullmatch(name):
        folder = _download(name, ["config.json", "diffusion_pytorch_model*.safetensors"])
    else:
        name = _identifier(folder)
    config = read_config(folder / "config.json", f"a folder with a {class_name} has one")
    if config.get("_class_name") != class_name:
        raise UnsupportedError(f"{name} is a {config.get('_class_name')}; {class_name} is needed here")
    return name, folder, config


def folder_of(model: str | Path, *, patterns: Sequence[str] = ("*.json", "*.txt", "*/*.safetensors")) -> Path:
    """Return the diffusers folder of a path or hub id, downloading what is not there yet.

    Raises
    ------
    MissingError
        No such folder, no ``model_index.json`` in it, or the hub gives nothing.
    """
    folder = Path(model).expanduser()
    if not folder.exists() and _HUB_ID.fullmatch(str(model)):
        folder = _download(str(model), patterns)
    if not (folder / "model_index.json").is_file():
        raise MissingError(f"model {model}: no model_index.json; a diffusers folder or a hub id (OWNER/NAME) is needed")
    return folder


def _identifier(folder: Path) -> str:
    for part in folder.resolve().parts:  # a snapshot in the hub's cache: models--OWNER--NAME/snapshots/REVISION
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return folder.resolve().name


def _download(model: str, patterns: Sequence[str] = ("*.json", "*.txt", "*/*.safetensors")) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # Stable Diffusion 3's T5 is gigabytes that no contract writes
        return Path(snapshot_download(model, allow_patterns=[*patterns], ignore_patterns=["text_encoder_3/*"]))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        raise MissingError(f"model {model}: no such folder, and the hub gave nothing: {error}") from error
