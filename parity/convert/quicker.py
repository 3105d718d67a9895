"""What does coremltools do again and again while it converts, although nothing comes of it?

Context managers; :mod:`parity.convert.workarounds` says which versions of coremltools need each of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def fewer_validations() -> Iterator[None]:
    """Let a program be validated before each pipeline of passes, not after each pass."""
    from coremltools.converters.mil.mil import Program

    original = Program.validate

    def validate(program: Any, check_essential_scope: bool | None = None) -> None:
        if check_essential_scope is None:  # after each pass it is given
            original(program)

    with _replaced(Program, "validate", validate):
        yield


@contextmanager
def fewer_searches() -> Iterator[None]:
    """Let what may not be replaced be searched for, at the end of a pass, only where there is such a thing."""
    from coremltools.converters.mil.mil import Block

    original = Block._propagate_nonreplaceable_vars

    def propagate(block: Any) -> None:
        if _decompresses(block):
            original(block)

    with _replaced(Block, "_propagate_nonreplaceable_vars", propagate):
        yield


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

    with ExitStack() as stack:
        if not logging.getLogger("coremltools").isEnabledFor(logging.DEBUG):
            for kind in (Block, Function, Program):
                stack.enter_context(_replaced(kind, "__str__", object.__repr__))
        yield


@contextmanager
def _replaced(kind: type, name: str, method: Any) -> Iterator[None]:
    original = getattr(kind, name)
    setattr(kind, name, method)
    try:
        yield
    finally:
        setattr(kind, name, original)
