"""``parity convert`` under a contract writes the program that the era wrote, as far as docs/convert.md says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.eras import model
from parity import mil
from parity.contracts.diff import diff_models
from parity.convert import cached

Package = Callable[[str], Path]
Converted = Callable[..., Path]

# Operators whose number follows from the passes of coremltools, not from what was traced. Today's coremltools joins
# the released layer norm into one operator, folds a transposed key into the product, and folds the constant mask;
# 6.1 to 7.0b1 did not.
BY_PASSES = {"transpose", "cast", "band_part", "sub", "expand_dims", "layer_norm", "add", "mul", "reduce_mean", "rsqrt"}
BY_PASSES |= {"square", "batch_norm", "sqrt", "real_div", "slice_by_index", "concat", "reshape"}


@pytest.fixture(scope="module")
def converted(checkpoint: Path) -> Converted:
    def convert(contract: str, component: str, **options: Any) -> Path:
        made = cached(str(checkpoint), contract=contract, components=[component], identifier=model.NAME, **options)
        return made[component]

    return convert


def operations(path: Path) -> list[Any]:
    function = mil.load(path).program.functions["main"]
    return list(function.block_specializations[function.opset].operations)


def counts(path: Path) -> Counter[str]:
    return Counter(operation.type for operation in operations(path) if operation.type != "const")


def ranks(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield (operator, shape) of every product and softmax, in the program's order."""
    for operation in operations(path):
        if operation.type in ("matmul", "softmax", "einsum"):
            dimensions = operation.outputs[0].type.tensorType.dimensions
            yield operation.type, tuple(int(d.constant.size) for d in dimensions)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "contract"),
    [("6.1/0.2.0", "0.2.0"), ("6.3/0.4.0", "0.4.0"), ("7.0b1/1.0.0", "1.0.0"), ("7.2/1.1.1", "1.1.1")],
)
def test_text_encoders_have_the_products_of_their_time(
    name: str, contract: str, package: Package, converted: Converted
) -> None:
    theirs, ours = package(f"{name}/text_encoder"), converted(contract, "text_encoder")
    products = list(ranks(ours))
    assert products == list(ranks(theirs))
    assert {len(shape) for _, shape in products} == {3}
    assert products[0][1] == (2, 77, 77)
    mine, of_then = counts(ours), counts(theirs)
    for operator in ("linear", "matmul", "softmax", "layer_norm", "sigmoid", "reshape", "gather", "reduce_argmax"):
        assert mine[operator] == of_then[operator], operator


@pytest.mark.long
@pytest.mark.parametrize(("name", "contract"), [("8.0/main", "C8b"), ("9.0/main", "main")])
def test_todays_text_encoders_are_four_dimensional(
    name: str, contract: str, package: Package, converted: Converted
) -> None:
    ours = list(ranks(converted(contract, "text_encoder")))
    assert {len(shape) for _, shape in ours} == {4}
    assert ours == list(ranks(package(f"{name}/text_encoder")))


@pytest.mark.long
@pytest.mark.parametrize("component", ["vae_decoder", "vae_encoder"])
@pytest.mark.parametrize(("name", "contract"), [("6.1/0.2.0", "0.2.0"), ("6.3/0.4.0", "0.4.0")])
def test_the_vae_has_the_operators_of_its_time(
    name: str, contract: str, component: str, package: Package, converted: Converted
) -> None:
    theirs, ours = package(f"{name}/{component}"), converted(contract, component)
    mine, of_then = counts(ours), counts(theirs)
    assert of_then["transpose"] - mine["transpose"] in (0, 1)  # of the keys: part of the product today
    del mine["transpose"], of_then["transpose"]
    assert mine == of_then
    assert list(ranks(ours)) == list(ranks(theirs))


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("6.1/0.2.0", marks=pytest.mark.slow),
        "6.3/0.4.0",
        "7.0b1/1.0.0",
        "7.2/1.1.1",
        "8.0/main",
        "9.0/main",
    ],
)
def test_the_unet_has_the_layers_and_the_attention_of_its_time(
    name: str, package: Package, converted: Converted
) -> None:
    era, contract = name.split("/")
    attention = "ORIGINAL" if era in ("6.3", "7.2") else "SPLIT_EINSUM"
    theirs, ours = package(f"{name}/unet"), converted(contract, "unet", attention=attention)
    mine, of_then = counts(ours), counts(theirs)
    assert {key: mine[key] for key in mine if key not in BY_PASSES} == {
        key: of_then[key] for key in of_then if key not in BY_PASSES
    }
    assert sorted(ranks(ours)) == sorted(ranks(theirs))


def test_outputs_without_shape(package: Package, converted: Converted) -> None:
    theirs = package("6.1/0.2.0/text_encoder")
    ours = converted("0.2.0", "text_encoder", output_shapes=False)
    declared = [
        [(f.name, f.type.multiArrayType.dataType, list(f.type.multiArrayType.shape)) for f in description.output]
        for description in (mil.load(path).specification.description for path in (ours, theirs))
    ]
    assert declared[0] == declared[1]
    assert declared[0][0][2] == []


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_decoder", "vae_encoder"])
def test_diff_finds_the_same_features_and_texts(component: str, package: Package, converted: Converted) -> None:
    """Only the libraries' own keys differ, and with shapes asked for, what coremltools 6.1 left out."""
    found = diff_models(package(f"6.1/0.2.0/{component}"), converted("0.2.0", component, output_shapes=False))
    assert not found.features
    assert {change.field.rpartition(".")[2] for change in found.metadata} <= {"version", "source", "source_dialect"}
    assert all("coremltools" in change.field for change in found.metadata), found.metadata


@pytest.mark.parametrize("component", ["text_encoder", "vae_decoder", "vae_encoder"])
def test_weights_are_the_same_numbers(component: str, package: Package, converted: Converted) -> None:
    """The recipe is exact in float16, so what is paired is equal, whichever library rounded it."""
    found = diff_models(package(f"6.1/0.2.0/{component}"), converted("0.2.0", component))
    assert found.equal_weights > 15
    assert not found.weights or max(weight.largest for weight in found.weights) < 1e-3
