"""What goes wrong, as exceptions that a user can act on.

Every message names the file or option, the field, what was expected and what to do. The command line prints the
message without a traceback and exits with :attr:`ParityError.exit_code`.
"""

from __future__ import annotations


class ParityError(Exception):
    """Base of all errors that this package raises on purpose.

    Attributes
    ----------
    exit_code : int
        Exit code of the command line: 2, since verdicts own 0 (pass) and 1 (fail).
    """

    exit_code: int = 2


class UsageError(ParityError, ValueError):
    """An option or argument has a value that is not allowed; the message lists what is."""


class FormatError(ParityError, ValueError):
    """A file is damaged, truncated, hostile or not what its name says."""


class MissingError(ParityError, FileNotFoundError):
    """A file, component or optional package that the request needs is not there."""

    def __str__(self) -> str:  # FileNotFoundError formats errno pairs; the message alone is wanted
        return str(self.args[0]) if self.args else ""


class UnsupportedError(ParityError, NotImplementedError):
    """Valid input that this release does not handle; the message says since when or what would."""
