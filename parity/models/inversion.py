"""How does a textual inversion come into a model's text encoders and tokenizers? By diffusers' own loader.

A file for Stable Diffusion 1 and 2 holds the vectors of one encoder, under the token or as ``emb_params``. One for SDXL
holds two, ``clip_l`` and ``clip_g``, as its trainers write them; the token is then the user's, or the file's
name. SDXL's refiner has the second encoder alone and takes its half.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from parity.errors import ParityError, UnsupportedError, UsageError
from parity.models import checkpoint
from parity.models.weights import header

_HALVES: Final = {"clip_l": ("text_encoder", "tokenizer"), "clip_g": ("text_encoder_2", "tokenizer_2")}


def embed(pipeline: Any, file: Path, token: str) -> dict[str, Any]:
    """Add a textual inversion to a pipeline.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        Its text encoders and tokenizers are changed.
    file : pathlib.Path
        A ``.safetensors`` file.
    token : str
        What stands for it in a prompt; empty for the file's own, or for its name where it has none.

    Returns
    -------
    dict
        The tokenizers that know the token, by part.

    Raises
    ------
    FormatError
        The file is damaged.
    UnsupportedError
        The model has no encoder for it.
    UsageError
        It was made for another model, or needs a token.
    """
    named = set(header(file))
    two = getattr(pipeline, "text_encoder_2", None) is not None
    if not two:
        if named & set(_HALVES):
            raise UsageError(f"--embedding {file}: it was made for SDXL ({', '.join(sorted(named))})")
        if pipeline.tokenizer is None or pipeline.text_encoder is None:
            raise UnsupportedError(f"--embedding {file}: this model has no text encoder that takes embeddings")
        _load(pipeline, file, str(file), token, {})
        return {"tokenizer": pipeline.tokenizer}
    halves = {half: parts for half, parts in _HALVES.items() if getattr(pipeline, parts[0], None) is not None}
    if missing := set(halves) - named:
        raise UsageError(
            f"--embedding {file}: an embedding of SDXL has {' and '.join(halves)}, one for each text encoder; "
            f"here {' and '.join(sorted(missing))} is missing, so it was made for another model"
        )
    from safetensors.torch import load_file

    vectors, changed = load_file(file), {}
    for half, (encoder, tokenizer) in halves.items():
        own = {"text_encoder": getattr(pipeline, encoder), "tokenizer": getattr(pipeline, tokenizer)}
        _load(pipeline, file, vectors[half], token or file.stem, own)
        changed[tokenizer] = own["tokenizer"]
    return changed


def _load(pipeline: Any, file: Path, what: Any, token: str, own: dict[str, Any]) -> None:
    try:
        pipeline.load_textual_inversion(what, token=token or None, use_safetensors=True, local_files_only=True, **own)
    except ParityError:
        raise
    except (ValueError, KeyError, RuntimeError, OSError, TypeError, AttributeError) as error:
        hint = "; name its token, FILE:TOKEN" if not token else ""
        raise UsageError(f"--embedding {file}: {checkpoint.reason(error)}{hint}") from error
