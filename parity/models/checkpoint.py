"""Did every weight of a PyTorch network come from its file?

diffusers and transformers load a checkpoint that lacks a tensor with a warning at most, and leave that tensor as memory
or a random generator left it. A reference must never be random, so every network of this project is loaded here:
missing tensors, tensors that the network does not have, and values that are no numbers are refused by name. Weights are
read from safetensors files alone (a pickle can run code).

Tolerated are :data:`TOLERATED`: buffers that old releases stored and that every release computes anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from packaging.version import Version

from parity import quiet
from parity.errors import FormatError, MissingError, ParityError
from parity.files import refuse_pointer

TOLERATED: Final[Mapping[str, str]] = {
    r"(.*\.)?position_ids": "0, 1, 2, … of CLIP's embeddings: stored by transformers before 4.31, a constant since",
}
"""Names (regular expressions) of tensors that a checkpoint may have although the network does not, and why."""

_SHOWN: Final = 3


def load(kind: Any, source: str | Path, *, part: str = "", **keywords: Any) -> Any:
    """Load a network, in evaluation mode and with the stored precision, and refuse it unless all weights are there.

    Parameters
    ----------
    kind : class
        A model class of diffusers or transformers.
    source : path or str
        Folder of a checkpoint, or hub id.
    part : str
        Folder of the network in it, e.g. ``unet``; empty where ``source`` is the network's own.
    **keywords
        Further arguments of ``kind.from_pretrained``.

    Returns
    -------
    torch.nn.Module
        Without gradients of its own making: as ``from_pretrained`` gives it.

    Raises
    ------
    MissingError
        No such folder, or no safetensors weights in it.
    FormatError
        The weights are damaged, or those of another network: tensors are missing, unexpected or of other shapes, or
        hold values that are NaN or infinite.
    """
    from safetensors import SafetensorError

    folder = Path(source) / part
    local = Path(source).exists()
    if local:
        keywords = {"local_files_only": True, **_variant(folder), **keywords}
    if part and "subfolder" not in keywords:
        keywords["subfolder"] = part
    if _counts_only_without_accelerate(kind) and not (local and _all_there(kind, folder)):
        keywords["low_cpu_mem_usage"] = False
    try:
        with quiet.loading():
            module, report = kind.from_pretrained(source, use_safetensors=True, output_loading_info=True, **keywords)
    except ParityError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        wrong = FormatError if local else MissingError
        raise wrong(f"{folder}: cannot be loaded as {kind.__name__}: {reason(error)}") from error
    complete(folder, kind.__name__, missing=report["missing_keys"], unexpected=report["unexpected_keys"])
    finite(folder, module.state_dict())
    return module.eval()


def _counts_only_without_accelerate(kind: Any) -> bool:
    """Tell whether diffusers reports no missing or unexpected tensor of what accelerate loads, as up to 0.32."""
    own = str(kind.__module__).startswith("diffusers.models.")
    return own and Version(version("diffusers")) < Version("0.33.dev0")


def _all_there(kind: Any, folder: Path) -> bool:
    """Tell whether a folder's tensors are exactly the network's, by names and shapes; False where that is not known.

    Then accelerate may load them, as a pipeline does: weights that lie otherwise in memory can change last bits.
    """
    import torch

    from parity.models import weights

    try:
        with torch.device("meta"):
            module = kind.from_config(kind.load_config(folder, local_files_only=True))
        stored = weights.shapes(folder)
    except (ParityError, OSError, ValueError, TypeError, RuntimeError):
        return False  # said by what loads them
    return stored == {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def complete(folder: Path, network: str, *, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Refuse a checkpoint whose tensors are not exactly those of its network.

    Parameters
    ----------
    folder : pathlib.Path
        Where its weights lie.
    network : str
        Name of the network's class.
    missing, unexpected : collection of str
        Tensors of the network that no file holds; tensors of the files that the network does not have.

    Raises
    ------
    FormatError
        With the number of such tensors and the first names.
    """
    unknown = [name for name in unexpected if not any(re.fullmatch(pattern, name) for pattern in TOLERATED)]
    found = [
        f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {what} ({_some(names)})"
        for names, what in ((missing, "missing"), (unknown, "not part of the network"))
        if names
    ]
    if found:
        raise FormatError(
            f"{folder}: not the weights of this {network}: {' and '.join(found)}. What is missing would be random, so "
            "nothing is compared with it; fetch the checkpoint again, or save it again with save_pretrained"
        )


def finite(where: Path | str, tensors: Mapping[str, Any]) -> None:
    """Refuse weights that are NaN or infinite: nothing that a network draws with them could be compared.

    Parameters
    ----------
    where : path or str
        What the message names.
    tensors : mapping of str to torch.Tensor
        Of a network; integers are left alone.

    Raises
    ------
    FormatError
        With the number of such tensors and the first names.
    """
    import torch

    wrong = [name for name, one in tensors.items() if one.is_floating_point() and not torch.isfinite(one).all()]
    if wrong:
        count = f"{len(wrong)} {'tensor holds' if len(wrong) == 1 else 'tensors hold'}"
        raise FormatError(
            f"{where}: {count} values that are NaN or infinite ({_some(wrong)}), so nothing can be drawn with it; "
            "fetch the checkpoint again, or save it again in float32"
        )


def index(source: str | Path) -> dict[str, Any]:
    """Return ``model_index.json`` of a checkpoint: the pipeline's class, and library and class of each part.

    Raises
    ------
    MissingError, FormatError
        There is none, or it is no JSON object.
    """
    path = Path(source) / "model_index.json"
    try:
        if Path(source).exists():
            found = json.loads(path.read_text(encoding="utf-8"))
        else:
            from diffusers import DiffusionPipeline

            with quiet.loading():
                found = DiffusionPipeline.load_config(str(source))
    except FileNotFoundError:
        raise MissingError(f"{path} is missing: a diffusers folder has one (pipeline.save_pretrained)") from None
    except OSError as error:
        raise MissingError(f"model {source}: no model_index.json can be read: {reason(error)}") from None
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path}: a JSON object is needed, not {type(found).__name__}")
    return found


def _variant(folder: Path) -> dict[str, str]:
    """Name the half-precision variant where a folder has no other weights; refuse files that are not there yet."""
    from parity.models import weights

    files = weights.files(folder)
    for path in files:
        refuse_pointer(path)
    return {"variant": "fp16"} if all(weights.is_half(path) for path in files) else {}


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:_SHOWN]
    return ", ".join([*shown, "…"] if len(names) > _SHOWN else shown)


def reason(error: Exception) -> str:
    """Return the first line of a library's message; for tensors of other shapes the lines that name them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    sizes = [line for line in lines if "size mismatch" in line]
    return "; ".join(sizes[:_SHOWN]) or (lines[0] if lines else type(error).__name__)
