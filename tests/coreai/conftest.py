"""Tests marked ``coreai`` run Core AI; without the extra they are skipped with the reason and the install command."""

from __future__ import annotations

import pytest

from parity.coreai import availability


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the extra where it is not."""
    if reason := availability.reason(convert=True):
        for item in items:
            if item.get_closest_marker("coreai"):
                item.add_marker(pytest.mark.skip(reason=reason))
