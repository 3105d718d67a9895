"""Hundreds of small exports: torch looks through all its operators twice in each, for the same answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def operators_are_looked_up_once() -> Iterator[None]:
    """Let ``torch.export`` ask which operators it may keep when one was registered since: a quarter of the time."""
    from parity.coreai import availability

    if availability.reason(convert=True):
        yield
        return
    import torch
    from torch._export import utils
    from torch.export import decomp_utils, exported_program

    registrations = torch._C._dispatch_get_registrations_for_dispatch_key
    collect = utils._collect_all_valid_cia_ops
    seen: tuple[list[str], set[Any]] | None = None

    def collected() -> set[Any]:
        nonlocal seen
        if seen is None or seen[0] != registrations("CompositeImplicitAutograd"):
            found = collect()  # it registers what it meets for the first time
            seen = registrations("CompositeImplicitAutograd"), found
        return set(seen[1])

    with pytest.MonkeyPatch.context() as patch:
        for module in (decomp_utils, exported_program):
            patch.setattr(module, "_collect_all_valid_cia_ops", collected)
        yield
