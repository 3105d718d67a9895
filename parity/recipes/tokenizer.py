"""A CLIP tokenizer (byte-level BPE) whose merges make each of a few words one token.

Written in CLIP's own file format (``vocab.json``, ``merges.txt``, ``tokenizer_config.json``), so transformers and
the Swift packages read it. Any text can be encoded: words outside the list fall apart into bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77


def _alphabet() -> list[str]:
    """Return the printable stand-ins of the 256 bytes, in the order of GPT-2's and CLIP's byte-level BPE."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = [0x100 + i for i in range(256 - len(printable))]
    return [chr(c) for c in [*printable, *spare]]


def merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return BPE merges, in order of priority, that join each word from left to right.

    Words are taken by length, so the pieces of a short word never break a longer one apart.

    Examples
    --------
    >>> merges(["red"])
    [('r', 'e'), ('re', 'd</w>')]
    """
    found: dict[tuple[str, str], None] = {}
    for word in sorted(set(words), key=lambda word: (len(word), word)):
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        for pair in found:  # what earlier merges already join in this word
            pieces = _join(pieces, pair)
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            found.setdefault(pair)
            pieces = _join(pieces, pair)
    return list(found)


def _join(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def write(folder: Path, words: Iterable[str]) -> dict[str, int]:
    """Write the tokenizer's files into ``folder`` and return its vocabulary (token to id)."""
    pairs = merges(words)
    alphabet = _alphabet()
    tokens = [*alphabet, *(f"{c}</w>" for c in alphabet), *("".join(pair) for pair in pairs), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, **special}
    for name, content in (
        ("vocab.json", json.dumps(vocabulary, ensure_ascii=False)),
        ("merges.txt", "\n".join(["#version: 0.2", *(" ".join(pair) for pair in pairs), ""])),
        ("tokenizer_config.json", json.dumps(config, indent=2)),
        ("special_tokens_map.json", json.dumps(special, indent=2)),
    ):
        (folder / name).write_text(content, encoding="utf-8")
    return vocabulary
