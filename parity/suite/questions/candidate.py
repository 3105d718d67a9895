"""How is a candidate compared with its reference?

Both start from the same stream. The reference's recorded inputs are fed to each of the candidate's components (teacher
forcing), which says *which component* differs, free of inherited error; then the pictures are compared. A component
that cannot run is *unknown* with its reason, and the others are judged all the same.

A float16 candidate is judged by what half precision by itself costs on the same inputs (:mod:`parity.suite.relative`),
unless the user's table has a row for the point. Everything else is judged by absolute bounds: float32 candidates,
numerics for which no factor was measured, and networks that leave float16's range in half precision itself.

Compressed weights change a network by themselves. They are judged by half precision with the same compressed weights;
where these could not be found in the package, what is beyond a bound is *unknown*, with the measured figure, unless a
row of the table speaks of that compression.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from parity.errors import ParityError, UnsupportedError
from parity.networks.backend import Backend
from parity.networks.signature import checked
from parity.pipelines.producer import Producer
from parity.pipelines.settings import ConsumerFailureError
from parity.pipelines.trace import Trace
from parity.suite import comparison, factors, relative, tolerance
from parity.suite.case import Case
from parity.suite.comparison import Check
from parity.suite.factors import Factors
from parity.suite.questions import causes
from parity.suite.questions.causes import Causes, Pairs
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict
from parity.suite.yardstick import Standard


@dataclass(frozen=True)
class Situation:
    """What is known about a candidate's components before they are compared.

    Attributes
    ----------
    blocked : mapping of str to str
        Component to the reason for which it cannot run.
    damaged : frozenset of str
        Those of them whose files are at fault.
    compression : mapping of str to str
        Component to the form of its compressed weights, e.g. ``6-bit palette``; those with float16 or float32 left out.
    stopped : str
        Why the candidate's run ended before its picture; empty if it did not, or was not begun.
    standard : Standard, optional
        Half precision by itself, for float16 candidates.
    """

    blocked: Mapping[str, str] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()
    compression: Mapping[str, str] = field(default_factory=dict)
    stopped: str = ""
    standard: Standard | None = None


def failed(failure: ConsumerFailureError, who: Producer, case: Case) -> Check:
    """Return the check that says how an app's release fails."""
    message = f"{who.name} fails: {who.failure(failure, case.request)}"
    return Check("release", f"{who.name} draws no picture", "", math.nan, math.nan, Verdict.FAIL, message)


def compare(
    reference: Trace,
    candidate: Trace | None,
    backends: tuple[Backend, Backend],
    components: Sequence[str],
    table: Sequence[Tolerance],
    situation: Situation = Situation(),
) -> tuple[Check, ...]:
    """Compare a candidate's run with the reference's, point by point.

    Parameters
    ----------
    reference, candidate : Trace
        Both runs of the same case; no candidate where a component cannot run.
    backends : (Backend, Backend)
        Who made them; the candidate's components are run again on the reference's inputs.
    components : sequence of str
        The components of the task.
    table : sequence of Tolerance
        See :func:`parity.suite.tolerance.load`.
    situation : Situation
        What cannot run, and what is compressed.

    Returns
    -------
    tuple of Check
        ``latents/initial`` or ``latents/encoded``, each component under teacher forcing, ``image``; of each as many as
        the table has metrics for it.
    """
    judge = _Judge(backends, table, situation)
    parts = [check for name in components for check in judge.component(reference, name)]
    encoders = [name for name in components if name in ("vae_encoder", "noising_encoder")]
    start = "latents/encoded" if encoders else "latents/initial"
    if candidate is None:
        missing = ", ".join(check.point for check in parts if not check.metric) or "the run"
        reason = situation.stopped or f"it needs {missing}, which cannot run"
        return (*parts, comparison.unknown(start, reason), comparison.unknown("image", reason))
    initial = {"latents/initial": (np.float32(reference["latents/initial"]), np.float32(candidate["latents/initial"]))}
    image = {"image": (reference["image"], candidate["image"])}
    networks = (*judge.picture(start, initial, encoders), *parts)
    pictures = judge.picture("image", image, components)
    wrong = any(check.verdict is Verdict.FAIL for check in pictures)
    if wrong and all(check.verdict is Verdict.PASS for check in networks):
        known = [text for name in components for text in judge.causes.known(reference, name)]
        text = causes.elsewhere(reference, candidate, known)
        pictures = tuple(_with(check, text) if check.verdict is Verdict.FAIL else check for check in pictures)
    return (*networks, *pictures)


@dataclass(frozen=True)
class _Judge:
    backends: tuple[Backend, Backend]
    table: Sequence[Tolerance]
    situation: Situation

    @property
    def causes(self) -> Causes:
        """Who finds out why something fails."""
        return Causes(self.backends, self.situation.compression, self.situation.standard)

    def component(self, reference: Trace, name: str) -> tuple[Check, ...]:
        """Compare one component on the reference's inputs."""
        if name in self.situation.blocked:
            return (comparison.unknown(name, self.situation.blocked[name], bad_input=name in self.situation.damaged),)
        backend = self.backends[1]
        try:
            pairs = forced(reference, backend, name)
        except ParityError as error:
            at_fault = not isinstance(error, UnsupportedError)
            return (comparison.unknown(name, str(error), bad_input=at_fault),)
        except ConsumerFailureError as failure:  # said of the release as a whole
            return (comparison.unknown(name, str(failure)),)
        except RuntimeError as error:  # of the framework, or of torch: this network cannot be computed here
            text = f"{name}: {backend.numerics} fails while it computes: {type(error).__name__}: {error}"
            return (Check(name, f"{name} stopped", "", math.nan, math.nan, Verdict.FAIL, text),)
        first, *others = self._judged(name, pairs, [name], lambda: self._halves(reference, name, pairs))
        if first.verdict is Verdict.FAIL and self._computes_half([name]):
            first = _with(first, self.causes.of_network(reference, name, pairs, first.where))
        return (first, *others)

    def picture(self, point: str, pairs: Pairs, involved: Sequence[str]) -> tuple[Check, ...]:
        """Compare what a whole run gave at one point."""
        return self._judged(point, pairs, involved, lambda: self._run(pairs))

    def _judged(
        self, point: str, pairs: Pairs, involved: Sequence[str], halves: Callable[[], Pairs | str]
    ) -> tuple[Check, ...]:
        """Compare by half precision, or by the table's bounds where it decides."""
        names = (self.backends[0].numerics, self.backends[1].numerics)
        forms = ", ".join(sorted({self.situation.compression[n] for n in involved if n in self.situation.compression}))
        if by_form := self._bounds(point, forms) if forms else ():
            return comparison.judge(point, pairs, by_form, names=names)
        place = self._place(point, involved)
        bounds = tolerance.find_all(self.table, place, precision=self._precision(involved), numerics=names[1])
        allowed = self._factors(point, involved, bounds)
        if allowed is not None:
            known = halves()
            if not isinstance(known, str):
                triples = {where: (*known[where], pair[1]) for where, pair in pairs.items()}
                return relative.judge(point, triples, allowed, names=names)
            checks = comparison.judge(point, pairs, bounds, names=names)
            return tuple(_without_yardstick(check, known) for check in checks)
        checks = comparison.judge(point, pairs, bounds, names=names)
        finite = all(np.isfinite(value).all() for _, value in pairs.values())
        excused = forms and finite
        return tuple(_for_compressed(c, forms) if excused and c.verdict is Verdict.FAIL else c for c in checks)

    def _bounds(self, point: str, forms: str) -> tuple[Tolerance, ...]:
        own = [row for row in self.table if row.precision != "*"]
        return tolerance.find_all(own, point, precision=forms, numerics=self.backends[1].numerics)

    def _place(self, point: str, involved: Sequence[str]) -> str:
        """Return whose bounds hold: an encoder that adds the noise gives the start itself, so its own do.

        Where the user's table speaks of the start, that holds.
        """
        own = any(row.own and row.point == point for row in self.table)
        return "noising_encoder" if point == "latents/encoded" and "noising_encoder" in involved and not own else point

    def _factors(self, point: str, involved: Sequence[str], bounds: Sequence[Tolerance]) -> Factors | None:
        """Return what is allowed against half precision, where that decides."""
        standard = self.situation.standard
        compressed = {name for name in involved if name in self.situation.compression}
        decided = any(row.own for row in bounds) or not involved  # by the user; no network, so no precision either
        if standard is None or decided or not self._computes_half(involved):
            return None
        if "noising_encoder" in involved:  # it adds noise in float16, which the original's side does in float32
            return None
        if compressed - set(standard.yardstick.weights):  # what they compute with is not known
            return None
        return factors.find(standard.factors, point, self.backends[1].numerics, compressed=bool(compressed))

    def _precision(self, involved: Sequence[str]) -> str:
        backend = self.backends[1]
        return backend.precision if len(involved) != 1 else backend.precision_of(involved[0])

    def _computes_half(self, involved: Sequence[str]) -> bool:
        return self._precision(involved) == "float16"

    def _halves(self, reference: Trace, name: str, pairs: Pairs) -> Pairs | str:
        """Run half precision on the same inputs, or say that it leaves its range."""
        assert self.situation.standard is not None  # only then anybody asks
        calls, found = reference.calls(name), Pairs()
        for where, (known, _) in pairs.items():
            _, label, tensor = where.split("/")
            half = self.situation.standard.yardstick.call(name, calls[label])
            if not half.finite:
                where_to = half.overflow or "its outputs are not finite"
                return f"half precision is impossible for this {name}: in PyTorch's own float16 {where_to}"
            if name in self.situation.compression:  # what compression lost is no error of the program
                known = self.situation.standard.yardstick.exact(name, calls[label])[tensor]
            found[where] = (known, half.outputs[tensor])
        return found

    def _run(self, pairs: Pairs) -> Pairs | str:
        assert self.situation.standard is not None  # only then anybody asks
        drawn = self.situation.standard.drawn()
        if isinstance(drawn, str):
            return drawn
        return {point: (known, drawn[point].astype(known.dtype)) for point, (known, _) in pairs.items()}


def _with(check: Check, text: str) -> Check:
    """Add lines to what a check says."""
    return replace(check, message=f"{check.message}\n{text}") if text else check


def _without_yardstick(check: Check, reason: str) -> Check:
    """Judge by the absolute bound, and say why; where there is none, nothing is decided."""
    if check.verdict is Verdict.PASS:
        return check
    return _with(check, f"  {reason}")


def _for_compressed(check: Check, forms: str) -> Check:
    text = (
        f"{check.message.splitlines()[0]}; that bound is for float16 weights, and the weights here are compressed "
        f"({forms}), which changes the network by itself. Not decided: the table has no bound for this compression; "
        f'give one with --tolerances (precision = "{forms}")'
    )
    return replace(check, verdict=Verdict.UNKNOWN, message=text)


def forced(reference: Trace, backend: Backend, name: str) -> Pairs:
    """Run a component on the reference's recorded inputs: the reference's and the candidate's outputs by point.

    Of many calls the first, the middle and the last are run: the UNet's inputs change from noise to picture, and a
    full-size network is expensive.
    """
    component = backend.component(name)
    calls, known = list(reference.calls(name).items()), reference.outputs(name)
    chosen = {0, len(calls) // 2, len(calls) - 1} if len(calls) > 2 else set(range(len(calls)))
    pairs: Pairs = {}
    for index in sorted(chosen):
        label, inputs = calls[index]
        computed = checked(name, component(inputs))
        pairs |= {f"{name}/{label}/{tensor}": (known[label][tensor], computed[tensor]) for tensor in known[label]}
    return pairs
