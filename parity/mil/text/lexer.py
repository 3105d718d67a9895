"""Which tokens is textual MIL made of?

One regular expression cuts the text. Each token knows its line and column, counted from 1, so that every later error
can name them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from parity.errors import FormatError

_TOKEN = re.compile(
    r"""
    (?P<space>  \s+ | //[^\n]* )
  | (?P<string> "(?:[^"\\\n]|\\.)*" )
  | (?P<number> [-+]?(?:0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*(?:[pP][-+]?[0-9]+)?
                     |(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?
                     |(?:inf(?:inity)?|nan)\b) )
  | (?P<name>   [A-Za-z_@][A-Za-z0-9_@.$/:]* )
  | (?P<mark>   ->|\.\.\.|[][(){}<>=,;?*] )
    """,
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}


@dataclass(frozen=True, slots=True)
class Token:
    """One token: ``kind`` is string, number, name, mark or end; ``start`` its place in the text."""

    kind: str
    text: str
    start: int


class Source:
    """A text with its tokens and a reading position.

    Parameters
    ----------
    text : str
        Textual MIL.
    where : str
        File name, for messages.

    Raises
    ------
    FormatError
        At a character that starts no token.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._tokens: list[Token] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None or match.end() == position:
                raise self.error(f"unexpected character {text[position]!r}", position)
            if match.lastgroup != "space":
                self._tokens.append(Token(match.lastgroup or "", match.group(), position))
            position = match.end()
        self._tokens.append(Token("end", "end of file", len(text)))
        self._index = 0

    def error(self, message: str, position: int | None = None) -> FormatError:
        """Make an error at a place of the text, by default at the next token."""
        place = self.peek().start if position is None else position
        line = bisect_right(self._lines, place)
        return FormatError(f"{self.where}:{line}:{place - self._lines[line - 1] + 1}: {message}")

    def peek(self, ahead: int = 0) -> Token:
        """Return a coming token without taking it."""
        return self._tokens[min(self._index + ahead, len(self._tokens) - 1)]

    def take(self) -> Token:
        """Return the next token and go on."""
        token = self.peek()
        self._index += 1
        return token

    def accept(self, text: str) -> bool:
        """Take the next token if it is this mark or name."""
        token = self.peek()
        if token.text == text and token.kind in ("mark", "name"):
            self._index += 1
            return True
        return False

    def expect(self, text: str) -> None:
        """Take this mark or name, or fail."""
        if not self.accept(text):
            raise self.error(f"expected {text!r}, found {self.peek().text[:60]!r}")

    def name(self, what: str) -> str:
        """Take a name (or a word that looks like a number, such as ``inf``), or fail saying ``what`` was expected."""
        token = self.peek()
        if token.kind != "name" and not (token.kind == "number" and token.text.isalpha()):
            raise self.error(f"expected {what}, found {token.text[:60]!r}")
        return self.take().text

    def string(self) -> str:
        """Take a string and return what it stands for."""
        token = self.peek()
        if token.kind != "string":
            raise self.error(f"expected a string, found {token.text[:60]!r}")
        self._index += 1
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), token.text[1:-1])
