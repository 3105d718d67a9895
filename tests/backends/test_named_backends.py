"""Backends by name: what is not there is named, what another package adds takes part, what fails to import is named."""

from __future__ import annotations

import sys
import textwrap

import pytest

from parity.backends import registry
from parity.errors import MissingError, UnsupportedError, UsageError
from parity.suite import plan
from parity.suite.options import Options
from parity.suite.run import Run

PLUGIN = '''
import numpy as np
from parity.networks.backend import Backend


class Half(Backend):
    """PyTorch's networks with outputs rounded to float16: a backend as another package would write it."""

    name, numerics, precision = "half", "rounded (float16)", "float16"

    def __init__(self, subject):
        super().__init__()
        from parity.backends.pytorch import TorchBackend

        self._inner = TorchBackend(subject.location)

    def _load(self, name):
        inner = self._inner.component(name)

        class Rounded:
            def __call__(self, inputs):
                return {key: np.float32(np.float16(value)) for key, value in inner(inputs).items()}

        Rounded.name = name
        return Rounded()


class Opener:
    def resolve(self, words):
        return "rounded (float16)"

    def open(self, words, subject):
        return Half(subject)
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Two installed packages with a backend each; one fails to import."""
    (tmp_path / "half_backend.py").write_text(textwrap.dedent(PLUGIN))
    (tmp_path / "broken_backend.py").write_text("import a_package_that_does_not_exist\n")
    for name in ("half", "broken"):
        info = tmp_path / f"{name}_backend-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-backend\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[parity.backends]\n{name} = {name}_backend:Opener\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("half_backend", "broken_backend"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "no backend named 'nothing'; there are torch, coreml, coreai"),
        ("torch:cpu:float8", "'float8' is not known"),
        ("coreml:CPU:x", "coreml:CPU:x: not known"),
        ("coreml:reference:exact", "unknown numeric profile 'exact'"),
        ("coreai:TPU", "'TPU' is not known"),
        ("torch::float16", "words with colons"),
        ("", "words with colons"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(text, message):
    with pytest.raises(UsageError, match=message):
        registry.resolve(text)


def test_names_of_the_projects_own():
    assert registry.resolve("torch") == "PyTorch cpu float32"
    assert registry.resolve("torch:cpu:float16") == "PyTorch cpu float16"
    assert registry.resolve("coreml:reference") == "reference runtime (declared)"
    assert registry.resolve("coreml:reference:float16-sequential") == "reference runtime (float16-sequential)"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS may have these")
def test_what_is_not_here_is_unknown_with_its_reason():
    (cell, *_) = [
        cell for cell in plan.cells(Options(backend=("torch:mps", "coreml:ALL"))) if cell.backend == "torch:mps"
    ]
    assert cell.kind == "candidate"
    assert "device mps is not available" in cell.unavailable
    with pytest.raises(UnsupportedError, match="macOS only"):
        registry.resolve("coreml:ALL")


def test_core_ai_without_its_packages_is_unknown(monkeypatch):
    from parity.coreai import availability

    monkeypatch.setattr(availability, "reason", lambda convert=False: "coreai-core not installed: pip install …")
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    with pytest.raises(MissingError, match="pip install"):
        registry.resolve("coreai")
    cells = [cell for cell in plan.cells(Options(backend=("coreai",))) if cell.backend]
    assert cells
    assert all(cell.unavailable.startswith("coreai-core not installed") for cell in cells)


def test_units_of_core_ai_need_macos_27(monkeypatch):
    from parity.backends import coreai
    from parity.coreai import availability

    monkeypatch.setattr(availability, "reason", lambda convert=False: "")
    monkeypatch.setattr(coreai, "has_units", lambda: False)
    with pytest.raises(UnsupportedError, match="units need macOS 27"):
        registry.resolve("coreai:NEURAL_ENGINE")
    assert registry.resolve("coreai") == "Core AI interpreter (float32)"
    monkeypatch.setattr(coreai, "has_units", lambda: True)
    assert registry.resolve("coreai:NEURAL_ENGINE:float16") == "Core AI NEURAL_ENGINE (float16)"


def test_named_backends_replace_the_units_and_leave_out_old_models():
    cells = plan.cells(Options(backend=("torch:cpu:float16", "coreml:reference")))
    assert {cell.kind for cell in cells} == {"golden", "candidate"}
    assert {cell.backend for cell in cells if cell.kind == "candidate"} == {"torch:cpu:float16", "coreml:reference"}
    both = plan.cells(Options(backend=("torch",), compute_unit=("CPU_ONLY",)))
    assert {cell.backend for cell in both if cell.kind == "candidate"} == {"", "torch"}


def test_another_package_adds_a_backend(installed):
    from parity.models.model import Model

    assert {"half", "broken"} <= set(registry.names())
    assert registry.resolve("half") == "rounded (float16)"
    model = Model("tiny-sd")
    backend = registry.open_backend("half", registry.Subject(model.location, None, dict))
    hidden = backend.component("text_encoder")({"input_ids": model.tokens("a circle")})["hidden"]
    assert hidden.dtype.name == "float32"
    assert (hidden == hidden.astype("float16")).all()


TOLERANCES = """
[[tolerance]]
point = "{point}"
metric = "{metric}"
precision = "float16"
numerics = "rounded*"
bound = {bound}
measured = "for this test"
"""


def test_another_packages_backend_takes_part_in_a_run(installed, tmp_path):
    """A whole run: drawn, compared network by network and as a picture, by bounds of one's own."""
    cases, bounds = tmp_path / "cases.toml", tmp_path / "tolerances.toml"
    cases.write_text('[[case]]\nname = "quick"\ntask = "txt2img"\nprompt = "a red circle"\nsteps = 2\n')
    points = {"text_encoder": 60, "unet": 60, "vae_decoder": 60}
    rows = [TOLERANCES.format(point=point, metric="tensor_psnr", bound=bound) for point, bound in points.items()]
    bounds.write_text("".join([*rows, TOLERANCES.format(point="image", metric="image_psnr", bound=40)]))
    options = Options(model_version="tiny-sd", cases=cases, tolerances=bounds, backend=("half", "broken"))
    half, broken = Run(options).ask_all(plan.cells(options))
    assert half["verdict"] == "pass"
    assert [check["point"] for check in half["checks"]] == ["latents/initial", *points, "image"]
    assert all(check["value"] < 100 for check in half["checks"] if check["point"] in points), "it was really rounded"
    assert broken["verdict"] == "unknown"


def test_a_backend_that_fails_to_import_is_named_and_others_go_on(installed):
    cells = plan.cells(Options(backend=("broken", "half")))
    broken = next(cell for cell in cells if cell.backend == "broken")
    assert "broken_backend:Opener of broken-backend fails to import: ModuleNotFoundError" in broken.unavailable
    assert next(cell for cell in cells if cell.backend == "half").unavailable == ""


def test_the_command_that_repeats_a_cell_names_its_backend():
    from parity.suite.outcome import reproduce

    options = Options(backend=("torch", "coreml:reference"))
    cell = next(cell for cell in plan.cells(options) if cell.backend == "coreml:reference")
    assert reproduce(options, cell).split()[2:4] == ["--backend", "coreml:reference"]


@pytest.mark.parametrize("reason", ["", "coreai-core not installed"])
def test_one_cell_of_the_default_model_where_core_ai_is_installed(reason, monkeypatch):
    from parity.coreai import availability

    monkeypatch.setattr(availability, "reason", lambda convert=False: reason)
    monkeypatch.setattr(availability, "require", lambda convert=False: None)
    cells = [cell for cell in plan.cells(Options()) if cell.backend]
    assert [cell.backend for cell in cells] == ([] if reason else ["coreai"])
    assert not [cell for cell in plan.cells(Options(compute_unit=("ALL",))) if cell.backend]
