"""Repairs at a program's edges: float16 outputs, the form of SDXL's time ids, missing metadata.

None of them touches what lies between: outputs are cast, ids are reshaped, texts are filled in.
"""

from __future__ import annotations

from collections.abc import Mapping

from parity.errors import UnsupportedError
from parity.repair.program import Editor

_FLOAT16, _FLOAT32 = 65552, 65568


def float32_outputs(editor: Editor) -> tuple[str, ...]:
    """Declare every float16 output as float32, by a cast at the end; return their names."""
    changed = []
    for feature in editor.description.output:
        array = feature.type.multiArrayType
        if feature.type.WhichOneof("Type") != "multiArrayType" or array.dataType != _FLOAT16:
            continue
        name = feature.name
        index = list(editor.block.outputs).index(name)
        inner = editor.fresh(f"{name}_fp16")
        dtype, shape = editor.type_of(name)
        editor.rename(name, inner)
        feature.name = name  # the value inside got another name, the feature keeps its own
        if dtype != "fp32":
            editor.append("cast", name, {"x": inner, "dtype": "fp32"}, dtype="fp32", shape=shape)
            editor.block.outputs[index] = name
        array.dataType = _FLOAT32
        changed.append(name)
    return tuple(changed)


def reshape_time_ids(editor: Editor, *, flat: bool) -> tuple[int, ...]:
    """Give ``time_ids`` one axis (12 values) or two (2, 6); the program goes on with what it had.

    Returns
    -------
    tuple of int
        The new shape.

    Raises
    ------
    UnsupportedError
        When there are no time ids, or flat ids are not two rows of 6 or 5.
    """
    names = [item.name for item in editor.function.inputs]
    if "time_ids" not in names:
        raise UnsupportedError(f"{editor.path}: no input 'time_ids'; only SDXL denoisers have one")
    dtype, old = editor.type_of("time_ids")
    if flat:
        new: tuple[int, ...] = (old[0] * old[1],) if len(old) == 2 else old
    else:
        batch = editor.type_of("sample")[1][0]
        if len(old) == 1 and old[0] % batch:
            raise UnsupportedError(f"{editor.path}: {old[0]} time ids do not make {batch} equal rows")
        new = (batch, old[0] // batch) if len(old) == 1 else old
    if new == old:
        return new
    readers = editor.consumers("time_ids")
    inner = editor.append(
        "reshape", "time_ids_as_before", {"x": "time_ids", "shape": old}, dtype=dtype, shape=old, first=True
    )
    reshape, _ = editor.producer(inner)
    if readers:
        editor.redirect("time_ids", inner, but=reshape)
    _declare_input(editor, "time_ids", new)
    return new


def _declare_input(editor: Editor, name: str, shape: tuple[int, ...]) -> None:
    """Give an input another shape, in the program and in the description."""
    for item in editor.function.inputs:
        if item.name == name:
            tensor = item.type.tensorType
            tensor.rank = len(shape)
            del tensor.dimensions[:]
            for size in shape:
                tensor.dimensions.add().constant.size = size
    for feature in editor.description.input:
        if feature.name == name:
            del feature.type.multiArrayType.shape[:]
            feature.type.multiArrayType.shape.extend(shape)


def fill_metadata(editor: Editor, sibling: Mapping[str, str], texts: Mapping[str, str]) -> tuple[str, ...]:
    """Fill in empty metadata from a sibling of the same folder, and empty feature texts.

    Parameters
    ----------
    editor : Editor
        The model; it is changed.
    sibling : mapping
        ``author``, ``license``, ``version`` and ``description`` of a whole component.
    texts : mapping of str to str
        Description of each feature.

    Returns
    -------
    tuple of str
        What was filled in.
    """
    metadata = editor.description.metadata
    filled = []
    for key, field in (
        ("author", "author"),
        ("license", "license"),
        ("version", "versionString"),
        ("description", "shortDescription"),
    ):
        if sibling.get(key) and not getattr(metadata, field):
            setattr(metadata, field, sibling[key])
            filled.append(key)
    for feature in (*editor.description.input, *editor.description.output):
        if not feature.shortDescription and texts.get(feature.name):
            feature.shortDescription = texts[feature.name]
            filled.append(f"text of {feature.name}")
    return tuple(filled)
