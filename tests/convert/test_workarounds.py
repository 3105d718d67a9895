"""Each workaround is still needed: without it the library shows the peculiarity. When one fails, remove its entry."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from parity import convert
from parity.convert import workarounds
from parity.convert.spec import content_hash
from parity.models import source

Model = Callable[[str], Path]


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def _converted() -> object:
    ct = workarounds.coremltools()

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + x, x[:, torch.arange(2)]

    traced = torch.jit.trace(Twice().eval(), torch.zeros(1, 3))
    return ct.convert(
        traced,
        inputs=[ct.TensorType(name="x", shape=(1, 3))],
        minimum_deployment_target=ct.target.macOS13,
        skip_model_load=True,
    )


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has the native classes")
def test_import_noise() -> None:
    """One process: what importing logs is all dropped by the workaround's messages, and there is something."""
    code = (
        "import logging; from parity.convert import workarounds as w; seen = [];"
        "logging.lastResort.emit = lambda record: seen.append(record.getMessage());"
        "import coremltools; known = w.quiet.COREMLTOOLS_REMARKS;"
        "print(len(seen), [m for m in seen if not any(k in m for k in known)], w.coremltools().__name__)"
    )
    count, *rest = _run(code).stdout.split()
    assert int(count) > 0
    assert rest == ["[]", "coremltools"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_trace_noise() -> None:
    from diffusers.models.downsampling import Downsample2D

    module, example = Downsample2D(8, use_conv=True).eval(), torch.zeros(1, 8, 4, 4)
    with pytest.warns(torch.jit.TracerWarning):
        torch.jit.trace(module, example)
    with warnings.catch_warnings(), workarounds.tracing():
        torch.jit.trace(module, example)


def _seen_with(workaround: workarounds.Workaround) -> pytest.MarkDecorator:
    """Skip where the installed library is older than the peculiarity."""
    return pytest.mark.skipif(
        not workaround.needed, reason=f"{workaround.package} {workaround.versions} alone does this: {workaround.reason}"
    )


@_seen_with(workarounds.TRACE_DEPRECATION)
def test_trace_deprecation() -> None:
    module, example = torch.nn.Linear(2, 2).eval(), torch.zeros(1, 2)
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.trace"):
        torch.jit.trace(module, example)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with workarounds.tracing():
            torch.jit.trace(module, example)


def test_clusters() -> None:
    from sklearn.exceptions import ConvergenceWarning

    workarounds.coremltools()
    from coremltools.models.neural_network.quantization_utils import _get_kmeans_lookup_table_and_weight as cluster

    with pytest.warns(ConvergenceWarning, match="Number of distinct clusters"):
        cluster(2, np.ones((3, 4), np.float16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with workarounds.converting():
            cluster(2, np.ones((3, 4), np.float16))


@pytest.fixture(autouse=True)
def _logger() -> Iterator[None]:
    """coremltools' logger as it is in a new process, whatever other tests made of it."""
    logger = logging.getLogger("coremltools")
    before = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(before)


@pytest.mark.long
def test_convert_noise_and_progress(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    _converted()
    noisy = capfd.readouterr().err
    assert "Running MIL default pipeline" in noisy
    assert "Tuple detected at graph output" in caplog.text
    assert "Saving value type of int64" in caplog.text
    caplog.clear()
    with workarounds.converting(lambda stage, done, total: seen.append(stage)):
        _converted()
    assert capfd.readouterr().err == ""
    assert "Tuple detected" not in caplog.text
    assert list(dict.fromkeys(seen)) == ["MIL Ops", "frontend_pytorch", "default", "backend_mlprogram"]


def test_parts_are_loaded_in_silence(model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    """Bars and hints of the libraries go; what the user switched off stays off."""
    import transformers
    from transformers.utils import logging

    folder = model("sd1") / "text_encoder"
    transformers.CLIPTextModel.from_pretrained(folder)
    drawn = capfd.readouterr().err
    assert "Loading weights" in drawn or Version(transformers.__version__) < Version("5"), "it draws no bar any more"
    for part, name in (("text_encoder", "CLIPTextModel"), ("unet", "UNet2DConditionModel")):
        source.load_module(model("sd1") / part, name)
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        source.load_module(folder, "CLIPTextModel")
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()


@_seen_with(workarounds.CONVERSION_DATE)
def test_conversion_date() -> None:
    metadata = dict(_converted().user_defined_metadata)  # type: ignore[attr-defined]
    assert "com.github.apple.coremltools.conversion_date" in metadata
    workarounds.remove_conversion_date(metadata)
    assert not [key for key in metadata if "date" in key]


@pytest.mark.long
def test_scalar_arrays() -> None:
    ct = workarounds.coremltools()

    class Cast(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(x.shape[0], int(x.shape[1] * 2) // 2)

    with workarounds.tracing():
        traced = torch.jit.trace(Cast().eval(), torch.zeros(1, 4), check_trace=False)

    def converted() -> None:
        features = {"inputs": [ct.TensorType(name="x", shape=(1, 4))], "outputs": [ct.TensorType(name="y")]}
        ct.convert(traced, **features, skip_model_load=True)

    with pytest.warns(DeprecationWarning, match="Conversion of an array with ndim > 0"):
        converted()
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        with workarounds.converting():
            converted()


@pytest.mark.long
def test_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    workarounds.coremltools()
    from coremltools.converters.mil.mil import Program

    calls: list[object] = []
    original = Program.validate
    monkeypatch.setattr(Program, "validate", lambda *a, **k: calls.append(k) or original(*a, **k))
    _converted()
    assert len(calls) > 100
    calls.clear()
    with workarounds.converting():
        _converted()
    assert 3 <= len(calls) < 10


@pytest.mark.long
def test_upstream(model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Searched only where something can be found; with compressed weights, too, the package has equal bytes."""
    workarounds.coremltools()
    from coremltools.converters.mil.mil import Block

    calls: list[object] = []
    original = Block._propagate_nonreplaceable_vars
    monkeypatch.setattr(Block, "_propagate_nonreplaceable_vars", lambda block: calls.append(block) or original(block))
    _converted()
    assert len(calls) > 50
    calls.clear()
    with workarounds.converting():
        _converted()
    assert calls == []
    hashes = []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(workarounds, "fewer_searches", nullcontext)
        made = convert.convert(
            model("sd1"), tmp_path / name, components=["text_encoder"], compression="palette4", check=False
        )
        hashes.append(content_hash(made["text_encoder"]))
        assert calls, "there are decompressed weights"
    assert hashes[0] == hashes[1]


@pytest.mark.long
def test_printing(monkeypatch: pytest.MonkeyPatch) -> None:
    workarounds.coremltools()
    from coremltools.converters.mil.mil import Block, Function, Program

    printed: list[object] = []
    original = Block.indented_str
    monkeypatch.setattr(Block, "indented_str", lambda block, *a, **k: printed.append(block) or original(block, *a, **k))
    _converted()
    assert len(printed) > 5
    printed.clear()
    before = [kind.__str__ for kind in (Block, Function, Program)]
    with workarounds.converting():
        _converted()
    assert printed == []
    assert [kind.__str__ for kind in (Block, Function, Program)] == before


@pytest.mark.usefixtures("unsettled")
def test_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each conversion ends with a search for garbage, which passes over what was there before it."""
    before = gc.get_freeze_count()  # 0, on Python 3.12 a few hundred
    frozen: list[int] = []
    original = gc.collect

    def collect(generation: int = 2) -> int:
        frozen.append(gc.get_freeze_count())
        return original(generation)

    workarounds.coremltools()
    monkeypatch.setattr(gc, "collect", collect)
    _converted()
    assert frozen == [before]
    with workarounds.converting():
        _converted()
    assert frozen[1] > 100_000
    assert gc.get_freeze_count() <= before


@pytest.mark.long
def test_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[Path] = []
    original = tempfile.mkdtemp

    def mkdtemp(*arguments: object, **options: object) -> str:
        made.append(Path(original(*arguments, **options)))  # type: ignore[call-overload]
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    _converted()
    assert made
    assert all(path.parent == Path(tempfile.gettempdir()) for path in made)
    made.clear()
    with workarounds.converting(folder=tmp_path):
        _converted()
    assert made
    assert all(path.parent == tmp_path for path in made)


@pytest.mark.long
def test_casts_in_memory(tmp_path: Path) -> None:
    """The weights of the program that coremltools made: in memory without, in the file with."""
    from parity.models.scratch import Scratch
    from tests.models.test_scratch import lies_in

    ct = workarounds.coremltools()
    with workarounds.tracing():
        traced = torch.jit.trace(torch.nn.Conv2d(64, 64, 1).eval(), torch.zeros(1, 64, 2, 2))

    def weight() -> np.ndarray:
        inputs = [ct.TensorType(name="x", shape=(1, 64, 2, 2))]
        model = ct.convert(traced, inputs=inputs, minimum_deployment_target=ct.target.macOS13, skip_model_load=True)
        (conv,) = model._mil_program.functions["main"].find_ops(op_type="conv")
        return conv.weight.val

    scratch = Scratch(tmp_path, 100_000)
    with workarounds.converting():
        assert weight().dtype == np.float16
        assert not lies_in(scratch, weight())
    with workarounds.converting(scratch=scratch):
        assert lies_in(scratch, weight())


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("compute", ["FLOAT32", "FLOAT16"])
def test_fused_epsilon(compute: str) -> None:
    """Without it every value is 0.999995 of the right one in float32; in float16 nothing changes."""
    from parity import coreml

    ct = workarounds.coremltools()
    scale, shift = torch.linspace(0.5, 2, 8).reshape(8, 1, 1), torch.linspace(-1, 1, 8).reshape(8, 1, 1)

    class Affine(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * scale + shift

    x = np.random.default_rng(0).standard_normal((1, 8, 4, 4)).astype(np.float32)
    with workarounds.tracing():
        traced = torch.jit.trace(Affine().eval(), torch.from_numpy(x))

    def converted() -> np.ndarray:
        model = ct.convert(
            traced,
            inputs=[ct.TensorType(name="x", shape=x.shape)],
            outputs=[ct.TensorType(name="y")],
            minimum_deployment_target=ct.target.macOS13,
            compute_precision=getattr(ct.precision, compute),
            skip_model_load=True,
        )
        assert model._mil_program.functions["main"].find_ops(op_type="batch_norm")
        return coreml.load(model.package_path, runtime="reference").predict({"x": x})["y"]

    right = scale.numpy() * x + shift.numpy()
    without = converted()
    with workarounds.converting():
        y = converted()
    if compute == "FLOAT16":
        np.testing.assert_array_equal(y, without)
    else:
        assert np.abs(y - right).max() < 5e-7
        np.testing.assert_allclose(without - right, -5e-6 * scale.numpy() * x, atol=5e-7)


def test_safety_noise(caplog: pytest.LogCaptureFixture) -> None:
    from tests.convert.models import safety_checker

    checker, clip, images = safety_checker(), torch.zeros(1, 3, 224, 224), torch.ones(1, 8, 8, 3)
    checker.concept_embeds_weights.data.fill_(-2.0)  # every concept is found
    logging.getLogger("diffusers").propagate = True
    try:
        checker(clip, images.clone())
        assert "Potential NSFW content" in caplog.text
        caplog.clear()
        with workarounds.checking_safety():
            checker(clip, images.clone())
        assert caplog.text == ""
    finally:
        logging.getLogger("diffusers").propagate = False


def test_boundary_order() -> None:
    """coremltools returns ``list(set)``; the names in the set come back sorted."""
    import inspect

    workarounds.coremltools()
    import coremltools.models.utils as utils

    assert "boundary_vars = set()" in inspect.getsource(utils._get_first_chunk_outputs)
    original = utils._get_first_chunk_outputs
    with workarounds.cutting():
        assert utils._get_first_chunk_outputs is not original
    assert utils._get_first_chunk_outputs is original


def _begun(workaround: workarounds.Workaround) -> bool:
    """Whether the installed version has reached the range: the oldest libraries are before some."""
    lower = [Version(one.version) for one in SpecifierSet(workaround.versions) if one.operator == ">="]
    return all(Version(importlib.metadata.version(workaround.package)) >= first for first in lower)


def test_every_workaround_names_its_versions() -> None:
    assert len({w.name for w in workarounds.ALL}) == len(workarounds.ALL)
    assert [w.name for w in workarounds.ALL if _begun(w) and not w.needed] == [], "an entry whose range ended can go"
    defined = [value for value in vars(workarounds).values() if isinstance(value, workarounds.Workaround)]
    assert sorted(w.name for w in defined) == sorted(w.name for w in workarounds.ALL)
    tests = " ".join(name for name in globals() if name.startswith("test_"))
    assert not [w.name for w in workarounds.ALL if w.name.replace("-", "_") not in tests], "each has a test"
    assert not workarounds.Workaround("x", "torch", "<1", "").needed


@pytest.mark.long
def test_a_conversion_is_silent(model: Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = model("sd1")
    capfd.readouterr()  # writing the model draws a bar
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        convert.convert(folder, tmp_path, components=["text_encoder", "unet"])
    assert capfd.readouterr().err == ""
    assert [str(w.message) for w in caught if w.category is not ResourceWarning] == []
    assert logging.getLogger("coremltools").level == logging.NOTSET
