"""What did each converter release write of a model: every component that it knew, in its own form?

Packages come from the converter's cache, which converts once what several releases wrote alike. The model's own parts
are completed by what a release could also write and the model does not have: two ControlNets that fit its UNet and a
safety checker, both with drawn weights. SDXL and its refiner are shipped recipes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity import cache, quiet, recipes
from parity.contracts import converter
from parity.contracts.names import COMPONENTS
from parity.files import link_or_copy, replacing
from parity.models import checkpoint
from parity.models.source import PARTS
from parity.recipes import portable
from parity.recipes.weights import Rule, draw
from parity.suite.questions.play import Original

SD = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "1.0.0", "1.1.0", "main")
XL = ("C6", "1.1.0", "main")
IDENTIFIER = "parity/model"

_EDITION = 3  # raise it when the drawn parts must change
_CONTROL_RULES = (
    Rule(match="controlnet_(down|mid)", gain=0.5),
    Rule(match="bias$", std=0.05),
    Rule(match="", gain=1.4),
)
_SAFETY_RULES = (
    Rule(match=r"norm\d?\.weight$|layrnorm\.weight$", mean=1.0, std=0.1),
    Rule(match="embeds_weights$", mean=0.68, std=0.0),
    Rule(match="embeds$", std=1.0),
    Rule(match="bias$", std=0.05),
    Rule(match="", gain=1.0),
)


@dataclass(frozen=True)
class Release:
    """A converter release and the family that it is asked to write.

    Attributes
    ----------
    contract : str
        Tag, window id or ``main``.
    family : str
        ``sd`` or ``xl``.
    safety_size : int
        Pixels that the safety checker is asked for; 0 for the model's own.
    """

    contract: str
    family: str = "sd"
    safety_size: int = 0

    @property
    def name(self) -> str:
        """For sentences: ``0.3.0``, ``SDXL of C6``."""
        name = self.contract if self.family == "sd" else f"SDXL of {self.contract}"
        return f"{name} at {self.safety_size} pixels" if self.safety_size else name

    def components(self) -> tuple[str, ...]:
        """Return what the release writes for the family, without the mere downloads."""
        family = "sd1" if self.family == "sd" else "sdxl"
        known = {entry.component for entry in converter(self.contract).components if entry.family == family}
        return tuple(name for name in COMPONENTS if name in known and name in PARTS)


def packages(release: Release, location: str | Path, components: tuple[str, ...] = ()) -> dict[str, Path]:
    """Return the packages of a release, converting what the cache does not have.

    Parameters
    ----------
    release : Release
        Whose packages.
    location : path
        The SD model's diffusers folder; for SDXL the shipped recipe is taken.
    components : tuple of str
        Just these; all by default.
    """
    from parity import convert

    wanted = tuple(name for name in release.components() if not components or name in components)
    if release.family == "xl":
        base, refiner = recipes.build("tiny-sdxl"), recipes.build("tiny-sdxl-refiner")
        return convert.cached(base, contract=release.contract, components=wanted, refiner=refiner)
    settings: dict[str, Any] = {"contract": release.contract, "identifier": IDENTIFIER}
    found: dict[str, Path] = {}
    if "safety_checker" in wanted:
        size: dict[str, Any] = (
            {"height": release.safety_size, "width": release.safety_size} if release.safety_size else {}
        )
        found = convert.cached(safety(Path(location)), components=("safety_checker",), **settings, **size)
    own = tuple(name for name in wanted if name != "safety_checker")
    if own:
        nets = controlnets(Path(location)) if "controlnet" in own else ()
        found |= convert.cached(location, components=own, controlnets=nets, **settings)
    return found


def original(release: Release, location: str | Path) -> Original:
    """Return the PyTorch side of a release's packages."""
    if release.family == "xl":
        return Original(recipes.build("tiny-sdxl"), refiner=recipes.build("tiny-sdxl-refiner"))
    known = "controlnet" in release.components()
    return Original(Path(location), controlnets(Path(location)) if known else ())


def controlnets(location: Path) -> tuple[Path, ...]:
    """Return folders of two ControlNets for a model's UNet: its own encoder half, the new parts drawn."""
    config = json.loads((location / "unet" / "config.json").read_text(encoding="utf-8"))
    folder = cache.folder("controlnets", cache.key(config=config, weights=_digest(location / "unet"), edition=_EDITION))
    found = tuple(folder / name for name in ("first", "second"))
    for number, target in enumerate(found):
        with cache.locked(target):
            if not (target / "config.json").is_file():
                with replacing(target) as path:
                    _controlnet(location, seed=93 + number).save_pretrained(path)
    return found


def safety(location: Path) -> Path:
    """Return a folder with a model's configurations and a drawn safety checker."""
    index = json.loads((location / "model_index.json").read_text(encoding="utf-8"))
    names = ("config.json", "scheduler_config.json")
    configs = {path.parent.name: path for name in names for path in sorted(location.glob(f"*/{name}"))}
    texts = {name: path.read_text(encoding="utf-8") for name, path in configs.items()}
    target = cache.folder("safety", cache.key(index=index, configs=texts, edition=_EDITION)) / location.name
    with cache.locked(target.parent):
        if not (target / "model_index.json").is_file():
            with replacing(target) as folder:
                _write_safety(folder, configs, index)
    return target


def _write_safety(folder: Path, configs: Mapping[str, Path], index: dict[str, Any]) -> None:
    for name, path in configs.items():
        if not name.startswith(("tokenizer", "feature", "safety")):
            (folder / name).mkdir(parents=True)
            shutil.copyfile(path, folder / name / path.name)
    with quiet.loading():
        portable.save(_safety_checker(), folder / "safety_checker")
    index = index | {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _digest(folder: Path) -> str:
    from parity.models.content import folder_hash

    return folder_hash(folder)


def _controlnet(location: Path, *, seed: int) -> Any:
    from diffusers import ControlNetModel, UNet2DConditionModel

    with quiet.loading():
        unet = checkpoint.load(UNet2DConditionModel, location, part="unet").float()
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    _fill(net, "controlnet_", seed=seed, rules=_CONTROL_RULES)
    return net.eval()


def _safety_checker() -> Any:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 224, "patch_size": 56, "projection_dim": 16}
    checker = StableDiffusionSafetyChecker(CLIPConfig(projection_dim=16, vision_config=vision))
    _fill(checker, "", seed=93, rules=_SAFETY_RULES)
    return checker.eval()


def _fill(module: Any, part: str, *, seed: int, rules: tuple[Rule, ...]) -> None:
    """Draw the parameters whose name contains ``part``, each from a seed of its own."""
    import torch

    with torch.no_grad():
        for own, parameter in module.named_parameters():
            name = portable.bare(type(module).__name__, own)
            if part in name:
                parameter.copy_(torch.from_numpy(draw(name, tuple(parameter.shape), seed=seed, rules=rules)))


def assemble(models: Mapping[str, Path], folder: Path) -> Path:
    """Copy packages into one folder, as a download would lie there; files are linked where possible."""
    for path in models.values():
        shutil.copytree(path, folder / path.name, copy_function=link_or_copy)
    return folder
