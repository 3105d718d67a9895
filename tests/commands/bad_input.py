"""A catalogue of what users hand over by mistake, and of what nobody should: one folder of each, made anew."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from parity import assets

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1719117\n"


PICKLE = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(127) + b"\nK\x01."


def good_package(folder: Path) -> Path:
    """Return a package that a released converter wrote, a UNet, unpacked into ``folder``."""
    with zipfile.ZipFile(assets.fixtures() / "eras" / "9.0" / "models.zip") as archive:
        archive.extractall(folder)
    return next(path for path in sorted(folder.rglob("*.mlpackage")) if "unet" in path.name)


def catalogue(folder: Path, good: Path) -> dict[str, str]:
    """Write every bad input into ``folder`` and return its path by what it is."""
    return {**_files(folder), **_folders(folder), **_archives(folder), **_packages(folder, good), **_names(folder)}


def _files(folder: Path) -> dict[str, str]:
    noise = bytes(range(256)) * 16
    contents = {
        "an empty file": ("empty", b""),
        "noise": ("noise", noise),
        "noise named .zip": ("noise.zip", noise),
        "noise named .mlmodel": ("noise.mlmodel", noise),
        "a file named .mlpackage": ("noise.mlpackage", noise[:40]),
        "a pointer": ("pointer.mlmodel", POINTER.encode()),
        "a pickled checkpoint": ("model.ckpt", b"\x80\x04K\x01."),
        "safetensors with an absurd header": ("absurd.safetensors", struct.pack("<Q", 1 << 62) + b"{}"),
        "TOML cut off": ("cut.toml", b"a = [1,"),
        "TOML of something else": ("other.toml", b"[server]\nport = 80\n"),
        "JSON cut off": ("cut.json", b"{"),
        "a pickle in .npy": ("pickle.npy", PICKLE),
        "PNG cut off": ("cut.png", b"\x89PNG\r\n\x1a\n1234"),
    }
    for name, content in contents.values():
        (folder / name).write_bytes(content)
    return {what: str(folder / name) for what, (name, _) in contents.items()}


def _folders(folder: Path) -> dict[str, str]:
    for name, files in {
        "nothing in it": {},
        "foreign": {"notes.txt": "hello"},
        "compiled.mlmodelc": {},
        "index cut": {"model_index.json": "{"},
        "index of modules": {"model_index.json": '{"_class_name": "StableDiffusionPipeline", "unet": ["os", "abort"]}'},
        "index a list": {"model_index.json": "[]"},
    }.items():
        (folder / name).mkdir()
        for file, text in files.items():
            (folder / name / file).write_text(text, encoding="utf-8")
    return {
        "an empty folder": str(folder / "nothing in it"),
        "a foreign folder": str(folder / "foreign"),
        "an empty compiled model": str(folder / "compiled.mlmodelc"),
        "a checkpoint whose index is cut off": str(folder / "index cut"),
        "a checkpoint that names a module to import": str(folder / "index of modules"),
        "a checkpoint whose index is a list": str(folder / "index a list"),
    }


def _archives(folder: Path) -> dict[str, str]:
    real = (assets.fixtures() / "eras" / "9.0" / "models.zip").read_bytes()
    (folder / "cut.zip").write_bytes(real[: len(real) // 2])
    with zipfile.ZipFile(folder / "slip.zip", "w") as archive:
        archive.writestr("../../evil.mlmodelc/model.mil", "program")
    with zipfile.ZipFile(folder / "foreign.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    return {
        "an archive cut off": str(folder / "cut.zip"),
        "an archive that leaves its folder": str(folder / "slip.zip"),
        "a foreign archive": str(folder / "foreign.zip"),
    }


def _packages(folder: Path, good: Path) -> dict[str, str]:
    def halve(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def circle(path: Path) -> None:
        path.unlink()
        path.symlink_to(path.name)

    def escape(path: Path) -> None:
        path.write_text(
            path.read_text(encoding="utf-8").replace("com.apple.CoreML/model.mlmodel", "../../../etc/passwd")
        )

    damages: dict[str, tuple[str, Callable[[Path], object]]] = {
        "manifest cut off": ("Manifest.json", halve),
        "no manifest": ("Manifest.json", os.unlink),
        "a manifest that is a list": ("Manifest.json", lambda path: path.write_text("[]")),
        "a manifest that leaves the package": ("Manifest.json", escape),
        "a pointer as manifest": ("Manifest.json", lambda path: path.write_text(POINTER)),
        "program cut off": ("model.mlmodel", halve),
        "no program": ("model.mlmodel", os.unlink),
        "an empty program": ("model.mlmodel", lambda path: path.write_bytes(b"")),
        "a pointer as program": ("model.mlmodel", lambda path: path.write_text(POINTER)),
        "a program that links to itself": ("model.mlmodel", circle),
        "weights cut off": ("weight.bin", halve),
        "no weights": ("weight.bin", os.unlink),
        "empty weights": ("weight.bin", lambda path: path.write_bytes(b"")),
        "a pointer as weights": ("weight.bin", lambda path: path.write_text(POINTER)),
    }
    made = {}
    for what, (name, damage) in damages.items():
        package = folder / what / good.name
        shutil.copytree(good, package)
        damage(next(package.rglob(name)))
        made[f"package: {what}"] = str(package)
    return made


def _names(folder: Path) -> dict[str, str]:
    return {
        "nothing there": str(folder / "nothing"),
        "a device": "/dev/null",
        "a name too long": str(folder / ("x" * 300)),
        "NUL in the name": "a\0b",
        "an empty name": "",
    }
