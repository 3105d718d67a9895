"""Why does a candidate fail: which operation, which feature, or what lies between the networks?

Asked only when something fails, since it costs further calls: of the program in both precisions, and of the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from parity import memory
from parity.networks.backend import Backend
from parity.networks.signature import checked
from parity.pipelines.trace import Trace
from parity.suite.questions import features, overflow, steps
from parity.suite.yardstick import Standard

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]
"""Point to the reference's and the candidate's output there."""

_OF_PRECISION: Final = (
    0.25  # of an error: with less, float16 is not what it comes from. One output of many may err more
)


def elsewhere(reference: Trace, candidate: Trace, known: Sequence[str]) -> str:
    """Say of a picture that fails although its networks are right what lies between them, or what adds up.

    Parameters
    ----------
    reference, candidate : Trace
        Both runs.
    known : sequence of str
        What :meth:`Causes.known` says of the networks.
    """
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
    return text


@dataclass(frozen=True)
class Causes:
    """Who finds out why a network fails.

    Attributes
    ----------
    backends : (Backend, Backend)
        The reference's and the candidate's.
    compression : mapping of str to str
        Network to the form of its compressed weights.
    standard : Standard, optional
        Half precision by itself, for float16 candidates.
    """

    backends: tuple[Backend, Backend]
    compression: Mapping[str, str]
    standard: Standard | None

    def of_network(self, reference: Trace, name: str, pairs: Pairs, where: str) -> str:
        """Say which operation of a failing program is at fault, or that its precision is not.

        Parameters
        ----------
        reference : Trace
            The reference's run.
        name : str
            The network.
        pairs : mapping
            The reference's and the candidate's outputs by point.
        where : str
            The point that fails.

        Returns
        -------
        str
            Lines for the message; empty where nothing can be looked into, or nothing was found.
        """
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
            return f"  cause: {found}"
        self._let_go()
        error = float(np.sqrt(np.mean((pairs[where][0].astype(np.float64) - pairs[where][1]) ** 2)))
        of_precision = max(overflow.own_error(paths, one) for one in predictions)
        own_weights = name not in self.compression  # what compression lost is in the error, too
        if own_weights and of_precision < _OF_PRECISION * error:  # not where either is NaN
            return (
                "  not its precision: in float32 the program would be about as far from the original (of its rms "
                f"error of {error:.3g}, float16 makes {of_precision:.3g}); an operation or a weight is another one"
            )
        return next((text for one in predictions if (text := overflow.explain(paths, one))), "")

    def known(self, reference: Trace, name: str) -> list[str]:
        """Say what is known of a network that errs by less than is allowed: its program's defect, its feature's.

        Parameters
        ----------
        reference : Trace
            The reference's run.
        name : str
            The network.
        """
        found = [overflow.finding(name, getattr(self.backends[1].component(name), "paths", ()))]
        calls = reference.calls(name)
        label = next((label for label, call in calls.items() if features.rounds(call)), None)
        if label is not None:
            tensor, exact = next(iter(reference.outputs(name)[label].items()))
            drawn = checked(name, self.backends[1].component(name)(calls[label]))[tensor]
            self._let_go()
            feature = self._rounded_time(name, calls[label], tensor, (exact, drawn))
            self._let_go()
            found += [f"{name}: {feature}"] if feature else []
        return [text for text in found if text]

    def _rounded_time(
        self, name: str, call: Mapping[str, np.ndarray], tensor: str, pair: tuple[np.ndarray, np.ndarray]
    ) -> str:
        """Ask the original for the rounded time; a compressed network's with the weights that compression left."""
        if not features.rounds(call):  # nothing is loaded in vain
            return ""
        if self.standard is None or name not in self.standard.yardstick.weights:
            return features.rounded_time(self.backends[0].component(name), call, tensor, pair)
        compute = partial(self.standard.yardstick.exact, name)
        return features.rounded_time(compute, call, tensor, (compute(call)[tensor], pair[1]))

    def _let_go(self) -> None:
        """Where memory is short, forget the networks: what follows loads another one."""
        for backend in self.backends:
            if backend.frugal:
                backend.release()
                memory.give_back()
