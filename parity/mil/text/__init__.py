"""Textual MIL: the form in which compiled models keep their program."""

from parity.mil.text.parser import parse

__all__ = ["parse"]
