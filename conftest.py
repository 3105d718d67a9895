"""Test set-up of the checkout: built models and conversions are kept in ``.cache`` beside the sources."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("PARITY_CACHE", str(Path(__file__).parent / ".cache" / "parity"))
# Nothing here may depend on a hub: a missing file is an error at once, not a time-out.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
