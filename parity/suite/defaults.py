"""Which cases are asked where the user names none? Those that the model's family can draw.

``cases.toml`` is for text to image and image to image of Stable Diffusion 1 and 2; the files in ``cases/`` are for the
other families, and for what is named beside a model: its ControlNets, a refiner, its safety checker.
"""

from __future__ import annotations

from pathlib import Path

from parity.models import family
from parity.suite import case as cases
from parity.suite.case import Case
from parity.suite.options import DEFAULT_MODEL, Options

_FILES = {
    "sdxl": "sdxl",
    "sdxl-refiner": "refiner",
    "sd-inpaint": "inpaint",
    "sd3": "sd3",
    "unconditional": "unconditional",
}


def asked(options: Options) -> list[Case]:
    """Return the cases of a run: the user's, or those of the model's family.

    Raises
    ------
    FormatError, UsageError
        As :func:`parity.suite.case.load`.
    """
    return [case for file in files(options) for case in cases.load(file, seed=options.seed, rng=options.rng)]


def files(options: Options) -> list[Path | None]:
    """Return the files that are read; None stands for the default one."""
    if options.cases is not None:
        return [options.cases]
    if options.model_version == DEFAULT_MODEL and not options.controlnet:
        return [None]
    source = options.model_config or options.model_version  # a single file has no configuration of its own
    kind = family.identify(source)
    found: list[Path | None] = [cases.SHIPPED / f"{_FILES[kind]}.toml" if kind in _FILES else None]
    if options.controlnet and kind in ("sd", "sdxl"):
        found.append(cases.SHIPPED / "controlnet.toml")
    if len(options.controlnet) > 1 and kind in ("sd", "sdxl"):
        found.append(cases.SHIPPED / "controlnets.toml")
    if options.refiner and kind == "sdxl":
        found.append(cases.SHIPPED / "refined.toml")
    if kind == "sd" and family.has_part(source, "safety_checker") and _converted_checker(options.models):
        found.append(cases.SHIPPED / "safety.toml")
    return found


def _converted_checker(models: Path | None) -> bool:
    """Tell whether a safety checker lies among the user's models, or all are converted here."""
    if models is None or not models.is_dir():
        return models is None
    return any("safety" in path.name.lower() for path in models.rglob("*.ml*"))
