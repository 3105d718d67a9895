"""How is a candidate compared with its reference?

Both start from the same stream. The reference's recorded inputs are fed to each of the candidate's components (teacher
forcing), which says *which component* differs, free of inherited error; then the pictures are compared. A component
that cannot run is *unknown* with its reason, and the others are judged all the same.

Compressed weights change a network by themselves, so a bound measured on float16 weights cannot fail them: below it
they are *unknown*, with the measured figure, unless a row of the table speaks of that compression.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from parity.errors import ParityError, UnsupportedError
from parity.networks.backend import Backend
from parity.networks.signature import checked
from parity.pipelines.producer import Producer
from parity.pipelines.settings import ConsumerFailureError
from parity.pipelines.trace import Trace
from parity.suite import comparison, tolerance
from parity.suite.case import Case
from parity.suite.comparison import Check
from parity.suite.questions import overflow
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


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
    """

    blocked: Mapping[str, str] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()
    compression: Mapping[str, str] = field(default_factory=dict)
    stopped: str = ""


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
    return (*judge.checks(start, initial, encoders), *parts, *judge.checks("image", image, components))


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
        first, *others = self.checks(name, pairs, [name])
        if first.verdict is Verdict.FAIL and not np.isfinite(pairs[first.where][1]).all():
            first = replace(first, message=f"{first.message}{self._overflow(reference, name, first.where)}")
        return (first, *others)

    def checks(self, point: str, pairs: Pairs, involved: Sequence[str]) -> tuple[Check, ...]:
        """Compare tensors with the bounds for float16 weights, or with those for the compression involved."""
        backend = self.backends[1]
        names = (self.backends[0].numerics, backend.numerics)
        forms = ", ".join(sorted({self.situation.compression[n] for n in involved if n in self.situation.compression}))
        own = [row for row in self.table if row.precision != "*"] if forms else []
        bounds = tolerance.find_all(own, point, precision=forms, numerics=backend.numerics)
        if bounds:
            return comparison.judge(point, pairs, bounds, names=names)
        precision = backend.precision if len(involved) != 1 else backend.precision_of(involved[0])
        bounds = tolerance.find_all(self.table, point, precision=precision, numerics=backend.numerics)
        checks = comparison.judge(point, pairs, bounds, names=names)
        finite = all(np.isfinite(value).all() for _, value in pairs.values())
        excused = forms and finite
        return tuple(_for_compressed(c, forms) if excused and c.verdict is Verdict.FAIL else c for c in checks)

    def _overflow(self, reference: Trace, name: str, where: str) -> str:
        component = self.backends[1].component(name)
        paths, calls = getattr(component, "paths", ()), getattr(component, "calls", None)
        if calls is None:
            return ""
        inputs = reference.calls(name)[where.split("/")[1]]
        found = next((text for one in calls(inputs) if (text := overflow.explain(paths, one))), "")
        return f"\n{found}" if found else ""


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
