"""Making old models work again without the PyTorch checkpoint.

>>> from parity import repair
>>> sorted(repair.REPAIRS)[:3]
['attention-rank4', 'causal-mask', 'encoder-legacy']

``plan`` decides what to do from an inspection, ``apply`` does it; editing needs neither torch nor coremltools, the
proof runs both models in the reference runtime.
"""

from __future__ import annotations

from parity.repair.apply import PROVENANCE, Repaired, apply
from parity.repair.plan import REPAIRS, Job, Plan, plan
from parity.repair.proof import Proof

__all__ = ["PROVENANCE", "REPAIRS", "Job", "Plan", "Proof", "Repaired", "apply", "plan"]
