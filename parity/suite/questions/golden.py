"""Does this machine still draw what a person accepted?

A series can hold several accepted goldens: the run passes with any of them, and the nearest is reported. Then the
picture is compared with the anchor of that golden's line (bounds ``golden/drift``), so that a golden which was accepted
again and again does not hide how far it went. A picture that was rejected fails by that alone. Without an accepted
golden the run fails; what was drawn is written aside for a person to decide about, and never counts as a pass in the
run that wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from parity.errors import MissingError
from parity.pipelines.trace import Trace
from parity.suite import comparison, provenance
from parity.suite.comparison import Check
from parity.suite.goldens import curate, log, store
from parity.suite.goldens.curate import DRIFT, Wish
from parity.suite.goldens.store import APPROVED, NEW, REJECTED, Asked, Golden
from parity.suite.tolerance import Tolerance, kin
from parity.suite.verdict import Verdict

_WAITING = 3  # goldens of a series that may wait for a decision; a run adds no more
_UPDATED = "--update-golden"

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Accepted:
    """Which golden today's run was compared with, and who accepted it.

    Attributes
    ----------
    id : str
        The golden; of several accepted ones the nearest.
    author, time, reason : str
        Who accepted it, when (UTC, ISO 8601) and why.
    count : int
        How many are accepted for this question.
    """

    id: str
    author: str
    time: str
    reason: str
    count: int

    @property
    def sentence(self) -> str:
        """The same in words."""
        which = f"the nearest of {self.count} accepted goldens, " if self.count > 1 else "golden "
        return f"compared with {which}{self.id}, accepted by {self.author} on {self.time[:10]}: {self.reason}"


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes
    ----------
    checks : tuple of Check
        Never empty.
    pictures : mapping
        By role: ``reference`` is the accepted one, ``candidate`` today's.
    remarks : tuple of str
        What a reader must know whatever the verdict.
    accepted : Trace or None
        What was accepted, where it was compared.
    golden : Accepted or None
        Who accepted that.
    """

    checks: tuple[Check, ...]
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
    remarks: tuple[str, ...] = ()
    accepted: Trace | None = field(default=None, compare=False)
    golden: Accepted | None = None


@dataclass(frozen=True)
class Goldens:
    """A folder of goldens as a run asks it.

    Attributes
    ----------
    directory : pathlib.Path
        The folder.
    bounds : callable
        The tolerances of a point, by its name.
    writable : bool
        Whether what was drawn may be written there: the folder is the user's, not the installed package's.
    """

    directory: Path
    bounds: Callable[[str], Sequence[Tolerance]]
    writable: bool = True

    def compare(self, asked: Asked, trace: Trace) -> Answer:
        """Compare a run with the accepted goldens of its series.

        Raises
        ------
        MissingError, FormatError
            The log or a golden of the series is missing or damaged.
        """
        there, others = self._series(asked)
        accepted = [one for one in there if one.standing == APPROVED]
        digest = provenance.picture_digest(trace["image"])
        pictures = {"candidate": trace["image"]}
        for one in there:
            if one.standing == REJECTED and one.decisions[-1].picture == digest:
                text = f"golden: this very picture was rejected, {one.id}: {one.decisions[-1]}"
                return Answer((_fails(one.id, text),), pictures)
        if not accepted:
            reason = f"no golden for case {asked.case.name} in {self.directory} is accepted for {asked.keys}{others}"
            return Answer((_fails(asked.series, f"{reason}; {self._aside(asked, trace)}"),), pictures)
        judged = {one.id: (one, *self._judge(one, trace, asked)) for one in accepted}
        best, checks, kept = max(judged.values(), key=lambda found: curate.closeness(found[1]))
        about = _about(best, len(accepted))
        failed = any(check.verdict is Verdict.FAIL for check in checks)
        told = (about.sentence, self._aside(asked, trace)) if failed else ()
        return Answer(checks, {"reference": kept["image"], **pictures}, told, kept, about)

    def accept(self, asked: Asked, trace: Trace) -> Answer:
        """Accept what was drawn, unless the same is accepted already: then it is compared.

        Raises
        ------
        UsageError
            It lies beyond the drift bound, or nobody is named in a job of continuous integration.
        MissingError, FormatError
            As :meth:`compare`.
        """
        golden = store.write(self.directory, asked, trace)
        if golden.standing == APPROVED:
            return self.compare(asked, trace)
        table = self.bounds(DRIFT)
        curate.approve(self.directory, [golden], Wish(f"accepted by {_UPDATED}", log.author()), table)
        text = f"accepted now as golden {golden.folder}; look at image.png, then run again"
        return Answer((comparison.unknown("image", text),))

    def _series(self, asked: Asked) -> tuple[list[Golden], str]:
        """Return what speaks about this question here, and what the others of the series differ by."""
        there, other = [], ""
        for one in store.in_series(self.directory, asked.series):
            if one.decisions and not one.decisions[-1].keys.takes(asked.keys):
                other = other or f" ({one.id} is for {one.decisions[-1].keys})"
            elif differs := one.differs(asked):
                other = f" ({differs})"
            else:
                there.append(one)
        return there, other

    def _judge(self, golden: Golden, trace: Trace, asked: Asked) -> tuple[tuple[Check, ...], Trace]:
        kept = golden.open()
        names = ("accepted", asked.keys.backend)
        checks: list[Check] = []
        for point, found in pairs(kept, trace).items():
            checks += comparison.judge(point, found, self.bounds(point), names=names)
        assert golden.approval is not None  # only accepted ones are judged
        anchor = golden.approval.anchor
        if anchor != golden.id:
            if not (self.directory / anchor).is_dir():
                raise MissingError(f"golden {self.directory / anchor}: drift is counted from it; restore it")
            first = next(one for one in store.in_series(self.directory, asked.series) if one.id == anchor).open()
            drifted: Pairs = {DRIFT: (first["image"], trace["image"])}
            checks += comparison.judge(DRIFT, drifted, self.bounds(DRIFT), names=(f"anchor {anchor}", names[1]))
        return tuple(checks), kept

    def _aside(self, asked: Asked, trace: Trace) -> str:
        """Write what was drawn where a person can decide about it; say where, or why not."""
        if not self.writable:
            return "name a folder of your own with --golden-dir to keep what was drawn"
        waiting = [one for one in store.in_series(self.directory, asked.series) if one.standing == NEW]
        if len(waiting) >= _WAITING:
            return f"not written aside: {len(waiting)} of {asked.series} wait for a decision, see parity golden list"
        try:
            golden = store.write(self.directory, asked, trace)
        except OSError as error:
            return f"what was drawn cannot be written aside: {error}"
        return (
            f"what was drawn is written aside: look at {golden.folder / 'image.png'}, then accept it: parity golden "
            f"approve {golden.id} --golden-dir {self.directory} --reason …, or accept all at once with {_UPDATED}"
        )


def _about(golden: Golden, count: int) -> Accepted:
    decision = golden.approval
    assert decision is not None
    return Accepted(golden.id, decision.author, decision.time, decision.reason, count)


def _fails(where: str, text: str) -> Check:
    return Check("golden", where, "", math.nan, math.nan, Verdict.FAIL, text)


def pairs(accepted: Trace, now: Trace) -> dict[str, Pairs]:
    """Pair accepted and present values by the point that tolerances name.

    Returns
    -------
    dict
        ``golden/start``, ``golden/text_encoder``, ``golden/unet`` (first step), ``golden/latents`` (after the last
        step), ``golden/image``; each maps recorded points to (accepted, present), empty where the run has none.
    """
    grouped: dict[str, Pairs] = {}
    for point, value in accepted.items():
        network = point.split("/")[0]
        name = "start" if point == "latents/initial" else (*kin(network), network)[0]
        group = grouped.setdefault(f"golden/{name}", {})
        if point in now:
            group[point] = (value, now[point])
    return grouped
