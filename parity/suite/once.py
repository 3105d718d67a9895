"""What is made once for all cells of a run, whether it succeeds or fails?

A model that cannot be opened or converted would otherwise be tried again for every cell: minutes of conversion, or a
hub that does not answer, as many times as there are cells.
"""

from __future__ import annotations

import traceback
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")


class once(cached_property[T]):  # noqa: N801 - used like cached_property
    """As :func:`functools.cached_property`, and a failure is kept too: it is raised again without another try."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """Return the value, or raise what making it raised."""
        if instance is None:
            return self
        kept = f"{self.attrname} failed"
        if kept in vars(instance):
            raise vars(instance)[kept]
        try:
            return super().__get__(instance, owner)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # where it was raised stays known, what lay there is freed
            vars(instance)[kept] = error
            raise
