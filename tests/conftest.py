"""The project's own tests depend on no hub: a missing file is an error at once, not a time-out."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what runs Core AI where the extra is not installed, with the reason and the install command."""
    from parity.coreai import availability

    if reason := availability.reason(convert=True):
        for item in items:
            if item.get_closest_marker("coreai"):
                item.add_marker(pytest.mark.skip(reason=reason))
