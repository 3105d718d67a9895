"""How does a text become token ids, for any of a model's tokenizers?

Read from the checkpoint's folder or the hub, CLIP's and T5's alike; padded and cut as diffusers' pipelines do it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from parity.errors import MissingError


@lru_cache(maxsize=16)
def tokenizer(location: str, part: str) -> Any:
    """Return a tokenizer of a checkpoint.

    Parameters
    ----------
    location : str
        Folder of the checkpoint, or hub id.
    part : str
        ``tokenizer``, ``tokenizer_2`` or ``tokenizer_3`` (T5's).

    Raises
    ------
    MissingError
        The model has none that can be read.
    """
    import transformers

    kind: Any = transformers.T5TokenizerFast if part == "tokenizer_3" else transformers.CLIPTokenizer
    try:
        return kind.from_pretrained(location, subfolder=part)
    except (OSError, ValueError, TypeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MissingError(f"model {location}: {part}/ is missing or unreadable: {line}") from None


def ids(location: str, part: str, text: str, *, length: int | None = None) -> np.ndarray:
    """Return the padded token ids of one text, int64 (1, length); longer texts are cut.

    Parameters
    ----------
    location, part : str
        As in :func:`tokenizer`.
    text : str
        The prompt.
    length : int, optional
        Number of tokens; the tokenizer's own by default.
    """
    reader = tokenizer(location, part)
    encoded = reader(
        text, padding="max_length", max_length=length or reader.model_max_length, truncation=True, return_tensors="np"
    )
    return np.asarray(encoded["input_ids"], dtype=np.int64)
