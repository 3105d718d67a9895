"""Stands in for the Swift package's command line: checks arguments as one of its tags does, and hands out a picture.

Usage: STAND_IN_TAG names the tag, STAND_IN_PICTURE the picture that is written, STAND_IN_FAILS a failure to play. What
each tag has is written here once more, not taken from the project: the table of options in its ``main.swift``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

TAGS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "1.0.0", "1.1.0", "main")
VALUES = {
    **dict.fromkeys(("resource-path", "image-count", "step-count", "save-every", "output-path", "seed"), "0.1.0"),
    "compute-units": "0.1.0",
    **dict.fromkeys(("negative-prompt", "guidance-scale", "scheduler"), "0.2.0"),
    **dict.fromkeys(("image", "strength", "rng"), "0.3.0"),
}
FLAGS = {"disable-safety": "0.1.0", "reduce-memory": "0.2.0", "xl": "1.1.0", "sd3": "main"}
ALLOWED = {
    "compute-units": {"all", "cpuAndGPU", "cpuOnly", "cpuAndNeuralEngine"},
    "scheduler": {"pndm", "dpmpp"},
    "rng": {"numpy", "torch", "nvidia"},
}


def usage(text: str) -> None:
    print(f"Error: {text}\nUsage: stable-diffusion-sample [<options>] <prompt>", file=sys.stderr)
    sys.exit(64)


def parse(words: list[str], tag: str) -> tuple[dict[str, str], str]:
    """Read words as the package's argument parser does."""
    found: dict[str, str] = {}
    prompts: list[str] = []
    has = {name for name, since in {**VALUES, **FLAGS}.items() if TAGS.index(since) <= TAGS.index(tag)}
    rest = iter(words)
    for word in rest:
        if word == "--":
            prompts += list(rest)
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name not in has:
                usage(f"Unknown option '--{name}'")
            if name in FLAGS:
                found[name] = "yes"
                continue
            found[name] = value if equals else next(rest, "")
            if name in ALLOWED and found[name] not in ALLOWED[name]:
                usage(f"The value '{found[name]}' is invalid for '--{name} <{name}>'")
        elif word.startswith("-"):
            usage(f"Unknown option '{word}'")
        else:
            prompts.append(word)
    if len(prompts) != 1:
        usage("Missing expected argument '<prompt>'" if not prompts else f"Unexpected argument '{prompts[1]}'")
    whole_numbers(found)
    return found, prompts[0]


def whole_numbers(found: dict[str, str]) -> None:
    for name in ("seed", "step-count", "image-count"):
        if not found.get(name, "1").isdecimal() or int(found.get(name, "1")) >= 2**32:
            usage(f"The value '{found[name]}' is invalid for '--{name} <{name}>'")


def main() -> None:
    tag, fails = os.environ.get("STAND_IN_TAG", "main"), os.environ.get("STAND_IN_FAILS", "")
    found, prompt = parse(sys.argv[1:], tag)
    if not Path(found["resource-path"]).is_dir():
        print(f'Error: resources("Resource path does not exist {found["resource-path"]}")', file=sys.stderr)
        sys.exit(1)
    if fails == "crash":
        os.kill(os.getpid(), signal.SIGTRAP)
    if fails == "thrown":
        print("Error: startingImageProvidedWithoutEncoder", file=sys.stderr)
        sys.exit(1)
    if fails == "old":
        print("Unsupported OS")
        return
    print("Loading resources and creating pipeline\nSampling ...")
    count = int(found.get("image-count", "1"))
    name = (prompt if tag == "0.1.0" else prompt[:75]).replace(" ", "_")
    strength = f".str{int(float(found['strength']) * 100)}" if "image" in found else ""
    if fails == "unsafe":
        print("Image 0 failed safety check and was not saved", end="")
        return
    for index in range(count):
        number = f".{index}" if count > 1 else ""
        target = Path(found["output-path"], f"{name}{number}{strength}.{found['seed']}.final.png")
        shutil.copy(os.environ["STAND_IN_PICTURE"], target)
        print(f"Saved {target.name}")


if __name__ == "__main__":
    main()
