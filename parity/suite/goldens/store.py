"""Which goldens lie in a folder, what is their standing, and is this one still what was accepted?

``MODEL/CASE-RNG-SEED/ID/`` holds ``trace.npz`` (chosen points), ``image.png`` (what people look at) and
``provenance.json``. ID begins the digest of all that the golden says: pixels, tensors, weights and settings; so a
golden is never replaced by another one, and the same one is written once. Standing comes from the log alone
(:mod:`parity.suite.goldens.log`): a folder without a decision is *new* and counts for nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from parity.errors import FormatError, MissingError
from parity.files import refuse_pointer, replacing
from parity.pipelines.request import Request
from parity.pipelines.trace import Trace
from parity.suite import provenance
from parity.suite.case import Case
from parity.suite.goldens import keys, log
from parity.suite.goldens.keys import Keys
from parity.suite.goldens.log import Decision

NEW, APPROVED, REJECTED = "new", "approved", "rejected"
_STANDING = {"approve": APPROVED, "reject": REJECTED, "prune": NEW}
_ID_DIGITS: Final = 12
_LARGEST = 1 << 20  # bytes of provenance.json


@dataclass(frozen=True)
class Asked:
    """What a golden is asked for.

    Attributes
    ----------
    model : str
        Name of the original.
    case : Case
        What is drawn.
    weights : str
        Digest of the original's weights; empty for a hub id.
    keys : Keys
        Who draws it here.
    size : tuple of (int, int), optional
        Height and width in pixels, if not the model's own.
    beside : mapping
        Digests of the weights that take part beside the original's: ``refiner``, and ``controlnet``, a list.
    """

    model: str
    case: Case
    weights: str
    keys: Keys
    size: tuple[int, int] | None = None
    beside: Mapping[str, str | list[str]] = field(default_factory=dict)

    @property
    def series(self) -> str:
        """The folder of its goldens, below the folder of all."""
        return f"{self.model.replace('/', '_')}/{self.case.slug}"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the picture; a size only where it is not the model's own."""
        return {**self.case.settings(), **({"size": list(self.size)} if self.size else {}), **self.beside}


@dataclass(frozen=True)
class Golden:
    """A golden that lies in a folder.

    Attributes
    ----------
    id : str
        ``MODEL/CASE-RNG-SEED/ID``.
    folder : pathlib.Path
        Where it lies.
    record : dict
        Its provenance: model, weights, case, environment, digests.
    keys : Keys
        Who drew it.
    decisions : tuple of Decision
        All about it, in their order.
    """

    id: str
    folder: Path
    record: Mapping[str, Any]
    keys: Keys
    decisions: tuple[Decision, ...] = ()

    @property
    def standing(self) -> str:
        """``new``, ``approved`` or ``rejected``."""
        return _STANDING[self.decisions[-1].action] if self.decisions else NEW

    @property
    def approval(self) -> Decision | None:
        """The decision by which it is accepted, if it is."""
        return self.decisions[-1] if self.standing == APPROVED else None

    @property
    def series(self) -> str:
        """The folder of its series, below the folder of all."""
        return self.id.rpartition("/")[0]

    def differs(self, asked: Asked) -> str:
        """Say by which setting this golden is another question's; empty if it is not.

        A setting that did not exist when the golden was made had its default then.
        """
        defaults = {one.name: one.default for one in fields(Request) if one.default is not MISSING}
        made_with = {**defaults, "weights": self.record["weights"], **self.record["case"]}
        for name, value in {"weights": asked.weights, "size": None, **asked.settings}.items():
            if made_with.get(name) != value:
                return f"golden {self.id} was made with {name} {made_with.get(name)!r}, this run has {value!r}"
        return ""

    def open(self) -> Trace:
        """Read its trace and check that it is what was accepted, and that ``image.png`` shows it.

        Raises
        ------
        MissingError, FormatError
            A file is missing, damaged, or not what the log or the provenance says.
        """
        trace = Trace.load(self.folder / "trace.npz")
        if "image" not in trace or trace["image"].ndim != 4 or trace["image"].dtype != np.uint8:
            raise FormatError(f"{self.folder / 'trace.npz'}: no picture (uint8, 4 axes) in it")
        said = self.approval
        wanted = (said.picture, said.tensors) if said else (self.record["image_sha256"], self.record.get("tensors"))
        found = (provenance.picture_digest(trace["image"]), tensors(trace))
        for what, now, then in zip(("picture", "tensors"), found, wanted, strict=True):
            if then is not None and now != then:
                since = f"it was accepted on {said.time} by {said.author}" if said else "it was written"
                raise FormatError(f"golden {self.folder}: trace.npz was changed since {since} ({what}: other digest)")
        known = self.decisions or "tensors" in self.record  # otherwise it is being taken over
        if known and identity({**self.record, "tensors": found[1]}) != self.id.rpartition("/")[2]:
            raise FormatError(f"golden {self.folder}: provenance.json was changed: the ID is of other settings")
        _check_picture(self.folder / "image.png", trace["image"])
        return trace


def _check_picture(path: Path, pixels: np.ndarray) -> None:
    """Refuse a PNG that does not show the pixels that are compared: people would look at something else."""
    from PIL import Image

    refuse_pointer(path)
    shown = np.concatenate(list(pixels), axis=1)
    try:
        with Image.open(path) as picture:
            if picture.size != (shown.shape[1], shown.shape[0]):  # before anything is decoded
                raise FormatError(
                    f"{path}: a picture of {picture.size[0]}x{picture.size[1]}, and the golden's is "
                    f"{shown.shape[1]}x{shown.shape[0]}"
                )
            decoded = np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise MissingError(f"{path}: not there, so nobody can look at this golden; restore it") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: not a readable picture: {error}") from None
    if not np.array_equal(decoded, shown):
        raise FormatError(f"{path}: not the picture in trace.npz, so what people see is not what is compared")


def points(trace: Trace) -> list[str]:
    """Return the points that a golden keeps: start, text, first prediction, final latents, image."""
    hidden = [point for point in trace if point.endswith("/hidden") and point.startswith("text_encoder")]
    first = next((point for point in trace if point.endswith("/step00/noise_pred")), "")
    latents = [point for point in trace if point.startswith("latents/step")]
    return [point for point in ("latents/initial", *hidden, first, *latents[-1:], "image") if point in trace]


def tensors(trace: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of named tensors: names, dtypes, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for point in sorted(trace):
        value = np.ascontiguousarray(trace[point])
        total.update(f"{point} {value.dtype.str} {value.shape}\n".encode())
        total.update(value.tobytes())
    return total.hexdigest()


def write(directory: Path, asked: Asked, trace: Trace) -> Golden:
    """Write what was drawn as a new golden, without deciding anything; one that is there already stays as it is.

    Parameters
    ----------
    directory : path
        Folder of goldens.
    asked : Asked
        What was drawn, and who drew it.
    trace : Trace
        The run.

    Raises
    ------
    OSError
        It cannot be written.
    """
    from PIL import Image

    kept = Trace({point: trace[point] for point in points(trace)})
    record = {
        "model": asked.model,
        "weights": asked.weights,
        "case": asked.settings,
        "keys": {name: getattr(asked.keys, name) for name in keys.NAMES},
        "environment": provenance.environment(),
        "image_sha256": provenance.picture_digest(trace["image"]),
        "tensors": tensors(kept),
    }
    golden = f"{asked.series}/{identity(record)}"
    target = directory / golden
    if not target.is_dir():
        with replacing(target) as scratch:
            scratch.mkdir()
            kept.save(scratch / "trace.npz")
            Image.fromarray(np.concatenate(list(trace["image"]), axis=1)).save(scratch / "image.png")
            text = json.dumps(record, indent=2, sort_keys=True) + "\n"
            (scratch / "provenance.json").write_text(text, encoding="utf-8")
    return next(one for one in in_series(directory, asked.series) if one.id == golden)


def identity(record: Mapping[str, Any]) -> str:
    """Return the ID of a golden: of its pixels, tensors, weights and settings, not of its provenance."""
    said = {name: record[name] for name in ("weights", "case", "image_sha256", "tensors")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:_ID_DIGITS]


def in_series(directory: Path, series: str, *, ignore_lost: bool = False) -> list[Golden]:
    """Return the goldens of a series, by ID.

    Parameters
    ----------
    directory : path
        Folder of goldens.
    series : str
        ``MODEL/CASE-RNG-SEED``.
    ignore_lost : bool
        Leave out accepted ones whose files are gone, see :func:`lost`, instead of refusing the series.

    Raises
    ------
    FormatError, MissingError
        The log or a provenance is damaged; an accepted golden is not there; a golden lies there as older releases laid
        it down.
    """
    about: dict[str, list[Decision]] = {}
    for decision in log.read(directory):
        if decision.golden.rpartition("/")[0] == series:
            about.setdefault(decision.golden, []).append(decision)
    folder = directory / series
    if (folder / "provenance.json").exists():
        raise FormatError(
            f"golden {folder}: it lies there as older releases laid goldens down, one a case; "
            f"take all of them over with: parity golden migrate --golden-dir {directory}"
        )
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and len(path.name) == _ID_DIGITS and not set(path.name) - set("0123456789abcdef"):
            name = f"{series}/{path.name}"
            found.append(read(path, name, tuple(about.pop(name, ()))))
    for name, decisions in about.items():
        if decisions[-1].action == "approve" and not ignore_lost:
            raise MissingError(
                f"golden {directory / name}: accepted ({decisions[-1]}), and its files are not there; restore them, or "
                f"take the acceptance back: parity golden reject {name} --golden-dir {directory} --reason …"
            )
    return found


def read(path: Path, name: str, decisions: tuple[Decision, ...] = ()) -> Golden:
    """Read a golden's provenance.

    Raises
    ------
    MissingError, FormatError
        It is missing or damaged.
    """
    file = path / "provenance.json"
    refuse_pointer(file)
    try:
        if file.stat().st_size > _LARGEST:
            raise FormatError(f"golden {path}: provenance.json is larger than {_LARGEST} bytes")
        record = json.loads(file.read_text(encoding="utf-8"))
        _check_record(record)
        drawn = keys.read(record["keys"]) if "keys" in record else _of_older(record["environment"])
    except FileNotFoundError:
        raise MissingError(f"golden {path}: provenance.json is missing; restore the folder or remove it") from None
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"golden {path}: provenance.json is damaged: {error}") from None
    return Golden(name, path, record, drawn, decisions)


def _check_record(record: object) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"an object is needed, not {record!r:.60}")
    for name, kind in (("model", str), ("weights", str), ("image_sha256", str), ("case", dict), ("environment", dict)):
        if not isinstance(record.get(name), kind):
            raise ValueError(f"{name} must be {'a text' if kind is str else 'an object'}, not {record.get(name)!r:.60}")
    for name, kind in (("keys", dict), ("tensors", str)):
        if name in record and not isinstance(record[name], kind):
            raise ValueError(f"{name} is {record[name]!r:.60}")


def _of_older(environment: Mapping[str, Any]) -> Keys:
    """Return who drew a golden of an older release, which kept PyTorch's float32 on the CPU alone."""
    system, _, version = str(environment.get("system", "unknown")).partition(" ")
    major = f"{system} {version.split('.')[0]}" if system == "macOS" else system
    return Keys("PyTorch cpu float32", major, str(environment.get("machine", "unknown")))


def everything(directory: Path) -> list[Golden]:
    """Return all goldens whose files are there, in the order of their ids.

    Raises
    ------
    MissingError, FormatError
        No such folder; otherwise as :func:`in_series`.
    """
    if not directory.is_dir():
        raise MissingError(f"{directory}: no such folder of goldens; name yours with --golden-dir DIR")
    named = {one.golden.rpartition("/")[0] for one in log.read(directory)}
    there = {
        f"{model.name}/{case.name}"
        for model in directory.iterdir()
        if model.is_dir() and not model.name.startswith(".")
        for case in model.iterdir()
        if case.is_dir() and not case.name.startswith(".")
    }
    return [golden for series in sorted(named | there) for golden in in_series(directory, series, ignore_lost=True)]


def lost(directory: Path) -> list[Decision]:
    """Return the approvals of goldens whose files are not there."""
    last = {decision.golden: decision for decision in log.read(directory)}
    return [one for one in last.values() if one.action == "approve" and not (directory / one.golden).is_dir()]
