"""Does the output fit on the disk, and what does a user see when it does not?

A package is asked for room before the work begins; a disk can still fill up while it is written. Then Python raises an
``OSError``, but coremltools' native code gives ``RuntimeError``s that speak of unknown errors, and its copies a
``shutil.Error`` without a number. All of them become one message. What was half-written vanishes with its scratch
folder, see :func:`parity.files.replacing`.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from parity.convert.job import Job
from parity.errors import ParityError
from parity.models import weights
from parity.models.scratch import BYTES, LARGE

_UNWRITABLE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}
_NATIVE: Final = ("[MIL FileWriter]", "filesystem error: cannot")  # what coremltools' native writers say


def require_space(job: Job, target: Path) -> None:
    """Refuse before the work what the disk cannot hold: the weights twice, and the scratch file of large networks.

    Raises
    ------
    ParityError
        Says how much is needed and how much is free.
    """
    parameters = weights.count(job.weights) if job.weights else 0
    needed = 2 * parameters * (2 if job.compute == "FLOAT16" else 4)
    needed += BYTES * parameters if parameters >= LARGE else 0
    free = _free(target)
    if needed > free:
        raise ParityError(
            f"{target} cannot be written: {needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free"
        )


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Surround what writes a package: errors of the disk get one message.

    Raises
    ------
    ParityError
        The disk is full or cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise ParityError(
            f"{target} cannot be written: {reason}; nothing was left behind. "
            f"{_free(target) / 2**30:.1f} GiB are free now; make room or name another folder"
        ) from error


def _reason(error: OSError | RuntimeError) -> str | None:
    if isinstance(error, shutil.Error):
        return str(error.args[0][0][-1])  # the first of a list of (source, target, reason)
    if isinstance(error, OSError):
        return error.strerror if error.errno in _UNWRITABLE else None
    text = str(error)
    return f"the disk is probably full ({text.split(' [/')[0]})" if text.startswith(_NATIVE) else None


def _free(target: Path) -> int:
    parent = next(folder for folder in target.absolute().parents if folder.exists())
    return shutil.disk_usage(parent).free
