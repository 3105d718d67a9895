"""What is one question of the suite: which request, from which seed of which stream?

Cases are data: ``cases.toml`` beside this module holds the default ones, ``--cases FILE`` names the user's.
"""

from __future__ import annotations

import dataclasses
import itertools
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
SHIPPED = Path(__file__).with_name("cases")
"""Cases of the families that the default ones do not fit."""
_TEXT, _WHOLE, _NUMBER, _SWITCH = "a text", "a whole number", "a number", "true or false"
_TEXTS, _NUMBERS = "a text or several", "a number or several"
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
    "mask": _TEXT,
    "control": _TEXTS,
    "control_scale": _NUMBERS,
    "control_start": _NUMBERS,
    "control_end": _NUMBERS,
    "refiner_start": _NUMBER,
    "aesthetic_score": _NUMBER,
    "negative_aesthetic_score": _NUMBER,
    "height": _WHOLE,
    "width": _WHOLE,
    "generators": _TEXT,
    "safety_checker": _SWITCH,
}  # key of a case -> what its value must be
_SCHEDULE = frozenset(field.name for field in dataclasses.fields(Schedule))
_FIRST = ("task", "prompt", "negative_prompt", "scheduler", "steps", "guidance_scale", "strength", "image", "images")
_SHORT = {"guidance_scale": "guidance", "negative_prompt": "negative"}  # in the names of a grid's cases


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
    grid : str
        Name of the case that multiplied, where this is one of its cases.
    """

    name: str
    request: Request
    seed: int
    rng: str
    producer: str = ""
    grid: str = ""

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
        """Return everything that decides the picture, for provenance; a picture's folder does not.

        What only some tasks have is left out where it has its default.
        """
        settings: dict[str, Any] = {}
        for field in dataclasses.fields(self.request):
            value = getattr(self.request, field.name)
            if field.name != "schedule" and (field.name in _FIRST or value != field.default):
                settings[field.name] = _plain(value)
        settings |= {**self.request.schedule.given(), "seed": self.seed, "rng": self.rng}
        if self.request.negative_prompt is None:
            settings["negative_prompt"] = ""
        elif not self.request.negative_prompt:  # encoded, where saying nothing can mean zeros
            settings["negative_prompt_given"] = True
        if self.released:
            settings["producer"] = self.producer
        if self.grid:
            settings["grid"] = self.grid
        return settings

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The files that the request reads."""
        found = (self.request.image, self.request.mask, *self.request.control)
        return tuple(path for path in found if path is not None)


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
    cases = [
        _case(file, single, seed=seed, rng=rng)
        for entry in entries
        for single in _multiplied(file, {**defaults, **entry}, fixed={"seed": seed, "rng": rng})
    ]
    names = [case.name for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise FormatError(f"{file}: two cases are named {', '.join(sorted(twice))}")
    return cases


def _plain(value: Any) -> Any:
    """Return a value of a request as JSON has it: files by their names."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.name if isinstance(value, Path) else "" if value is None else value


def _multiplied(file: Path, entry: dict[str, Any], *, fixed: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a case for each combination of the values that it lists, the last list varying fastest.

    ``fixed`` is what the command line says for every case: a list of such a key is not multiplied.
    """
    name = entry.get("name")
    single = (_TEXT, _WHOLE, _NUMBER)
    lists = {key: value for key, value in entry.items() if isinstance(value, list) and _KEYS.get(key) in single}
    lists = {key: value[:1] if fixed.get(key) is not None else value for key, value in lists.items() if key != "name"}
    for key, values in lists.items():
        if not values or any(values.count(value) > 1 for value in values):
            raise FormatError(f"{file}: case {name}: {key} = {_toml(values)}: a list needs values, each once")
        if not all(_is(value, _KEYS[key]) for value in values):
            raise FormatError(f"{file}: case {name}: {key} = {_toml(values)}: {_KEYS[key]} is needed, each time")
    if not lists or not isinstance(name, str):
        return [entry]
    found = []
    for chosen in itertools.product(*(enumerate(values) for values in lists.values())):
        single_values = dict(zip(lists, (value for _, value in chosen), strict=True))
        parts = [_part(key, number, len(lists[key])) for key, number in zip(lists, chosen, strict=True)]
        found.append({**entry, **single_values, "name": "-".join(filter(None, [name, *parts])), "grid": name})
    return found


def _part(key: str, chosen: tuple[int, Any], count: int) -> str:
    """Return what the name of a grid's case says about one key: ``steps4``, ``prompt2``; nothing of a single value."""
    number, value = chosen
    if count == 1:
        return ""
    short = _SHORT.get(key, key)
    if isinstance(value, str):
        plain = re.sub(r"[^\w.+-]+", "-", value)
        return plain if key in ("scheduler", "rng", "task", "as") else f"{short}{number + 1}"
    return f"{short}{value:g}" if isinstance(value, float) else f"{short}{value}"


def _case(file: Path, entry: dict[str, Any], *, seed: int | None, rng: str | None) -> Case:
    name, grid = entry.pop("name", None), entry.pop("grid", "")
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
    base = assets.fixtures() / "pictures" if file == DEFAULT or file.parent == SHIPPED else file.parent
    entry |= {key: base / entry[key] for key in ("image", "mask") if key in entry}
    several = [key for key, kind in _KEYS.items() if kind in (_TEXTS, _NUMBERS) and key in entry]
    entry |= {key: tuple(entry[key]) if isinstance(entry[key], list) else (entry[key],) for key in several}
    if "control" in entry:
        entry["control"] = tuple(base / text for text in entry["control"])
    needed = {"task"} if entry.get("task") == "unconditional" else {"task", "prompt"}
    if missing := needed - set(entry):
        raise FormatError(f"{file}: case {name}: {' and '.join(sorted(missing))} must be given")
    chosen_rng = own_rng if rng is None else rng
    if chosen_rng not in streams.names():
        raise UsageError(f"case {name}: no stream named {chosen_rng!r}; there are {', '.join(streams.names())}")
    try:
        if who:
            producer(who)
        schedule = Schedule(**{key: entry.pop(key) for key in _SCHEDULE & set(entry)})
        request = Request(**entry, schedule=schedule)
        return Case(name, request, own_seed if seed is None else seed, chosen_rng, who, grid)
    except ParityError as error:
        raise UsageError(f"{file}: case {name}: {error}") from None


def _is(value: object, what: str) -> bool:
    if what in (_TEXTS, _NUMBERS):
        values = value if isinstance(value, list) else [value]
        return bool(values) and all(_is(each, _TEXT if what == _TEXTS else _NUMBER) for each in values)
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
