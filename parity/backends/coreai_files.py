"""Which of a user's ``.aimodel`` files is which network, and what do its inputs and outputs mean?

A file is a network by the end of its name. Its inputs are matched by the names that files commonly have, else by order;
outputs by name, else by their number and rank. A batch is cut into the file's own, and filled up to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from parity.coreai.process import ArraySpec, Process
from parity.errors import FormatError
from parity.networks.signature import SIGNATURES, kind, last_layer_only

# network -> how the names of users' files end, in lower case and without _ and -; the longest that fits decides
ENDINGS = {
    "text_encoder": ("textencoder",),
    "text_encoder_2": ("textencoder2",),
    "text_encoder_3": ("textencoder3",),
    "unet": ("unet",),
    "control-unet": ("controlunet",),
    "refiner": ("refiner", "refinerunet"),
    "mmdit": ("mmdit", "transformer"),
    "controlnet": ("controlnet",),
    "vae_decoder": ("vaedecoder",),
    "vae_encoder": ("vaeencoder",),
    "safety_checker": ("safetychecker",),
}
_NUMBERED = re.compile(r"controlnet(\d+)")
# tensor -> other names that files give it
_ALIASES = {
    "hidden": ("encoder_hidden_states", "context", "hidden_embeds", "last_hidden_state", "hidden_states"),
    "sample": ("x", "latents"),
    "timestep": ("t", "timesteps"),
    "latents": ("z", "sample"),
    "image": ("sample", "x"),
    "input_ids": ("tokens", "ids"),
    "cond": ("controlnet_cond", "image"),
    "pooled": ("pooled_outputs", "pooled_projections", "text_embeds", "pooler_output"),
}


def find(folder: Path) -> dict[str, Path]:
    """Return the ``.aimodel`` files of a folder by network, ControlNets numbered from 1; empty when it has none.

    Raises
    ------
    FormatError
        Two files for one network.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.aimodel")):
        name = network_of(path)
        if name in found:
            raise FormatError(f"--models {folder}: two candidates for {name}: {found[name].name}, {path.name}")
        if name:
            found[name] = path
    return found


def network_of(path: Path) -> str:
    """Return the network that a file's name ends in; empty where it is none.

    >>> network_of(Path("My_Text-Encoder_2.aimodel")), network_of(Path("ControlNet2.aimodel")), network_of(Path("x"))
    ('text_encoder_2', 'controlnet-2', '')
    """
    bare = path.stem.lower().replace("_", "").replace("-", "")
    if numbered := _NUMBERED.fullmatch(bare[bare.rfind("controlnet") :]):
        return f"controlnet-{int(numbered[1])}"
    fitting = {end: name for name, ends in ENDINGS.items() for end in ends if bare.endswith(end)}
    name = fitting[max(fitting, key=len)] if fitting else ""
    return "controlnet-1" if name == "controlnet" else name


def file_of(files: Mapping[str, Path], name: str) -> Path | None:
    """Return the file of a network: an unconditional model's UNet is its only one."""
    return files.get("unet" if name == "unconditional-unet" else name)


class Given:
    """A network in the user's file, with whatever names and batch it has.

    Parameters
    ----------
    name : str
        A network that :func:`parity.networks.signature.kind` knows.
    process : Process
        Of the file.
    """

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the file on a batch of any size.

        Raises
        ------
        FormatError, UsageError, UnsupportedError
            The file's inputs, outputs or shapes are not those of this network; the runtime died.
        """
        last_layer_only(self.name, inputs)
        inputs = {name: array for name, array in inputs.items() if name != "picture"}
        (function,) = list(self._process.functions.values())[:1]
        path = self._process.path
        names = matched(path, self.name, inputs, [feature.name for feature in function.inputs])
        features = {names[feature.name]: feature for feature in function.inputs}
        for key, feature in features.items():
            _fits(path, feature, inputs[key])
        outputs = results(path, self.name, function.outputs)
        count = next(iter(inputs.values())).shape[0]
        batch = next(iter(features.values())).shape[0] or count
        rows = [*range(count), *[count - 1] * (-count % batch)]  # the last row again, where the file takes more
        parts = []
        for start in range(0, len(rows), batch):
            chosen = rows[start : start + batch]
            parts.append(self._process.run({feature.name: inputs[key][chosen] for key, feature in features.items()}))
        return {
            tensor: np.concatenate([part[feature] for part in parts])[:count].astype(np.float32)
            for tensor, feature in outputs.items()
        }


def _fits(path: Path, feature: ArraySpec, array: np.ndarray) -> None:
    """Refuse what is not of the file's shape but for the batch."""
    wanted, given = feature.shape[1:], array.shape[1:]
    fits = len(feature.shape) == array.ndim and all(w in (None, g) for w, g in zip(wanted, given, strict=True))
    if not fits:
        raise FormatError(
            f"{path}: input {feature.name} has shape {list(feature.shape)} in the file, but the model's pipeline gives "
            f"{list(array.shape)}: this file belongs to another model or size"
        )


def matched(path: Path, network: str, inputs: Mapping[str, np.ndarray], names: list[str]) -> dict[str, str]:
    """Match a file's inputs with the network's, by name; where no name is known, by order.

    Raises
    ------
    FormatError
        Their numbers differ.
    """
    if len(names) != len(inputs):
        raise FormatError(
            f"{path}: it takes {', '.join(names)}, and a {network} of this model takes {', '.join(inputs)}: another "
            "network, or another model's"
        )
    found = {name: key for name in names for key in inputs if name == key or name in _ALIASES.get(key, ())}
    if sorted(found.values()) != sorted(inputs):
        found = dict(zip(names, inputs, strict=True))
    return found


def results(path: Path, name: str, outputs: tuple[ArraySpec, ...]) -> dict[str, str]:
    """Return the file's output for each tensor that a network gives.

    Raises
    ------
    FormatError
        They cannot be told apart.
    """
    names = [feature.name for feature in outputs]
    if kind(name) == "controlnet":
        known = [each for each in names if each.startswith("additional_residual_")]
        if len(known) == len(names):
            return {each: each for each in names}
        return {f"additional_residual_{index}": each for index, each in enumerate(names)}
    wanted = SIGNATURES[kind(name)].outputs
    if kind(name) == "text_encoder" and len(names) == 2:
        wanted = ("hidden", "pooled")
    if len(wanted) == 1:
        return {wanted[0]: names[0]}
    found = {tensor: each for tensor in wanted for each in names if each in (tensor, *_ALIASES.get(tensor, ()))}
    by_rank = {("", "", "pooled", "hidden")[min(len(feature.shape), 3)]: feature.name for feature in outputs}
    if len(found) != len(wanted) and len(names) == len(wanted):
        found = {tensor: by_rank[tensor] for tensor in wanted if tensor in by_rank}
    if len(found) != len(wanted):
        raise FormatError(f"{path}: it gives {', '.join(names)}; {', '.join(wanted)} are needed of a {name}")
    return found
