"""The command line: ``parity COMMAND …``.

Each command is one module in :mod:`parity.commands` with ``configure(parser)`` and ``main(arguments) -> int``.
Only the module of the chosen command is imported, so ``parity --help`` answers without torch or coremltools.

Exit codes: 0 everything asked for holds, 1 it does not, 2 bad input, 130 interrupted; a command's own page says what
that means for it.
"""

from __future__ import annotations

import argparse
import codecs
import importlib
import importlib.util
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

from parity import __version__, memory, quiet
from parity.errors import ParityError, UsageError

# name -> summary; the module is parity.commands.<name with "-" as "_">
COMMANDS: dict[str, str] = {
    "inspect": "tell what a folder of Core ML models is and what each app release can do with it",
    "repair": "make models of old converter releases work again, without the PyTorch checkpoint",
    "diff": "compare two Core ML models by features, operators and weights",
    "convert": "write Core ML packages of a diffusers model as a converter release wrote them",
    "run": "compare a Core ML model with its PyTorch original, picture by picture",
    "gate": "tell over many prompts whether another model is still as good",
    "golden": "list, look at, accept and reject goldens: pictures that later runs must draw again",
    "calibrate": "measure how a model's own figures spread, and write a table of bounds",
    "fleet": "compare on the machines of a Dask cluster, a task a cell, into one folder",
    "report": "show a run that lies in a folder: table, page, JSON, summary",
    "merge": "join the run folders of several machines and workers",
    "history": "keep nights in a database; say what changed, drifts, got slower or is flaky",
    "bench": "time loading, steps and pictures, and measure memory; print what others published",
    "latents": "write the noise a producer would draw, or tell where and why two arrays of it part",
    "mil": "show an ML Program, time its operations, or list the operators that run",
    "schema": "describe what commands print after --json, as JSON Schema",
    "cache": "list what is kept between runs, or remove what is old",
    "doctor": "say what a bug report needs, and what is missing here",
}

_PLAIN = {
    **{
        "…": "...",
        "×": "x",
        "·": "-",
        "→": "->",
        "²": "2",
        "–": "-",
        "±": "+-",
        "✓": "+",
        "✗": "x",
        "“": '"',
        "”": '"',
    },
    **dict.fromkeys("─━╌╴╶╸╺", "-"),
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╷╵", "+"),
}
"""What is written for characters of tables and sentences that a terminal does not have; a question mark for others."""

_ALL = "*"  # instead of a command's name: declare the options of every command
_SHELLS = ("bash", "zsh")
_OF_RUN = frozenset({"diffusers", "flip_evaluator", "pytest", "skimage", "ssimulacra2", "torch", "transformers"})
_DRAWING = frozenset({"run", "convert", "gate", "fleet"})  # commands that need torch whatever they are asked
_TEXTS = frozenset({"--only", "--author", "--reason"})  # options that may be empty: they name no file


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, instead of a list of all options and then that line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="parity",
        description="Does the Core ML model draw the picture that its PyTorch original draws?",
        epilog="Run 'parity COMMAND --help' for the options of one command.",
    )
    parser.add_argument("--version", action="version", version=f"parity {__version__}")
    parser.add_argument(
        "--print-completion", choices=_SHELLS, metavar="SHELL", help="print a completion script for bash or zsh"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if chosen in (name, _ALL):
            module = importlib.import_module(f"parity.commands.{name.replace('-', '_')}")
            module.configure(command)
            command.set_defaults(main=module.main)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0, 1, 2 or 130, see the module's docstring.
    """
    _tolerate_narrow_terminals()
    memory.end_quickly()
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in arguments if word in COMMANDS), None)
    try:
        parser = _parser(chosen)
    except ParityError as error:  # a library that the command cannot even be described without
        print(f"parity {chosen}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"parity {chosen}: interrupted", file=sys.stderr)
        return 130
    parsed = parser.parse_args(arguments)
    if parsed.print_completion:
        return _print_completion(parsed.print_completion)
    if parsed.command is None:
        parser.print_help()
        return 0
    return _run(parsed, arguments)


def _run(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run the chosen command; say in one line why it cannot be done."""
    try:
        _refuse_unusable(arguments)
        _require_torch(parsed.command)
        with quiet.libraries():
            code = int(parsed.main(parsed))
        sys.stdout.flush()  # a full disk or a closed pipe is noticed here, and not when nobody can say it any more
        return code
    except ParityError as error:
        print(f"parity {parsed.command}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) not in _OF_RUN:
            raise
        needs = f"this needs {package}: pip install 'coreml-parity[run]'"
        print(f"parity {parsed.command}: {needs}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `parity … | head` is not an error of the user's
        sys.stderr.close()
        return 0
    except OSError as error:  # a file that cannot be read or written, wherever that was noticed
        if error.filename is None and error.strerror is None:
            raise  # a library's own error without a file; its traceback says more
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"parity {parsed.command}: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"parity {parsed.command}: interrupted", file=sys.stderr)
        return 130


def _tolerate_narrow_terminals() -> None:
    """Write what a terminal's encoding does not have (ASCII under ``LC_ALL=C``) by characters that it has."""
    codecs.register_error("parity-plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="parity-plain")


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name that is no text: as it is
        return character.encode("utf-8", "surrogateescape"), error.start + 1
    return _PLAIN.get(character, "?"), error.start + 1


def _require_torch(command: str) -> None:
    """Refuse a command that draws where torch is not installed, before it plans anything."""
    if command in _DRAWING and importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


def _refuse_unusable(words: Sequence[str]) -> None:
    """Refuse what a shell makes of a variable that is not set, and what no file system has.

    An empty path would be the working folder, and ``parity repair "$MODELS"`` would repair what lies there.
    """
    for before, word in zip(("", *words), words, strict=False):
        after = f" after {before}" if before else ""
        if not word and before not in _TEXTS:
            raise UsageError(f"an empty argument{after}: an unset variable? Leave it out, or give a value")
        if "\0" in word:
            raise UsageError(f"{word!r}{after}: no file and no option has NUL in its name")


def _print_completion(shell: str) -> int:
    """Print a completion script with the options of every command; it needs the package shtab, nothing else does."""
    try:
        import shtab
    except ImportError:
        print("parity: completion scripts are made by shtab; pip install 'coreml-parity[completion]'", file=sys.stderr)
        return 2
    parser = _parser(_ALL)
    _complete_paths(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, shell=shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser, file: object, folder: object) -> None:
    """Let options that take a path complete paths, judged by the name that their help shows for the value."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command, file, folder)
        names = action.metavar if isinstance(action.metavar, tuple) else (action.metavar or action.dest,)
        if names[0] in {"FILE", "PATH", "A", "B", "MODEL"}:
            action.complete = file  # type: ignore[attr-defined]
        elif names[0] in {"DIR", "OUT"}:
            action.complete = folder  # type: ignore[attr-defined]


if __name__ == "__main__":
    raise SystemExit(main())
