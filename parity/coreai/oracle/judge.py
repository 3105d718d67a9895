"""Who deviates on a graph: PyTorch, the MIL runtime with coremltools' converter, or Core AI with its own?

Each computes the graph in its dtype, and PyTorch in float64 beside, from the same inputs and parameters. The error of
each is the largest distance to float64 over the largest finite value. A graph that amplifies rounding does so for all,
so the tolerance grows with PyTorch's own error. In float16 the MIL runtime also predicts what sequential sums give
(profile ``float16-sequential``); Core AI may be as far off as that. coremltools writes some operators as several whose
intermediate results leave float16's range where PyTorch's do not (a group norm squares); such a graph does not deviate,
and the judgement names the operation.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parity import mil, quiet
from parity.coreai import converter
from parity.coreai.oracle.graphs import Graph, Module
from parity.coreai.process import Process
from parity.errors import UnsupportedError
from parity.mil import departure

TOLERANCES = {False: 4e-6, True: 4e-3}
"""By whether the graph is float16: error that rounding alone may cause, over the largest value."""
_AMPLIFIED = 16  # times PyTorch's own error
_WRONG_PASS = "common::reduce_transposes"  # of coremltools 9.0: the disagreement "transposed-twice"


@dataclass(frozen=True)
class Judgement:
    """What was found for a graph.

    Attributes
    ----------
    graph : Graph
    errors : dict
        ``torch``, ``mil``, ``coreai``, and in float16 ``sequential``: error against float64; inf where NaN or infinity
        stand at other places.
    tolerance : float
        What was allowed.
    overflow : str
        First operation of coremltools' float16 program whose result is not finite, where that explains what the MIL
        runtime gives: in float32 the same program is within the tolerance.
    """

    graph: Graph
    errors: dict[str, float]
    tolerance: float
    overflow: str = ""

    @property
    def deviating(self) -> tuple[str, ...]:
        """Who is beyond the tolerance: ``mil``, ``coreai``, both or none."""
        allowed = dict.fromkeys(("coreai",) if self.overflow else ("mil", "coreai"), self.tolerance)
        if "sequential" in self.errors and not self.overflow:
            allowed["coreai"] = max(self.tolerance, 2 * self.errors["sequential"])
        return tuple(name for name, bound in allowed.items() if not self.errors[name] <= bound)

    def explain(self) -> str:
        """Return the graph, the errors and the bound."""
        shown = ", ".join(f"{name} {error:.2e}" for name, error in self.errors.items())
        who = " and ".join(self.deviating) or "nobody"
        return f"{who} deviates: {shown}; allowed {self.tolerance:.2e}\n{self.graph}"


class Judge:
    """Runs graphs; keeps one Core AI process for all of them.

    Parameters
    ----------
    seconds : float
        Time limit of a graph in Core AI.
    """

    def __init__(self, *, seconds: float = 60.0) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="parity-oracle-"))
        self._process: Process | None = None
        self._seconds = seconds

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self._process.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def judge(self, graph: Graph) -> Judgement:
        """Compute a graph three ways.

        Raises
        ------
        UnsupportedError, FormatError
            A converter or a runtime refuses the graph.
        """
        module, x = Module(graph).eval(), graph.input()
        with torch.inference_mode():
            exact = Module(graph).eval().double()(x.double()).numpy()
            own = Module(graph).eval().half()(x.half()) if graph.half else module(x)
        results = {"torch": own.numpy(), "coreai": self._coreai(graph, x)}
        model = _package(graph, module, x, self._folder / "graph.mlpackage")
        given = {"x": x.numpy().astype(np.float16 if graph.half else np.float32)}
        profiles = {"mil": "declared"} | ({"sequential": "float16-sequential"} if graph.half else {})
        results |= {name: _mil(model, profile, given) for name, profile in profiles.items()}
        errors = {name: _error(exact, value, half=graph.half) for name, value in results.items()}
        judgement = Judgement(graph, errors, max(TOLERANCES[graph.half], _AMPLIFIED * errors["torch"]))
        if not graph.half or "mil" not in judgement.deviating:
            return judgement
        wide = _error(exact, _mil(model, "float32", given), half=True)
        if not wide <= judgement.tolerance:
            return judgement
        leaving, _ = departure.first(departure.values(model, given, fuse=False))
        return replace(judgement, overflow=leaving.type if leaving else "")

    def _coreai(self, graph: Graph, x: torch.Tensor) -> np.ndarray:
        module = Module(graph).eval()
        given = x
        if graph.half:
            module, given = module.half(), x.half()
        path = self._folder / "graph.aimodel"
        shutil.rmtree(path, ignore_errors=True)
        converter.convert(module, {"x": given}, path, outputs=("y",))
        if self._process is None:
            self._process = Process(path, seconds=self._seconds)
        else:
            self._process.switch(path)
        return self._process.run({"x": given.numpy()})["y"]


def _package(graph: Graph, module: Module, x: torch.Tensor, path: Path) -> mil.Model:
    """Return what coremltools makes of a graph."""
    from parity.convert import workarounds

    ct = quiet.coremltools()
    passes = ct.PassPipeline()
    passes.remove_passes({_WRONG_PASS})
    dtype = np.float16 if graph.half else np.float32
    with workarounds.tracing(), torch.no_grad():
        traced = torch.jit.trace(module, (x,), check_trace=False)
    try:
        with workarounds.converting(), quiet.without("coremltools", ("ERROR - converting",)):
            package = ct.convert(
                traced,
                inputs=[ct.TensorType(name="x", shape=graph.shape, dtype=dtype)],
                outputs=[ct.TensorType(name="y", dtype=dtype)],
                minimum_deployment_target=ct.target.iOS18,
                compute_precision=ct.precision.FLOAT16 if graph.half else ct.precision.FLOAT32,
                skip_model_load=True,
                pass_pipeline=passes,
            )
    except Exception as error:  # coremltools raises what its operators raise
        raise UnsupportedError(f"coremltools cannot convert this graph: {type(error).__name__}: {error}") from None
    shutil.rmtree(path, ignore_errors=True)
    package.save(str(path))
    return mil.load(path)


def _mil(model: mil.Model, profile: str, given: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(mil.Session(model, profile).predict(given)["y"])


def _error(exact: np.ndarray, value: np.ndarray, *, half: bool) -> float:
    """Return the largest distance over the largest finite value; values beyond float16 count as infinite."""
    with np.errstate(over="ignore"):
        wanted = exact.astype(np.float16).astype(np.float64) if half and np.abs(exact).max() > 65504 else exact
    found = value.astype(np.float64).reshape(wanted.shape)
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)) or not np.array_equal(
        wanted[~finite], found[~finite], equal_nan=True
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = float(np.abs(wanted[finite]).max())
    return float(np.abs(wanted[finite] - found[finite]).max()) / (largest or 1.0)
