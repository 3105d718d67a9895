"""What is one question of the suite: which request, from which seed of which stream?

Cases are data: ``cases.toml`` beside this module holds the default ones, ``--cases FILE`` names the user's.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity import assets, streams, tables
from parity.errors import FormatError, ParityError, UsageError
from parity.pipelines.tasks import Request

DEFAULT = Path(__file__).with_name("cases.toml")
_REQUEST_FIELDS = {field.name for field in dataclasses.fields(Request)}


@dataclass(frozen=True)
class Case:
    """A named request with its seed and random stream.

    Attributes
    ----------
    name : str
        Short name, unique among the cases of a run, usable as a file name.
    request : Request
        What is drawn.
    seed : int
        Seed of the stream.
    rng : str
        Name of the stream, see :func:`parity.streams.names`.
    """

    name: str
    request: Request
    seed: int
    rng: str

    @property
    def sentence(self) -> str:
        """What the case does, as read in test ids: ``txt2img with pndm, seed 93 of torch-cpu``."""
        return f"{self.request.task} with {self.request.scheduler}, seed {self.seed} of {self.rng}"

    @property
    def slug(self) -> str:
        """File name of the case's golden."""
        return f"{self.name}-{self.rng}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the picture, for provenance; a picture's folder does not."""
        settings = {**dataclasses.asdict(self.request), "seed": self.seed, "rng": self.rng}
        settings["image"] = self.request.image.name if self.request.image else ""
        return settings


def load(path: Path | None = None, *, seed: int | None = None, rng: str | None = None) -> list[Case]:
    """Read cases.

    Parameters
    ----------
    path : path, optional
        TOML file with ``[[case]]`` tables and an optional ``[defaults]``; the shipped cases by default. A picture's
        path is relative to the file.
    seed, rng : optional
        Replace every case's own.

    Raises
    ------
    FormatError, UsageError
        Unknown keys, missing names, two cases of one name, values that no request can have; the message names the case.
    """
    file = path or DEFAULT
    document = tables.read(file)
    defaults = document.get("defaults", {})
    cases = [_case(file, {**defaults, **entry}, seed=seed, rng=rng) for entry in document.get("case", [])]
    if not cases:
        raise FormatError(f"{file}: no [[case]] in it")
    names = [case.name for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise FormatError(f"{file}: two cases are named {', '.join(sorted(twice))}")
    return cases


def _case(file: Path, entry: dict[str, Any], *, seed: int | None, rng: str | None) -> Case:
    name = entry.pop("name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]{1,80}", name):
        raise FormatError(f"{file}: a case needs a name of letters, digits and . + - _, not {name!r}")
    own_seed, own_rng = entry.pop("seed", 93), entry.pop("rng", "torch-cpu")
    if unknown := set(entry) - _REQUEST_FIELDS:
        known = ", ".join(sorted({*_REQUEST_FIELDS, "name", "seed", "rng"}))
        raise FormatError(f"{file}: case {name}: unknown {', '.join(sorted(unknown))}; known are {known}")
    if "image" in entry:
        base = assets.fixtures() / "pictures" if file == DEFAULT else file.parent
        entry["image"] = base / entry["image"]
    chosen_rng = own_rng if rng is None else rng
    if chosen_rng not in streams.names():
        raise UsageError(f"case {name}: no stream named {chosen_rng!r}; there are {', '.join(streams.names())}")
    try:
        return Case(name, Request(**entry), own_seed if seed is None else seed, chosen_rng)
    except ParityError as error:
        raise UsageError(f"{file}: case {name}: {error}") from None
    except TypeError as error:
        raise FormatError(f"{file}: case {name}: {error}") from None
