"""Names of items: those of an example worked out by hand, all different, and blind to what is held out."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

import dglrec
from dglrec.errors import ConfigError, DataError
from dglrec.lm.indexing import _spectral, check_names, cid, co_occurrence, iid, p5, sid
from tests.contract.model_contract import poisoned

SCHEMES = {"iid": iid, "sid": sid, "p5": p5, "cid": lambda train: cid(train, 3, 10)}


def log_of(*histories, items):
    user = np.repeat(np.arange(len(histories)), [len(one) for one in histories])
    names = [f"u{number}" for number in range(len(histories))], [f"i{number}" for number in range(items)]
    return dglrec.InteractionLog.from_arrays(user, np.concatenate(histories), user_ids=names[0], item_ids=names[1])


def test_sequential_numbers_by_hand():
    """Items 4, 2, 0 are met in this order; 1 and 3 are not met in training, and follow."""
    log = log_of([4, 2], [2, 0, 4], items=5)
    assert ["".join(name) for name in sid(log)] == ["1003", "1004", "1002", "1005", "1001"]


def test_numbers_are_said_two_digits_at_a_time():
    names = sid(log_of(np.arange(9100), items=9100))
    assert names[0] == ("10", "01")
    assert names[9099] == ("10", "10", "0")


def test_co_occurrence_counts_both_orders():
    together = co_occurrence(log_of([0, 1, 2], [1, 0], [0, 0, 1], items=4)).toarray()
    assert together.tolist() == [[0, 4, 1, 0], [4, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_clusters_are_the_groups_that_users_took():
    """Two groups of items that nobody mixes; item 8 is not in the training log."""
    rng = np.random.default_rng(0)
    histories = [rng.permutation(4)[:3] + 4 * (user % 2) for user in range(40)]
    names = cid(log_of(*histories, items=9), clusters=2, largest=4)
    assert len({name[0] for name in names[:4]}) == 1
    assert len({name[0] for name in names[4:8]}) == 1
    assert names[0][0] != names[4][0]
    assert {len(name) for name in names[:8]} == {2}
    assert names[8] == ("<new>", "<# 0>")


def test_a_large_cluster_is_cut_again():
    rng = np.random.default_rng(1)
    histories = [rng.permutation(5)[:3] + 5 * (user % 6) for user in range(120)]
    names = cid(log_of(*histories, items=30), clusters=2, largest=5)
    check_names(names)
    assert max(map(len, names)) > 2
    sizes = {}
    for name in names:
        sizes[name[:-1]] = sizes.get(name[:-1], 0) + 1
    assert max(sizes.values()) <= 5


def grouped(rng, users, items, groups, each):
    """A log in which a user mostly takes items of one of some groups of equal size, and some of any."""
    own = rng.integers(items // groups, size=(users, each)) * groups + rng.integers(groups, size=(users, 1))
    item = np.where(rng.random(own.shape) < 0.8, own, rng.integers(items, size=own.shape))
    return dglrec.InteractionLog.from_arrays(
        np.repeat(np.arange(users), each), item.reshape(-1), item_ids=[f"i{number}" for number in range(items)]
    )


def test_clusters_are_those_of_scikit_learn():
    """Apart from their numbers."""
    from sklearn.cluster import SpectralClustering
    from sklearn.metrics import adjusted_rand_score

    affinity = co_occurrence(grouped(np.random.default_rng(2), 400, 240, 6, 7))
    other = SpectralClustering(6, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
    found = _spectral(affinity, 6, 50, 0)
    assert np.bincount(found).min() > 30
    assert adjusted_rand_score(found, other.fit_predict(affinity)) == 1


def test_ten_thousand_items_are_clustered_in_seconds():
    """As many as real data have: a factorised matrix of similarities would fill up, and take minutes."""
    log = grouped(np.random.default_rng(3), 20_000, 10_000, 20, 8)
    began = time.process_time()
    names = cid(log)
    assert time.process_time() - began < 40
    check_names(names)
    assert max(Counter(name[:-1] for name in names).values()) <= 500


def raw_split(log, held_out, turned=False):
    """Leave-one-out of rows in which the two newest of each user name other items, and stand first in the source.

    With `turned` the last user's stand before the others'.
    """
    items, newest = log.item_ids[log.item].astype(object), np.repeat(log.offsets[1:], np.diff(log.offsets))
    back = newest - np.arange(len(log))  # 1 for the last event
    items[back <= 2] = held_out(items[back <= 2])
    order = np.lexsort((-log.user if turned else log.user, back))
    user, time = log.user_ids[log.user], -back.astype(float)
    found = dglrec.leave_one_out(dglrec.InteractionLog.from_arrays(user[order], items[order], time[order]))
    return found.train


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_rows_that_are_held_out_rename_no_item_of_training(split, scheme):
    """The source names users and items in another order then, and a new item among them."""
    first = raw_split(split.log, lambda items: items)
    other = raw_split(split.log, lambda items: [*items[1:][::-1], "a new one"], turned=True)
    rows = [list(zip(one.user_ids[one.user], one.item_ids[one.item], strict=True)) for one in (first, other)]
    assert rows[0] != rows[1]
    assert Counter(rows[0]) == Counter(rows[1])
    assert first.item_ids.tolist() != [name for name in other.item_ids.tolist() if name != "a new one"]
    seen = {name for _, name in rows[0]}
    names = [dict(zip(one.item_ids.tolist(), SCHEMES[scheme](one), strict=True)) for one in (first, other)]
    assert {name: names[0][name] for name in seen} == {name: names[1][name] for name in seen}
    check_names(list(names[1].values()))


def test_items_that_training_has_not_seen_are_named_by_id():
    """Their order in the source is that of held-out rows."""
    train = log_of([1], [1], items=4)
    turned = dglrec.InteractionLog.from_arrays(
        train.user, [0, 0], user_ids=train.user_ids, item_ids=["i1", "i3", "i2", "i0"]
    )
    for scheme, make in SCHEMES.items():
        names = [dict(zip(log.item_ids.tolist(), make(log), strict=True)) for log in (train, turned)]
        assert names[0] == names[1], scheme


@pytest.mark.parametrize("scheme", SCHEMES)
def test_names_differ_and_do_not_depend_on_what_is_held_out(split, scheme):
    names = SCHEMES[scheme](split.train)
    check_names(names)
    assert len(names) == split.log.num_items
    assert SCHEMES[scheme](poisoned(split).train) == names


def test_shuffled_numbers_follow_no_order(split):
    number = np.array([int("".join(name)) for name in p5(split.train)])
    assert sorted(number) == list(range(1001, 1001 + split.log.num_items))
    assert abs(np.corrcoef(number, np.arange(len(number)))[0, 1]) < 0.5
    assert p5(split.train, seed=1) != p5(split.train)


def test_what_is_refused(split):
    with pytest.raises(ConfigError, match="clusters is 1"):
        cid(split.train, clusters=1)
    for wrong in ({"clusters": 2.5}, {"clusters": "2"}, {"largest": True}):
        with pytest.raises(ConfigError, match="expected whole numbers"):
            cid(split.train, **wrong)
    with pytest.raises(DataError, match="items 0 and 1 have the name 'a b'"):
        check_names([("a", "b"), ("a", "b")])
    with pytest.raises(DataError, match="item 1 has an empty name"):
        check_names([("a",), ()])
