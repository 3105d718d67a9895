"""PyTorch components from a diffusers model, on cpu, mps or cuda.

The networks are loaded one by one from a folder or from the hub (:mod:`parity.models.checkpoint`: none with random
weights), and called exactly as diffusers' pipelines call them. On cuda float32 is float32: TF32, torch's default for
convolutions, is off during a call. On mps the code is that of cuda; *not verified on hardware*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from parity import quiet
from parity.backends import devices
from parity.errors import MissingError, ParityError, UnsupportedError, UsageError
from parity.models import checkpoint, projection
from parity.networks.backend import Backend
from parity.networks.signature import Component, kind

DEVICES = ("cpu", "mps", "cuda")
PRECISIONS = ("float32", "float16", "bfloat16")

# part of a pipeline -> module and classes whose calls are written here
_CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "text_encoder": ("transformers", ("CLIPTextModel", "CLIPTextModelWithProjection")),  # SD3's has a projection
    "text_encoder_2": ("transformers", ("CLIPTextModelWithProjection",)),
    "text_encoder_3": ("transformers", ("T5EncoderModel",)),
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "transformer": ("diffusers", ("SD3Transformer2DModel",)),
    "vae": ("diffusers", ("AutoencoderKL",)),
    "safety_checker": ("diffusers.pipelines.stable_diffusion.safety_checker", ("StableDiffusionSafetyChecker",)),
    "controlnet": ("diffusers", ("ControlNetModel",)),
}
_PARTS = {
    "mmdit": "transformer",
    "vae_decoder": "vae",
    "vae_encoder": "vae",
    "noising_encoder": "vae",
    "control-unet": "unet",
    "unconditional-unet": "unet",
    "refiner": "unet",
}  # network -> part, where the names differ
_EXACT = ("input_ids", "timestep", "skip")  # keep their dtype in every precision


class TorchBackend(Backend):
    """The PyTorch original.

    Parameters
    ----------
    location : str or path
        Folder or hub id, as ``from_pretrained`` takes it.
    device : str
        ``cpu``, ``mps`` or ``cuda``.
    precision : str
        ``float32``, or ``float16`` or ``bfloat16`` for weights and activations of that precision.
    controlnets : sequence of path
        Folders of diffusers ControlNets; the first is the component ``controlnet-1``.
    refiner : str or path, optional
        Folder or hub id of SDXL's refiner.
    projection : path, optional
        TorchScript file of the multilingual adapter, see :mod:`parity.models.projection`.

    Raises
    ------
    UsageError, UnsupportedError
        Unknown device or precision; a device that this machine does not have.
    """

    name = "torch"

    def __init__(
        self,
        location: str | Path,
        *,
        device: str = "cpu",
        precision: str = "float32",
        controlnets: Sequence[Path] = (),
        refiner: str | Path | None = None,
        projection: Path | None = None,
    ) -> None:
        super().__init__()
        if device not in DEVICES:
            raise UsageError(f"no device named {device!r}; there are {', '.join(DEVICES)}")
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not {precision!r}")
        if not available(device):
            raise UnsupportedError(f"device {device} is not available to torch on this machine; use --device cpu")
        self.location = str(location)
        self._controlnets = tuple(controlnets)
        self._refiner = refiner
        self._projection = projection
        self._modules: dict[str, Any] = {}
        self.device = device
        self.precision = precision
        self.numerics = f"PyTorch {device} {precision}"
        self.remarks = devices.remarks(device, precision, metadata.version("torch").partition("+")[0])

    def _load(self, name: str) -> Component:
        part, key = _PARTS.get(name, kind(name)), _module_key(name)
        if key not in self._modules:
            self._modules[key] = self._module(name, part)
        return _TorchComponent(name, self._modules[key], device=self.device, precision=self.precision, xl=self.xl)

    def _forget(self, name: str) -> None:
        super()._forget(name)
        if _module_key(name) not in {_module_key(other) for other in self._loaded}:
            self._modules.pop(_module_key(name), None)

    @property
    def xl(self) -> bool:
        """Whether the text encoders are SDXL's or SD3's, whose last layer but one is used."""
        entry = checkpoint.index(self.location).get("text_encoder_2")
        return isinstance(entry, list) and entry[-1] is not None

    def _module(self, name: str, part: str) -> Any:
        import torch

        if part == "multilingual_projection":
            if self._projection is None:
                raise MissingError(f"{self.location}: no multilingual adapter was given")
            return projection.load(self._projection).to(device=self.device, dtype=getattr(torch, self.precision))
        unconditional = name == "unconditional-unet"
        library, (expected, *others) = ("diffusers", ("UNet2DModel",)) if unconditional else _CLASSES[part]
        if kind(name) == "controlnet":
            location, subfolder = str(self._controlnet(name)), ""
        else:
            location, expected = self._part(name, part, (expected, *others))
            subfolder = part
        # the class that is expected, whatever the file says: no code of a checkpoint's choice is run
        module = checkpoint.load(_class(library, expected), location, part=subfolder)
        with quiet.loading():  # diffusers remarks on every change of precision
            return module.to(device=self.device, dtype=getattr(torch, self.precision)).eval()

    def _controlnet(self, name: str) -> Path:
        number = int(name.partition("-")[2] or 1)
        if number > len(self._controlnets):
            raise MissingError(f"{self.location}: no {name}; {len(self._controlnets)} ControlNets were given")
        return self._controlnets[number - 1]

    def _part(self, name: str, part: str, expected: tuple[str, ...]) -> tuple[str, str]:
        """Return where a part lies and its class, once it is known to be one whose calls are written here."""
        if name == "refiner" and self._refiner is None:
            raise MissingError(f"{self.location}: no refiner was given")
        location = str(self._refiner) if name == "refiner" else self.location
        entry = checkpoint.index(location).get(part)
        if not isinstance(entry, list) or entry[-1] is None:
            raise MissingError(f"{location}: the model has no {part}; this task needs it")
        if entry[-1] not in expected:
            raise UnsupportedError(f"{location}: {part} is a {entry[-1]}; a {' or '.join(expected)} is run here")
        return location, str(entry[-1])


def _module_key(name: str) -> str:
    """Return the module that a network is a part of: the VAE's two halves are one module."""
    return name if kind(name) in ("refiner", "controlnet") else _PARTS.get(name, kind(name))


def folder_of(backend: TorchBackend, name: str) -> Path | None:
    """Return the folder of a network's configuration and weights; None for a hub id."""
    if kind(name) == "controlnet":
        return backend._controlnet(name)
    location = backend.location if name != "refiner" else backend._refiner
    folder = None if location is None else Path(location) / _PARTS.get(name, kind(name))
    return folder if folder is not None and folder.is_dir() else None


def module_of(backend: TorchBackend, name: str) -> Any:
    """Return a network's module."""
    component = backend.component(name)
    assert isinstance(component, _TorchComponent)
    return component._module


def parameters(backend: TorchBackend, name: str) -> dict[str, np.ndarray]:
    """Return the parameters of a network's module by name, as float32."""
    component = backend.component(name)
    assert isinstance(component, _TorchComponent)
    return {key: value.detach().float().cpu().numpy() for key, value in component._module.named_parameters()}


def available(device: str) -> bool:
    """Return whether torch can use the device here."""
    import torch

    return {"cpu": lambda: True, "mps": torch.backends.mps.is_available, "cuda": torch.cuda.is_available}[device]()


@contextmanager
def _exact_products(device: str) -> Iterator[None]:
    """Without TF32, in which torch convolves float32 on CUDA by default: products of 11 bits are not float32."""
    import torch

    if device != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _class(library: str, name: str) -> Any:
    from importlib import import_module

    return getattr(import_module(library), name)


def _sizes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the argument of SDXL's pooled text and sizes; nothing for other families."""
    if "time_ids" not in tensors:
        return {}
    return {"added_cond_kwargs": {name: tensors[name] for name in ("text_embeds", "time_ids")}}


class _TorchComponent:
    def __init__(self, name: str, module: Any, *, device: str, precision: str, xl: bool) -> None:
        self.name = name
        self._module = module
        self._device = device
        self._precision = precision
        self._xl = xl

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        runs = {
            "text_encoder": self._text,
            "text_encoder_2": self._text,
            "text_encoder_3": self._t5,
            "mmdit": self._flow,
            "multilingual_projection": self._project,
            "controlnet": self._residuals,
            "vae_decoder": self._decode,
            "vae_encoder": self._encode,
            "noising_encoder": self._noised,
            "safety_checker": self._unsafe,
        }
        try:
            with torch.inference_mode(), _exact_products(self._device):
                outputs = runs.get(kind(self.name), self._noise)(inputs)
                return {name: self._to_array(value) for name, value in outputs.items()}
        except ParityError:
            raise
        except (RuntimeError, TypeError) as error:
            if meaning := devices.explain(str(error)):
                raise RuntimeError(f"{error}\n  what it means: {meaning}") from error
            raise

    def _to_device(self, name: str, array: np.ndarray) -> Any:
        import torch

        # Strides are kept: a channels-last picture, as diffusers' image processor gives it, makes oneDNN take another
        # convolution whose sums differ in the last bits.
        tensor = torch.from_numpy(array)
        if (
            tensor.dtype is torch.float64
        ):  # timesteps between two others; the embedding makes them float32, mps has none
            tensor = tensor.float()
        if name not in _EXACT:
            tensor = tensor.to(getattr(torch, self._precision))
        return tensor.to(self._device)

    @staticmethod
    def _to_array(value: Any) -> np.ndarray:
        return value if isinstance(value, np.ndarray) else value.float().cpu().numpy()

    def _text(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        ids = self._to_device("input_ids", inputs["input_ids"])
        skipped = int(inputs["skip"][0]) if "skip" in inputs else 0
        if not self._xl and not skipped:
            return {"hidden": self._module(ids)[0]}
        result = self._module(ids, output_hidden_states=True)
        layers, counted = len(result.hidden_states) - 1, skipped + int(self._xl)
        if counted >= layers:
            raise UsageError(f"clip_skip {skipped}: {self.name} has {layers} layers, one must remain")
        hidden = result.hidden_states[-1 - counted]
        if not self._xl:
            text_model = getattr(self._module, "text_model", self._module)  # transformers 5 has one class less
            return {"hidden": text_model.final_layer_norm(hidden)}
        projected = getattr(result, "text_embeds", None)
        return {"hidden": hidden, "pooled": result.pooler_output if projected is None else projected}

    def _t5(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {"hidden": self._module(self._to_device("input_ids", inputs["input_ids"]))[0]}

    def _project(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {"hidden": self._module(self._to_device("embeddings", inputs["embeddings"]))}

    def _flow(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        given = {name: self._to_device(name, array) for name, array in inputs.items()}
        predicted = self._module(
            hidden_states=given["sample"],
            timestep=given["timestep"],
            encoder_hidden_states=given["hidden"],
            pooled_projections=given["pooled"],
            return_dict=False,
        )
        return {"flow": predicted[0]}

    def _noise(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        tensors = {name: self._to_device(name, array) for name, array in inputs.items()}
        if self.name == "unconditional-unet":
            return {"noise_pred": self._module(tensors["sample"], tensors["timestep"], return_dict=False)[0]}
        keywords = _sizes(tensors)
        residuals = [name for name in tensors if name.startswith("additional_residual_")]
        if residuals:
            ordered = [tensors[f"additional_residual_{index}"] for index in range(len(residuals))]
            keywords["down_block_additional_residuals"] = tuple(ordered[:-1])
            keywords["mid_block_additional_residual"] = ordered[-1]
        predicted = self._module(
            tensors["sample"],
            tensors["timestep"],
            encoder_hidden_states=tensors["hidden"],
            return_dict=False,
            **keywords,
        )
        return {"noise_pred": predicted[0]}

    def _residuals(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        tensors = {name: self._to_device(name, array) for name, array in inputs.items()}
        given = [tensors[name] for name in ("sample", "timestep", "hidden", "cond")]
        down, middle = self._module(*given, return_dict=False, **_sizes(tensors))
        return {f"additional_residual_{index}": value for index, value in enumerate([*down, middle])}

    def _decode(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {"image": self._module.decode(self._to_device("latents", inputs["latents"]), return_dict=False)[0]}

    def _encode(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {"moments": self._module.encode(self._to_device("image", inputs["image"])).latent_dist.parameters}

    def _noised(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        found = self._module.encode(self._to_device("image", inputs["image"])).latent_dist
        mean, deviation = self._to_array(found.mean), self._to_array(found.std)
        sampled = self._module.config.scaling_factor * (mean + deviation * inputs["diagonal"])
        signal, sigma = float(inputs["signal"][0]), float(inputs["sigma"][0])
        return {"latents": (signal * sampled + sigma * inputs["noise"]).astype(np.float32)}

    def _unsafe(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        with quiet.loading():
            _, flags = self._module(self._to_device("clip_input", inputs["clip_input"]), np.array(inputs["picture"]))
        return {"unsafe": np.asarray(flags, np.float32)}
