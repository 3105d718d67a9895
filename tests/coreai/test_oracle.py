"""Do PyTorch, the MIL runtime and Core AI agree on random graphs, and does the judge see it when one does not?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from parity.coreai.oracle.graphs import OPERATORS, Graph, Step, graphs

pytestmark = [pytest.mark.coreai, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

_SETTINGS = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "print_blob": False,
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(scope="module")
def judge():
    from parity.coreai.oracle.judge import Judge

    with Judge() as judge:
        yield judge


@settings(max_examples=50, **_SETTINGS)  # in `make test` too, where the extra is installed: a quarter of a minute
@given(graphs(longest=6))
def test_fifty_graphs_agree(judge, graph):
    judgement = judge.judge(graph)
    assert not judgement.deviating, judgement.explain()


@pytest.mark.slow
@settings(max_examples=1000, **_SETTINGS)
@given(graphs())
def test_a_thousand_graphs_agree(judge, graph):
    judgement = judge.judge(graph)
    assert not judgement.deviating, judgement.explain()


@pytest.mark.long
@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_every_operator_is_drawn_in_a_form_that_runs(operator, judge):
    shape = (1, 5, 8) if 3 in OPERATORS[operator].ranks else (1, 4, 6, 6)
    step = Step(operator, (0,) * OPERATORS[operator].count, (1,) * OPERATORS[operator].settings)
    judgement = judge.judge(Graph(shape, (step,)))
    assert not judgement.deviating, judgement.explain()


@pytest.mark.long
@pytest.mark.parametrize("side", ["mil", "coreai"])
def test_a_planted_fault_is_seen(side, judge, monkeypatch):
    from parity.coreai.oracle import judge as module

    graph = Graph((1, 5, 8), (Step("linear", (0,), (2,)), Step("silu", (1,))))
    if side == "mil":
        original = module._mil
        monkeypatch.setattr(module, "_mil", lambda *arguments: original(*arguments) * np.float32(1.0001))
    else:
        coreai = module.Judge._coreai
        monkeypatch.setattr(module.Judge, "_coreai", lambda *arguments: coreai(*arguments) * np.float32(1.0001))
    judgement = judge.judge(graph)
    assert judgement.deviating == (side,)
    assert f"{side} deviates" in judgement.explain()
    assert "x2 = silu(x1)" in judgement.explain()


@pytest.mark.long
def test_a_program_that_leaves_float16_is_named_and_hides_nothing_else(judge, monkeypatch):
    from parity.coreai.oracle import judge as module

    graph = Graph((1, 4, 6, 6), (Step("group_norm", (0,), (0,)),), half=True, scale="large")
    judgement = judge.judge(graph)
    assert (judgement.deviating, judgement.overflow) == ((), "square")
    assert judgement.errors["mil"] > judgement.tolerance
    coreai = module.Judge._coreai
    monkeypatch.setattr(module.Judge, "_coreai", lambda *arguments: coreai(*arguments) * np.float16(1.1))
    assert judge.judge(graph).deviating == ("coreai",)
    finite = Graph((1, 4, 6, 6), (Step("group_norm", (0,), (0,)),), half=True)
    monkeypatch.setattr(module, "_package", lambda *arguments, own=module._package: _scaled(own(*arguments)))
    assert "mil" in judge.judge(finite).deviating


def _scaled(model):
    """Return a program that gives another result, all of it finite."""
    for operation in model.program.functions["main"].block_specializations["CoreML8"].operations:
        if operation.type == "real_div":
            operation.type = "mul"
    return model
