"""Beam search in a trie: only items, and with a wide beam the ranking of all of them."""

from __future__ import annotations

import pytest
import torch

from dglrec.errors import ConfigError
from dglrec.lm.decoding import Trie, beam_search

NAMES = [[0, 1], [0, 1, 2], [0, 2], [1], [3, 3, 3], [2, 0]]  # item 0's name begins item 1's
SIZE = 4


def random_speaker(seed, rows):
    """Log-probabilities that depend on all that was said."""
    table = torch.randn(rows, 5, SIZE + 1, SIZE + 2, generator=torch.Generator().manual_seed(seed))

    def step(said):  # (B, b, t)
        last = said[:, :, -1] + 1 if said.shape[2] else torch.zeros(said.shape[:2], dtype=torch.int64)
        place = torch.arange(rows)[:, None].expand_as(last)
        return table[place, said.shape[2], :, last].log_softmax(-1)

    return step


def exhaustive(step, rows):
    """(B, M): the log-probability of each name and its end, one token after the other."""
    scores = torch.zeros(rows, len(NAMES))
    for item, name in enumerate(NAMES):
        for place, token in enumerate([*name, SIZE]):
            said = torch.tensor(name[:place], dtype=torch.int64).expand(rows, 1, place)
            scores[:, item] += step(said)[:, 0, token]
    return scores


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_scoring_every_item(seed):
    step = random_speaker(seed, 6)
    items, scores = beam_search(step, Trie(NAMES, SIZE), 6, len(NAMES))
    wanted = exhaustive(step, 6).sort(1, descending=True)
    assert torch.equal(items, wanted.indices)
    torch.testing.assert_close(scores, wanted.values)


def test_a_narrow_beam_lists_distinct_items_best_first():
    step = random_speaker(9, 20)
    items, scores = beam_search(step, Trie(NAMES, SIZE), 20, 3)
    for row, values in zip(items.tolist(), scores, strict=True):
        listed = [item for item in row if item >= 0]
        assert listed
        assert len(set(listed)) == len(listed)
        assert values[: len(listed)].tolist() == values[: len(listed)].sort(descending=True).values.tolist()
    every = exhaustive(step, 20)
    there = items >= 0
    torch.testing.assert_close(scores[there], every.gather(1, items.clamp(min=0))[there])


def test_a_beam_wider_than_the_catalogue_ends_in_nothing():
    items, scores = beam_search(random_speaker(1, 2), Trie(NAMES, SIZE), 2, 9)
    assert (items[:, len(NAMES) :] == -1).all()
    assert scores[:, len(NAMES) :].isinf().all()


def test_a_trie_knows_the_ways_on_from_each_state():
    """From no word, and from all that names begin with; and it grows with the names, not with states times tokens."""
    trie = Trie(NAMES, SIZE)
    for known in ([], [0], [0, 1], [0, 1, 2], [1], [3, 3]):
        state = torch.zeros((), dtype=torch.int64)
        for token in known:
            state = trie.after(state)[token]
        going = {(*name, SIZE)[len(known)] for name in NAMES if name[: len(known)] == known}
        assert set(torch.where(trie.after(state) >= 0)[0].tolist()) == going
    states = torch.arange(len(trie.item)).view(1, -1)
    assert torch.equal(trie.after(states)[0, 3], trie.after(states[0, 3]))
    ends = trie.after(states)[0, :, SIZE]
    assert sorted(trie.item[ends[ends >= 0]].tolist()) == list(range(len(NAMES)))
    assert len(trie.token) == len(trie.target) == len(trie.item) - 1


def test_one_name_for_two_items_is_refused():
    with pytest.raises(ConfigError, match="two items have the same name"):
        Trie([[0], [0]], 1)
