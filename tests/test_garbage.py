"""Searches for garbage: seldom while we work, none at the end, and as before where somebody else decides."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import weakref

from parity import memory


class Node:
    def __init__(self) -> None:
        self.itself = self


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


def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        with memory.settled():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_thresholds_are_as_before_also_after_an_error() -> None:
    ours = gc.get_threshold()
    gc.set_threshold(600, 9, 8)
    try:
        with contextlib.suppress(KeyError), memory.eased():
            assert gc.get_threshold() > (600, 9, 8)
            raise KeyError
        assert gc.get_threshold()[:2] == (600, 9)  # Python 3.13 has no third generation of its own
    finally:
        gc.set_threshold(*ours)


def test_a_process_ends_without_a_search() -> None:
    code = (
        "import gc; from parity import memory\n"
        "class Node:\n    def __del__(self): print('searched')\n"
        "def leak():\n    node = Node(); node.itself = node; gc.keep = [node]; node.keep = gc.keep\n"
        "{}leak()\n"
        "import atexit; atexit.register(lambda: setattr(gc, 'keep', None))\n"
    )
    eased = "with memory.eased(): "
    found = [
        subprocess.run([sys.executable, "-c", code.format(start)], capture_output=True, text=True, check=True).stdout
        for start in ("", eased)
    ]
    assert found == ["searched\n", ""]
