"""From a recipe to a diffusers folder that ``DiffusionPipeline.from_pretrained`` loads.

Steps: read the TOML, write the tokenizer, instantiate each component from its configuration, draw its weights, save
everything, and keep the folder in the cache under the hash of the recipe and of this code's inputs.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity import assets, cache, quiet, tables
from parity.errors import FormatError, MissingError
from parity.files import replacing
from parity.recipes import portable, tokenizer, unigram, weights

# Raise it when the same recipe text must give other files, e.g. after a change of how weights are drawn.
_EDITION = 2


@dataclass(frozen=True)
class Recipe:
    """A recipe as read from its file.

    Attributes
    ----------
    name : str
        File name without suffix.
    table : dict
        The TOML document.
    """

    name: str
    table: dict[str, Any]

    @property
    def key(self) -> str:
        """Name and content hash; equal keys mean equal models."""
        return f"{self.name}-{cache.key(recipe=self.table, edition=_EDITION)}"

    def component(self, name: str) -> Any:
        """Instantiate one component with its drawn weights: a torch module, or a scheduler.

        Raises
        ------
        FormatError
            The recipe names a class that diffusers or transformers do not have.
        """
        entry = self.table["components"][name]
        module_name, _, class_name = entry["class"].rpartition(".")
        if module_name.partition(".")[0] not in {"diffusers", "transformers"}:
            raise FormatError(
                f"recipe {self.name}: components.{name}.class must start with diffusers. or transformers."
            )
        kind = getattr(importlib.import_module(module_name), class_name, None)
        if kind is None:
            raise FormatError(f"recipe {self.name}: components.{name}.class: {module_name} has no {class_name}")
        config = dict(entry["config"])
        if hasattr(kind, "config_class"):  # of transformers, and the safety checker, which diffusers builds on them
            ids = self._token_ids(class_name) if module_name == "transformers" else {}
            module = kind(kind.config_class(**ids, **config))
        else:
            module = kind.from_config(config) if hasattr(kind, "from_config") else kind(**config)
        if not hasattr(module, "named_parameters"):  # a scheduler, or what prepares pictures
            return module
        rules = [weights.Rule(**rule) for rule in self.table["weights"]]
        weights.fill(name, module, seed=self.table["seed"], rules=rules)
        return module.eval()

    def _token_ids(self, class_name: str) -> dict[str, int]:
        if class_name.startswith("T5"):
            size = len(unigram.pieces(self.table["tokenizer_3"]["words"]))
            return {"vocab_size": size, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
        size = 2 * 256 + len(tokenizer.merges(self.table["tokenizer"]["words"])) + 2
        return {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}


def names() -> list[str]:
    """Return the recipes that the project ships."""
    return sorted(path.stem for path in (assets.fixtures() / "recipes").glob("*.toml"))


def load(name: str) -> Recipe:
    """Read a shipped recipe by name.

    Raises
    ------
    MissingError
        No recipe of that name; the message lists the known ones.
    """
    path = assets.fixtures() / "recipes" / f"{name}.toml"
    if name not in names():
        raise MissingError(f"no recipe named {name!r}; there are {', '.join(names())}")
    return Recipe(name, _extended(tables.read(path)))


def _extended(table: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with what it takes over from the one that it ``extends``: all keys, and all components."""
    if "extends" not in table:
        return table
    base = load(table["extends"]).table
    own = {key: value for key, value in table.items() if key != "extends"}
    return {**base, **own, "components": {**base["components"], **own.get("components", {})}}


def write(recipe: Recipe, folder: Path) -> None:
    """Write a diffusers folder: model_index.json, tokenizer, scheduler and safetensors weights (float32).

    A recipe with ``network = NAME`` is that component alone.
    """
    if (network := recipe.table.get("network")) is not None:  # no pipeline: its files lie in the folder itself
        portable.save(recipe.component(network), folder)
        return
    folder.mkdir(parents=True)
    index: dict[str, Any] = {"_class_name": recipe.table["pipeline"], **recipe.table.get("pipeline_config", {})}
    for name, entry in recipe.table["components"].items():
        index[name] = [_library(entry["class"]), entry["class"].rpartition(".")[2]]
        component = recipe.component(name)
        if hasattr(component, "named_parameters"):
            portable.save(component, folder / name)
        else:  # a scheduler
            component.save_pretrained(folder / name)
    for name in (n for n in recipe.table if n.startswith("tokenizer")):
        unigrams = recipe.table[name].get("kind") == "t5"
        index[name] = ["transformers", "T5TokenizerFast" if unigrams else "CLIPTokenizer"]
        (unigram if unigrams else tokenizer).write(folder / name, recipe.table[name]["words"])
    for absent in recipe.table.get("absent", ["feature_extractor", "safety_checker"]):
        index[absent] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _library(kind: str) -> str:
    """Return what ``model_index.json`` calls the library of a class: diffusers' own pipelines by their folder."""
    parts = kind.split(".")
    return parts[2] if parts[:2] == ["diffusers", "pipelines"] else parts[0]


def build(name: str) -> Path:
    """Return the diffusers folder of a shipped recipe, building it on first use.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    pathlib.Path
        Folder in the cache (see :mod:`parity.cache`); treat it as read-only.
    """
    recipe = load(name)
    target = cache.folder("recipes", recipe.key)
    if not (target / ("config.json" if "network" in recipe.table else "model_index.json")).is_file():
        with quiet.loading(), replacing(target) as folder:
            write(recipe, folder)
    return target
