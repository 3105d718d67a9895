"""Searches for garbage: none while libraries are imported, none at the end, and as before where somebody decided."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import weakref

import pytest

from parity import memory


class Node:
    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("unsettled")
def test_what_is_made_meanwhile_is_collected_and_the_rest_afterwards() -> None:
    before = Node()
    old = weakref.ref(before)
    with memory.settled():
        made = Node()
        new = weakref.ref(made)
        del before, made
        gc.collect()
        assert (old() is not None, new()) == (True, None)
    gc.collect()
    assert old() is None


@pytest.mark.usefixtures("unsettled")
def test_a_block_within_another_leaves_its_objects_frozen_and_counts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with memory.settled():
        many = gc.get_freeze_count() // 2
        with monkeypatch.context() as patch:
            patch.setattr(gc, "get_freeze_count", lambda: pytest.fail("it walks over all objects"))
            with memory.settled():
                pass
        assert gc.get_freeze_count() > many  # some go meanwhile: what is frozen is freed as ever
    assert gc.get_freeze_count() <= many


@pytest.mark.usefixtures("unsettled")
def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        with memory.settled():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_searches_go_on_after_an_import_also_after_one_that_fails() -> None:
    with contextlib.suppress(ImportError), memory.importing():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_who_searches_for_no_garbage_goes_on_so() -> None:
    gc.disable()
    try:
        with memory.importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_process_ends_without_a_search() -> None:
    code = (
        "import gc; from parity import memory\n"
        "class Node:\n    def __del__(self): print('searched')\n"
        "def leak():\n    node = Node(); node.itself = node; gc.keep = [node]; node.keep = gc.keep\n"
        "{}leak()\n"
        "import atexit; atexit.register(lambda: setattr(gc, 'keep', None))\n"
    )
    quick = "memory.end_quickly(); "
    found = [
        subprocess.run([sys.executable, "-c", code.format(start)], capture_output=True, text=True, check=True).stdout
        for start in ("", quick)
    ]
    assert found == ["searched\n", ""]
