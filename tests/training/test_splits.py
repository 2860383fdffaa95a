from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialin.training.splits import stratified_split, stratified_subset

LABELS = np.array([0] * 60 + [1] * 30 + [2] * 10)


@pytest.mark.parametrize(("share", "counts"), [(0.1, [6, 3, 1]), (0.5, [30, 15, 5]), (0.01, [1, 1, 1])])
def test_each_class_gives_its_share(share, counts):
    rest, held = stratified_split(LABELS, share, seed=3)
    assert np.bincount(LABELS[held]).tolist() == counts
    assert sorted([*rest, *held]) == list(range(100))


def test_the_seed_decides():
    one, same, other = (stratified_split(LABELS, 0.2, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 5))
def test_a_subset_keeps_the_shares(labels, count, seed):
    labels = np.array(labels)
    chosen = stratified_subset(labels, count, seed)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, len(labels))
    for label in np.unique(labels):
        expected = min(count, len(labels)) * (labels == label).sum() / len(labels)
        assert abs((labels[chosen] == label).sum() - expected) <= 2.5
