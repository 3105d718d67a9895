"""Who draws, and how does a user name them?

``diffusers`` is diffusers' own pipelines. Apps are named with a version, ``swift==1.1.0``, ``python==0.4.0``,
``mochi==6.0``, or by the id of their row in the tables, ``S7``; an app alone is its newest release. ``swift-command``
is the Swift package's command line.
"""

from __future__ import annotations

import re
from typing import Protocol

import numpy as np

from parity import streams
from parity.contracts.consumers import Consumer, consumers
from parity.errors import UsageError
from parity.models.model import Model
from parity.networks.backend import Backend
from parity.networks.signature import Component, Observe
from parity.pipelines import command, diffusers
from parity.pipelines.release import Release
from parity.pipelines.request import Request
from parity.pipelines.schedules.noise import Noise
from parity.pipelines.settings import ConsumerFailureError
from parity.pipelines.trace import Trace
from parity.tables import nearest

DEFAULT = "diffusers"
_VERSION = re.compile(r"\d+(\.\d+)*")


class Producer(Protocol):
    """Draws requests: order of random draws, schedule, guidance arithmetic, what is decoded.

    Attributes
    ----------
    name : str
        As the user named it.
    """

    name: str

    def stream(self, rng: str) -> str:
        """Return the name of the stream that this producer draws from when a case asks for ``rng``."""
        ...

    def has_stream(self, rng: str) -> bool:
        """Tell whether this producer can draw from ``rng`` or its own kind of it."""
        ...

    def refusal(self, request: Request) -> str:
        """Return why this producer has no such request at all, whatever the models; empty if it has."""
        ...

    def failure(self, failure: ConsumerFailureError, request: Request) -> str:
        """Return what a user of this producer sees when it fails."""
        ...

    def involved(self, request: Request, trace: Trace) -> tuple[str, ...]:
        """Return the networks that a request involves, as the trace of its run shows."""
        ...

    def networks(self, backend: Backend) -> Backend:
        """Return a backend's networks as this producer binds them."""
        ...

    def draw(
        self, request: Request, model: Model, backend: Backend, *, seed: int, rng: str, observe: Observe
    ) -> np.ndarray:
        """Draw a request.

        Parameters
        ----------
        request : Request
            What to draw.
        model : Model
            Tokenizer, scheduler configuration and geometry.
        backend : Backend
            Who computes the networks; not bound yet.
        seed : int
            Of the stream.
        rng : str
            What the case asks for; :meth:`stream` says what becomes of it.
        observe : callable
            Receives every named point, e.g. a :class:`parity.pipelines.trace.Trace`.

        Returns
        -------
        numpy.ndarray
            uint8 (images, height, width, 3), RGB.

        Raises
        ------
        ConsumerFailureError
            The producer fails with these models; its text is what a user sees.
        ParityError
            The request or the model cannot be drawn.
        """
        ...


class Diffusers:
    """diffusers' pipelines."""

    name = DEFAULT

    def stream(self, rng: str) -> str:
        """Return the stream itself: diffusers takes any noise."""
        return rng

    def has_stream(self, rng: str) -> bool:
        """Tell that it can: diffusers takes any noise."""
        return True

    def refusal(self, request: Request) -> str:
        """Return nothing: a :class:`Request` is diffusers' own."""
        return ""

    def failure(self, failure: ConsumerFailureError, request: Request) -> str:
        """Return the failure's own text."""
        return str(failure)

    def involved(self, request: Request, trace: Trace) -> tuple[str, ...]:
        """Return the networks that were called."""
        return trace.components

    def networks(self, backend: Backend) -> Backend:
        """Return the backend itself."""
        return backend

    def draw(
        self, request: Request, model: Model, backend: Backend, *, seed: int, rng: str, observe: Observe
    ) -> np.ndarray:
        """Draw a request; see :meth:`Producer.draw`."""
        noise = noise_of(request, seed=seed, rng=rng)
        return diffusers.run(request, model, _OnDemand(backend), noise, observe=observe, seed=seed)


class _OnDemand(dict[str, Component]):
    """A backend's networks, each asked for when it is needed."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._backend = backend

    def __missing__(self, name: str) -> Component:
        return self._backend.component(name)


def noise_of(request: Request, *, seed: int, rng: str) -> Noise:
    """Return the noise of a request: of one stream, or of one for each picture, with the seeds that follow.

    Parameters
    ----------
    request : Request
        What is drawn.
    seed : int
        Of the stream, or of the first picture's.
    rng : str
        Name of the stream.

    Raises
    ------
    UsageError
        A seed that this stream does not take.
    """
    count = request.images if request.generators == "each" else 1
    opened = [streams.open(rng, seed=seed + index) for index in range(count)]

    def noise(shape: tuple[int, ...]) -> np.ndarray:
        if len(opened) == 1:
            return opened[0].normal(shape).astype(np.float32)
        drawn = [stream.normal((1, *shape[1:])) for stream in opened[: shape[0]]]
        return np.concatenate(drawn).astype(np.float32)

    return noise


def producer(text: str) -> Producer:
    """Return the producer that a text names.

    Raises
    ------
    UsageError
        No such app (they are listed) or no such version of it (the nearest is named).
    UnsupportedError
        The tables do not tell how it draws.
    """
    if text == DEFAULT:
        return Diffusers()
    if text.partition("==")[0].strip() == command.NAME:
        return command.SwiftCommand(text, _consumer(text.replace(command.NAME, "swift", 1)))
    return Release(text, _consumer(text))


def _consumer(text: str) -> Consumer:
    table = consumers().consumers
    if found := [consumer for consumer in table if consumer.id == text]:
        return found[0]
    app, equals, version = text.partition("==")
    releases = [consumer for consumer in table if consumer.app == app.strip()]
    if not releases:
        apps = list(dict.fromkeys(consumer.app for consumer in table))
        hint = nearest(app, [DEFAULT, *apps]) or "."
        raise UsageError(f"no producer named {text!r}{hint} There are {DEFAULT} and, with ==VERSION, {', '.join(apps)}")
    if not equals or version == "main":
        return releases[-1]
    if not _VERSION.fullmatch(version.strip()):
        raise UsageError(f"{text}: a version such as 1.1.0 is expected behind ==, not {version!r}")
    wanted = tuple(int(number) for number in version.strip().split("."))
    for consumer in releases:
        if _padded(consumer.first) <= _padded(wanted) <= _padded(consumer.last):
            return consumer
    older = [consumer for consumer in releases if _padded(consumer.first) <= _padded(wanted)]
    closest = older[-1] if older else releases[0]
    known = ", ".join(f"{app}=={'.'.join(map(str, consumer.first))}" for consumer in releases)
    raise UsageError(
        f"{text}: the tables know no such release; the nearest is {app}=={'.'.join(map(str, closest.first))} "
        f"({closest.name}). Known are {known} and what each covers"
    )


def _padded(version: tuple[int, ...]) -> tuple[int, ...]:
    return (*version, 0, 0, 0, 0)[:4]
