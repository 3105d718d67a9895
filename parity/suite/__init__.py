"""The parity suite: cases, traces, comparisons, tolerances, goldens, verdicts.

``pytest --pyargs parity.suite`` runs it from any folder; ``parity run`` is the same without pytest.
"""
