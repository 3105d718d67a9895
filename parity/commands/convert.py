"""``parity convert MODEL -o DIR``: write Core ML packages as a converter release wrote them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity import convert
from parity.commands import documents
from parity.convert.compress import NAMES
from parity.convert.job import ATTENTION, FLOAT32, TARGETS
from parity.convert.multilingual import COMPONENT
from parity.convert.plan import DEFAULT_COMPONENTS, SD3_COMPONENTS
from parity.convert.probe import KINDS
from parity.errors import UsageError
from parity.files import require_writable, unless_empty
from parity.models.ingredients import Ingredients
from parity.models.pickles import SUFFIXES
from parity.models.source import PARTS
from parity.suite.options import ON_TOP


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="diffusers folder, hub id or shipped model; "
        f"for --components {COMPONENT} a TorchScript file that you trust",
    )
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="folder for the packages")
    parser.add_argument(
        "--contract", default="main", metavar="RELEASE", help="converter release (0.1.0 … 1.1.1), window (C6) or main"
    )
    parser.add_argument(
        "--components",
        metavar="LIST",
        help=f"any of {', '.join(PARTS)}; default: {','.join(DEFAULT_COMPONENTS)}, of Stable Diffusion 3 "
        f"{','.join(SD3_COMPONENTS)}; {COMPONENT} alone",
    )
    parser.add_argument("--attention", default="SPLIT_EINSUM", metavar="KIND", help=", ".join(ATTENTION))
    parser.add_argument(
        "--attention-rank",
        type=int,
        metavar="N",
        help="of the products in text encoders and VAEs: 3 or 4; what the release's time had by default",
    )
    parser.add_argument("--model-id", metavar="ID", help="model id for file names and metadata")
    parser.add_argument("--controlnet", action="append", default=[], metavar="MODEL", help="ControlNet; repeatable")
    parser.add_argument("--refiner", metavar="MODEL", help="SDXL refiner, for the component of that name")
    parser.add_argument(
        "--vae", "--custom-vae-version", metavar="MODEL", help="VAE in the place of the model's own (1.1.0 and later)"
    )
    for option in ON_TOP:
        if option.name != "vae":
            parser.add_argument(f"--{option.name}", dest=option.key, **option.arguments())
    parser.add_argument("--height", type=int, metavar="PIXELS", help="image height, a multiple of 8")
    parser.add_argument("--width", type=int, metavar="PIXELS", help="image width, a multiple of 8")
    parser.add_argument("--batch", type=int, default=2, help="batch of the denoiser, 2 or 1")
    parser.add_argument("--tokens", type=int, metavar="N", help="token length of the denoiser")
    parser.add_argument("--target", default="macOS13", metavar="OS", help=", ".join(TARGETS))
    parser.add_argument("--outputs", metavar="DTYPE", help="FLOAT16 or FLOAT32; what the release wrote by default")
    parser.add_argument(
        "--outputs-without-shape", action="store_true", help="as coremltools 6.1 to 7.0b1 described them (before C6b)"
    )
    parser.add_argument(
        "--float32",
        metavar="WHAT",
        help=f"{' or '.join(FLOAT32)}: what stays in float32 where the release computed in float16",
    )
    parser.add_argument("--compression", metavar="KIND", help=", ".join(NAMES))
    parser.add_argument(
        "--analyse-bits", metavar="FILE", type=Path, help="find mixed-bit recipes for the UNet (JSON, SVG) and stop"
    )
    parser.add_argument("--probe", metavar="KIND", help=f"what the analysis compares: {', '.join(KINDS)}")
    parser.add_argument("--probe-steps", type=int, default=1, metavar="N", help="steps of the analysis' pipeline")
    parser.add_argument("--recipe", metavar="FILE:NAME", help="palettize the UNet by a recipe of --analyse-bits")
    parser.add_argument("--chunk", action="store_true", help="also write the denoisers cut in two")
    parser.add_argument("--resources", metavar="DIR", type=Path, help="also write the Swift package's resources")
    parser.add_argument("--no-check", action="store_true", help="do not compare the packages with PyTorch")
    parser.add_argument("--force", action="store_true", help="replace what exists")
    documents.declare(parser, "the packages, or the recipes")


def main(arguments: argparse.Namespace) -> int:
    """Run the command; see the module's docstring."""
    bar = _Bar()
    model, identifier = (arguments.model, None) if _multilingual(arguments) else _model(arguments)
    if arguments.analyse_bits:
        require_writable(arguments.analyse_bits.parent, "--analyse-bits")
        analysis = convert.analyse_bits(
            model, arguments.analyse_bits, progress=bar, probe=arguments.probe, steps=arguments.probe_steps
        )
        bar.end()
        return _print_recipes(arguments.analyse_bits, analysis["recipes"], as_json=arguments.json)
    if arguments.output is None:
        raise UsageError("name the folder for the packages: -o DIR")
    for option, folder in (("-o", arguments.output), ("--resources", arguments.resources)):
        if folder is not None:
            require_writable(folder, option)
    with unless_empty(arguments.output):
        if _multilingual(arguments):
            packages = {
                COMPONENT: convert.multilingual_projection(
                    arguments.model,
                    arguments.output,
                    contract=arguments.contract,
                    force=arguments.force,
                    check=not arguments.no_check,
                )
            }
        else:
            packages = _packages(arguments, model, identifier, bar)
    bar.end()
    _print(convert.describe(arguments.output, packages), as_json=arguments.json)
    if arguments.resources:
        resources = convert.bundle(
            model, packages, arguments.resources, contract=arguments.contract, force=arguments.force
        )
        told = sys.stderr if arguments.json else sys.stdout
        print(f"{'resources':<16} {resources.folder}  {', '.join(resources.written)}", file=told)
        if resources.missing:
            print(f"{'not written':<16} {', '.join(resources.missing)}: {resources.reason}", file=told)
    return 0


def _print_recipes(file: Path, recipes: Mapping[str, Any], *, as_json: bool) -> int:
    from parity.commands.records_of_models import Analysed, Recipe

    found = tuple(
        Recipe(name, dict(recipe["layers"]), tuple(recipe["psnr"]), sum(recipe["psnr"]) / len(recipe["psnr"]))
        for name, recipe in recipes.items()
    )
    if as_json:
        documents.write(Analysed(str(file), found))
        return 0
    for recipe in found:
        print(f"{recipe.name}  {recipe.mean:.1f} dB")
    return 0


def _print(described: Mapping[str, tuple[Any, str]], *, as_json: bool) -> None:
    if as_json:
        from parity.commands.records_of_models import Converted, Package

        documents.write(Converted(tuple(Package(key, str(path), note) for key, (path, note) in described.items())))
        return
    for key, (path, note) in described.items():
        print(f"{key:<16} {path}  {note}")


def _multilingual(arguments: argparse.Namespace) -> bool:
    """Tell whether the multilingual adapter is asked for, which is made from a file of its own."""
    if COMPONENT not in _components(arguments):
        return False
    if _components(arguments) != [COMPONENT] or arguments.resources:
        raise UsageError(f"{COMPONENT} is made from a file of its own: convert it alone, without --resources")
    return True


def _components(arguments: argparse.Namespace) -> list[str]:
    return [name for name in (arguments.components or "").split(",") if name]


def _packages(arguments: argparse.Namespace, model: str, identifier: str | None, bar: _Bar) -> dict[str, Path]:
    components = None if arguments.components is None else _components(arguments)
    return convert.convert(
        model,
        arguments.output,
        contract=arguments.contract,
        components=components,
        attention=arguments.attention,
        identifier=identifier,
        controlnets=arguments.controlnet,
        refiner=arguments.refiner,
        vae=arguments.vae,
        progress=bar,
        force=arguments.force,
        check=not arguments.no_check,
        chunk=arguments.chunk,
        height=arguments.height,
        width=arguments.width,
        batch=arguments.batch,
        tokens=arguments.tokens,
        target=arguments.target,
        outputs=arguments.outputs,
        attention_rank=arguments.attention_rank,
        output_shapes=not arguments.outputs_without_shape,
        float32=arguments.float32,
        compression=arguments.compression,
        recipe=_recipe(arguments.recipe) if arguments.recipe else None,
    )


def _model(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Return the model with its LoRAs and embeddings merged in, and the id that goes into names and metadata."""
    vae = arguments.vae or ""
    single_vae = vae if Path(vae).suffix in (".safetensors", *SUFFIXES) else ""
    ingredients = Ingredients.read(
        arguments.model,
        config=arguments.model_config or "",
        vae=single_vae,
        loras=arguments.lora or (),
        embeddings=arguments.embedding or (),
    )
    if ingredients.plain:
        return arguments.model, arguments.model_id
    from parity.models import assemble

    where = assemble.location(ingredients, lambda text: print(text, file=sys.stderr))
    if single_vae:
        arguments.vae = str(Path(where) / "vae")
    return where, arguments.model_id or ingredients.name


def _recipe(text: str) -> dict[str, int]:
    from parity.convert.mixed import read_recipe

    file, separator, name = text.rpartition(":")
    if not separator:
        raise UsageError(f"recipe {text!r}: FILE:NAME is needed")
    return read_recipe(Path(file), name)


class _Bar:
    """One line on a terminal's stderr, or one line for each component elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.component = ""

    def __call__(self, component: str, stage: str, done: int, total: int) -> None:
        if self.live:
            sys.stderr.write(f"\r\x1b[K{component}: {stage} {done}/{total}")
            sys.stderr.flush()
        elif component != self.component:
            print(f"converting {component}", file=sys.stderr)
        self.component = component

    def end(self) -> None:
        """Clear the line."""
        if self.live:
            sys.stderr.write("\r\x1b[K")
