"""The suite's options, declared once for the command line and for pytest.

Every option is ``--name`` in ``parity run`` and in pytest, and ``parity_name`` in pytest's ini section
(``[tool.pytest.ini_options]`` of pyproject.toml, pytest.ini). The command line wins over ini, ini over the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity import assets, coreml
from parity.errors import MissingError, UsageError
from parity.models import hub
from parity.models.ingredients import Ingredients

DEFAULT_MODEL = "shapes-sd"
_WITH_GOLDENS = {  # originals, their ControlNets and refiner, whose pictures lie in golden/
    (DEFAULT_MODEL, (), ""),
    ("shapes-ddpm", (), ""),
    ("tiny-inpaint", (), ""),
    ("tiny-sd", ("tiny-controlnet",), ""),
    ("tiny-sd3", (), ""),
    ("tiny-sdxl", (), "tiny-sdxl-refiner"),
    ("tiny-sdxl-refiner", (), ""),
    ("tiny-sdxl-turbo", (), ""),
}


@dataclass(frozen=True)
class Option:
    """One option: its name, help, how the text of a value is read, and whether it can be given several times."""

    name: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    kind: str = "text"  # text | integer | path | switch | several
    attribute: str = ""
    also: tuple[str, ...] = ()  # what parity's other commands call it; pytest has its own option of that name

    @property
    def key(self) -> str:
        """Attribute name of the parsed value."""
        return self.attribute or self.name.replace("-", "_")

    @property
    def flags(self) -> tuple[str, ...]:
        """Spellings on parity's own command line."""
        return (*self.also, f"--{self.name}")

    def arguments(self) -> dict[str, Any]:
        """Return keyword arguments for ``add_argument`` (argparse) and ``addoption`` (pytest)."""
        if self.kind == "switch":
            return {"action": "store_true", "default": None, "help": self.help}
        arguments: dict[str, Any] = {"default": None, "help": self.help, "metavar": self.metavar or self.key.upper()}
        if self.kind == "several":
            arguments["action"] = "append"
        return arguments


ON_TOP: tuple[Option, ...] = (
    Option(
        "model-config", "for a single file: diffusers model of the same architecture, for its configurations", "DIR"
    ),
    Option("vae", "another VAE: folder, hub id or .safetensors file", "MODEL"),
    Option("lora", "LoRA (.safetensors) to merge into the original, repeatable", "FILE[:SCALE]", kind="several"),
    Option("embedding", "textual inversion (.safetensors), repeatable", "FILE[:TOKEN]", kind="several"),
)
"""What makes the original beside ``--model-version``; ``parity convert`` takes the same."""

OPTIONS: tuple[Option, ...] = (
    Option(
        "model-version",
        "the PyTorch original: diffusers folder, hub id, shipped model or a single .safetensors file",
        "MODEL",
    ),
    *ON_TOP,
    Option(
        "models",
        "folder of converted models, or OWNER/NAME:FOLDER of the hub; without it the original is converted here",
        "DIR",
        kind="path",
    ),
    Option(
        "compute-unit",
        "Core ML compute unit, repeatable; default: all four",
        "UNIT",
        choices=coreml.COMPUTE_UNITS,
        kind="several",
    ),
    Option(
        "coreml-runtime",
        "auto: Core ML on macOS, the reference runtime elsewhere",
        "RUNTIME",
        choices=("auto", "native", "reference"),
    ),
    Option(
        "backend",
        "candidate by name, repeatable: torch:cpu:float16, coreml:reference, coreai; replaces the compute units",
        "NAME[:WORD…]",
        kind="several",
    ),
    Option(
        "as",
        "who draws, repeatable: diffusers, or an app's release such as swift==1.1.0, python==0.4.0, mochi==6.0",
        "PRODUCER",
        kind="several",
        attribute="producers",
    ),
    Option(
        "swift-package",
        "for --as swift-command: checkout of ml-stable-diffusion, or its built StableDiffusionSample",
        "DIR",
        kind="path",
    ),
    Option("against", "compare each producer with this one instead, both by PyTorch", "PRODUCER"),
    Option(
        "picture",
        "compare this picture, or latents (.npy), drawn elsewhere with what each producer draws by PyTorch",
        "FILE",
        kind="path",
    ),
    Option(
        "controlnet",
        "ControlNet, repeatable, in the order of the cases' control images: folder, hub id, tiny-controlnet",
        "MODEL",
        kind="several",
    ),
    Option("refiner", "SDXL refiner that takes over: diffusers folder, hub id, tiny-sdxl-refiner", "MODEL"),
    Option("reduce-memory", "load a network only while it is needed; results are the same", kind="switch"),
    Option("device", "where PyTorch runs: cpu, mps or cuda", "DEVICE", choices=("cpu", "mps", "cuda")),
    Option("cases", "TOML file of cases instead of the shipped ones", "FILE", kind="path"),
    Option("seed", "use this seed in every case", "N", kind="integer"),
    Option("rng", "use this random stream in every case, e.g. torch-cpu, numpy-legacy", "NAME"),
    Option("tolerances", "TOML file of tolerances that go before the shipped ones", "FILE", kind="path"),
    Option(
        "golden-dir", "folder of accepted traces; default: the shipped ones, for shipped models", "DIR", kind="path"
    ),
    Option("update-golden", "accept what is drawn now as golden, in your name", kind="switch"),
    Option("golden-candidates", "goldens of each candidate too, beside the reference's", kind="switch"),
    Option("earlier", "report.json of an earlier run: margins that shrank by half are warnings", "FILE", kind="path"),
    Option("expected", "TOML file of failures that are known, each with owner, reason and end", "FILE", kind="path"),
    Option(
        "compatibility",
        "old models in app releases, for the shipped model: each distinct execution, all combinations, or none",
        "SCOPE",
        choices=("distinct", "all", "none"),
    ),
    Option("cell", "run this cell alone, by its exact id, repeatable; each failure says its id", "ID", kind="several"),
    Option("run-dir", "keep the run in this folder, each cell as soon as it is finished", "DIR", kind="path"),
    Option("resume", "go on with the run in --run-dir: ask what is not finished there", kind="switch"),
    Option("traces", "keep all tensors of candidates and their references in --run-dir, too", kind="switch"),
    Option("machine", "name of this machine in run folders and trends; default: its chip", "NAME"),
    Option("isolate", "ask cells in a process of its own: one that dies costs its cell alone", kind="switch"),
    Option("cell-timeout", "end a cell after this many seconds; implies --isolate", "SECONDS", kind="integer"),
    Option(
        "cells-per-process",
        "begin a new process after this many cells; implies --isolate; default: when one died",
        "N",
        kind="integer",
    ),
    Option(
        "parity-report",
        "write index.html and report.json into this folder",
        "DIR",
        kind="path",
        also=("-o", "--output"),
    ),
    Option("parity-strict", "unknown verdicts fail the run", kind="switch", also=("--strict",)),
)


@dataclass(frozen=True)
class Options:
    """Parsed options of a run, see :data:`OPTIONS`."""

    model_version: str = DEFAULT_MODEL
    model_config: str = ""
    vae: str = ""
    lora: tuple[str, ...] = ()
    embedding: tuple[str, ...] = ()
    models: Path | None = None
    compute_unit: tuple[str, ...] = coreml.COMPUTE_UNITS
    coreml_runtime: str = "auto"
    backend: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    swift_package: Path | None = None
    against: str = ""
    picture: Path | None = None
    controlnet: tuple[str, ...] = ()
    refiner: str = ""
    reduce_memory: bool = False
    device: str = "cpu"
    cases: Path | None = None
    seed: int | None = None
    rng: str | None = None
    tolerances: Path | None = None
    golden_dir: Path | None = None
    update_golden: bool = False
    golden_candidates: bool = False
    earlier: Path | None = None
    expected: Path | None = None
    compatibility: str = "distinct"
    cell: tuple[str, ...] = ()
    run_dir: Path | None = None
    resume: bool = False
    traces: bool = False
    machine: str = ""
    isolate: bool = False
    cell_timeout: int | None = None
    cells_per_process: int | None = None
    parity_report: Path | None = None
    parity_strict: bool = False

    @property
    def ingredients(self) -> Ingredients:
        """The original as its user put it together.

        Raises
        ------
        ParityError
            As :meth:`parity.models.ingredients.Ingredients.read`.
        """
        return Ingredients.read(
            self.model_version, config=self.model_config, vae=self.vae, loras=self.lora, embeddings=self.embedding
        )

    @property
    def models_folder(self) -> Path | None:
        """Where the converted models lie on this machine; None where there are none."""
        return None if self.models is None else hub.local(self.models)

    @property
    def shipped(self) -> bool:
        """Whether the shipped cases are asked of the default model, with nothing else given."""
        return self.model_version == DEFAULT_MODEL and not self.controlnet and self._plain

    @property
    def _plain(self) -> bool:
        """Whether the user gave no cases, models or pictures, and nothing to put on top of the original."""
        own = (self.cases, self.seed, self.rng, self.models, self.picture)
        given = self.vae or self.lora or self.embedding or self.producers or self.against
        return not given and all(value is None for value in own)

    @property
    def isolated(self) -> bool:
        """Whether cells are asked in another process."""
        return self.isolate or self.cell_timeout is not None or self.cells_per_process is not None

    @property
    def default_candidates(self) -> bool:
        """Whether nothing was said about who runs the converted model."""
        return not self.backend and (self.compute_unit, self.coreml_runtime) == (coreml.COMPUTE_UNITS, "auto")

    @property
    def goldens(self) -> Path | None:
        """Folder of goldens: the one named, else the shipped one for the shipped cases of a model that has some."""
        if self.golden_dir is not None:
            return self.golden_dir
        subject = (self.model_version, self.controlnet, self.refiner or "")
        return assets.golden() if self._plain and subject in _WITH_GOLDENS else None


def read(given: Mapping[str, Any], fallback: Callable[[Option], Any] = lambda option: None) -> Options:
    """Build options from parsed arguments.

    Parameters
    ----------
    given : mapping
        Values by :attr:`Option.key`; None where the command line says nothing.
    fallback : callable
        Gives the ini value of an option, or None.

    Raises
    ------
    UsageError, MissingError
        A value that is not allowed (the message lists what is), a file or folder that does not exist.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        value = given.get(option.key)
        if value is None:
            value = fallback(option)
        if value is None or value == [] or value == "":
            continue
        values[option.key] = _convert(option, value)
    options = Options(**values)
    _check(options)
    return options


def _check(options: Options) -> None:
    """Refuse paths that do not exist and options that do not go together."""
    _check_files(options)
    if options.against and options.picture:
        raise UsageError("--against and --picture are two questions; ask one at a time")
    if options.backend and (options.against or options.picture):
        between = "against" if options.against else "picture"
        raise UsageError(f"--backend: --{between} compares what PyTorch computes; --device says where")
    if options.resume and options.run_dir is None:
        raise UsageError("--resume needs --run-dir DIR, the folder of the run to go on with")
    if options.traces and options.run_dir is None:
        raise UsageError("--traces needs --run-dir DIR, where they are kept")
    for key in ("cell_timeout", "cells_per_process"):
        number = getattr(options, key)
        if number is not None and number < 1:
            raise UsageError(f"--{key.replace('_', '-')} {number}: at least 1 is needed")
    if options.update_golden and options.goldens is None:
        raise UsageError("--update-golden needs --golden-dir DIR for your own model or cases")
    if options.golden_candidates and options.golden_dir is None:
        raise UsageError("--golden-candidates needs --golden-dir DIR; goldens of candidates are not shipped")


def _check_files(options: Options) -> None:
    _ = options.ingredients  # reading them refuses what is not there
    if options.models is not None:
        hub.local(options.models)
    for key in ("cases", "tolerances", "picture", "earlier", "expected", "swift_package"):
        path = getattr(options, key)
        if path is not None and not path.exists():
            raise MissingError(f"--{key.replace('_', '-')} {path}: no such file or folder")


def _convert(option: Option, value: Any) -> Any:
    entries = value if isinstance(value, list | tuple) else [value]
    for entry in entries:
        if option.choices and entry not in option.choices:
            raise UsageError(f"--{option.name} {entry}: not known; there are {', '.join(option.choices)}")
    if option.kind == "integer":
        try:
            return int(value)
        except (TypeError, ValueError):
            raise UsageError(f"--{option.name} {value}: a whole number is needed") from None
    if option.kind == "path":
        return Path(value).expanduser()
    if option.kind == "several":
        return tuple(dict.fromkeys(entries))
    return bool(value) if option.kind == "switch" else str(value)
