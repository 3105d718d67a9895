"""How does a run avoid paying for the same memory again and again?

The C library's allocator returns every big buffer to the system when it is freed and gets zeroed pages for the next
one. Activations of a network are big and short-lived, so page faults cost more than elementwise arithmetic (6 times as
much where this was measured). While a session runs, glibc is asked to keep freed memory; afterwards its defaults are
restored and the free memory at the top of the heap is returned. Elsewhere than on glibc nothing happens.

Where many small objects outlive the big ones between them the opposite is wanted, see :func:`returning_memory`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from parity.memory import glibc

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # malloc.h of glibc
_lock = threading.Lock()
_users = 0


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Let freed memory stay with the process inside the ``with`` block."""
    global _users
    library = glibc()
    if library is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                library.mallopt(_MMAP_MAX, 65536)
                library.mallopt(_TRIM_THRESHOLD, 128 << 10)
                library.mallopt(_MMAP_THRESHOLD, 128 << 10)


@contextmanager
def returning_memory() -> Iterator[None]:
    """Give every buffer from 128 KiB on back to the system when it is freed, inside the ``with`` block.

    By itself glibc raises that size up to 32 MiB as a program goes on. Buffers below it lie in one heap, where small
    objects that stay keep the space between them: tracing SDXL's UNet makes holes of 14 GiB.
    """
    library = glibc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, 128 << 10)  # the default, but once set it no longer grows
    try:
        yield
    finally:
        if library is not None:
            library.malloc_trim(0)
