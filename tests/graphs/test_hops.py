"""Neighbourhoods: equal to a search written out for one seed, never too late, and blocks that DGL can use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dglrec._dgl import dgl
from dglrec.errors import ConfigError, DataError
from dglrec.graphs import Neighbours, hops, user_item


def random_graph(rng, users=7, items=6, events=40, times=12):
    columns = rng.integers(users, size=events), rng.integers(items, size=events), rng.integers(times, size=events)
    return user_item(user=columns[0], item=columns[1], time=columns[2].astype(float), num_users=users, num_items=items)


def plain(graph, seed, fanouts, type, before, excluded):
    """The tree of one seed, newest first, by loops over edges."""
    users, items = (part.tolist() for part in graph.edges(order="eid", etype="interacts"))
    data = graph.edges["interacts"].data
    events = list(zip(users, items, data["time"].tolist(), data["position"].tolist(), strict=True))
    pair = (seed, excluded) if type == "user" else (excluded, seed)

    def around(kind, node, back, fanout):
        newest = {}
        for user, item, time, position in events:
            own, other = (user, item) if kind == "user" else (item, user)
            if own == node and other != back and time < before and (user, item) != pair:
                # of equal times the later position, then the later edge, is newer
                newest[other] = max(newest.get(other, (-1,)), (time, position, user))
        return sorted(newest, key=lambda other: newest[other], reverse=True)[:fanout]

    levels, here, kind = [], [(seed, -1)], type
    for fanout in fanouts:
        here = [(child, node) for node, back in here for child in around(kind, node, back, fanout)]
        levels.append([node for node, _ in here])
        kind = "item" if kind == "user" else "user"
    return levels


@given(st.integers(0, 10_000), st.sampled_from(["user", "item"]), st.booleans())
def test_recent_trees_are_those_of_a_plain_search(seed, type, cut):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    count = {"user": 7, "item": 6}
    other = "item" if type == "user" else "user"
    seeds, excluded = rng.integers(count[type], size=9), rng.integers(-1, count[other], size=9)
    before = rng.integers(14, size=9).astype(float) if cut else np.full(9, np.inf)
    fanouts = rng.integers(1, 5, size=4).tolist()  # four hops lead back to the seed
    found = hops(graph, seeds, fanouts, type=type, before=before if cut else None, exclude=excluded)
    for number in range(9):
        wanted = plain(graph, seeds[number], fanouts, type, before[number], excluded[number])
        assert [level.tolist() for level in found.of(number)] == wanted


def test_a_neighbour_behind_many_repeats_is_found():
    """User 0 came back to item 0 more often than is looked at first; the trees beside its own stay as they are."""
    graph = user_item(user=[0] * 10 + [1] * 2, item=[1] + [0] * 9 + [2, 3], time=np.arange(12.0))
    found = hops(graph, [1, 0, 1], [2])
    assert [found.of(number)[0].tolist() for number in range(3)] == [[3, 2], [0, 1], [3, 2]]


@given(st.integers(0, 10_000), st.sampled_from(["recent", "uniform"]), st.sampled_from(["user", "item"]))
def test_no_edge_is_late_or_the_excluded_one(seed, order, type):
    rng = np.random.default_rng(seed)
    graph, count = random_graph(rng, events=60), {"user": 7, "item": 6}
    seeds, before = rng.integers(count[type], size=8), rng.integers(14, size=8).astype(float)
    target = rng.integers(count["item" if type == "user" else "user"], size=8)
    found = hops(graph, seeds, [3, 3, 3], type=type, before=before, exclude=target, order=order, seed=seed)
    for level in found.levels:
        relation = "interacts" if level.type == "item" else "interacted_by"
        source, end = (part.numpy()[level.edges] for part in graph.edges(order="eid", etype=relation))
        time = graph.edges[relation].data["time"].numpy()[level.edges]
        assert (end == level.nodes).all()
        assert (time < before[level.root]).all()
        own, other = (source, end) if (relation == "interacts") == (type == "user") else (end, source)
        assert not ((own == seeds[level.root]) & (other == target[level.root])).any()


@given(st.integers(0, 10_000), st.sampled_from(["recent", "uniform"]), st.sampled_from(["user", "item"]))
def test_a_node_that_is_excluded_everywhere_is_in_no_tree(seed, order, type):
    """And where it would not have been in the tree anyway, the tree is the same."""
    rng = np.random.default_rng(seed)
    graph, count = random_graph(rng, events=60), {"user": 7, "item": 6}
    other = "item" if type == "user" else "user"
    seeds, target = rng.integers(count[type], size=8), rng.integers(-1, count[other], size=8)
    how = {"type": type, "exclude": target, "order": order, "seed": seed}
    found, usual = (hops(graph, seeds, [2, 3, 3, 3], everywhere=everywhere, **how) for everywhere in (True, False))
    for level in found.levels:
        assert level.type != other or not (level.nodes == target[level.root]).any()
    for number in range(8):
        if not (usual.of(number)[2] == target[number]).any():
            assert [level.tolist() for level in found.of(number)] == [level.tolist() for level in usual.of(number)]


def test_a_tree_does_not_depend_on_the_other_seeds():
    graph, seeds = random_graph(np.random.default_rng(1), events=80), np.arange(7)
    for order in ("recent", "uniform"):
        whole = hops(graph, seeds, [2, 2], order=order, seed=5)
        for number in range(7):
            alone = hops(graph, [number], [2, 2], order=order, seed=5)
            assert all(np.array_equal(a, b) for a, b in zip(alone.of(0), whole.of(number), strict=True))


def test_uniform_draws_every_neighbour_as_often():
    graph = user_item(user=np.arange(10), item=np.zeros(10, dtype=int), time=np.arange(10.0))
    drawn = np.concatenate([hops(graph, [0], [2], type="item", order="uniform", seed=s).of(0)[0] for s in range(800)])
    share = np.bincount(drawn, minlength=10) / 800
    assert share == pytest.approx(np.full(10, 0.2), abs=0.06)  # the oldest, too
    once = hops(graph, [0], [3], type="item", order="uniform", seed=4).of(0)[0]
    assert np.array_equal(once, hops(graph, [0], [3], type="item", order="uniform", seed=4).of(0)[0])


def test_each_cut_off_has_a_draw_of_its_own():
    graph = user_item(user=np.arange(10), item=np.zeros(10, dtype=int), time=np.arange(10.0))
    how = {"type": "item", "before": [9.0, 10.0], "order": "uniform"}
    trees = [hops(graph, [0, 0], [3], seed=seed, **how) for seed in range(50)]
    assert sum(np.array_equal(tree.of(0)[0], tree.of(1)[0]) for tree in trees) < 5  # 1 of 120 by chance


@given(st.integers(0, 10_000), st.sampled_from(["user", "item"]), st.integers(1, 4))
def test_a_uniform_draw_is_as_large_as_the_neighbours_allow(seed, type, fanout):
    """Different neighbours, all of them where they are few, and newest first."""
    rng = np.random.default_rng(seed)
    graph, count = random_graph(rng, events=60), {"user": 7, "item": 6}
    seeds, before = np.arange(count[type]), rng.integers(14, size=count[type]).astype(float)
    target = rng.integers(count["item" if type == "user" else "user"], size=len(seeds))
    how = {"type": type, "before": before, "exclude": target}
    drawn, all_of_them = (
        hops(graph, seeds, [most], order=order, seed=seed, **how)
        for most, order in ((fanout, "uniform"), (99, "recent"))
    )
    for number in range(len(seeds)):
        (own,), (known,) = drawn.of(number), all_of_them.of(number)
        assert len(own) == min(fanout, len(known))
        assert own.tolist() == [node for node in known.tolist() if node in own]


def test_without_cut_offs_all_neighbours_are_those_of_dgl():
    graph = random_graph(np.random.default_rng(2))
    found = hops(graph, np.arange(7), [100])
    sampled = dgl.sampling.sample_neighbors(graph, {"user": torch.arange(7)}, -1, edge_dir="out")
    users, items = sampled.edges(etype="interacts")
    for user in range(7):
        assert set(found.of(user)[0].tolist()) == set(items[users == user].tolist())


def test_blocks_pass_messages_up_the_tree():
    """Sums over the blocks are sums over the tree, and the graph's own edges are named."""
    graph = random_graph(np.random.default_rng(3))
    found = hops(graph, [0, 3, 5], [2, 3])
    block = found.block(1)
    values = torch.as_tensor(found.levels[1].nodes, dtype=torch.float32)
    block.srcnodes["user"].data["h"] = values
    block.update_all(dgl.function.copy_u("h", "m"), dgl.function.sum("m", "h"))
    parent = np.repeat(np.arange(len(found.levels[0].nodes)), np.diff(found.levels[1].offsets))
    wanted = np.bincount(parent, values.numpy(), len(found.levels[0].nodes))
    assert block.dstnodes["item"].data["h"].tolist() == wanted.tolist()
    ends = graph.find_edges(block.edata[dgl.EID], etype="interacted_by")
    assert torch.equal(ends[1], block.srcnodes["user"].data[dgl.NID])
    assert found.block(0).num_dst_nodes("user") == 3


def test_nodes_without_neighbours_and_no_seeds():
    graph = user_item(user=[0], item=[0], time=[1.0], num_users=3, num_items=2)
    assert [level.tolist() for level in hops(graph, [2, 0], [4, 4]).of(0)] == [[], []]
    assert len(hops(graph, np.zeros(0, dtype=int), [4]).levels[0].nodes) == 0
    assert hops(graph, [0], [4], exclude=[0]).of(0)[0].tolist() == []
    for number in (-1, 2):
        with pytest.raises(DataError, match=f"there is no tree {number}; there are 2, from 0"):
            hops(graph, [2, 0], [4]).of(number)


@pytest.mark.parametrize("level", [-1, 1, 4])
def test_a_hop_that_there_is_not_has_no_block(level):
    graph = random_graph(np.random.default_rng(4))
    with pytest.raises(DataError, match=f"there is no hop {level}; there are 1, from 0"):
        hops(graph, [2, 0], [4]).block(level)


def test_second_order_neighbours_of_the_training_log_leave_the_asking_user_out(split):
    graph = Neighbours(user_item(split.train))
    for level in hops(graph, split.train.user, [20, 8], exclude=split.train.item).levels[1:]:
        assert not (level.nodes == split.train.user[level.root]).any()


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"seeds": [9]}, DataError, "the graph has 7 such nodes"),
        ({"seeds": [0.5]}, DataError, "row of node numbers"),
        ({"seeds": [-1]}, DataError, "seeds holds -1"),
        ({"exclude": [8]}, DataError, "exclude holds 8"),
        ({"exclude": [-2]}, DataError, "exclude holds -2"),
        ({"exclude": [1, 2]}, DataError, "expected one for each of the 1 seeds"),
        ({"before": [1.0, 2.0]}, DataError, "seconds for each of the 1 seeds"),
        ({"before": [np.nan]}, DataError, "expected seconds"),
        ({"fanouts": []}, ConfigError, "at least one"),
        ({"fanouts": [0]}, ConfigError, "at least 1"),
        ({"fanouts": 8}, ConfigError, r"fanouts are 8; expected .* such as \[8, 8\]"),
        ({"fanouts": [2.5]}, ConfigError, "at least 1"),
        ({"fanouts": [True, 2]}, ConfigError, "at least 1"),
        ({"fanouts": [[1], [2, 3]]}, ConfigError, "at least 1"),
        ({"before": ["x"]}, DataError, r"before= is \['x'\]; expected seconds for each of the 1 seeds"),
        ({"order": "uniform", "seed": "a"}, ConfigError, "seed is 'a'; expected a whole number"),
        ({"order": "uniform", "seed": -1}, ConfigError, "seed is -1; expected a whole number"),
        ({"order": "newest"}, ConfigError, "'recent' or 'uniform'"),
        ({"type": "tag"}, ConfigError, "'user' or 'item'"),
    ],
)
def test_what_is_refused(fields, error, words):
    graph = random_graph(np.random.default_rng(4))
    with pytest.raises(error, match=words):
        hops(graph, **{"seeds": [1], "fanouts": [2], **fields})


def test_cut_offs_may_be_dates():
    days = np.array(["2024-01-01", "2024-01-03", "2024-01-02"], dtype="datetime64[D]")
    graph = user_item(user=[0, 0, 1], item=[0, 1, 1], time=days)
    before = days[[1, 1]]
    tree = hops(graph, [0, 1], [2, 2], before=before)
    assert [[level.tolist() for level in tree.of(seed)] for seed in (0, 1)] == [[[0], []], [[1], []]]
    in_seconds = hops(graph, [0, 1], [2, 2], before=before.astype("datetime64[s]").astype(float))
    assert [level.nodes.tolist() for level in in_seconds.levels] == [level.nodes.tolist() for level in tree.levels]
    with pytest.raises(DataError, match="expected seconds"):
        hops(graph, [0], [2], before=np.array(["NaT"], dtype="datetime64[D]"))


def test_many_users_and_times_fit_whatever_type_the_graph_numbers_its_nodes_with():
    """3 million users at 1,000 times are more pairs than 32 bits count."""
    user = 3_000_000
    graph = user_item(user=np.full(1000, user), item=np.arange(1000), time=np.arange(1000.0))
    for some in (graph, graph.int()):
        found = hops(some, [user], [1], before=[500.0]).levels[0]
        assert (found.nodes.tolist(), found.nodes.dtype, found.edges.dtype) == ([499], np.int64, np.int64)


def test_another_graph_is_refused(split):
    for wrong in (split.train, dgl.graph(([0], [1]))):
        with pytest.raises(DataError, match=r"without the relation 'interacts'; expected what user_item\(\) builds"):
            hops(wrong, [0], [2])


def test_cut_offs_need_times():
    graph = user_item(user=[0, 1], item=[0, 0])
    assert hops(graph, [0], [2, 2]).of(0)[1].tolist() == [1]
    with pytest.raises(DataError, match="have no times"):
        hops(graph, [0], [2], before=[1.0])
