"""What do a program's operations tell about how it was made?

One pass over the operations of an ML Program (protobuf) gives operator counts, bytes of weights by form, the kind of
attention, the causal mask and what :mod:`parity.contracts.structure` collects; :func:`from_text` reads off a compiled
model's text what it gives without parsing it whole. Weights are not read, but for the mask (a few KiB), look-up tables
and the record of the last weight (is the file complete?).

Rules for attention, from toy conversions of each kind: ORIGINAL has batched ``matmul`` and a softmax and no ``einsum``;
SPLIT_EINSUM has ``einsum`` with as many queries as the layer has tokens; SPLIT_EINSUM_V2 the same in
blocks of 512 queries, so it cannot be told from SPLIT_EINSUM where no layer has more than 512 tokens.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from parity.contracts import causal, palettes, structure
from parity.contracts.causal import named_constants
from parity.contracts.inspection import Fingerprint
from parity.mil import dtypes
from parity.mil.blobs import weight_problem

_QUERY_BLOCK = 512
_STORED = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16"}
_TABLE = re.compile(r"\blut = tensor<\w+, \[([\d, ]+)\]>")
_FORMS = {code: (_STORED.get(dtype.name, dtype.name), dtype.bits) for code, dtype in dtypes.BY_CODE.items()}


def operations(program: Any) -> Iterator[Any]:
    """Iterate over all operations of a program's functions; those of nested blocks follow behind."""
    for name in sorted(program.functions):
        function = program.functions[name]
        block = function.block_specializations.get(function.opset)
        blocks = [] if block is None else [block]
        while blocks:
            for operation in blocks.pop().operations:
                yield operation
                if operation.blocks:
                    blocks.extend(operation.blocks)


def fingerprint(program: Any, weights: Any, *, tokens: int = 0, records: bool = True) -> tuple[Fingerprint, str]:
    """Read a program.

    Parameters
    ----------
    program : parity.mil.proto.mil.Program
        The whole program.
    weights : parity.mil.Weights
        Where the mask's value is read, and the file that is checked for being complete.
    tokens : int
        Token count of a text encoder, 0 for other components: constants of (…, tokens, tokens) are its causal mask.
    records : bool
        Whether the weight file's records can be read; otherwise its size alone is checked.

    Returns
    -------
    fingerprint : Fingerprint
    problem : str
        What is wrong with the weight file, empty if nothing is.
    """
    counts: Counter[str] = Counter()
    storage: Counter[str] = Counter()
    scores: list[tuple[int, int]] = []  # (keys, queries) of split attention
    last_axis = False
    masks: list[Any] = []
    lost = False
    collector = structure.Collector(structure.of_operation, structure.name_of_operation)
    blobs: dict[str, tuple[int, int]] = {}  # weight file to the last record's offset and its weight's bytes
    for operation in operations(program):
        kind = operation.type
        if tokens:
            masks += causal.mask_values(operation, tokens)
            lost = lost or causal.is_lost(operation, tokens)
        if kind == "const":
            value = operation.attributes["val"]
            label, size = _stored(value)
            if size:  # most constants are small and lie in the program
                storage[label] += size
                _note_blob(value, blobs)
            continue
        counts[kind] += 1
        outputs = operation.outputs
        if outputs:
            collector.add(kind, outputs[0].type.SerializeToString(), operation)
        if kind.startswith("constexpr_"):
            storage.update(_compressed(operation))
            for _, value in named_constants(operation):
                _note_blob(value, blobs)
        elif kind == "einsum":
            scores += _scores(operation)
        elif kind == "softmax":
            last_axis = True
    storage = _without_inputs_of_compressed(storage)
    minimum, mask = causal.judge(masks, weights, lost=lost) if tokens else (None, "none")
    palettized = records and counts["constexpr_lut_to_dense"]
    result = Fingerprint(
        operators=dict(sorted(counts.items())),
        storage=dict(sorted(storage.items())),
        attention=_attention(counts, scores, softmax=last_axis),
        palettes=palettes.of_operations(operations(program), weights) if palettized else (),
        mask=mask,
        mask_minimum=minimum,
        structure=collector.structure(structure.of_type, structure.flexible_inputs(program)),
    )
    return result, weight_problem(blobs, weights, records=records)


def from_text(text: str, histogram: dict[str, int]) -> Fingerprint:
    """Read the attention kind and the compression off a compiled model.

    Parameters
    ----------
    text : str
        ``model.mil``.
    histogram : dict
        Operator counts of ``metadata.json``, keys such as ``Ios16.einsum``.
    """
    counts = Counter({_snake(name): int(number) for name, number in histogram.items()})
    scores = []
    if counts["einsum"]:
        for match in re.finditer(r"\[\s*\d+\s*,\s*(\d+)\s*,\s*\d+\s*,\s*(\d+)\s*\]>?\s+[\w.]+\s*=\s*einsum\(", text):
            scores.append((int(match[1]), int(match[2])))
    storage: Counter[str] = Counter()
    for name, sizes in re.findall(r"tensor<(\w+), \[([\d, ]+)\]>\(BLOBFILE", text):
        if name in dtypes.BY_NAME:
            count = math.prod(int(size) for size in sizes.split(","))
            storage[_STORED.get(name, name)] += count * dtypes.BY_NAME[name].bits // 8
    for kind, label in (
        ("lut_to_dense", _palette_label(text)),
        ("affine_dequantize", "8-bit linear"),
        ("sparse_to_dense", "sparse"),
    ):
        if counts[f"constexpr_{kind}"] and label not in storage:
            storage[label] += storage.pop("uint8", 0) + storage.pop("int8", 0)
    return Fingerprint(
        operators=dict(sorted(counts.items())),
        storage=dict(sorted(storage.items())),
        attention=_attention(counts, scores, softmax=counts["softmax"] > 0),
        structure=structure.of_text(text) if text else None,
    )


def _shape(message: Any) -> tuple[int, ...]:
    return tuple([d.constant.size for d in message.tensorType.dimensions])


def _stored(value: Any) -> tuple[str, int]:
    """Form and bytes of a constant that counts as a weight (lies in the weight file)."""
    if not value.HasField("blobFileValue"):
        return "", 0
    tensor = value.type.tensorType
    label, bits = _FORMS.get(tensor.dataType, ("", 0))
    for dimension in tensor.dimensions:
        bits *= dimension.constant.size
    return label, bits // 8


def _scores(einsum: Any) -> list[tuple[int, int]]:
    """Keys and queries of scores (batch, keys, head, queries); their product with the values has few "keys"."""
    axes = einsum.outputs[0].type.tensorType.dimensions
    return [(axes[1].constant.size, axes[3].constant.size)] if len(axes) == 4 else []


def _note_blob(value: Any, blobs: dict[str, tuple[int, int]]) -> None:
    if value.WhichOneof("value") == "blobFileValue":
        blob = value.blobFileValue
        found = (int(blob.offset), _stored(value)[1])
        blobs[blob.fileName] = max(blobs.get(blob.fileName, (-1, 0)), found)


def _compressed(operation: Any) -> dict[str, int]:
    """Form and bytes of what a decompressing operation holds itself (iOS 16 form; in iOS 18 they are constants)."""
    sizes = [(name, *_stored(value)) for name, value in named_constants(operation)]
    total = sum(size for _, _, size in sizes)
    kind = operation.type
    if kind == "constexpr_lut_to_dense":
        return {f"{_palette_bits(operation)}-bit palette": total}
    if kind == "constexpr_affine_dequantize":
        return {"8-bit linear": total}
    if kind == "constexpr_blockwise_shift_scale":
        return {"linear": total}
    return {"sparse": total}


def _palette_bits(operation: Any) -> int:
    for name, value in named_constants(operation):
        if name == "lut":
            shape = _shape(value.type)
            entries = shape[-2] if len(shape) > 2 else shape[-1]  # iOS 18 tables end in (entries, vector length)
            return max(1, math.ceil(math.log2(max(entries, 2))))
    for name, value in named_constants(operation):
        if name == "indices":  # the table is computed, from entries and their scale
            return _FORMS.get(value.type.tensorType.dataType, ("", 0))[1]
    return 0


def _palette_label(text: str) -> str:
    """``6-bit palette`` by the largest look-up table in a compiled model's text; ``palette`` without any."""
    tables = [[int(size) for size in sizes.split(",")] for sizes in _TABLE.findall(text)]
    entries = max((shape[-2] if len(shape) > 2 else shape[-1] for shape in tables), default=0)
    return f"{max(1, math.ceil(math.log2(entries)))}-bit palette" if entries > 1 else "palette"


def _without_inputs_of_compressed(storage: Counter[str]) -> Counter[str]:
    """Fold integer constants into the compressed form that reads them (iOS 18 keeps indices as constants)."""
    compressed = [name for name in storage if "palette" in name or "linear" in name or name == "sparse"]
    if compressed:
        for name in [name for name in storage if name.startswith(("uint", "int"))]:
            storage[compressed[0]] += storage.pop(name)
    return storage


def _attention(counts: Counter[str], scores: list[tuple[int, int]], *, softmax: bool) -> str:
    if counts["scaled_dot_product_attention"]:
        return "fused"
    if counts["einsum"]:
        blocked = any(queries <= _QUERY_BLOCK < keys for keys, queries in scores)
        return "SPLIT_EINSUM_V2" if blocked else "SPLIT_EINSUM"
    return "ORIGINAL" if softmax and counts["matmul"] else "none"


def _snake(name: str) -> str:
    """``Ios16.layerNorm`` or ``LayerNorm`` to ``layer_norm``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name.rpartition(".")[2]).lower()
