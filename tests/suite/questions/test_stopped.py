"""A network that the runtime cannot compute is named, and the others are compared all the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from parity import coreml
from parity.suite import plan
from parity.suite.options import Options
from parity.suite.run import Run
from tests.suite.planting import TINY


@pytest.mark.long
def test_a_framework_that_fails_while_predicting_names_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = tmp_path / "cases.toml"
    cases.write_text('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "a red circle"\nsteps = 2\n')
    predict = coreml.Model.predict

    def broken(self: coreml.Model, inputs: Mapping[str, np.ndarray], **given: object) -> dict[str, np.ndarray]:
        if "unet" in self.path.name:
            raise RuntimeError("Error computing NN outputs.")
        return predict(self, inputs, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(coreml.Model, "predict", broken)
    options = Options(model_version="tiny-sd", cases=cases, compute_unit=("CPU_ONLY",), tolerances=TINY)
    (record,) = Run(options).ask_all(plan.cells(options))
    found = {check["point"]: check["verdict"] for check in record["checks"]}
    assert found == {
        "text_encoder": "pass",
        "unet": "fail",
        "vae_decoder": "pass",
        "latents/initial": "unknown",
        "image": "unknown",
    }
    assert (
        "unet: reference runtime (declared) fails while it computes: RuntimeError: Error computing NN outputs."
        in (record["explanation"])
    )


@pytest.mark.long
def test_a_run_that_breaks_outside_its_networks_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network passes alone, and no picture was drawn: that is no unknown."""
    from parity.pipelines import diffusers

    cases = tmp_path / "cases.toml"
    cases.write_text('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "a red circle"\nsteps = 2\n')
    run, calls = diffusers.run, []

    def broken(*given: object, **keywords: object) -> np.ndarray:
        calls.append(given)
        if len(calls) > 1:  # the reference's is the first
            raise RuntimeError("the scheduler gave up")
        return run(*given, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(diffusers, "run", broken)
    options = Options(model_version="tiny-sd", cases=cases, compute_unit=("CPU_ONLY",), tolerances=TINY)
    (record,) = Run(options).ask_all(plan.cells(options))
    assert record["verdict"] == "fail"
    assert "stopped by RuntimeError: the scheduler gave up" in record["explanation"]
