"""Which disagreements are known: whose fault, since which versions, and how can they be reproduced?"""

from __future__ import annotations

from parity.coreai.oracle.judge import Judgement


def known(judgement: Judgement) -> str:
    """Return the name of the known disagreement that a judgement shows; empty for none."""
    return ""
