"""How do coremltools' tests run through the stand-in? A pytest plugin: ``-p parity.coreml.conformance.plugin``.

1. Before any test module is imported: choose ML Programs in both precisions, install the stand-in, and let coremltools'
   test helpers believe that this is an Apple-silicon Mac (they skip predictions elsewhere).
2. Each test gets its own seed, made of its name, so that a result does not depend on which tests ran before it.
3. Tests listed in ``expected.toml`` are marked as expected failures; after the run the list is checked against what
   happened, and totals are printed by file. A test counts as *predicting* when it ran a program.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import inspect
import os
import platform
import random
import sys
import unittest.mock
import zlib
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from parity.coreml.conformance.expected import HALF, Expectation, load_expected
from parity.coreml.conformance.tally import NEEDED, PREDICTIONS, Tally

_ENVIRONMENT = {
    "PYMIL_TEST_TARGETS": "mlprogram",
    "INCLUDE_MIL_FP32_UNIT_TESTS": "1",
    "TORCH_FRONTENDS": "TORCHSCRIPT",
}
_stand_ins: dict[str, ModuleType] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the run."""
    parser.addoption(
        "--covered",
        action="append",
        default=[],
        metavar="PATH",
        help="all tests below this path run: report expected failures there that no longer fail or exist",
    )
    parser.addoption("--sample", type=int, default=1, metavar="N", help="run one test of N, chosen by its name")
    parser.addoption("--part", type=int, default=0, metavar="K", help="which of the N samples")
    parser.addoption("--profile", default="declared", help="numerics of the reference runtime")
    parser.addoption("--totals", metavar="PATH", help="write the counts by file as JSON")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Install the stand-in, before coremltools' own conftest modules are imported."""
    os.environ.update(_ENVIRONMENT)
    _pretend_to_be_a_mac(early_config.known_args_namespace.profile)
    _stand_in_for_test_dependencies()


def pytest_configure(config: pytest.Config) -> None:
    """Register what keeps the books."""
    config.addinivalue_line("markers", "asyncio: a coroutine, run to its end")
    if not hasattr(config, "workerinput"):  # the controller, or the only process
        tally = Tally(load_expected(), covered=config.getoption("--covered"), totals=config.getoption("--totals"))
        config.pluginmanager.register(tally, "parity-tally")


def _pretend_to_be_a_mac(profile: str) -> None:
    from parity.coreml import shim

    shim.install(profile=profile)
    deps: Any = __import__("coremltools._deps", fromlist=["_IS_MACOS"])
    deps._IS_MACOS = True  # read by value when the test helpers are imported
    import torch  # noqa: F401  (looks at the machine when imported; must see the real one)

    platform.machine = lambda: "arm64"  # tests skip what Intel Macs get wrong


def _stand_in_for_test_dependencies() -> None:
    """Let test modules be imported that import packages for a few of their tests; those tests fail and are listed."""
    members: dict[str, dict[str, Any]] = {
        "mock": vars(unittest.mock),
        "pandas": {},
        "parameterized": {"parameterized": SimpleNamespace(expand=_expand)},
        "peft": {"LoraConfig": None, "get_peft_model": None},
        "torchvision": {},
    }
    for name, content in members.items():
        if importlib.util.find_spec(name) is None:
            _stand_ins[name] = sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(content)


def _expand(cases: list[Any]) -> Callable[[Callable[..., Any]], Any]:
    """Do what ``parameterized.expand`` does, with pytest's means."""

    def decorate(function: Callable[..., Any]) -> Any:
        names = list(inspect.signature(function).parameters)[1:]
        return pytest.mark.parametrize(names, cases)(function)

    return decorate


def pytest_collection_finish() -> None:
    """Take the stand-ins away again: other packages ask whether, for example, torchvision is there."""
    for name in _stand_ins:
        sys.modules.pop(name, None)
    gc.freeze()  # coremltools' comparator collects garbage at each step; thousands of tests need not be searched


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the sample and mark the expected failures."""
    every, part = config.getoption("--sample"), config.getoption("--part")
    config.hook.pytest_deselected(items=[item for item in items if _number(item.nodeid) % every != part])
    items[:] = [item for item in items if _number(item.nodeid) % every == part]
    expected = load_expected()
    for item in items:
        match: Expectation | None = expected.match(item.nodeid)
        if match is not None and match.kind != "half":
            item.add_marker(pytest.mark.xfail(reason=match.reason, run=not match.skip, strict=match.strict))


def _number(nodeid: str) -> int:
    """Return a number that depends on a test's name alone."""
    return zlib.crc32(nodeid.encode())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed Python, NumPy and torch from the test's name."""
    import numpy as np
    import torch

    seed = _number(item.nodeid)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (the tests draw from the global generator)
    torch.manual_seed(seed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Count the predictions of a test."""
    from parity.coreml.model_proxy import ModelProxy

    before = ModelProxy.predictions
    entry = load_expected().match(item.nodeid)
    try:
        with _half_tolerance(item) if entry is not None and entry.kind == "half" else contextlib.nullcontext():
            return (yield)
    finally:
        item.user_properties.append((PREDICTIONS, ModelProxy.predictions - before))


@contextlib.contextmanager
def _half_tolerance(item: pytest.Item) -> Iterator[None]:
    """Let coremltools' comparisons use the tolerance of float16, and note what tolerance was needed."""
    import numpy as np

    original = np.testing.assert_allclose
    needed = 0.0

    def within_half(actual: Any, desired: Any, *positional: Any, **options: Any) -> None:
        nonlocal needed
        try:
            original(actual, desired, *positional, **options)
        except AssertionError:
            original(actual, desired, rtol=HALF, atol=HALF)
            have, want = np.asarray(actual, np.float64), np.asarray(desired, np.float64)
            finite = np.isfinite(want)
            needed = max(needed, float((np.abs(have - want) / (1 + np.abs(want)))[finite].max()))

    with unittest.mock.patch.object(np.testing, "assert_allclose", within_half):
        yield
    item.user_properties.append((NEEDED, needed))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests without a further plugin."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
