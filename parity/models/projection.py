"""How is the adapter behind Apple's language model read: the network that gives its token vectors the UNet's width?

It comes as a TorchScript file (``torch.jit.save``), which is what the released converter takes. Such a file is a
program in torch's own language: it is run, as any network is, so read only files that you trust. A pickled file is
refused.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Final

from parity.errors import FormatError, MissingError

TOKENS, DIMENSION = 256, 512
"""Token vectors that the Swift package makes room for, and the width that its adapter expects."""

_MARK: Final = "constants.pkl"  # in every TorchScript archive beside its code/, in no file of torch.save


def load(path: str | Path) -> Any:
    """Return the adapter, on the CPU and in evaluation mode: (1, 256, 512) float32 to (1, 256, width).

    Raises
    ------
    MissingError
        No such file.
    FormatError
        It is no TorchScript archive, or a damaged one.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise MissingError(f"{path}: no such file; a TorchScript module is needed (torch.jit.save)")
    try:
        with zipfile.ZipFile(file) as archive:
            inner = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise FormatError(f"{path}: no TorchScript module: {error}; save the adapter with torch.jit.save") from None
    if _MARK not in inner or not any(name.startswith("code/") for name in inner):
        raise FormatError(
            f"{path}: no TorchScript module but another archive of torch's; a pickled file is not read. Load the "
            "network where it comes from and save it with torch.jit.script(network).save(FILE)"
        )
    import torch

    try:
        return torch.jit.load(str(file), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"{path}: not a readable TorchScript module: {str(error).strip().splitlines()[0]}") from None


def width(module: Any, name: str) -> int:
    """Return the width of an adapter's output; ``name`` is what a message calls it.

    Raises
    ------
    FormatError
        It does not take (1, 256, 512), or does not give (1, 256, width).
    """
    import torch

    try:
        with torch.no_grad():
            found = tuple(module(torch.zeros(1, TOKENS, DIMENSION)).shape)
    except (RuntimeError, TypeError, AttributeError) as error:
        line = str(error).strip().splitlines()[-1]
        raise FormatError(f"{name}: the adapter does not take token vectors {(1, TOKENS, DIMENSION)}: {line}") from None
    if len(found) != 3 or found[:2] != (1, TOKENS):
        raise FormatError(
            f"{name}: the adapter gives {found} for token vectors {(1, TOKENS, DIMENSION)}; (1, {TOKENS}, width) is "
            "needed"
        )
    return int(found[2])
