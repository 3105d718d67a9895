"""What is in a compiled model folder (``.mlmodelc``)?

``model.mil`` has the program as text, ``weights/`` its weights and ``metadata.json`` what the model takes, gives and
says about itself. All becomes the same protobuf ``Model`` that a package holds, so that everything that works on
packages works on compiled models, and :func:`parity.mil.save` makes a package of one again.

``metadata.json`` is not documented by Apple; entries were read off real files. Where it is missing the features come
from the program. ``coremldata.bin`` and ``analytics`` are not read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parity.errors import FormatError
from parity.files import refuse_pointer, resolved
from parity.mil import proto, values
from parity.mil.blobs import Weights
from parity.mil.model import Model
from parity.mil.text import parse

_LIMIT = 1 << 28  # bytes of text; the program of SDXL's UNet has about 6 MB
_ARRAYS = {"Float32": "FLOAT32", "Float16": "FLOAT16", "Double": "DOUBLE", "Int32": "INT32", "Int8": "INT8"}
_DTYPES = {10: "FLOAT16", 11: "FLOAT32", 12: "DOUBLE", 21: "INT8", 23: "INT32"}
_SPECIFICATION = {"CoreML5": 6, "CoreML6": 7, "CoreML7": 8, "CoreML8": 9, "CoreML9": 10}
_PLAIN = {"Int64": "int64Type", "Double": "doubleType", "String": "stringType"}


def load(folder: Path) -> Model:
    """Read a compiled model; see :func:`parity.mil.load`."""
    specification = proto.model.Model()
    specification.mlProgram.CopyFrom(parse(_text(folder, "model.mil"), str(folder / "model.mil")))
    functions = specification.mlProgram.functions
    if not functions:
        raise FormatError(f"{folder / 'model.mil'}: the program has no function")
    specification.specificationVersion = max(_SPECIFICATION[f.opset] for f in functions.values())
    metadata = _metadata(folder)
    if metadata is not None:
        try:
            _describe(specification, metadata)
        except (TypeError, AttributeError, KeyError, ValueError, RecursionError) as error:
            raise FormatError(
                f"{folder / 'metadata.json'}: not the form that compiled models have: {error!r}"
            ) from None
    elif len(functions) == 1:
        _features_of_program(specification.description, next(iter(functions.values())), folder)
    if metadata is None or len(functions) > 1:
        _several(specification, folder)
    return Model(folder, specification, Weights(folder), compiled=True)


def _text(folder: Path, name: str) -> str:
    path = folder / name
    refuse_pointer(path)
    if resolved(folder) not in resolved(path).parents:
        raise FormatError(f"{path}: it lies outside the model's folder")
    if path.stat().st_size > _LIMIT:
        raise FormatError(f"{path}: {path.stat().st_size} bytes; no program has more than {_LIMIT}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 text at byte {error.start}") from None


def _metadata(folder: Path) -> dict[str, Any] | None:
    if not (folder / "metadata.json").is_file():
        return None
    try:
        content = json.loads(_text(folder, "metadata.json"))
        (entry,) = content
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{folder / 'metadata.json'}: expected a list of one object: {error}") from None
    if not isinstance(entry, dict):
        raise FormatError(f"{folder / 'metadata.json'}: expected a list of one object")
    return entry


def _describe(specification: Any, metadata: dict[str, Any]) -> None:
    specification.specificationVersion = int(metadata.get("specificationVersion", specification.specificationVersion))
    description = specification.description
    about = description.metadata
    about.author = str(metadata.get("author", ""))
    about.license = str(metadata.get("license", ""))
    about.versionString = str(metadata.get("version", ""))
    about.shortDescription = str(metadata.get("shortDescription", ""))
    for key, value in metadata.get("userDefinedMetadata", {}).items():
        about.userDefined[key] = str(value)
    for schema, target in (("inputSchema", "input"), ("outputSchema", "output"), ("stateSchema", "state")):
        for entry in metadata.get(schema, ()):
            _feature(getattr(description, target).add(), entry, state=target == "state")


def _feature(message: Any, entry: dict[str, Any], *, state: bool) -> None:
    message.name = entry["name"]
    message.shortDescription = entry.get("shortDescription", "")
    message.type.isOptional = entry.get("isOptional", "0") == "1"
    kind = entry["type"]
    if kind == "Image":
        _image(message.type.imageType, entry)
    elif kind in ("MultiArray", "State") or state:
        array = message.type.stateType.arrayType if state else message.type.multiArrayType
        array.dataType = getattr(array, _ARRAYS[entry["dataType"]])
        array.shape.extend(json.loads(entry.get("shape", "[]")))
        for lower, upper in json.loads(entry.get("shapeRange", "[]")):
            array.shapeRange.sizeRanges.add(lowerBound=lower, upperBound=upper)
        for shape in json.loads(entry.get("enumeratedShapes", "[]")):
            array.enumeratedShapes.shapes.add().shape.extend(shape)
    elif kind == "Dictionary":
        message.type.dictionaryType.stringKeyType.SetInParent()
    else:
        getattr(message.type, _PLAIN[kind]).SetInParent()


def _image(image: Any, entry: dict[str, Any]) -> None:
    image.width, image.height = int(entry["width"]), int(entry["height"])
    colors = {"RGB": image.RGB, "BGR": image.BGR, "Grayscale": image.GRAYSCALE, "GRAY": image.GRAYSCALE}
    colors["GrayscaleFloat16"] = image.GRAYSCALE_FLOAT16
    image.colorSpace = colors.get(entry.get("colorspace") or "", image.RGB)


def _features_of_program(description: Any, function: Any, folder: Path) -> None:
    block = function.block_specializations[function.opset]
    computed = {output.name: output.type for op in block.operations for output in op.outputs}
    computed.update({item.name: item.type for item in function.inputs})
    for item in function.inputs:
        wrapped = item.type.WhichOneof("type") == "stateType"
        _array(description.state.add() if wrapped else description.input.add(), item.name, item.type, folder)
    for name in block.outputs:
        if name not in computed:
            raise FormatError(f"{folder / 'model.mil'}: the output {name!r} is not computed")
        _array(description.output.add(), name, computed[name], folder)
    _flexible_shapes(description, function, folder)


def _flexible_shapes(description: Any, function: Any, folder: Path) -> None:
    """Set default and allowed shapes of inputs from the function's attribute ``FlexibleShapeInformation``.

    Form, read off real files: pairs of a word and a dictionary. ``DefaultShapes`` has a shape by input, ``RangeDims``
    pairs (lower, upper) by input and axis, ``EnumeratedShapes`` dictionaries of a shape by input, each under a name.
    """
    if "FlexibleShapeInformation" not in function.attributes:
        return
    where = f"{folder / 'model.mil'}: FlexibleShapeInformation"
    known = dict(values.decode(function.attributes["FlexibleShapeInformation"], where))
    inputs = {item.name: item.type.multiArrayType for item in description.input}
    try:
        for name, shape in known.get("DefaultShapes", {}).items():
            inputs[name].shape[:] = [int(size) for size in shape]
        for name, ranges in known.get("RangeDims", {}).items():
            inputs[name].ClearField("shapeRange")
            for lower, upper in ranges:
                inputs[name].shapeRange.sizeRanges.add(lowerBound=int(lower), upperBound=int(upper))
        for shapes in known.get("EnumeratedShapes", {}).values():
            for name, shape in shapes.items():
                listed = inputs[name].enumeratedShapes.shapes
                sizes = [int(size) for size in shape]
                if sizes not in [list(one.shape) for one in listed]:
                    listed.add().shape.extend(sizes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{where}: not the form that compiled models have: {error!r}") from None


def _array(message: Any, name: str, declared: Any, folder: Path) -> None:
    message.name = name
    state = declared.WhichOneof("type") == "stateType"
    tensor = declared.stateType.wrappedType.tensorType if state else declared.tensorType
    array = message.type.stateType.arrayType if state else message.type.multiArrayType
    if tensor.dataType not in _DTYPES:
        raise FormatError(f"{folder / 'model.mil'}: {name!r} has a type that a model cannot take or give")
    array.dataType = getattr(array, _DTYPES[tensor.dataType])
    flexible = any(d.WhichOneof("dimension") != "constant" for d in tensor.dimensions)
    for size in tensor.dimensions:
        known = size.WhichOneof("dimension") == "constant"
        array.shape.append(size.constant.size if known else 1)
        if flexible:
            upper = size.constant.size if known else -1
            array.shapeRange.sizeRanges.add(lowerBound=size.constant.size if known else 1, upperBound=upper)


def _several(specification: Any, folder: Path) -> None:
    """Describe the functions one by one when there are several."""
    functions = specification.mlProgram.functions
    if len(functions) < 2:
        return
    description = specification.description
    for name in sorted(functions):
        _features_of_program(description.functions.add(name=name), functions[name], folder)
    description.defaultFunctionName = "main" if "main" in functions else sorted(functions)[0]
