"""Which disagreements are known: whose fault, since which versions, and how can they be reproduced?

``disagreements.toml`` beside this module holds them. ``python -m parity.coreai.oracle.known NAME`` prints a script of a
few lines that shows one without this project, ready for a bug report.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import dataclass
from pathlib import Path

from parity import tables
from parity.errors import UsageError

TABLE = Path(__file__).with_name("disagreements.toml")

_MODULE = """\
import numpy as np
import torch
from torch.nn import functional as F

{constants}
class Module(torch.nn.Module):
    def forward(self, {names}):
        return {module}


inputs = {{{inputs}}}
print("torch", Module()(*inputs.values()).detach().numpy().ravel()[:8].tolist())
"""
_CORE_AI = """
import asyncio
import tempfile
from pathlib import Path

import coreai_torch
from coreai.authoring import AIModelAsset
from coreai.runtime import NDArray

program = torch.export.export(Module(), tuple(inputs.values())).run_decompositions(coreai_torch.get_decomp_table())
path = Path(tempfile.mkdtemp()) / "module.aimodel"
coreai_torch.TorchConverter().add_exported_program(program).to_coreai().save_asset(path)


async def run():
    async with AIModelAsset.load(path).executable() as model:
        function = model.load_function("main")
        given = dict(zip(function.desc.input_names, inputs.values()))
        results = await function({name: NDArray(value.numpy()) for name, value in given.items()})
        return results[function.desc.output_names[0]].numpy()


print("got", asyncio.run(run()).ravel()[:8].tolist())
"""
_CORE_ML = """
import coremltools as ct

model = ct.convert(
    torch.jit.trace(Module().eval(), tuple(inputs.values())),
    inputs=[ct.TensorType(name=name, shape=value.shape) for name, value in inputs.items()],
    outputs=[ct.TensorType(name="result")],
    minimum_deployment_target=ct.target.iOS17,
    compute_precision=ct.precision.{precision},
)
result = model.predict({{name: value.numpy() for name, value in inputs.items()}})["result"]  # on macOS
print("got", np.asarray(result).ravel()[:8].tolist())
"""


@dataclass(frozen=True)
class Disagreement:
    """A module that comes out differently.

    Attributes
    ----------
    name, fault, why : str
        ``fault``: ``coreai-torch``, ``core-ai`` or ``coremltools``.
    module : str
        The result of ``forward``, as Python.
    inputs, constants : dict of str to str
        Names to torch expressions.
    got, right : tuple of float
        First values of what comes out, and of PyTorch's.
    precision : str
        Of the program that coremltools writes.
    """

    name: str
    fault: str
    why: str
    module: str
    inputs: dict[str, str]
    got: tuple[float, ...]
    right: tuple[float, ...]
    constants: dict[str, str]
    precision: str = "FLOAT32"

    def script(self) -> str:
        """Return the reproducer: it prints ``torch`` and ``got`` with the first values of each."""
        head = _MODULE.format(
            names=", ".join(self.inputs),
            module=self.module,
            inputs=", ".join(f'"{name}": {text}' for name, text in self.inputs.items()),
            constants="".join(f"{name} = {text}\n" for name, text in self.constants.items()) + "\n",
        )
        return head + (_CORE_ML.format(precision=self.precision) if self.fault == "coremltools" else _CORE_AI)


@functools.cache
def table() -> tuple[Disagreement, ...]:
    """Return all known disagreements."""
    return tuple(
        Disagreement(
            **{key: str(entry[key]) for key in ("name", "fault", "why", "module")},
            inputs=dict(entry["inputs"]),
            constants=dict(entry.get("constants", {})),
            precision=str(entry.get("precision", "FLOAT32")),
            got=tuple(map(float, entry["got"])),
            right=tuple(map(float, entry["right"])),
        )
        for entry in tables.read(TABLE)["disagreement"]
    )


def main() -> None:
    """Print one reproducer, or the list."""
    parser = argparse.ArgumentParser(prog="python -m parity.coreai.oracle.known", description=__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="which; without it all are listed")
    name = parser.parse_args().name
    by_name = {entry.name: entry for entry in table()}
    if name is None:
        for entry in by_name.values():
            print(f"{entry.name:<26}{entry.fault:<14}{entry.why}")
    elif name in by_name:
        print(by_name[name].script(), end="")
    else:
        raise UsageError(f"no disagreement named {name}; there are {', '.join(by_name)}")


if __name__ == "__main__":
    main()
