"""What in this torch program would coreai-torch translate into something else, without a word?

Each hazard is a pattern of an exported program (after :func:`coreai_torch.get_decomp_table`'s decompositions), found
before anything is converted. *Wrong* ones give other numbers on ordinary inputs. The others do at the edges: NaN,
infinities, values that a narrower type lacks. All were seen with the versions in :data:`VERSIONS`, and
tests/coreai/test_hazards.py converts and runs each one, so that an entry that is no longer true fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

VERSIONS = "coreai-torch 0.4.3, coreai-core 1.0.0b3"


@dataclass(frozen=True)
class Hazard:
    """A pattern that is translated into something else.

    Attributes
    ----------
    name : str
        Short name.
    wrong : bool
        Whether ordinary inputs are concerned.
    consequence : str
        What comes out instead.
    remedy : str
        How to write the module so that it does not.
    """

    name: str
    wrong: bool
    consequence: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """A hazard in a program: which operator of which module (its path; empty for the root)."""

    hazard: Hazard
    operator: str
    module: str

    def __str__(self) -> str:
        where = f"module {self.module}" if self.module else "the module itself"
        return f"{self.operator} in {where}: {self.hazard.consequence}; {self.hazard.remedy}"


_Found = Callable[[Any], bool]
_TABLE: list[tuple[Hazard, _Found]] = []


def _hazard(name: str, consequence: str, remedy: str, *, wrong: bool) -> Callable[[_Found], _Found]:
    def register(found: _Found) -> _Found:
        _TABLE.append((Hazard(name, wrong, consequence, remedy), found))
        return found

    return register


def known() -> tuple[Hazard, ...]:
    """Return all hazards."""
    return tuple(hazard for hazard, _ in _TABLE)


def find(program: Any) -> tuple[Finding, ...]:
    """Return the hazards of an exported program, in its order, each once per operator and module.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        After the decompositions.
    """
    found: dict[tuple[str, str, str], Finding] = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            for hazard, matches in _TABLE:
                if matches(node):
                    finding = Finding(hazard, kind(node), module_of(node))
                    found.setdefault((hazard.name, finding.operator, finding.module), finding)
    return tuple(found.values())


def kind(node: Any) -> str:
    """Return a node's operator without namespace and overload, e.g. ``mul``."""
    return str(node.target).removeprefix("aten.").split(".")[0]


def module_of(node: Any) -> str:
    """Return the path of the module that a node comes from, e.g. ``down_blocks.0.norm1``."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].").removeprefix("L['self']") if stack else ""


def _value(argument: Any) -> Any:
    return argument.meta.get("val") if hasattr(argument, "meta") else None


def _tensors(node: Any) -> Iterator[Any]:
    import torch

    for argument in node.args:
        value = _value(argument)
        if isinstance(value, torch.Tensor):
            yield value


def _floating(node: Any) -> bool:
    return any(value.is_floating_point() for value in _tensors(node))


def _argument(node: Any, index: int, name: str, default: Any = None) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


_WITH_SCALARS = {"add", "sub", "mul", "div", "pow", "rsub", "remainder", "fmod", "eq", "ne", "lt", "le", "gt", "ge"}


@_hazard(
    "float-scalar",
    "an integer tensor meets a floating-point number, which is computed in float16: 65535 * 0.5 is inf, 2049 > 2048.5 "
    "is false",
    "convert the tensor to float32 first",
    wrong=True,
)
def _float_scalar(node: Any) -> bool:
    if kind(node) not in _WITH_SCALARS or _floating(node) or not any(True for _ in _tensors(node)):
        return False
    return any(isinstance(argument, float) for argument in node.args)


@_hazard(
    "boolean-index",
    "a boolean mask is read as indices 0 and 1",
    "use torch.where, or index_select with indices",
    wrong=True,
)
def _boolean_index(node: Any) -> bool:
    import torch

    if kind(node) not in {"index", "index_put"}:
        return False
    values = [_value(index) for index in node.args[1] if index is not None]
    return any(isinstance(value, torch.Tensor) and value.dtype == torch.bool for value in values)


@_hazard(
    "pool-indices",
    "the indices of max_pool2d are zeros",
    "do without return_indices and max_unpool2d",
    wrong=True,
)
def _pool_indices(node: Any) -> bool:
    if kind(node) != "max_pool2d_with_indices":
        return False
    return any(user.args[1] == 1 and user.users for user in node.users if "getitem" in str(user.target))


@_hazard(
    "pool-padding",
    "avg_pool2d counts its padding although count_include_pad is false: borders are too small",
    "pad by hand and divide by the count",
    wrong=True,
)
def _pool_padding(node: Any) -> bool:
    if kind(node) != "avg_pool2d":
        return False
    padding, included = _argument(node, 3, "padding", [0]), _argument(node, 5, "count_include_pad", True)
    return not included and any(padding if isinstance(padding, (list, tuple)) else [padding])


@_hazard(
    "nearest-ratio",
    "nearest-neighbour resizing by a ratio that is neither whole nor a whole part rounds to other pixels",
    "resize by whole ratios, or by index_select",
    wrong=True,
)
def _nearest_ratio(node: Any) -> bool:
    if not kind(node).startswith("upsample_nearest"):
        return False
    source, target = next(_tensors(node)).shape[2:], node.meta["val"].shape[2:]
    ratios = [float(new) / float(old) for old, new in zip(source, target, strict=True)]
    return any(ratio not in (1.0, 1.5) and ratio % 1 and (1 / ratio) % 1 for ratio in ratios)


@_hazard(
    "empty-reduction",
    "the sum of an empty tensor is uninitialised memory",
    "leave empty tensors out of the network",
    wrong=True,
)
def _empty_reduction(node: Any) -> bool:
    return kind(node) in {"sum", "mean", "amax", "amin", "prod", "any", "all"} and any(
        0 in value.shape for value in _tensors(node)
    )


@_hazard(
    "integer-clamp",
    "the bounds of an integer clamp pass through float32: those beyond 2**24 change, those near 2**31 wrap",
    "clamp to bounds within 2**24, or use torch.where",
    wrong=True,
)
def _integer_clamp(node: Any) -> bool:
    if kind(node) not in {"clamp", "clamp_min", "clamp_max"} or _floating(node):
        return False
    return any(isinstance(bound, (int, float)) and abs(bound) > 1 << 24 for bound in node.args[1:])


@_hazard(
    "boolean-mask",
    "attention adds -1e4 where a boolean mask is false, instead of leaving these positions out",
    "give an additive mask of -inf",
    wrong=False,
)
def _boolean_mask(node: Any) -> bool:
    import torch

    value = _value(_argument(node, 3, "attn_mask")) if kind(node) == "scaled_dot_product_attention" else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.bool


@_hazard(
    "nan-comparison",
    ">= and <= are true where an operand is NaN",
    "keep NaN out of comparisons",
    wrong=False,
)
def _nan_comparison(node: Any) -> bool:
    return kind(node) in {"ge", "le"} and _floating(node)


@_hazard(
    "infinite-rounding",
    "floor, ceil and trunc of infinity are NaN",
    "clamp to finite values first",
    wrong=False,
)
def _infinite_rounding(node: Any) -> bool:
    return kind(node) in {"floor", "ceil", "trunc"} and _floating(node)


@_hazard(
    "half-norm",
    "squares are summed in float16: norms of values below 2e-4 or above 256 are 0 or inf",
    "compute norms in float32",
    wrong=False,
)
def _half_norm(node: Any) -> bool:
    import torch

    return kind(node) == "linalg_vector_norm" and any(value.dtype == torch.float16 for value in _tensors(node))


@_hazard(
    "cancelling-tail",
    "it is computed from exp and log alone: tails cancel (softplus below -17 is 0, expm1 of 1e-7 is 1.2e-7)",
    "none is needed where tails do not matter",
    wrong=False,
)
def _cancelling_tail(node: Any) -> bool:
    return kind(node) in {"expm1", "log1p", "softplus", "mish", "log_sigmoid_forward"}
