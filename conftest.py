"""Test set-up of the checkout: built models and conversions are kept in ``.cache`` beside the sources."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("PARITY_CACHE", str(Path(__file__).parent / ".cache" / "parity"))
