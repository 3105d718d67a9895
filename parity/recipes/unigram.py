"""A T5 tokenizer (Unigram) that makes each of a few words one piece, written as ``tokenizer.json``.

Characters of printable ASCII are pieces of their own at a lower score, so any English text can be encoded; others are
the unknown token. As in T5, texts end with ``</s>``, are padded with ``<pad>`` and have no token at their start.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
_SPACE: Final = "\u2581"  # stands for a space, as in SentencePiece
_WORD, _CHARACTER = -2.0, -8.0  # log probabilities: a listed word always wins over its characters
LENGTH: Final = 512


def pieces(words: Iterable[str]) -> list[tuple[str, float]]:
    """Return pieces with their scores, in the order of their ids.

    Examples
    --------
    >>> pieces(["red"])[:4]
    [('<pad>', 0.0), ('</s>', 0.0), ('<unk>', 0.0), ('▁red', -2.0)]
    """
    special = [(token, 0.0) for token in (PAD, END, UNKNOWN)]
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    return [
        *special,
        *((f"{_SPACE}{word}", _WORD) for word in dict.fromkeys(words)),
        *((character, _CHARACTER) for character in (_SPACE, *characters)),
    ]


def write(folder: Path, words: Iterable[str]) -> None:
    """Write the tokenizer's files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    marks: dict[str, Any] = {"replacement": _SPACE, "prepend_scheme": "always", "split": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, token in enumerate((PAD, END, UNKNOWN))
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", **marks},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": END, "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
                {"SpecialToken": {"id": END, "type_id": 0}},
            ],
            "special_tokens": {END: {"id": END, "ids": [1], "tokens": [END]}},
        },
        "decoder": {"type": "Metaspace", **marks},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": [list(piece) for piece in pieces(words)]},
    }
    special = {"eos_token": END, "unk_token": UNKNOWN, "pad_token": PAD}
    config = {"tokenizer_class": "T5TokenizerFast", "model_max_length": LENGTH, "extra_ids": 0, **special}
    for name, content in (
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", special),
    ):
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
