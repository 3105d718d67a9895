"""How good is a picture? A score is a number, higher is better, for a picture and its prompt.

* ``shapes``: how much of the prompt the pixels show, for the shipped models' coloured shapes;
* a picture metric whose value of equal pictures is finite (``ssimulacra2``, ``image_ssim``): how near the picture is to
  what the original draws in float32. That is sameness, not quality: a picture as good, and another one, scores low;
* ``module:function`` of the user's, or the name of an entry point in ``parity.scores``: any
  ``function(picture, prompt) -> float`` with the picture as uint8 (height, width, 3), e.g. a CLIP score.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import numpy as np

from parity import assets
from parity.errors import MissingError, ParityError, UsageError
from parity.metrics import METRICS, measure
from parity.tables import nearest

GROUP: Final = "parity.scores"
SHAPES: Final = "shapes"
_MOST: Final = 512  # prompts of the shipped models; each takes the making of some hundred scenes

Alone = Callable[[np.ndarray, str], float]
"""``score(picture, prompt)``."""


@dataclass(frozen=True)
class Score:
    """A way to score pictures.

    Attributes
    ----------
    name : str
        As the user named it.
    function : callable
        ``function(picture, prompt, original)``; the last is the original's picture in float32.
    compares : bool
        Whether the original's picture is looked at.
    best : float
        What the original's own picture scores, where it is compared with itself; NaN otherwise.
    """

    name: str
    function: Callable[[np.ndarray, str, np.ndarray], float]
    compares: bool = False
    best: float = math.nan

    def __call__(self, picture: np.ndarray, prompt: str, original: np.ndarray) -> float:
        """Score a picture.

        Parameters
        ----------
        picture, original : numpy.ndarray
            uint8 (height, width, 3).
        prompt : str
            The text.

        Raises
        ------
        ParityError
            The function raises, or gives no finite number; the message names score and prompt.
        """
        try:
            value = float(self.function(picture, prompt, original))
        except ParityError:
            raise
        except Exception as error:  # whatever a stranger's function raises
            raise ParityError(
                f"score {self.name}: stopped at prompt {prompt!r:.80} by {type(error).__name__}: {error}"
            ) from error
        if not math.isfinite(value):
            raise ParityError(f"score {self.name}: gives {value} for prompt {prompt!r:.80}; a finite number is needed")
        return value


def find(name: str) -> Score:
    """Return a score by name.

    Raises
    ------
    UsageError
        No such score (the nearest is suggested), or a metric whose value of equal pictures is no finite best.
    MissingError
        A module or a library is not here.
    """
    if name == SHAPES:
        return _alone(name, _shapes())
    if name in METRICS:
        return _metric(name)
    if ":" in name:
        return _alone(name, _named(name))
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name in offered:
        return _alone(name, _callable(name, _loaded(name, offered[name].load)))
    known = [SHAPES, *_usable(), *offered]
    hint = nearest(name, known)
    raise UsageError(f"--score {name}: not known{hint}; there are {', '.join(known)}, and module:function of your own")


def _alone(name: str, function: Alone) -> Score:
    return Score(name, lambda picture, prompt, original: function(picture, prompt))


def _usable() -> list[str]:
    return [m.name for m in METRICS.values() if m.images and m.higher_is_better and math.isfinite(m.most)]


def _metric(name: str) -> Score:
    if name not in _usable():
        raise UsageError(f"--score {name}: a picture metric with a finite best value is needed: {', '.join(_usable())}")
    METRICS[name].prepare()
    return Score(name, lambda picture, prompt, original: measure(name, original, picture), True, METRICS[name].most)


def _named(name: str) -> Alone:
    """Import the user's function; modules beside the current folder are found, as by ``python -m``."""
    module, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found: Any = _loaded(name, lambda: importlib.import_module(module))
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"--score {name}: {module} has no {attribute!r}")
        found = getattr(found, part)
    return _callable(name, found)


def _loaded(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # whatever a stranger's module raises while it is imported
        raise MissingError(f"--score {name}: cannot be imported: {type(error).__name__}: {error}") from error


def _callable(name: str, found: Any) -> Alone:
    if not callable(found):
        raise UsageError(f"--score {name}: a function of picture and prompt is needed, not {found!r:.60}")
    return found


def _shapes() -> Alone:
    """Return the shipped models' classifier, from the folder of the shipped models' sources."""
    graded = _source("graded")

    def score(picture: np.ndarray, prompt: str) -> float:
        wanted = next((known for count in (64, _MOST) if prompt in (known := _samples(count))), {})
        if prompt not in wanted:
            raise UsageError(
                f"--score {SHAPES}: it knows what its own prompts ask for, and {prompt!r:.60} is none of them"
            )
        return float(graded.grade(picture, wanted[prompt]))

    return score


def shapes_prompts(count: int) -> list[str]:
    """Return prompts of the shipped models that they were not trained on, each once."""
    if count > _MOST:
        raise UsageError(f"--pictures {count}: the shipped models have {_MOST} prompts; give yours with --prompts")
    return list(_samples(64 if count <= 64 else _MOST))[:count]


@lru_cache(maxsize=2)
def _samples(count: int) -> dict[str, Any]:
    """Return the first held-out samples by their captions."""
    return {sample.caption: sample for sample in _source("caption").prompts(count)}


def _source(name: str) -> Any:
    folder = str(assets.fixtures().parent)  # the checkout, or the data inside an installed package
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"fixtures.shapes.{name}")
