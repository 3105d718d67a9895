"""Look-up tables of which k-means lost values: found by the file alone, and no right table is suspected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parity.contracts import palettes
from parity.contracts.inspection import Palette
from parity.mil import dtypes


def by_scikit_learn(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster as coremltools does for small tensors; return table and indices."""
    cluster = pytest.importorskip("sklearn.cluster", reason="k-means tables are made by scikit-learn, an extra")
    entries = 1 << bits
    made = cluster.KMeans(entries, init="k-means++", tol=1e-2, n_init=1, random_state=0).fit(weight.reshape(-1, 1))
    return made.cluster_centers_.reshape(-1).astype(weight.dtype), made.labels_


def judged(table: np.ndarray, places: np.ndarray) -> Palette | None:
    bits = len(table).bit_length() - 1
    packed = np.frombuffer(dtypes.pack(places, dtypes.BY_NAME[f"uint{bits}"]), np.uint8)
    return palettes.judge("w", places.shape, table, lambda: packed)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_what_scikit_learn_lost_is_found_and_nothing_else() -> None:
    """The weights themselves are the witness: some of these tables are wrong, and exactly those are found."""
    rng = np.random.default_rng(3)
    outcomes = []
    for count, bits in [(11, 8), (15, 8), (29, 8), (57, 8), (200, 8), (11, 6), (15, 6), (60, 6), (2, 4), (15, 4)] * 2:
        levels = np.unique(rng.normal(scale=0.1, size=count).astype(np.float16)) if count % 3 else np.arange(count) / 32
        weight = rng.choice(levels, 2304).astype(np.float16)
        table, places = by_scikit_learn(weight, bits)
        wrong = np.abs(table[places].astype(float) - weight) > 2**-9 * np.abs(weight).max()
        lost = {float(value) for value in weight[wrong]}
        found = judged(table, places)
        assert (found is not None) == bool(wrong.any()), (count, bits)
        if found:
            assert set(found.lost) == lost
            assert (found.entries, found.used) == (1 << bits, len(np.unique(places)))
        outcomes.append(found is not None)
    assert 3 <= sum(outcomes) <= len(outcomes) - 3, "this release of scikit-learn gives both kinds"


def right_tables() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)
    few = np.array([-1e4, 0], np.float16)
    places = np.triu(np.ones((77, 77), np.uint8), 1).reshape(-1)
    spaced = np.linspace(-1, 1, 256).astype(np.float16)
    some = rng.integers(0, 40, 2304)
    return {
        "different entries": (rng.normal(size=64).astype(np.float16), rng.integers(0, 64, 4096)),
        "zeros behind": (np.concatenate([few, np.zeros(14, np.float16)]), places),
        "copies behind": (np.concatenate([few, np.full(62, -1e4, np.float16)]), 1 - places),
        "a negative zero": (np.array([-0.0, 0.5] + [0.0, 0.5] * 7, np.float16), places),
        "spaced, unused places": (spaced, rng.integers(30, 200, 3000)),
        "the mean behind": (np.array([-1, 1] + [some.mean() - 19.5] * 2 + [1] * 12, np.float16), np.array([0, 1] * 99)),
        "constant": (np.zeros(256, np.float16), np.zeros(4096, np.uint8)),
    }


@pytest.mark.parametrize("case", right_tables())
def test_right_tables_are_not_suspected(case: str) -> None:
    table, places = right_tables()[case]
    if case == "the mean behind":
        table[2:4] = table[places].astype(float).mean() + 0.0
    assert judged(table, places) is None


def test_each_block_has_its_table() -> None:
    """iOS 18: (groups, 1, entries, 1) tables, indices in the weight's shape; the second block has lost 0.75."""
    good = np.array([0.5, -0.5, 0.125, 0.75], np.float16)
    bad = np.array([0.5, -0.5, 0.5, 0.75], np.float16)
    places = np.tile(np.arange(4, dtype=np.uint8), (8, 4))
    places[4:][places[4:] == 3] = 0
    table = np.stack([good, bad]).reshape(2, 1, 4, 1)
    found = palettes.judge("w", (8, 16), table, lambda: places)
    assert found == Palette("w", (8, 16), 4, 3, (0.75,))
    assert palettes.judge("w", (8, 16), np.stack([good, good]).reshape(2, 1, 4, 1), lambda: places) is None


def test_vectors_are_compared_whole() -> None:
    pairs = np.array([[1, 2], [1, 3], [1, 2], [4, 5]], np.float16).reshape(1, 1, 4, 2)
    assert palettes.judge("w", (2, 6), pairs, lambda: np.array([[0, 1, 0], [1, 1, 3]])) is None
    found = palettes.judge("w", (2, 6), pairs, lambda: np.array([[0, 1, 2], [1, 1, 0]]))
    assert found is not None
    assert found.lost == (4, 5)


def test_indices_are_read_only_where_an_entry_is_repeated() -> None:
    def never() -> np.ndarray:
        raise AssertionError("read")

    assert palettes.judge("w", (64, 64), np.arange(256, dtype=np.float16), never) is None


def test_the_sentence_counts_and_cuts() -> None:
    one = Palette("w", (3, 4), 256, 11, (0.125,))
    assert palettes.sentence((one,)).startswith(
        "a weight unpacks to wrong values: 'w' [3, 4] (indices point at 11 of 256 entries, none at 0.125). "
    )
    many = palettes.sentence((one,) * 5)
    assert many.startswith("5 weights unpack to wrong values")
    assert many.count("'w'") == 3
    assert " and 2 more" in many


def test_damaged_tables_are_left_to_others(tmp_path: Path) -> None:
    assert palettes.of_text("tensor<fp16, [4, 4]> w = constexpr_lut_to_dense(indices = 3, lut = 4);", None) == ()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="table of 5 entries"):
        palettes.judge("w", (4,), np.zeros(5, np.float16), lambda: np.zeros(4, np.uint8))
