"""Giving attention of three axes a fourth: (batch x heads, queries, keys) becomes (batch, heads, queries, keys).

Text encoders traced from transformers up to 4.42 fold the heads into the batch before the products and unfold them for
the mask. The same products, the same mask and the same softmax in the same order on four axes give equal values, so the
only operations that change are reshapes. Found by structure (:func:`parity.contracts.structure.sites`), never by names.

Every value between the reshapes that fold the heads and the one that unfolds them is *lifted*: a value that comes from
a reshape of four axes is replaced by what was reshaped, a product, softmax, transpose or elementwise operation is
written anew over lifted operands, anything else is reshaped. What nobody reads any more is dropped; weights stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity.contracts.structure import ELEMENTWISE, RESHAPES, Node, Site, of_operation, sites
from parity.errors import UnsupportedError
from parity.mil import proto, values
from parity.repair.program import Editor, bindings, make, make_again, make_constant

Shape = tuple[int, ...]


def four_axes(editor: Editor) -> int:
    """Rewrite all attention of three axes and more than one head; return how often.

    Raises
    ------
    UnsupportedError
        When there is none, when a softmax is not over the keys, or when the result of the attention is an output.
    """
    found = [site for site in sites(iter(editor.block.operations)) if _folded(site)]
    if not found:
        raise UnsupportedError(f"{editor.path}: no attention of three axes in its main block; nothing to rewrite")
    lift = _Lift(editor)
    for site in found:
        lift.rewrite(site)
    lift.finish()
    left = [site for site in sites(iter(editor.block.operations)) if _folded(site)]
    if left:
        raise UnsupportedError(f"{editor.path}: '{left[0].softmax.name}' and what surrounds it could not be rewritten")
    return len(found)


def _folded(site: Site) -> bool:
    ranks = {len(site.scores.shape), len(site.softmax.shape), len(site.product.shape)}
    return min(ranks) == 3 and site.scores.shape[0] > 1


class _Lift:
    """Rewrites one block; new operations wait in ``_before``, by the operation that they precede."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._made = {output.name: op for op in editor.block.operations for output in op.outputs}
        self._read_by: dict[str, list[Any]] = {}
        for operation in editor.block.operations:
            for name in {binding.name for binding in bindings(operation)}:
                self._read_by.setdefault(name, []).append(operation)
        self._names = {*self._made, *(item.name for item in editor.function.inputs)}
        self._before: dict[str, list[Any]] = {}
        self._lifted: dict[tuple[str, Shape], str] = {}
        self._renamed: dict[str, str] = {}

    def rewrite(self, site: Site) -> None:
        """Write one site's products and softmax with four axes, and let its readers read them."""
        for node in (site.scores, site.softmax, site.product):
            if len(node.shape) != 3:
                raise UnsupportedError(f"{self._editor.path}: '{node.name}' has {len(node.shape)} axes, expected 3")
            if node.name in self._editor.block.outputs:
                raise UnsupportedError(f"{self._editor.path}: '{node.name}' is an output; it keeps its three axes")
        split = self._heads(site)
        for node in (site.scores, site.product):
            lifted = self._lift(node.name, split)
            for reader in self._readers(node.name):
                if reader.kind in RESHAPES and reader.shape == (*split, *node.shape[1:]):
                    self._renamed[reader.name] = lifted
        self._keep_folded(site.product, split)

    def finish(self) -> None:
        """Put the new operations in place, redirect readers, drop what nobody reads."""
        block = self._editor.block
        operations = []
        for operation in block.operations:
            operations += self._before.get(operation.outputs[0].name, []) if operation.outputs else []
            copy = proto.mil.Operation()
            copy.CopyFrom(operation)
            operations.append(copy)
        for operation in operations:
            for binding in bindings(operation):
                binding.name = self._final(binding.name)
        declared = list(block.outputs)
        outputs = [self._final(name) for name in declared]
        if len(set(outputs)) < len(outputs):
            raise UnsupportedError(f"{self._editor.path}: two outputs are one attention's result; not rewritten")
        del block.operations[:]
        block.operations.extend(operations)
        self._editor.set_outputs(outputs)
        for name, new in zip(declared, outputs, strict=True):
            self._editor.rename(new, name)

    # ---------------------------------------------------------------------------------------------------------- lifting

    def _heads(self, site: Site) -> tuple[int, int]:
        """Batch and heads that the first axis was folded from, as a reshape beside the products tells; else (1, n)."""
        folded = site.scores.shape[0]
        near = [site.scores.inputs["x"], site.scores.inputs["y"], site.product.inputs["x"], site.product.inputs["y"]]
        shapes = [self._source_shape(name) for name in near] + [node.shape for node in self._readers(site.product.name)]
        for shape in shapes:
            if len(shape) == 4 and shape[0] * shape[1] == folded:
                return shape[0], shape[1]
        return 1, folded

    def _source_shape(self, name: str) -> Shape:
        node = self._node(name)
        return self._shape(node.inputs["x"]) if node is not None and node.kind in RESHAPES else ()

    def _lift(self, name: str, split: tuple[int, int]) -> str:
        """Return the name of a value's form with four axes, making it where necessary."""
        key = (name, split)
        if key not in self._lifted:
            self._lifted[key] = self._lifted_anew(name, split)
        return self._lifted[key]

    def _lifted_anew(self, name: str, split: tuple[int, int]) -> str:
        node = self._node(name)
        shape = (*split, *self._shape(name)[1:])
        if node is not None:
            if node.kind in RESHAPES and self._shape(node.inputs["x"]) == shape:
                return self._final(node.inputs["x"])
            if node.kind == "matmul" or (node.kind in ELEMENTWISE and self._folds(node, split)):
                return self._again(node, shape, split)
            if node.kind == "softmax":
                if self._constant(node, "axis") not in (-1, 2):
                    raise UnsupportedError(f"{self._editor.path}: softmax '{name}' is not over the keys")
                return self._again(node, shape, split, axis=-1)
            if node.kind == "transpose" and self._constant(node, "perm") in ([0, 2, 1], [-3, -1, -2]):
                return self._again(node, shape, split, perm=(0, 1, 3, 2))
        return self._reshape(name, f"{name}_heads", shape, self._following(name))

    def _folds(self, node: Node, split: tuple[int, int]) -> bool:
        """Tell whether some operand carries the folded axis, so that lifting it leads further back."""
        folded = split[0] * split[1]
        return any(len(s := self._shape(name)) == 3 and s[0] == folded for name in node.inputs.values())

    def _again(self, node: Node, shape: Shape, split: tuple[int, int], **constants: Any) -> str:
        """Write an operation once more over lifted operands; other operands broadcast as they are."""
        folded = split[0] * split[1]
        inputs = {}
        for parameter, name in node.inputs.items():
            own = self._shape(name)
            if parameter not in constants and len(own) == 3 and own[0] == folded:
                inputs[parameter] = self._lift(name, split)
        queue = self._before.setdefault(node.name, [])
        inputs.update({key: self._queue_constant(f"{node.name}_{key}", c, queue) for key, c in constants.items()})
        name = self._fresh(f"{node.name}_heads")
        queue.append(make_again(self._made[node.name], name, inputs, shape))
        self._made[name] = queue[-1]
        return name

    def _keep_folded(self, product: Node, split: tuple[int, int]) -> None:
        """Fold the result again for readers that want three axes."""
        wanted = [reader for reader in self._readers(product.name) if reader.name not in self._renamed]
        if wanted:
            lifted = self._lift(product.name, split)
            folded = self._reshape(lifted, f"{product.name}_folded", product.shape, product.name)
            self._renamed[product.name] = folded

    # --------------------------------------------------------------------------------------------------------- plumbing

    def _reshape(self, source: str, name: str, shape: Shape, anchor: str) -> str:
        """Reshape a value, before the operation whose first output is ``anchor``."""
        queue = self._before.setdefault(anchor, [])
        bound = {"x": source, "shape": self._queue_constant(f"{name}_shape", shape, queue)}
        name = self._fresh(name)
        queue.append(make("reshape", name, bound, dtype=self._dtype(source), shape=shape))
        self._made[name] = queue[-1]
        return name

    def _queue_constant(self, name: str, value: Any, queue: list[Any]) -> str:
        constant = make_constant(self._fresh(name), value)
        queue.append(constant)
        return str(constant.outputs[0].name)

    def _following(self, name: str) -> str:
        """First output of the operation behind a value (of the block's first operation, for an input)."""
        operations = self._editor.block.operations
        behind = [operation.outputs[0].name for operation in operations if operation.outputs]
        if name not in self._made:
            return behind[0]
        return behind[behind.index(self._made[name].outputs[0].name) + 1]

    def _readers(self, name: str) -> list[Node]:
        return [of_operation(operation) for operation in self._read_by.get(name, []) if operation.outputs]

    def _node(self, name: str) -> Node | None:
        operation = self._made.get(name)
        return None if operation is None or operation.type == "const" else of_operation(operation)

    def _shape(self, name: str) -> Shape:
        if name in self._made:
            tensor = next(o for o in self._made[name].outputs if o.name == name).type.tensorType
            return tuple(int(d.constant.size) for d in tensor.dimensions)
        return self._editor.type_of(name)[1]

    def _dtype(self, name: str) -> str:
        return of_operation(self._made[name]).dtype if name in self._made else self._editor.type_of(name)[0]

    def _constant(self, node: Node, parameter: str) -> Any:
        bound = self._made[node.name].inputs[parameter].arguments
        if len(bound) != 1:
            return None
        source = self._made.get(bound[0].name)
        if bound[0].WhichOneof("binding") == "value":
            message = bound[0].value
        elif source is not None and source.type == "const":
            message = source.attributes["val"]
        else:
            return None
        return np.asarray(values.decode(message, f"{self._editor.path}: {parameter} of '{node.name}'")).tolist()

    def _final(self, name: str) -> str:
        while name in self._renamed:
            name = self._renamed[name]
        return name

    def _fresh(self, name: str) -> str:
        number, candidate = 0, name
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate
