"""Is a file of weights a pickle, and what turns it into one that can be read safely?

Reading a pickle can run code, so this project reads none: ``.ckpt``, ``.bin``, ``.pt`` and ``.pth`` are refused with
the command that writes the same tensors as safetensors. The command reads with ``weights_only=True``, which runs none
of the file's code either, and refuses what is more than tensors.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from parity.errors import UnsupportedError

SUFFIXES: Final = (".ckpt", ".bin", ".pt", ".pth", ".pkl")

_PROGRAM: Final = (
    "import sys, torch; from safetensors.torch import save_file; "
    "d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); d = d.get('state_dict', d); "
    "save_file({k: v.clone().contiguous() for k, v in d.items() if torch.is_tensor(v)}, sys.argv[2], "
    "metadata={'format': 'pt'})"
)


def command(path: Path) -> str:
    """Return the command that writes a pickled file's tensors beside it as safetensors."""
    target = path.with_name({"pytorch_model.bin": "model.safetensors"}.get(path.name, f"{path.stem}.safetensors"))
    return shlex.join(["python", "-c", _PROGRAM, str(path), str(target)])


def refuse(path: Path) -> None:
    """Refuse a file whose name is that of a pickle.

    Raises
    ------
    UnsupportedError
        With the command that converts it.
    """
    if path.suffix.lower() in SUFFIXES:
        raise UnsupportedError(
            f"{path}: {path.suffix} files are pickles, which can run code when they are read; none is read here. "
            f"Write it as safetensors first:\n  {command(path)}"
        )
