"""What does a checkpoint's configuration say, and is it what such a file says?

A configuration comes from whoever made the checkpoint. The fields that this project reads are checked when the file is
read, so that a slip is told by file and field and not by a traceback hours later; fields that nobody reads are not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from parity.errors import FormatError, MissingError
from parity.files import refuse_pointer

_LARGEST: Final = 1 << 24  # of any size in a configuration; no dimension of a network is near it
_SIZES: Final = frozenset(
    {
        "addition_time_embed_dim",
        "hidden_size",
        "in_channels",
        "latent_channels",
        "max_position_embeddings",
        "num_concepts",
        "out_channels",
        "projection_class_embeddings_input_dim",
        "projection_dim",
    }
)
_SIZE_LISTS: Final = frozenset({"block_out_channels", "cross_attention_dim", "layers_per_block", "sample_size"})
_TEXTS: Final = frozenset({"_class_name", "_name_or_path", "addition_embed_type"})


class Config(dict[str, Any]):
    """A configuration that knows its file: asking for a field that is not there is an error of the file.

    Parameters
    ----------
    path : pathlib.Path
        The file, for messages.
    values : dict
        Its content.

    Raises
    ------
    FormatError
        A field that this project reads has a value of another type, or no network has such a size.
    """

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.path = path
        for name, value in values.items():
            if problem := _problem(name, value):
                raise FormatError(f"{path}: field '{name}' must be {problem}, not {value!r:.60}")

    def __getitem__(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise FormatError(f"{self.path}: field '{name}' is missing")
        return value


def read(path: Path, why: str) -> Config:
    """Read a ``config.json``, ``model_index.json`` or ``scheduler_config.json``.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    why : str
        Who needs it, for the message where it is missing.

    Raises
    ------
    MissingError
        No such file.
    FormatError
        Not a JSON object, or a field is not what it must be.
    """
    refuse_pointer(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"{path} is missing: {why}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise FormatError(f"{path}: a JSON object is needed, not {type(values).__name__}")
    return Config(path, values)


def _problem(name: str, value: Any) -> str:
    """Say what a field must be, if it is not; null stands for a default everywhere."""
    if value is None:
        return ""
    if name in _TEXTS and not isinstance(value, str):
        return "a text"
    if name == "scaling_factor" and not (isinstance(value, int | float) and 0 < value < _LARGEST):
        return "a positive number"
    if name in _SIZES and not _size(value):
        return f"a whole number from 1 to {_LARGEST}"
    if name in _SIZE_LISTS:
        if isinstance(value, list):
            exact = name != "sample_size" or len(value) == 2
            return "" if value and exact and all(map(_size, value)) else "a whole number, or a list of them"
        return "" if _size(value) else "a whole number, or a list of them"
    return ""


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST
