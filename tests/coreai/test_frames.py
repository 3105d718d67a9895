"""Arrays travel whole, whatever their dtype, shape and strides."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from parity.coreai import frames


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        hnp.floating_dtypes() | hnp.integer_dtypes() | hnp.boolean_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)
    )
)
def test_round_trip(array):
    stream = io.BytesIO()
    frames.write(stream, {"op": "run"}, {"a": array, "b": np.swapaxes(np.ones((2, 3)), 0, 1)})
    stream.seek(0)
    message, arrays = frames.read(stream)
    assert message == {"op": "run"}
    np.testing.assert_array_equal(arrays["a"], array)
    assert arrays["a"].dtype == array.dtype
    assert arrays["a"].shape == array.shape
    assert arrays["b"].shape == (3, 2)


def test_an_ended_stream_is_noticed():
    stream = io.BytesIO()
    frames.write(stream, {}, {"a": np.ones(4)})
    for length in (0, 5, len(stream.getvalue()) - 1):
        with pytest.raises(EOFError):
            frames.read(io.BytesIO(stream.getvalue()[:length]))
