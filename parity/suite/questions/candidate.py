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
from functools import partial
from typing import Final

import numpy as np

from parity import memory
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
from parity.suite.questions import features, overflow, steps
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict
from parity.suite.yardstick import Standard

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


_OF_PRECISION: Final = (
    0.25  # of an error: with less, float16 is not what it comes from. One output of many may err more
)


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
        known = [text for name in components for text in judge.known(reference, name)]
        pictures = tuple(_elsewhere(check, reference, candidate, known) for check in pictures)
    return (*networks, *pictures)


def _elsewhere(check: Check, reference: Trace, candidate: Trace, known: Sequence[str]) -> Check:
    """Say of a picture that fails although its networks are right what lies between them, or what adds up."""
    if check.verdict is not Verdict.FAIL:
        return check
    times = [
        [
            float(value.flat[0])
            for point, value in trace.items()
            if point.startswith("unet/") and point.endswith("/timestep")
        ]
        for trace in (reference, candidate)
    ]
    text = "  every network agrees on the reference's inputs: what differs lies between them"
    if times[0] != times[1]:
        shown = [", ".join(f"{step:g}" for step in each[:4]) for each in times]
        text += f", in the schedule: timesteps {shown[0]}, … and {shown[1]}, …"
    elif found := steps.parted(reference, candidate):
        text += f", {found}"
    else:
        text += " (schedule, guidance, order of draws), or their errors add up over the steps"
        text += "".join(f"\n  likely cause: {defect}" for defect in known)
    return replace(check, message=f"{check.message}\n{text}")


@dataclass(frozen=True)
class _Judge:
    backends: tuple[Backend, Backend]
    table: Sequence[Tolerance]
    situation: Situation

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
            first = replace(first, message=f"{first.message}{self._operator(reference, name, pairs, first.where)}")
        return (first, *others)

    def known(self, reference: Trace, name: str) -> list[str]:
        """Say what is known of a network that errs by less than is allowed: its program's defect, its feature's."""
        found = [overflow.finding(name, getattr(self.backends[1].component(name), "paths", ()))]
        for label, call in reference.calls(name).items():
            if not features.rounds(call):
                continue
            tensor, exact = next(iter(reference.outputs(name)[label].items()))
            drawn = checked(name, self.backends[1].component(name)(call))[tensor]
            self._let_go()
            cause = self._rounded_time(name, call, tensor, (exact, drawn))
            found += [f"{name}: {cause}"] if cause else []
            self._let_go()
            break
        return [text for text in found if text]

    def _rounded_time(
        self, name: str, call: Mapping[str, np.ndarray], tensor: str, pair: tuple[np.ndarray, np.ndarray]
    ) -> str:
        """Ask the original for the rounded time; a compressed network's with the weights that compression left."""
        standard = self.situation.standard
        if not features.rounds(call):
            return ""
        if standard is None or name not in standard.yardstick.weights:
            return features.rounded_time(self.backends[0].component(name), call, tensor, pair)
        compute = partial(standard.yardstick.exact, name)
        return features.rounded_time(compute, call, tensor, (compute(call)[tensor], pair[1]))

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
        bounds = tolerance.find_all(self.table, point, precision=self._precision(involved), numerics=names[1])
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

    def _let_go(self) -> None:
        """Where memory is short, forget the networks: what follows loads another one."""
        for backend in self.backends:
            if backend.frugal:
                backend.release()
                memory.give_back()

    def _operator(self, reference: Trace, name: str, pairs: Pairs, where: str) -> str:
        """Say which operation of the program is at fault, or that its precision is not, where it can be looked into."""
        component = self.backends[1].component(name)
        paths, calls = getattr(component, "paths", ()), getattr(component, "calls", None)
        if calls is None or where.count("/") != 2 or pairs[where][0].shape != pairs[where][1].shape:
            return ""
        _, label, tensor = where.split("/")
        call = reference.calls(name)[label]
        predictions = calls(call)
        del component, calls
        self._let_go()
        if found := self._rounded_time(name, call, tensor, pairs[where]):
            return f"\n  cause: {found}"
        self._let_go()
        error = float(np.sqrt(np.mean((pairs[where][0].astype(np.float64) - pairs[where][1]) ** 2)))
        of_precision = max(overflow.own_error(paths, one) for one in predictions)
        own_weights = name not in self.situation.compression  # what compression lost is in the error, too
        if own_weights and of_precision < _OF_PRECISION * error:  # not where either is NaN
            return (
                "\n  not its precision: in float32 the program would be about as far from the original (of its rms "
                f"error of {error:.3g}, float16 makes {of_precision:.3g}); an operation or a weight is another one"
            )
        found = next((text for one in predictions if (text := overflow.explain(paths, one))), "")
        return f"\n{found}" if found else ""


def _without_yardstick(check: Check, reason: str) -> Check:
    """Judge by the absolute bound, and say why; where there is none, nothing is decided."""
    if check.verdict is Verdict.PASS:
        return check
    return replace(check, message=f"{check.message}\n  {reason}")


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
