"""How much memory does this machine have?"""

from __future__ import annotations

import functools
import os


@functools.cache
def physical() -> int:
    """Return the bytes of this machine's memory; where the system does not tell, as many as can be addressed."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 63
