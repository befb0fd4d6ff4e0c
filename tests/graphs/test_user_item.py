"""The user-item graph, and the sequences that it is at the same time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dglrec._dgl import dgl
from dglrec.data.log import InteractionLog
from dglrec.errors import DataError
from dglrec.graphs import Sequences, as_sequences, sequences, user_item
from dglrec.nn import CausalTransformer, LightGCNEncoder

FORTH, BACK = ("user", "interacts", "item"), ("item", "interacted_by", "user")

events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 9)), min_size=1, max_size=40)


def columns(rows):
    user, item, time = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    return user, item, time.astype(np.float64)


def log_of(rows, num_users=6, num_items=8):
    user, item, time = columns(rows)
    ids = [f"u{n}" for n in range(num_users)], [f"i{n}" for n in range(num_items)]
    return InteractionLog.from_arrays(user, item, time, user_ids=ids[0], item_ids=ids[1])


def by_hand(rows, num_users):
    """Each user's (item, time) pairs in the order of (time, file), with a Python loop."""
    return [
        [(i, t) for _, t, i in sorted((n, t, i) for (u, i, t), n in ranked(rows) if u == user)]
        for user in range(num_users)
    ]


def ranked(rows):
    """Each row with its place in the stable order by time."""
    order = sorted(range(len(rows)), key=lambda n: (rows[n][2], n))
    return [(rows[n], place) for place, n in enumerate(order)]


def assert_histories(found: Sequences, expected):
    assert len(found) == len(expected)
    for user, pairs in enumerate(expected):
        part = slice(int(found.offsets[user]), int(found.offsets[user + 1]))
        assert found.items[part].tolist() == [item for item, _ in pairs]
        if found.times is not None:
            assert found.times[part].tolist() == [time for _, time in pairs]
    assert found.lengths.tolist() == [len(pairs) for pairs in expected]


@given(events)
def test_one_edge_an_interaction_in_the_order_of_user_and_position(rows):
    user, item, time = columns(rows)
    expected = by_hand(rows, 6)
    for graph in (
        user_item(log_of(rows)),
        user_item(user=user, item=item, time=time, num_users=6, num_items=8),
        user_item(user=list(user), item=torch.as_tensor(item), time=list(time), num_users=6, num_items=8),
    ):
        assert graph.canonical_etypes in ([FORTH, BACK], [BACK, FORTH])
        assert (graph.num_nodes("user"), graph.num_nodes("item")) == (6, 8)
        source, target = graph.edges(order="eid", etype="interacts")
        flat = [(u, i, t, p) for u, pairs in enumerate(expected) for p, (i, t) in enumerate(pairs)]
        data = graph.edges["interacts"].data
        assert [source.dtype, data["position"].dtype, data["time"].dtype] == [torch.int64, torch.int64, torch.float64]
        found = zip(source.tolist(), target.tolist(), data["time"].tolist(), data["position"].tolist(), strict=True)
        assert list(found) == flat
        assert "count" not in data


@given(events)
def test_both_relations_list_the_same_edges(rows):
    for unique in (False, True):
        graph = user_item(log_of(rows), unique=unique)
        forth, back = graph.edges(order="eid", etype="interacts"), graph.edges(order="eid", etype="interacted_by")
        assert torch.equal(forth[0], back[1])
        assert torch.equal(forth[1], back[0])
        one, two = graph.edges["interacts"].data, graph.edges["interacted_by"].data
        assert set(one) == set(two) == {"position", "time"} | ({"count"} if unique else set())
        assert all(torch.equal(one[name], two[name]) for name in one)


@given(events)
def test_unique_merges_repeats_into_their_first_edge(rows):
    graph = user_item(log_of(rows), unique=True)
    expected, counts = [], []
    for user, pairs in enumerate(by_hand(rows, 6)):
        items = [item for item, _ in pairs]
        for place, (item, time) in enumerate(pairs):
            if item not in items[:place]:
                expected.append((user, item, time))
                counts.append(items.count(item))
    source, target = graph.edges(order="eid", etype="interacts")
    data = graph.edges["interacts"].data
    assert list(zip(source.tolist(), target.tolist(), data["time"].tolist(), strict=True)) == expected
    assert data["count"].tolist() == counts
    position = torch.arange(len(source)) - torch.searchsorted(source, source)
    assert torch.equal(data["position"], position)  # within what is left


def test_without_times_the_order_of_the_file_counts():
    graph = user_item(user=[1, 0, 1, 0], item=[3, 2, 0, 1])
    assert set(graph.edges["interacts"].data) == {"position"}
    assert graph.edges(order="eid", etype="interacts")[1].tolist() == [2, 1, 3, 0]
    found = sequences(graph)
    assert found.times is None
    assert found.offsets.tolist() == [0, 2, 4]


def test_nodes_without_edges_stay():
    graph = user_item(user=[3], item=[1], num_users=6, num_items=4)
    assert (graph.num_nodes("user"), graph.num_nodes("item")) == (6, 4)
    assert sequences(graph).lengths.tolist() == [0, 0, 0, 1, 0, 0]
    assert user_item(user=[3], item=[1]).num_nodes("user") == 4
    empty = user_item(user=[], item=[], num_users=2, num_items=3)
    assert (empty.num_nodes("user"), empty.num_edges("interacts")) == (2, 0)
    assert sequences(empty).offsets.tolist() == [0, 0, 0]


def test_a_training_log_keeps_all_nodes(split):
    graph = user_item(split.train)
    assert graph.num_nodes("user") == split.log.num_users
    assert graph.num_nodes("item") == split.log.num_items
    assert graph.num_edges("interacts") == len(split.train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither a log nor"),
        ({"user": [0]}, "neither a log nor"),
        ({"user": [0, 1], "item": [0]}, "2 users, 1 items"),
        ({"user": [0], "item": [0], "time": [1.0, 2.0]}, "2 times"),
        ({"user": [0], "item": [0], "time": [[1.0]]}, "2 dimensions"),
        ({"user": [0, 1], "item": [0, 1], "time": [1.0, float("nan")]}, "time of row 1 is nan"),
        ({"user": [0], "item": [0], "time": ["noon"]}, "something else than numbers"),
        ({"user": [0], "item": [-1]}, "-1"),
        ({"user": [0.5], "item": [0]}, "float64"),
        ({"user": ["ann"], "item": [0]}, "integer"),
        ({"user": [4], "item": [0], "num_users": 4}, "at least 5"),
        ({"user": [0], "item": [7], "num_items": 7}, "at least 8"),
        ({"user": [0], "item": [2**31]}, "item= holds 2147483648; expected indices that count from 0"),
        ({"user": [0], "item": [2**62]}, "item= holds 4611686018427387904; expected indices that count from 0"),
        ({"user": np.array([2**63 + 5], dtype=np.uint64), "item": [0]}, "user= holds 9223372036854775813"),
        ({"user": [0], "item": [0], "num_users": 3.0}, r"num_users is 3\.0; expected a number of nodes"),
        ({"user": [], "item": [], "num_users": -1}, "num_users is -1; expected a number of nodes"),
        ({"log": [0, 1]}, r"got a list; expected an InteractionLog, such as split\.train, or the arrays"),
    ],
)
def test_errors_say_what_was_seen(arguments, message):
    with pytest.raises(DataError, match=message):
        user_item(**arguments)


def test_changes_of_the_graph_leave_the_log_as_it_is(split):
    log = split.train
    known = [part.copy() for part in (log.user, log.item, log.time)]
    graph = user_item(log)
    for ends in graph.edges(order="eid", etype="interacts"):
        ends += 1
    graph.edges["interacts"].data["time"] -= 5.0
    for part, before in zip((log.user, log.item, log.time), known, strict=True):
        assert (part == before).all()


def test_a_log_may_get_more_nodes(split):
    graph = user_item(split.train, num_items=split.log.num_items + 5)
    assert graph.num_nodes("item") == split.log.num_items + 5
    assert graph.num_nodes("user") == split.log.num_users
    with pytest.raises(DataError, match="num_items is 1, but an index is"):
        user_item(split.train, num_items=1)


def test_times_may_be_lengths_of_time():
    graph = user_item(user=[0, 0], item=[0, 1], time=np.array([2, 1], dtype="timedelta64[h]"))
    assert graph.edges["interacts"].data["time"].tolist() == [3600.0, 7200.0]
    with pytest.raises(DataError, match="time of row 1 is nan"):
        user_item(user=[0, 0], item=[0, 1], time=np.array([2, "NaT"], dtype="timedelta64[h]"))


def test_times_may_be_dates():
    time = np.array(["2024-01-02", "2024-01-01"], dtype="datetime64[D]")
    graph = user_item(user=[0, 0], item=[0, 1], time=time)
    assert graph.edges["interacts"].data["time"].tolist() == [1704067200.0, 1704153600.0]


def test_a_log_and_arrays_are_one_too_many(split):
    with pytest.raises(DataError, match="one of the two"):
        user_item(split.train, user=[0], item=[0])
    with pytest.raises(DataError, match="one of the two"):
        user_item(split.train, time=split.train.time)


def test_the_same_log_gives_the_same_graph(split):
    one, two = user_item(split.train), user_item(split.train)
    for relation in ("interacts", "interacted_by"):
        for left, right in zip(one.edges("all", "eid", relation), two.edges("all", "eid", relation), strict=True):
            assert torch.equal(left, right)


# --- The graph is the packed sequence ------------------------------------------------------------------------------


@given(events)
def test_the_sequences_of_the_graph_are_the_log(rows):
    log = log_of(rows)
    found = sequences(user_item(log))
    assert found.offsets.tolist() == log.offsets.tolist()
    assert found.items.tolist() == log.item.tolist()
    assert found.times.tolist() == log.time.tolist()
    assert [found.offsets.dtype, found.items.dtype, found.times.dtype] == [torch.int64, torch.int64, torch.float64]
    assert_histories(found, by_hand(rows, 6))
    packed = Sequences(found.offsets, found.items)
    assert as_sequences(packed) is packed


def test_sequences_after_saving_and_loading(split, tmp_path):
    graph = user_item(split.train)
    dgl.save_graphs(str(tmp_path / "graph.bin"), [graph])
    loaded = sequences(dgl.load_graphs(str(tmp_path / "graph.bin"))[0][0])
    assert loaded.offsets.tolist() == split.train.offsets.tolist()
    assert loaded.items.tolist() == split.train.item.tolist()
    assert loaded.times.tolist() == split.train.time.tolist()


def test_sequences_of_some_users(split):
    """A node subgraph, with users in another order."""
    train, users = split.train, [7, 3, 11]
    sub = dgl.node_subgraph(user_item(train), {"user": users, "item": torch.arange(train.num_items)})
    items = sub.nodes["item"].data[dgl.NID]
    assert_histories(
        sequences(sub),
        [
            [
                (i, t)
                for i, t in zip(items[train.item[train.user == u]].tolist(), train.time[train.user == u], strict=True)
            ]
            for u in users
        ],
    )


@pytest.mark.parametrize("shuffled", [False, True])
def test_sequences_of_some_edges(split, shuffled):
    """An edge subgraph: what is left of each history stays in the history's order, whatever the order of the edges."""
    train = split.train
    kept = np.flatnonzero(np.random.default_rng(0).random(len(train)) < 0.5)
    edges = np.random.default_rng(1).permutation(kept) if shuffled else kept
    sub = dgl.edge_subgraph(user_item(train), {"interacts": torch.as_tensor(edges)}, relabel_nodes=False)
    expected = [
        [(train.item[row], train.time[row]) for row in kept if train.user[row] == u] for u in range(train.num_users)
    ]
    assert_histories(sequences(sub), expected)


def test_sequences_of_one_user_s_shuffled_edges():
    """The edges of one user are sorted by user whatever their order: the position decides."""
    graph = user_item(user=[0, 0, 0, 0], item=[5, 3, 8, 1])
    sub = dgl.edge_subgraph(graph, {"interacts": torch.tensor([3, 1, 2, 0])}, relabel_nodes=False)
    assert sequences(sub).items.tolist() == [5, 3, 8, 1]


def test_sequences_of_sampled_neighbours(split):
    """DGL's sampler takes some of each item's users; the users' histories are in order all the same."""
    train = split.train
    graph = user_item(train)
    sub = dgl.sampling.sample_neighbors(graph, {"item": torch.arange(train.num_items)}, {FORTH: 3, BACK: 0})
    found, full = sequences(sub), sequences(graph)
    assert 0 < int(found.offsets[-1]) < len(train)
    for user in range(train.num_users):
        part = slice(int(found.offsets[user]), int(found.offsets[user + 1]))
        whole = slice(int(full.offsets[user]), int(full.offsets[user + 1]))
        times, all_times = found.times[part].tolist(), full.times[whole].tolist()
        assert times == sorted(times)
        assert set(zip(found.items[part].tolist(), times, strict=True)) <= set(
            zip(full.items[whole].tolist(), all_times, strict=True)
        )


def test_items_have_64_bits_whatever_the_graph_has():
    found = sequences(user_item(user=[0, 0], item=[5, 3]).int())
    assert (found.items.tolist(), found.items.dtype, found.offsets.dtype) == ([5, 3], torch.int64, torch.int64)


def test_unsorted_edges_without_a_position_are_refused():
    graph = dgl.heterograph({FORTH: ([1, 0], [0, 1]), BACK: ([0, 1], [1, 0])})
    with pytest.raises(DataError, match="position"):
        sequences(graph)


# --- encoder(graph, x) is the encoder on the log -------------------------------------------------------------------


def test_the_causal_transformer_reads_a_graph_as_it_reads_the_log(split):
    train = split.train
    torch.manual_seed(0)
    encoder, table = CausalTransformer(16, 50, inner=32).eval(), torch.randn(train.num_items, 16)
    packed = Sequences(torch.as_tensor(train.offsets), torch.as_tensor(train.item))
    for last in (False, True):
        assert torch.equal(encoder(user_item(train), table, last=last), encoder(packed, table, last=last))


def test_the_causal_transformer_refuses_a_user_without_a_history():
    encoder = CausalTransformer(8, 50, inner=16)
    with pytest.raises(DataError, match="0 to 2"):
        encoder(user_item(user=[0, 0], item=[1, 2], num_users=2), torch.randn(3, 8))


def test_lightgcn_reads_a_graph_with_repeats_as_it_reads_unique_pairs(split):
    train = split.train
    torch.manual_seed(0)
    x = torch.randn(train.num_users, 8), torch.randn(train.num_items, 8)
    encoder = LightGCNEncoder(2)
    plain, unique = encoder(user_item(train), x), encoder(user_item(train, unique=True), x)
    arrays = encoder(
        user_item(user=train.user, item=train.item, num_users=train.num_users, num_items=train.num_items), x
    )
    for users_or_items in zip(plain, unique, arrays, strict=True):
        assert torch.equal(users_or_items[0], users_or_items[1])
        assert torch.equal(users_or_items[0], users_or_items[2])


# --- Sequences -----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 6))
def test_the_last_items_of_each_sequence(lengths, length):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.arange(offsets[-1]) * 3
    packed = Sequences(torch.as_tensor(offsets), torch.as_tensor(items), torch.as_tensor(items / 2))
    last = packed.last(length)
    expected = [items[a:b][-length:] for a, b in itertools.pairwise(offsets)]
    assert last.items.tolist() == np.concatenate(expected).tolist()
    assert last.times.tolist() == (np.concatenate(expected) / 2).tolist()
    assert last.lengths.tolist() == np.diff(last.offsets).tolist() == [len(part) for part in expected]


def test_the_last_items_of_no_sequence():
    none = Sequences(torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert len(none.last(3)) == 0


def test_windows_may_overlap():
    packed = Sequences(torch.tensor([0, 6]), torch.arange(10, 16))
    found = packed.windows(torch.tensor([2, 0, 3]), np.array([3, 2, 0]))
    assert found.items.tolist() == [12, 13, 14, 10, 11]
    assert found.offsets.tolist() == [0, 3, 5, 5]


def test_sequences_move(split):
    packed = sequences(user_item(split.train))
    assert packed.to("meta").items.device.type == "meta"
    assert packed.to("meta").lengths.tolist() == packed.lengths.tolist()
