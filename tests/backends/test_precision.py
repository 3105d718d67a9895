"""The precision by which bounds are chosen is the program's, as coremltools was told to write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.backends.coreml import CoreMLBackend, computes_in
from parity.contracts.consumers import consumers
from parity.contracts.release import conventions


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One convolution in each precision, written by coremltools."""
    import coremltools as ct
    import torch

    folder, found = tmp_path_factory.mktemp("precision"), {}
    traced = torch.jit.trace(torch.nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 8, 8))
    for name in ("FLOAT32", "FLOAT16"):
        made = ct.convert(
            traced,
            inputs=[ct.TensorType("z", (1, 3, 8, 8))],
            compute_precision=ct.precision[name],
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        )
        found[name.lower()] = folder / f"{name}.mlpackage"
        made.save(str(found[name.lower()]))
    return found


def test_the_program_says_in_what_it_computes(packages: dict[str, Path]) -> None:
    assert {name: computes_in(str(path)) for name, path in packages.items()} == {
        "float32": "float32",
        "float16": "float16",
    }


def test_a_backend_has_the_precision_of_its_components(packages: dict[str, Path]) -> None:
    mixed = {"vae_decoder": packages["float32"], "vae_encoder": packages["float16"]}
    backend = CoreMLBackend(mixed, runtime="reference")
    assert (backend.precision_of("vae_decoder"), backend.precision_of("vae_encoder")) == ("float32", "float16")
    assert backend.precision == "float16", "a picture goes through all of them"
    assert CoreMLBackend({"vae_decoder": packages["float32"]}, runtime="reference").precision == "float32"
    whole = CoreMLBackend(mixed, runtime="reference", profile="float32")
    assert whole.precision == "float32", "this profile rounds nothing"
    released = backend.as_release(conventions(consumers().consumer("S7")))
    assert (released.precision_of("vae_decoder"), released.precision_of("noising_encoder")) == ("float32", "float16")
