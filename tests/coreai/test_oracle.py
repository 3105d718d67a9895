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


@settings(max_examples=50, **_SETTINGS)
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


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_every_operator_is_drawn_in_a_form_that_runs(operator, judge):
    shape = (1, 5, 8) if 3 in OPERATORS[operator].ranks else (1, 4, 6, 6)
    step = Step(operator, (0,) * OPERATORS[operator].count, (1,) * OPERATORS[operator].settings)
    judgement = judge.judge(Graph(shape, (step,)))
    assert not judgement.deviating, judgement.explain()


@pytest.mark.parametrize("side", ["mil", "coreai"])
def test_a_planted_fault_is_seen(side, judge, monkeypatch):
    from parity.coreai.oracle import judge as module

    graph = Graph((1, 5, 8), (Step("linear", (0,), (2,)), Step("silu", (1,))))
    if side == "mil":
        original = module._mil
        monkeypatch.setattr(
            module, "_mil", lambda *arguments: {k: v * np.float32(1.0001) for k, v in original(*arguments).items()}
        )
    else:
        coreai = module.Judge._coreai
        monkeypatch.setattr(module.Judge, "_coreai", lambda *arguments: coreai(*arguments) * np.float32(1.0001))
    judgement = judge.judge(graph)
    assert judgement.deviating == (side,)
    assert f"{side} deviates" in judgement.explain()
    assert "x2 = silu(x1)" in judgement.explain()
