"""Holes between small objects that stay: kept by glibc's own ways, given back inside ``returning_memory``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HOLES = """
import sys
import numpy as np
from contextlib import nullcontext
from parity.mil.allocator import returning_memory

def anonymous():
    (line,) = [row for row in open("/proc/self/status") if row.startswith("RssAnon")]
    return int(line.split()[1]) / 1024

with returning_memory() if sys.argv[1] == "returning" else nullcontext():
    np.ones(30 << 20, np.uint8)  # freed: from here on glibc puts less than 30 MiB into the heap
    before, kept, big = anonymous(), [], []
    for _ in range(20):
        big.append(np.ones(8 << 20, np.uint8))
        kept.append(np.ones(100_000, np.uint8))
    del big
    print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_holes_are_given_back() -> None:
    # a Dask cluster of another test leaves MALLOC_TRIM_THRESHOLD_ in the environment
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    kept, returned = (
        float(
            subprocess.run(
                [sys.executable, "-c", HOLES, way], capture_output=True, text=True, check=True, env=plain
            ).stdout
        )
        for way in ("keeping", "returning")
    )
    assert kept > 100, "the peculiarity is gone; so can the function"
    assert returned < 10  # the arrays that stay are 2 MB
