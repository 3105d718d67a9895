"""How does a torch module become an ``.aimodel``, and what is said about it before?

The module is exported by torch, decomposed as coreai-torch asks, searched for :mod:`parity.coreai.hazards`, converted
and written to a temporary name. Convert in one thread only: ``torch.export`` is not safe in several.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.coreai import availability, container, hazards
from parity.errors import UnsupportedError
from parity.files import replacing


@dataclass(frozen=True)
class Conversion:
    """A written file and what was found in its module.

    Attributes
    ----------
    path : pathlib.Path
        The ``.aimodel``.
    findings : tuple of Finding
        What coreai-torch translated into something else.
    """

    path: Path
    findings: tuple[hazards.Finding, ...]

    @property
    def wrong(self) -> tuple[hazards.Finding, ...]:
        """The findings that concern ordinary inputs."""
        return tuple(finding for finding in self.findings if finding.hazard.wrong)


def convert(
    module: Any, inputs: Mapping[str, Any], path: Path | str, *, outputs: Sequence[str], staged: bool = False
) -> Conversion:
    """Write a torch module as ``.aimodel``.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; left as it is.
    inputs : mapping of str to torch.Tensor
        One example for each input of ``forward``, in its order, under the names that the file shall have. Shapes and
        dtypes are fixed by them; 64-bit integers become 32-bit ones.
    path : path
        Ends in ``.aimodel``; written under a temporary name first.
    outputs : sequence of str
        Names for the results.
    staged : bool
        Whether group norms take means of means (:mod:`parity.coreai.means`) instead of coreai-torch's one mean.

    Raises
    ------
    MissingError, UnsupportedError
        coreai-torch is not here, or it lacks an operator: which, and in which modules.
    """
    availability.require(convert=True)
    distinct = {id(tensor): name for name, tensor in reversed(list(inputs.items()))}
    # torch.export takes one tensor given twice for one input
    given = tuple(t if distinct[id(t)] == name else t.clone() for name, t in inputs.items())
    program = export(module, given, staged=staged)
    findings = hazards.find(program)
    with replacing(path) as scratch, _quietly():
        lowered(program, inputs=tuple(inputs), outputs=tuple(outputs)).save_asset(scratch)
        container.check(scratch)
    return Conversion(Path(path), findings)


def export(module: Any, arguments: tuple[Any, ...], *, staged: bool = False) -> Any:
    """Return the exported and decomposed program of a module; for ``staged`` see :func:`convert`.

    Raises
    ------
    UnsupportedError
        torch cannot export it.
    """
    import torch

    with _quietly(), torch.no_grad():
        import coreai_torch

        from parity.coreai import means

        try:
            program = torch.export.export(module, arguments)
            return program.run_decompositions(means.table() if staged else coreai_torch.get_decomp_table())
        except Exception as error:  # torch.export raises many kinds
            raise UnsupportedError(
                f"{type(module).__name__}: torch.export cannot export it: {_first_line(error)}"
            ) from None


def lowered(program: Any, *, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return coreai-torch's program of an exported one.

    Raises
    ------
    UnsupportedError
        An operator is not converted; the message names it and the modules that use it.
    """
    import coreai_torch

    converter = coreai_torch.TorchConverter(mode=coreai_torch.TorchConverter.Mode.RELEASE)
    with _quietly():
        try:
            staged = converter.add_exported_program(program, input_names=list(inputs), output_names=list(outputs))
            return staged.to_coreai()
        except Exception as error:  # assertions, index errors: what the converter does not expect
            raise UnsupportedError(_explained(program, error)) from None


def _explained(program: Any, error: Exception) -> str:
    text = _first_line(error)
    named = {str(node.target): node for node in program.graph.nodes if node.op == "call_function"}
    lacking = [target for target in named if f" {target}," in f" {text}".replace(".", ".", 1) or f" {target}." in text]
    if not lacking:
        return f"coreai-torch cannot convert this module: {text}"
    places = []
    for target in lacking:
        users = dict.fromkeys(
            hazards.module_of(node) or "the module itself" for node in program.graph.nodes if str(node.target) == target
        )
        shown = ", ".join(list(users)[:3]) + (f" and {len(users) - 3} more" if len(users) > 3 else "")
        places.append(f"{target} (in {shown})")
    return f"coreai-torch has no translation of {'; '.join(places)}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:400]}" if lines else type(error).__name__


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hold back progress bars and remarks of torch and coreai-torch."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
