"""The three models that count, against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dglrec
from dglrec.data.log import InteractionLog
from dglrec.data.queries import Queries
from dglrec.errors import ConfigError, DataError

DAY = 86_400.0


def preset(name, split, **fields):
    return dglrec.models.preset(name, split, **fields)


def test_popularity_counts_training_interactions(split):
    expected = [int((split.train.item == item).sum()) for item in range(split.log.num_items)]
    scores = preset("popularity", split).scores(split.test)
    assert scores.shape == (len(split.test), split.log.num_items)
    assert scores[0].tolist() == scores[-1].tolist() == expected


@pytest.mark.parametrize("half_life", [90.0, 10.0])
def test_recency_halves_in_its_half_life(half_life, split):
    train = split.train
    expected = np.zeros(train.num_items)
    for item, time in zip(train.item, train.time, strict=True):
        expected[item] += 0.5 ** ((train.time.max() - time) / DAY / half_life)
    scores = preset("recency", split, half_life_days=half_life).scores(split.test[:1])
    np.testing.assert_allclose(scores[0].numpy(), expected, rtol=1e-5)


def test_transitions_count_what_came_next_and_then_popularity(split):
    train = split.train
    follows = np.zeros((train.num_items, train.num_items))
    for row in range(1, len(train)):
        if train.user[row] == train.user[row - 1]:
            follows[train.item[row - 1], train.item[row]] += 1
    popularity = np.bincount(train.item, minlength=train.num_items)
    expected = np.stack(
        [follows[split.test[q].items[-1]] + popularity / (popularity.max() + 1) for q in range(len(split.test))]
    )
    scores = preset("transitions", split).scores(split.test)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)
    assert (popularity / (popularity.max() + 1)).max() < 1  # what followed once stands above what never did


def test_an_empty_history_is_ranked_by_popularity(split):
    queries = Queries.from_histories([[], [3], []])
    scores = preset("transitions", split).scores(queries)
    popularity = preset("popularity", split).scores(queries)
    assert torch.equal(scores[0].argsort(stable=True), popularity[0].argsort(stable=True))
    assert not torch.equal(scores[1], scores[0])


def test_only_the_training_log_is_counted(split):
    assert float(preset("popularity", split).scores(split.test[:1]).sum()) == len(split.train)


def test_recency_needs_times(split):
    log = InteractionLog.from_arrays(["a"] * 4 + ["b"] * 3, ["p", "q", "r", "s", "q", "p", "s"])
    without = dglrec.leave_one_out(log, order="file")
    assert preset("popularity", without).scores(without.test).shape == (2, 4)
    with pytest.raises(DataError, match="popularity or transitions"):
        preset("recency", without)
    with pytest.raises(ConfigError, match="half_life_days"):
        preset("recency", split, half_life_days=0.0)
