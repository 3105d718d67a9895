"""What must a reader know about a case even when it passes?

A picture that was stretched and words that were cut do not make two runs differ, since both sides do the same. They
make the picture another one than was asked for, and apps treat them in other ways; so no cell passes without saying it.
"""

from __future__ import annotations

from collections.abc import Iterable

from parity.models.model import Model
from parity.pipelines.request import open_picture
from parity.suite.case import Case


def remarks(case: Case, model: Model, others: Iterable[Case]) -> tuple[str, ...]:
    """Return the remarks on one case, a sentence each.

    Parameters
    ----------
    case : Case
        The question.
    model : Model
        At the size at which it draws.
    others : iterable of Case
        All cases of the run: two prompts that differ only in what is cut are pointed out.
    """
    cut = () if case.request.task == "unconditional" else _cut(case, model, others)
    return (*cut, *_picture(case, model))


def _cut(case: Case, model: Model, others: Iterable[Case]) -> list[str]:
    found = []
    limit = model.tokenizer.model_max_length
    for what in ("prompt", "negative_prompt"):
        text = getattr(case.request, what) or ""
        if not (words := model.cut(text)):
            continue
        found.append(f'{what.replace("_", " ")}: more than {limit} tokens, cut before "{words}"')
        kept = model.tokens(text)
        for other in others:
            compared = getattr(other.request, what) or ""
            if other.name != case.name and compared != text and (model.tokens(compared) == kept).all():
                found.append(
                    f"{what.replace('_', ' ')}: it differs from that of case {other.name} only in what is cut, so both "
                    "ask for the same"
                )
    return found


def _picture(case: Case, model: Model) -> list[str]:
    if case.request.image is None or case.request.task not in ("img2img", "inpaint"):
        return []
    width, height = open_picture(case.request.image).size
    wanted_height, wanted_width = model.image_size
    if (width, height) == (wanted_width, wanted_height):
        return []
    stretched = width * wanted_height != height * wanted_width
    how = "stretched (its proportions change)" if stretched else "resized"
    text = (
        f"start picture {case.request.image.name}: {width}x{height}, the models take {wanted_width}x{wanted_height}: "
        f"{how} for both sides, as diffusers does when it is given that size (Lanczos). Swift apps refuse it "
        "(sampleInputShapeNotCorrect); diffusers left to itself would draw at the picture's own size"
    )
    return [text]
