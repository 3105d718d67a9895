"""Facts: every declared one is stated of every folder, and a slip is an error on either side."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.contracts.facts import FACTS, Facts
from parity.contracts.inspect import inspect
from tests.contracts import packages


def test_every_declared_fact_is_stated(tmp_path: Path) -> None:
    folder = packages.folder_of(tmp_path, "unet", "vae_decoder", "vae_encoder")
    one = inspect(next(folder.glob("*vae_decoder.mlpackage")))
    for inspection in (inspect(folder), one):
        assert set(inspection.bundles[0].facts) == set(FACTS)


@pytest.mark.parametrize(("name", "value"), [("batchs", "1"), ("chunks", "differs")])
def test_a_slip_where_facts_are_stated(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' .*did you mean"):
        Facts()[name] = value
