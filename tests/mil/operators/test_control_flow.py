"""Branches, loops, lists, states, random streams, detection and classification."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import UnsupportedError, UsageError
from parity.mil import operators
from tests.mil.operators.calling import call, context, rng


def test_cond_runs_one_block():
    ran = []

    def run(index, arguments):
        ran.append((index, arguments))
        return (torch.tensor(float(index)),)

    for truth, index in ((True, 0), (False, 1)):
        assert call("cond", context=context("cond", run_block=run), pred=np.array(truth)) == (float(index),)
    assert ran == [(0, ()), (1, ())]


def test_while_loop_counts():
    def run(index, arguments):
        count, total = arguments
        return (count < 4,) if index == 0 else (count + 1, total * 2)

    loop = (np.array(0, np.int32), np.array(1.0, np.float32))
    result = call("while_loop", context=context("loop", run_block=run), loop_vars=loop)
    np.testing.assert_array_equal(result, [4, 16])
    never = call("while_loop", context=context("loop", run_block=run), loop_vars=(np.array(9, np.int32), loop[1]))
    np.testing.assert_array_equal(never, [9, 1])


def test_blocks_need_an_interpreter():
    with pytest.raises(UnsupportedError, match="no block 0"):
        call("cond", pred=np.array(True))


def test_lists():
    made = operators.get("make_list", "iOS15").function(context(), elem_shape=(2,), init_length=2, dtype="int32")
    assert [element.dtype for element in made] == [torch.int32] * 2
    write = operators.get("list_write", "iOS15").function
    longer = write(context(), ls=made, index=3, value=torch.tensor([5, 6], dtype=torch.int32))
    assert len(made) == 2
    assert int(call("list_length", ls=longer)) == 4
    np.testing.assert_array_equal(call("list_read", ls=longer, index=3), [5, 6])
    np.testing.assert_array_equal(call("list_gather", ls=longer, indices=(3, 0)), [[5, 6], [0, 0]])
    spread = call("list_scatter", ls=longer, indices=np.array([0, 5]), value=np.array([[1, 2], [3, 4]], np.int32))
    np.testing.assert_array_equal(np.stack(spread), [[1, 2], [0, 0], [0, 0], [5, 6], [0, 0], [3, 4]])


def test_lists_of_unknown_shape():
    made = operators.get("make_list", "iOS15").function(context(), elem_shape=("n", 2))
    assert made == [None]
    with pytest.raises(UsageError, match="list_read of element 0 of a list of 1, which was not written"):
        call("list_read", ls=made, index=0)
    with pytest.raises(UsageError, match="never written"):
        call("list_gather", ls=made, indices=(0,))
    written = operators.get("list_write", "iOS15").function(context(), ls=[None, None], index=1, value=torch.ones(3))
    np.testing.assert_array_equal(call("list_gather", ls=written, indices=(0, 1)), [[0, 0, 0], [1, 1, 1]])


def test_states_keep_what_was_written_and_readers_keep_what_they_read():
    state = operators.State(torch.zeros(2))
    read, write = (operators.get(kind, "iOS18").function for kind in ("read_state", "write_state"))
    before = read(context(), input=state)
    assert write(context(), input=state, data=torch.ones(2)) == ()
    np.testing.assert_array_equal(before, [0, 0])
    np.testing.assert_array_equal(read(context(), input=state), [1, 1])
    update = operators.get("coreml_update_state", "iOS18").function
    np.testing.assert_array_equal(update(context(), state=state, value=torch.full((2,), 7.0)), [7, 7])
    np.testing.assert_array_equal(state.value, [7, 7])


RANDOM = {
    "random_normal": ({"shape": (20000,), "mean": 2.0, "stddev": 3.0}, 2.0, 3.0),
    "random_uniform": ({"shape": (20000,), "low": -1.0, "high": 3.0}, 1.0, 4 / 12**0.5),
    "random_bernoulli": ({"shape": (20000,), "prob": 0.25}, 0.25, (0.25 * 0.75) ** 0.5),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_random_operators_have_their_distribution_and_repeat(kind):
    options, mean, deviation = RANDOM[kind]
    values = call(kind, context=context("a", random_seed=5), **options)
    np.testing.assert_allclose([values.mean(), values.std()], [mean, deviation], atol=0.05)
    np.testing.assert_array_equal(call(kind, context=context("a", random_seed=5), **options), values)
    for other in (context("a", random_seed=6), context("b", random_seed=5)):
        assert (call(kind, context=other, **options) != values).any()
    seeded = call(kind, context=context("a"), seed=3, **options)
    np.testing.assert_array_equal(call(kind, context=context("b", random_seed=9), seed=3, **options), seeded)


def test_a_stream_goes_on_within_a_run():
    shared: dict[str, Any] = {}
    first = call("random_normal", context=context("a", generators=shared), shape=(3,))
    second = call("random_normal", context=context("a", generators=shared), shape=(3,))
    both = call("random_normal", context=context("a"), shape=(3,))
    np.testing.assert_array_equal(first, both)
    assert (first != second).all()


@pytest.mark.parametrize("mode", ["probs", "logits"])
def test_random_categorical(mode):
    weights = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], np.float32)
    x = weights if mode == "probs" else np.log(weights + 1e-9).astype(np.float32)
    draws = call("random_categorical", context=context("a"), x=x, mode=mode, size=20000)
    assert draws.shape == (2, 20000)
    np.testing.assert_allclose([(draws[0] == i).mean() for i in range(3)], weights[0], atol=0.02)
    assert (draws[1] == 0).all()
    with pytest.raises(UnsupportedError, match="mode 'odds'"):
        call("random_categorical", x=x, mode="odds")


def _survivors(boxes, scores, iou, threshold, limit, by_class):
    """Greedy suppression, box by box."""
    best, classes = scores.max(1), scores.argmax(1)
    kept: list[int] = []
    for box in sorted(range(len(boxes)), key=lambda i: -best[i]):
        if best[box] <= threshold or len(kept) == limit:
            continue
        for other in kept:
            if by_class and classes[other] != classes[box]:
                continue
            corners = [(b[:2] - b[2:] / 2, b[:2] + b[2:] / 2) for b in (boxes[box], boxes[other])]
            sides = np.minimum(corners[0][1], corners[1][1]) - np.maximum(corners[0][0], corners[1][0])
            shared = np.prod(np.maximum(sides, 0))
            if shared / (boxes[box][2:].prod() + boxes[other][2:].prod() - shared) > iou:
                break
        else:
            kept.append(box)
    return kept or [int(best.argmax())]


@given(
    seed=st.integers(0, 2**32 - 1),
    iou=st.floats(0.1, 0.9),
    threshold=st.floats(0, 1.1),
    limit=st.integers(1, 6),
    by_class=st.booleans(),
)
def test_non_maximum_suppression(seed, iou, threshold, limit, by_class):
    generator = rng(seed)
    boxes = np.concatenate((generator.uniform(0, 4, (2, 9, 2)), generator.uniform(1, 3, (2, 9, 2))), 2).astype(
        np.float32
    )
    scores = generator.random((2, 9, 3)).astype(np.float32)
    options = {"iou_threshold": iou, "max_boxes": limit, "per_class_suppression": by_class}
    found, points, indices, counts = call(
        "non_maximum_suppression", opset="iOS15", boxes=boxes, scores=scores, score_threshold=threshold, **options
    )
    for entry in range(2):
        kept = _survivors(boxes[entry], scores[entry], iou, threshold, limit, by_class)
        assert counts[entry] == len(kept)
        np.testing.assert_array_equal(indices[entry], kept + [-1] * (limit - len(kept)))
        np.testing.assert_array_equal(found[entry, : len(kept)], boxes[entry, kept])
        np.testing.assert_array_equal(points[entry, : len(kept)], scores[entry, kept])
        assert not found[entry, len(kept) :].any()
    newer = call(
        "non_maximum_suppression",
        boxes=boxes.transpose(0, 2, 1).copy(),
        scores=scores.transpose(0, 2, 1).copy(),
        **options,
    )
    everything = call(
        "non_maximum_suppression", opset="iOS15", boxes=boxes, scores=scores, score_threshold=-1.0, **options
    )
    np.testing.assert_array_equal(newer[0].transpose(0, 2, 1), everything[0])
    np.testing.assert_array_equal(newer[2], everything[2])


def test_classify():
    label, probabilities = call("classify", probabilities=np.array([[0.25, 0.5, 0.25]]), classes=("a", "b", "c"))
    assert label == "b"
    assert probabilities == {"a": 0.25, "b": 0.5, "c": 0.25}
