"""What does coremltools do again and again while it converts, although nothing comes of it?

Context managers; :mod:`parity.convert.workarounds` says which versions of coremltools need each of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def fewer_validations() -> Iterator[None]:
    """Let a program be validated before each pipeline of passes, not after each pass."""
    from coremltools.converters.mil.mil import Program

    original = Program.validate

    def validate(program: Any, check_essential_scope: bool | None = None) -> None:
        if check_essential_scope is None:  # after each pass it is given
            original(program)

    Program.validate = validate
    try:
        yield
    finally:
        Program.validate = original


@contextmanager
def fewer_searches() -> Iterator[None]:
    """Let what may not be replaced be searched for, at the end of a pass, only where there is such a thing."""
    from coremltools.converters.mil.mil import Block

    original = Block._propagate_nonreplaceable_vars

    def propagate(block: Any) -> None:
        if _decompresses(block):
            original(block)

    Block._propagate_nonreplaceable_vars = propagate
    try:
        yield
    finally:
        Block._propagate_nonreplaceable_vars = original


def _decompresses(block: Any) -> bool:
    """Say whether an operation in a block gives decompressed weights, or is still held to come after such a one."""
    return any(
        operation.op_type.startswith("constexpr_")
        or any(output._nonreplaceable_vars_upstream for output in operation.outputs or ())
        or any(map(_decompresses, operation.blocks))
        for operation in block.operations
    )


@contextmanager
def unprinted() -> Iterator[None]:
    """Let programs and blocks be named, not written out, in messages; unless somebody asked for those."""
    from coremltools.converters.mil.mil import Block, Function, Program

    if logging.getLogger("coremltools").isEnabledFor(logging.DEBUG):
        yield
        return
    originals = {kind: kind.__str__ for kind in (Block, Function, Program)}
    for kind in originals:
        kind.__str__ = object.__repr__
    try:
        yield
    finally:
        for kind, original in originals.items():
            kind.__str__ = original
