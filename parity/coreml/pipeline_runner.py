"""How does a pipeline of ML Programs run: models in a row, each taking what is known by name?

``coremltools.utils.make_pipeline`` and ``bisect_model`` write such models; a UNet in chunks is one. The package holds
the models inside its specification and their weights as ``weights/0-weight.bin``, ``weights/1-weight.bin``, …
Source: ``Model.proto`` (message ``Pipeline``) of coremltools 9.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parity import mil
from parity.errors import UnsupportedError

KINDS = ("mlProgram", "pipeline")
"""Kinds of models that the reference runtime executes; a pipeline's models must be ML Programs."""


class PipelineRunner:
    """Sessions of a pipeline's models behind the interface of one.

    Parameters
    ----------
    model : parity.mil.Model
        Of kind ``pipeline``.
    profile : str
        Numerics, as of `parity.mil.Session`.

    Raises
    ------
    UnsupportedError
        A model of the pipeline is no ML Program, or has states.
    """

    def __init__(self, model: mil.Model, profile: str) -> None:
        self._sessions = []
        for number, specification in enumerate(model.specification.pipeline.models):
            part = mil.Model(model.path, specification, model.weights, model.compiled)
            if part.kind != "mlProgram" or part.states:
                reason = f"of kind {part.kind}" if part.kind != "mlProgram" else "stateful"
                raise UnsupportedError(
                    f"{model.path}: model {number} of the pipeline is {reason}; the reference runtime executes "
                    "pipelines of ML Programs without states"
                )
            self._sessions.append(mil.Session(part, profile=profile))

    def predict(self, inputs: Mapping[str, Any], *, state: None = None) -> dict[str, Any]:
        """Run the models in order; return everything that they give."""
        del state
        known = dict(inputs)
        for session in self._sessions:
            known |= session.predict({f.name: known[f.name] for f in session.function.inputs if f.name in known})
        return known


def runner(model: mil.Model, function: str, profile: str) -> mil.Session | PipelineRunner:
    """Return what predicts with a model: a session, or the row of sessions of a pipeline.

    Raises
    ------
    UnsupportedError
        The model is of another kind; the message names it and says what to do.
    """
    if model.kind == "mlProgram":
        return mil.Session(model, profile=profile, function=function)
    if model.kind == "pipeline":
        return PipelineRunner(model, profile)
    raise UnsupportedError(other_kind(model))


def other_kind(model: mil.Model) -> str:
    """Return the message for a model that the reference runtime does not execute."""
    if model.kind == "empty":
        return f"{model.path}: the file describes no model; it is damaged, or an unfinished download"
    return (
        f"{model.path}: the reference runtime executes ML Programs and pipelines of them; this model is of kind "
        f'{model.kind}. Convert it with convert_to="mlprogram" (minimum_deployment_target iOS 15 or later), '
        "or run it on macOS"
    )
