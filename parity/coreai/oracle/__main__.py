"""Run random graphs three ways: ``python -m parity.coreai.oracle [--count N]``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable

from parity.coreai import availability
from parity.coreai.oracle.graphs import Graph, graphs
from parity.coreai.oracle.judge import Judge
from parity.errors import ParityError


def main() -> int:
    """Run the command; 1 when a graph deviates: none of those drawn is expected to."""
    parser = argparse.ArgumentParser(prog="python -m parity.coreai.oracle", description=__doc__)
    parser.add_argument("--count", type=int, default=50, metavar="N", help="graphs (50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which ones")
    arguments = parser.parse_args()
    availability.require(convert=True)
    counts, start = Counter[str](), time.perf_counter()
    with Judge() as judge:

        def one(graph: Graph) -> None:
            counts[_outcome(judge, graph)] += 1

        _drawn(one, arguments.count, arguments.seed)
    for outcome, count in counts.most_common():
        print(f"{count:>6}  {outcome}")
    print(f"{sum(counts.values())} graphs in {time.perf_counter() - start:.0f} s")
    return int(any(outcome.startswith("deviates") for outcome in counts))


def _drawn(one: Callable[[Graph], None], count: int, seed: int) -> None:
    import hypothesis

    quiet = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
    settings = hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=quiet,
        phases=[hypothesis.Phase.generate],
    )
    hypothesis.seed(seed)(settings(hypothesis.given(graphs())(one)))()  # type: ignore[no-untyped-call]


def _outcome(judge: Judge, graph: Graph) -> str:
    kind = "float16" if graph.half else "float32"
    try:
        judgement = judge.judge(graph)
    except ParityError as error:
        print(f"refused: {error}\n{graph}\n", file=sys.stderr)
        return f"refused or died, {kind}"
    if judgement.deviating:
        print(f"{judgement.explain()}\n", file=sys.stderr)
        return f"deviates, {kind}"
    if judgement.overflow:
        return f"coremltools' program leaves float16's range at {judgement.overflow}"
    return f"agree, {kind}, {graph.scale}"


if __name__ == "__main__":
    sys.exit(main())
