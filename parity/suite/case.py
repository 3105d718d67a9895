"""What is one question of the suite: which request, from which seed of which stream?

Cases are data: ``cases.toml`` beside this module holds the default ones, ``--cases FILE`` names the user's.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity import assets, streams, tables
from parity.errors import FormatError, ParityError, UsageError
from parity.pipelines.producer import DEFAULT as DEFAULT_PRODUCER
from parity.pipelines.producer import Producer, producer
from parity.pipelines.request import Request
from parity.pipelines.schedules.diffusers import Schedule

DEFAULT = Path(__file__).with_name("cases.toml")
_TEXT, _WHOLE, _NUMBER, _SWITCH = "a text", "a whole number", "a number", "true or false"
_KEYS = {
    "name": _TEXT,
    "as": _TEXT,
    "rng": _TEXT,
    "seed": _WHOLE,
    "task": _TEXT,
    "prompt": _TEXT,
    "negative_prompt": _TEXT,
    "scheduler": _TEXT,
    "steps": _WHOLE,
    "guidance_scale": _NUMBER,
    "strength": _NUMBER,
    "image": _TEXT,
    "images": _WHOLE,
    "guidance_rescale": _NUMBER,
    "clip_skip": _WHOLE,
    "sigmas": _TEXT,
    "timestep_spacing": _TEXT,
    "prediction_type": _TEXT,
    "rescale_betas_zero_snr": _SWITCH,
    "eta": _NUMBER,
}  # key of a case -> what its value must be
_SCHEDULE = frozenset(field.name for field in dataclasses.fields(Schedule))
_UNSAID = {"guidance_rescale": 0.0, "clip_skip": 0}  # what no accepted trace says about a request that leaves it alone


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
    producer : str
        Who draws it, see :func:`parity.pipelines.producer.producer`; empty where the run decides.
    """

    name: str
    request: Request
    seed: int
    rng: str
    producer: str = ""

    @property
    def who(self) -> Producer:
        """Who draws it.

        Raises
        ------
        UsageError, UnsupportedError
            As :func:`parity.pipelines.producer.producer`.
        """
        return producer(self.producer or DEFAULT_PRODUCER)

    @property
    def released(self) -> bool:
        """Whether an app's release draws it."""
        return self.producer not in ("", DEFAULT_PRODUCER)

    @property
    def sentence(self) -> str:
        """What the case does, as read in test ids: ``txt2img with pndm, seed 93 of torch-cpu``."""
        set_up = ", ".join(f"{key} {value}" for key, value in self.request.schedule.given().items())
        scheduler = f"{self.request.scheduler} ({set_up})" if set_up else self.request.scheduler
        drawn = f"{self.request.task} with {scheduler}, seed {self.seed} of {self.rng}"
        return f"{drawn}, as {self.producer}" if self.released else drawn

    @property
    def slug(self) -> str:
        """File name of the case's golden."""
        name = f"{self.name}-{self.rng}-{self.seed}"
        return f"{name}-as-{self.producer.replace('==', '-')}" if self.released else name

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the picture, for provenance; a picture's folder does not."""
        settings = {**dataclasses.asdict(self.request), "seed": self.seed, "rng": self.rng}
        del settings["schedule"]
        settings |= self.request.schedule.given()
        settings = {key: value for key, value in settings.items() if key not in _UNSAID or value != _UNSAID[key]}
        settings["image"] = self.request.image.name if self.request.image else ""
        if self.released:
            settings["producer"] = self.producer
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
    defaults, entries = document.get("defaults", {}), document.get("case", [])
    if not isinstance(defaults, dict):
        raise FormatError(f"{file}: defaults is a table: [defaults], with one key a line")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise FormatError(f"{file}: no [[case]] in it")
    cases = [_case(file, {**defaults, **entry}, seed=seed, rng=rng) for entry in entries]
    names = [case.name for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise FormatError(f"{file}: two cases are named {', '.join(sorted(twice))}")
    return cases


def _case(file: Path, entry: dict[str, Any], *, seed: int | None, rng: str | None) -> Case:
    name = entry.pop("name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]{1,80}", name):
        raise FormatError(f"{file}: a case needs a name of letters, digits and . + - _, not {name!r}")
    if unknown := set(entry) - set(_KEYS):
        raise FormatError(
            f"{file}: case {name}: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(_KEYS))}"
        )
    for key, value in entry.items():
        if not _is(value, _KEYS[key]):
            raise FormatError(f"{file}: case {name}: {key} = {_toml(value)}: {_KEYS[key]} is needed")
    own_seed, own_rng, who = entry.pop("seed", 93), entry.pop("rng", "torch-cpu"), entry.pop("as", "")
    if "image" in entry:
        base = assets.fixtures() / "pictures" if file == DEFAULT else file.parent
        entry["image"] = base / entry["image"]
    if missing := {"task", "prompt"} - set(entry):
        raise FormatError(f"{file}: case {name}: {' and '.join(sorted(missing))} must be given")
    chosen_rng = own_rng if rng is None else rng
    if chosen_rng not in streams.names():
        raise UsageError(f"case {name}: no stream named {chosen_rng!r}; there are {', '.join(streams.names())}")
    try:
        if who:
            producer(who)
        schedule = Schedule(**{key: entry.pop(key) for key in _SCHEDULE & set(entry)})
        return Case(name, Request(**entry, schedule=schedule), own_seed if seed is None else seed, chosen_rng, who)
    except ParityError as error:
        raise UsageError(f"{file}: case {name}: {error}") from None


def _is(value: object, what: str) -> bool:
    if what == _TEXT:
        return isinstance(value, str)
    if what == _SWITCH:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return what == _NUMBER or isinstance(value, int)


def _toml(value: object) -> str:
    """Write a value roughly as it stands in the file, and not at length."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"
