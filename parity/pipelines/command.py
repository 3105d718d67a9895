"""How is the Swift package's command line asked to draw, and what does it answer?

``StableDiffusionSample`` gives pictures alone: no latents, no networks' outputs. So it is compared as a picture with
the release that it is built from, played over PyTorch's networks. Its contract, option by option and tag by tag, was
read from the package's sources; a stand-in that checks arguments is what the tests run. *Not verified on hardware.*
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from parity.errors import MissingError, UnsupportedError, UsageError
from parity.models.model import Model
from parity.pipelines.release import Release
from parity.pipelines.request import Request, open_picture, read_picture
from parity.pipelines.settings import ConsumerFailureError

NAME: Final = "swift-command"
PRODUCT: Final = "StableDiffusionSample"
_UNITS: Final = {
    "CPU_ONLY": "cpuOnly",
    "CPU_AND_GPU": "cpuAndGPU",
    "CPU_AND_NE": "cpuAndNeuralEngine",
    "ALL": "all",
}
_SCHEDULERS: Final = {"pndm": "pndm", "dpm++": "dpmpp"}
# Options that not every release has, by the first that does; 1.0.0.1 is main of 2023-07-27
_SINCE: Final = {
    "negative-prompt": (0, 2),
    "guidance-scale": (0, 2),
    "scheduler": (0, 2),
    "image": (0, 3),
    "strength": (0, 3),
    "rng": (0, 3),
    "xl": (1, 0, 0, 1),
}
_FIXED: Final = {"guidance-scale": 7.5, "negative-prompt": "", "scheduler": "pndm", "rng": "numpy"}
"""What a release without the option does."""
_NAMED: Final = 75  # characters of the prompt in a file's name, from 0.2.0 on


@dataclass(frozen=True)
class Call:
    """One call of the command line.

    Attributes
    ----------
    request : Request
    first : tuple of int
        Version of the release: the first that its row of the tables covers.
    seed : int
        0 to 2**32 - 1.
    source : str
        ``numpy``, ``torch`` or ``nvidia``.
    unit : str
        Core ML's name of the compute units, e.g. ``CPU_AND_NE``.
    resources, output : pathlib.Path
        Folder of compiled models with ``vocab.json`` and ``merges.txt``; folder for pictures.
    image : pathlib.Path or None
        Starting image, of the models' size.
    xl : bool
        Whether the models are SDXL's.
    """

    request: Request
    first: tuple[int, ...]
    seed: int
    source: str
    unit: str
    resources: Path
    output: Path
    image: Path | None = None
    xl: bool = False

    def has(self, option: str) -> bool:
        """Tell whether the release has an option."""
        return self.first >= _SINCE.get(option, ())

    def arguments(self) -> list[str]:
        """Return the words behind the program's name; values stand with their option, so they may begin with a dash."""
        request = self.request
        given = {
            "resource-path": self.resources,
            "output-path": self.output,
            "image-count": request.images,
            "step-count": request.steps,
            "seed": self.seed,
            "compute-units": _UNITS[self.unit],
            "negative-prompt": request.negative,
            "guidance-scale": request.guidance_scale,
            "scheduler": _SCHEDULERS[request.scheduler],
            "rng": self.source,
        }
        if self.image is not None:
            given |= {"image": self.image, "strength": request.strength}
        words = [f"--{name}={value}" for name, value in given.items() if self.has(name)]
        words += ["--xl"] if self.xl else []
        prompt = ["--", request.prompt] if request.prompt.startswith("-") else [request.prompt]
        return [*words, "--disable-safety", *prompt]

    def names(self) -> list[str]:
        """Return the names of the pictures that the command writes, in order."""
        prompt = self.request.prompt if self.first < (0, 2) else self.request.prompt[:_NAMED]
        start = prompt.replace(" ", "_")
        percent = int(np.float32(self.request.strength) * np.float32(100))
        strength = "" if self.image is None else f".str{percent}"
        count = self.request.images
        numbers = [""] if count == 1 else [f".{index}" for index in range(count)]
        return [f"{start}{number}{strength}.{self.seed}.final.png" for number in numbers]


@dataclass(frozen=True)
class Setting:
    """Where the command runs.

    Attributes
    ----------
    program : tuple of str
        See :func:`program`.
    unit : str
        Core ML's name of the compute units.
    resources, scratch : pathlib.Path
        Compiled models with their tokenizer's files; an empty folder for what the command writes.
    """

    program: tuple[str, ...]
    unit: str
    resources: Path
    scratch: Path


class SwiftCommand(Release):
    """The command line as a producer: drawn over PyTorch it is the release; by itself it gives pictures alone.

    Parameters
    ----------
    name : str
        As the user named it, e.g. ``swift-command==1.1.0``.
    consumer : Consumer
        The row of the tables that covers the release.
    """

    def refusal(self, request: Request) -> str:
        """Return why the command has no such request; empty if it has."""
        if found := super().refusal(request):
            return found
        if request.control:
            return f"{self.name} is not asked with ControlNets here; {self.name.replace('-command', '')} plays them"
        asked = {"guidance-scale": request.guidance_scale, "negative-prompt": request.negative}
        for option, value in asked.items():
            if self.consumer.first < _SINCE[option] and value != _FIXED[option]:
                return f"{self.name} has no --{option}; it always takes {_FIXED[option]!r}"
        if "/" in request.prompt or "\0" in request.prompt:
            return f"{self.name} names its pictures after the prompt, where '/' makes a folder; it is not asked"
        return ""

    def pictures(self, request: Request, model: Model, *, seed: int, rng: str, setting: Setting) -> np.ndarray:
        """Let the command draw.

        Parameters
        ----------
        request : Request
            What to draw.
        model : Model
            At the size of the converted models, for the starting image.
        seed : int
            0 to 2**32 - 1.
        rng : str
            A stream of Swift's, e.g. ``swift-numpy``.
        setting : Setting
            Where it runs.

        Returns
        -------
        numpy.ndarray
            uint8 (images, height, width, 3), RGB.

        Raises
        ------
        ConsumerFailureError
            It fails, crashes, or writes other files than its contract says; with what it printed.
        UnsupportedError, UsageError
            This system is too old for it; it does not take the arguments of this release.
        """
        image = None if request.image is None else _starting_image(request.image, model, setting.scratch)
        call = Call(
            request,
            self.consumer.first,
            seed,
            self._source(rng),
            setting.unit,
            setting.resources,
            setting.scratch,
            image,
            model.xl,
        )
        said = _run([*setting.program, *call.arguments()], self.name)
        return _read(call, said, self.name)


def program(package: Path) -> list[str]:
    """Return the words that start the command.

    Parameters
    ----------
    package : pathlib.Path
        Checkout of ml-stable-diffusion, whose product is built when it is first run, or the built executable.

    Raises
    ------
    MissingError, UsageError
        Nothing of the kind; there is no Swift to build it.
    """
    if package.is_file():
        if not os.access(package, os.X_OK):
            raise UsageError(f"--swift-package {package}: this file cannot be executed")
        return [str(package.resolve())]
    if not (package / "Package.swift").is_file():
        raise MissingError(f"--swift-package {package}: no Package.swift; a checkout of ml-stable-diffusion is needed")
    built = package / ".build" / "release" / PRODUCT
    if built.is_file():
        return [str(built.resolve())]
    if shutil.which("swift") is None:
        raise MissingError(f"--swift-package {package}: it is not built, and there is no swift on this machine's PATH")
    return ["swift", "run", "-c", "release", "--package-path", str(package), PRODUCT]


def resources(models: Path | None) -> Path:
    """Return the folder that the command takes as ``--resource-path``: the one named, or its ``Resources``.

    Raises
    ------
    MissingError
        There are no compiled models with a tokenizer's files; the message says what writes them.
    """
    for folder in () if models is None else (models, models / "Resources"):
        if (folder / "merges.txt").is_file() and any(folder.glob("*.mlmodelc")):
            return folder
    raise MissingError(
        f"--models {models}: the Swift command line needs compiled models (.mlmodelc) beside vocab.json and "
        "merges.txt; on a Mac, parity convert MODEL -o DIR --resources DIR/Resources writes them"
    )


def _starting_image(path: Path, model: Model, folder: Path) -> Path:
    """Write the starting image at the models' size: the package does not resize."""
    from PIL import Image

    pixels = read_picture(path, model)[0].transpose(1, 2, 0)
    target = folder / "starting-image.png"
    Image.fromarray(((pixels / 2 + 0.5) * 255).round().astype(np.uint8)).save(target)
    return target


def _run(words: Sequence[str], name: str) -> str:
    """Run the command and return what it printed.

    Raises
    ------
    ConsumerFailureError, UnsupportedError, UsageError
        See :meth:`SwiftCommand.pictures`.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise UsageError(f"--swift-package: {words[0]} cannot be run: {error}") from None
    last = next((line.strip() for line in done.stderr.splitlines() if line.startswith("Error: ")), "")
    if done.returncode == 64:  # EX_USAGE, by its argument parser
        raise UsageError(f"{name}: the command does not take the arguments of that release ({last or 'no message'})")
    if done.returncode < 0:
        raise ConsumerFailureError(f"the process crashes ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        text = last or next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
        raise ConsumerFailureError(text)
    if done.stdout.strip() == "Unsupported OS":
        raise UnsupportedError(f"{name}: this system is too old for it ('Unsupported OS')")
    return done.stdout


def _read(call: Call, said: str, name: str) -> np.ndarray:
    there = sorted(path.name for path in call.output.iterdir() if path.suffix == ".png" and path != call.image)
    wanted = call.names()
    cut = len(call.request.prompt) > _NAMED and not call.request.prompt.isascii()
    if cut and len(there) == len(wanted):  # Swift counts characters otherwise where several code points make one
        wanted = there
    if missing := [file for file in wanted if file not in there]:
        unsaved = next((line.strip() for line in said.splitlines() if "was not saved" in line), "")
        found = unsaved or f"it wrote {', '.join(there) or 'no picture'}"
        raise ConsumerFailureError(f"no {missing[0]}: {found}")
    pictures = [np.asarray(open_picture(call.output / file)) for file in wanted]
    if len({picture.shape for picture in pictures}) > 1:
        raise ConsumerFailureError(f"{name} wrote pictures of several sizes")
    return np.stack(pictures)
