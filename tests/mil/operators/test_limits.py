"""Are sizes that a file can ask for with a few digits refused before memory is taken?"""

from __future__ import annotations

import numpy as np
import pytest

from parity.errors import UsageError
from tests.mil.operators.calling import call

ONE = np.ones((1, 1, 1, 1), np.float32)
HUGE = 1 << 20
CASES = [
    ("fill", {"shape": (HUGE, HUGE)}),
    ("range_1d", {"start": 0, "end": 2**40, "step": 1}),
    ("tile", {"x": ONE, "reps": (1, 1, HUGE, HUGE)}),
    ("pad", {"x": ONE, "pad": (0, HUGE, HUGE, 0)}),
    ("one_hot", {"indices": np.zeros(9, np.int32), "one_hot_vector_size": 2**31 - 1}),
    ("random_normal", {"shape": (HUGE, HUGE)}),
    ("random_uniform", {"shape": (HUGE, HUGE)}),
    ("random_bernoulli", {"shape": (HUGE, HUGE)}),
    ("random_categorical", {"x": np.ones((4, 2), np.float32), "size": 2**31 - 1}),
    ("make_list", {"elem_shape": (4,), "init_length": HUGE * HUGE}),
    ("make_list", {"elem_shape": ("n",), "init_length": HUGE * HUGE}),
    ("list_write", {"ls": [], "index": 2**31 - 1, "value": ONE}),
    ("list_scatter", {"ls": [], "indices": (2**31 - 1,), "value": ONE}),
    ("upsample_nearest_neighbor", {"x": ONE, "scale_factor_height": HUGE, "scale_factor_width": HUGE}),
    ("upsample_bilinear", {"x": ONE, "scale_factor_height": HUGE, "scale_factor_width": HUGE}),
    ("resize_nearest_neighbor", {"x": ONE, "target_size_height": HUGE, "target_size_width": HUGE}),
    ("resize_bilinear", {"x": ONE, "target_size_height": HUGE, "target_size_width": HUGE}),
    ("resize", {"x": ONE, "shape": (HUGE, HUGE), "resized_dims": 2}),
    ("crop_resize", {"x": ONE, "boxes": np.ones((1, 4), np.float32), "target_height": HUGE, "target_width": HUGE}),
]


@pytest.mark.parametrize(("kind", "inputs"), CASES, ids=[f"{kind}-{place}" for place, (kind, _) in enumerate(CASES)])
def test_enormous_tensors_are_refused(kind, inputs):
    with pytest.raises(UsageError, match=rf"'{kind}' \({kind}\) asks for a tensor of shape .* are refused"):
        call(kind, **inputs)


@pytest.mark.parametrize("opset", ["iOS15", "iOS16"])
def test_enormous_regions_are_refused(opset):
    roi = np.ones((1, 1, 4, 1, 1), np.float32)
    with pytest.raises(UsageError, match="crop_resize"):
        call("crop_resize", opset=opset, x=ONE, roi=roi, target_height=HUGE, target_width=HUGE)


def test_an_enormous_affine_map_is_refused():
    with pytest.raises(UsageError, match="affine"):
        call(
            "affine",
            x=ONE,
            transform_matrix=np.ones((1, 6), np.float32),
            output_height=HUGE,
            output_width=HUGE,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=0.0,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        )
