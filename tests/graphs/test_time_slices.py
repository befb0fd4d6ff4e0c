"""Time slices: they partition the log, whatever its times are, and their boundaries are those that were asked for."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dglrec
from dglrec._dgl import dgl
from dglrec.data.log import InteractionLog
from dglrec.errors import DataError
from dglrec.graphs import sequences, slice_boundaries, slice_names, slice_times, time_slices

USERS, ITEMS = 5, 6
DAY = 86_400.0

# Few distinct times, gaps, one timestamp and a single user are all among these.
moments = st.one_of(st.integers(0, 6), st.integers(-(10**6), 2 * 10**9), st.floats(-1e9, 2e9))
events = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), moments), min_size=1, max_size=40)
logs = st.one_of(
    events,
    events.map(lambda rows: [(0, item, time) for _, item, time in rows]),  # a single user
    events.map(lambda rows: [(user, item, rows[0][2]) for user, item, _ in rows]),  # one timestamp
)
cuts = st.one_of(
    st.tuples(st.sampled_from(["equal_lengths", "equal_counts"]), st.integers(1, 8)),
    st.tuples(st.just("month"), st.none()),
    st.tuples(st.just("boundaries"), st.integers(1, 8)),
)


def columns(rows):
    user, item, time = zip(*rows, strict=True)
    return {"user": np.array(user), "item": np.array(item), "time": np.array(time, dtype=np.float64)}


def asked(rows, cut):
    """(by, n) of a cut that can be made of these rows."""
    by, n = cut
    times = sorted({float(time) for *_, time in rows})
    if by == "boundaries":
        return times[1:][: n - 1], None
    if by == "month":
        return by, None
    n = min(n, len(times))
    while by == "equal_lengths" and (np.diff(np.linspace(times[0], times[-1], n + 1)[:-1]) <= 0).any():
        n -= 1  # times so close are refused
    return by, n


def edges_of(graph):
    """All edges as rows (slice, user, item, position, time)."""
    found = []
    for t, name in enumerate(slice_names(graph)):
        user, item = graph.edges(order="eid", etype=name)
        data = graph.edges[name].data
        found += zip(
            itertools.repeat(t),
            *(values.tolist() for values in (user, item, data["position"], data["time"])),
            strict=False,
        )
    return found


def sorted_rows(rows):
    """(user, item, position, time) in the order of the log, with Python's sort."""
    order = sorted(range(len(rows)), key=lambda n: (rows[n][0], rows[n][2], n))
    place = [0] * USERS
    found = []
    for user, item, time in (rows[n] for n in order):
        found.append((user, item, place[user], float(time)))
        place[user] += 1
    return found


@given(logs, cuts)
def test_slices_partition_the_events(rows, cut):
    by, n = asked(rows, cut)
    boundaries = slice_boundaries(columns(rows)["time"], by, n=n)
    graph = time_slices(by=by, n=n, unique=False, num_users=USERS, num_items=ITEMS, **columns(rows))
    expected = [
        (sum(time >= boundary for boundary in boundaries), user, item, position, time)
        for user, item, position, time in sorted_rows(rows)
    ]
    assert edges_of(graph) == sorted(expected, key=lambda row: row[0])  # stable: by (slice, user, position)
    assert len(slice_names(graph)) == len(boundaries) + 1
    assert (graph.num_nodes("user"), graph.num_nodes("item")) == (USERS, ITEMS)
    whole = sorted(row[1:] for row in edges_of(graph))
    assert whole == sorted(sorted_rows(rows))


@given(logs, cuts)
def test_repeats_of_a_slice_are_merged_into_their_first_edge(rows, cut):
    by, n = asked(rows, cut)
    arguments = {"by": by, "n": n, "num_users": USERS, "num_items": ITEMS, **columns(rows)}
    every, graph = edges_of(time_slices(unique=False, **arguments)), time_slices(**arguments)
    expected = {}
    for t, user, item, position, time in every:
        first = expected.setdefault((t, user, item), [t, user, item, position, time, 0, time])
        first[5], first[6] = first[5] + 1, time
    rest = [
        (int(count), float(last))
        for name in slice_names(graph)
        for count, last in zip(graph.edges[name].data["count"], graph.edges[name].data["last_time"], strict=True)
    ]
    found = [(*row, *more) for row, more in zip(edges_of(graph), rest, strict=True)]
    assert found == [tuple(row) for row in expected.values()]
    assert sum(count for count, _ in rest) == len(rows)


@pytest.mark.parametrize(("users", "items"), [(3, 7), (7, 3)])
def test_pairs_are_merged_with_their_own_repeats_alone(users, items):
    """Every user with every item, in each of two slices."""
    user, item = (np.tile(part.reshape(-1), 2) for part in np.indices((users, items)))
    graph = time_slices(user=user, item=item, time=np.repeat([0.0, 1.0], users * items), n=2)
    assert [graph.num_edges(name) for name in slice_names(graph)] == [users * items] * 2


@given(logs, cuts)
def test_both_relations_of_a_slice_list_the_same_edges(rows, cut):
    by, n = asked(rows, cut)
    for unique in (False, True):
        graph = time_slices(by=by, n=n, unique=unique, **columns(rows))
        names = slice_names(graph)
        assert set(graph.etypes) == {*names, *(f"{name}_by" for name in names)}
        for name in names:
            forth, back = graph.edges(order="eid", etype=name), graph.edges(order="eid", etype=f"{name}_by")
            assert torch.equal(forth[0], back[1]) and torch.equal(forth[1], back[0])
            one, two = graph.edges[name].data, graph.edges[f"{name}_by"].data
            assert set(one) == set(two) == {"position", "time"} | ({"count", "last_time"} if unique else set())
            assert all(torch.equal(one[feature], two[feature]) for feature in one)


@given(logs, cuts)
def test_boundaries_ascend_within_the_log_and_follow_from_edge_times(rows, cut):
    by, n = asked(rows, cut)
    times = np.sort(columns(rows)["time"])
    boundaries = slice_boundaries(times, by, n=n)
    assert (np.diff(boundaries, prepend=times[0]) > 0).all()
    assert (boundaries <= times[-1]).all()
    assert slice_boundaries(times, boundaries).tolist() == boundaries.tolist()
    found = slice_times(time_slices(by=by, n=n, **columns(rows)))
    slices = np.searchsorted(boundaries, times, side="right")
    for t, (first, last) in enumerate(found):
        own = times[slices == t]
        assert (np.isnan(first) and np.isnan(last)) if len(own) == 0 else (first, last) == (own[0], own[-1])
    assert np.nanmax(found) == times[-1]


@given(logs, st.integers(1, 8))
def test_equal_counts_leave_no_slice_empty_and_no_time_cut(rows, n):
    times = np.sort(columns(rows)["time"])
    distinct, count = np.unique(times, return_counts=True)
    n = min(n, len(distinct))
    boundaries = slice_boundaries(times, "equal_counts", n=n)
    sizes = np.bincount(np.searchsorted(boundaries, times, side="right"), minlength=n)
    assert len(sizes) == n and sizes.min() >= 1
    assert np.isin(boundaries, times).all()
    if count.max() * n <= len(times):  # nothing is moved: each cut is within half a time's events of its place
        cut = np.cumsum(sizes)[:-1]
        assert (np.abs(cut - np.arange(1, n) * len(times) / n) <= count.max() / 2).all()


@given(logs, st.sampled_from(["equal_counts", "equal_lengths", "month"]))
def test_the_order_of_the_rows_does_not_matter_but_for_ties(rows, by):
    rows = list({(user, time): (user, item, time) for user, item, time in rows}.values())  # no ties within a user
    n = None if by == "month" else min(3, len({time for *_, time in rows}))
    one = time_slices(by=by, n=n, **columns(rows))
    two = time_slices(by=by, n=n, **columns(rows[::-1]))
    assert edges_of(one) == edges_of(two)


def test_equal_lengths_are_those_of_the_paper():
    time = [0.0, 19.0, 20.0, 99.0, 100.0]
    graph = time_slices(user=[0] * 5, item=range(5), time=time, by=5)
    t_b, t_e, slices = 0.0, 100.0, 5
    expected = [min(int((t - t_b) // ((t_e - t_b) / slices)), slices - 1) for t in time]
    assert [row[0] for row in edges_of(graph)] == expected == [0, 0, 1, 4, 4]
    assert [graph.num_edges(name) for name in slice_names(graph)] == [2, 1, 0, 0, 2]  # silent slices stay
    assert slice_boundaries(time, 5).tolist() == [20, 40, 60, 80]
    assert slice_boundaries(time, "equal_lengths", n=5).tolist() == [20, 40, 60, 80]
    assert slice_boundaries(time, n=1).tolist() == []


@pytest.mark.parametrize(
    ("counts", "n", "sizes"),
    [
        ([1] * 12, 4, [3, 3, 3, 3]),
        ([2, 2, 2], 2, [2, 4]),  # as near: the earlier cut
        ([1, 8, 1], 2, [1, 9]),
        ([1, 8, 1], 3, [1, 8, 1]),
        ([8, 1, 1], 3, [8, 1, 1]),
        ([1, 1, 8], 3, [1, 1, 8]),
        ([10, 1, 1, 1, 1], 4, [10, 1, 1, 2]),
        ([1, 1, 1, 1, 10], 4, [2, 1, 1, 10]),
        ([3, 1, 3], 2, [3, 4]),
    ],
)
def test_equal_counts_keep_times_together(counts, n, sizes):
    time = np.repeat(np.arange(len(counts)) * DAY, counts)
    boundaries = slice_boundaries(time, "equal_counts", n=n)
    assert np.bincount(np.searchsorted(boundaries, time, side="right"), minlength=n).tolist() == sizes


def test_equal_counts_where_a_log_grows():
    """Equal lengths put most of it into the last slice, equal counts do not."""
    time = np.floor(1e6 * np.log1p(np.arange(10_000)))
    sizes = {
        by: np.bincount(np.searchsorted(slice_boundaries(time, by, n=5), time, side="right"), minlength=5)
        for by in ("equal_lengths", "equal_counts")
    }
    assert sizes["equal_lengths"][-1] > 8000
    assert sizes["equal_counts"].tolist() == [2000] * 5


def test_months_are_those_of_the_calendar_in_utc():
    dates = ["2019-11-30T23:59:59", "2019-12-01", "2020-02-29T12:00", "2020-03-01", "1969-12-31"]
    time = np.array(dates[:4], dtype="datetime64[s]")
    graph = time_slices(user=[0, 1, 0, 1], item=[0, 0, 1, 2], time=time, by="month")
    assert [graph.num_edges(name) for name in slice_names(graph)] == [1, 1, 0, 1, 1]
    first = slice_boundaries(time, "month").astype("datetime64[s]").astype(str).tolist()
    assert first == ["2019-12-01T00:00:00", "2020-01-01T00:00:00", "2020-02-01T00:00:00", "2020-03-01T00:00:00"]
    before_1970 = np.array([dates[4], "1970-01-01"], dtype="datetime64[s]")
    assert slice_boundaries(before_1970, "month").tolist() == [0.0]
    assert slice_boundaries([-0.5, 0.5], "month").tolist() == [0.0]
    assert slice_boundaries([5.0], "month").tolist() == []
    leap = slice_boundaries(np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]"), "month")
    assert (np.diff(leap, prepend=1_577_836_800) / DAY).tolist() == [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


def test_own_boundaries_may_be_dates_and_are_given_back():
    time = np.array(["2020-01-01", "2020-01-05", "2020-01-09"], dtype="datetime64[D]")
    boundaries = slice_boundaries(time, np.array(["2020-01-05"], dtype="datetime64[D]"))
    assert boundaries.tolist() == [18_266 * DAY]
    assert slice_boundaries([0.0, 0.5, 1.0], np.array([500], dtype="datetime64[ms]")).tolist() == [0.5]
    graph = time_slices(user=[0] * 3, item=[0] * 3, time=time, by=boundaries)
    assert [graph.num_edges(name) for name in slice_names(graph)] == [1, 1]
    assert graph.edges["t1"].data["count"].tolist() == [2]
    again = slice_boundaries(time, boundaries)
    assert again.tolist() == boundaries.tolist()
    assert len(slice_names(time_slices(user=[0], item=[0], time=[1.0], by=[]))) == 1


def test_a_log_and_its_columns_give_the_same_graph(split):
    log = split.train
    for by, n in (("equal_lengths", 4), ("equal_counts", 4), ("month", None)):
        sizes = {"num_users": log.num_users, "num_items": log.num_items}
        one = time_slices(log, by, n=n)
        two = time_slices(user=log.user, item=log.item, time=log.time, by=by, n=n, **sizes)
        assert one.etypes == two.etypes
        assert edges_of(one) == edges_of(two) == edges_of(time_slices(log, by, n=n))
        assert (one.num_nodes("user"), one.num_nodes("item")) == (log.num_users, log.num_items)
        assert slice_boundaries(log, by, n=n).tolist() == slice_boundaries(log.time, by, n=n).tolist()


def test_slices_are_named_in_the_order_of_time():
    graph = time_slices(user=[0] * 12, item=range(12), time=range(12), by=12)
    assert slice_names(graph) == [f"t{t}" for t in range(12)]
    assert [int(graph.edges(etype=name)[1]) for name in slice_names(graph)] == list(range(12))


def test_a_slice_is_packed_sequences(split):
    """Histories of a slice, oldest first; together, in the order of slices, they are the log."""
    log = split.train
    graph = time_slices(log, 3, unique=False)
    parts = [sequences(graph, name) for name in slice_names(graph)]
    for user in range(log.num_users):
        items = [part.items[part.offsets[user] : part.offsets[user + 1]].tolist() for part in parts]
        assert list(itertools.chain(*items)) == log.item[log.user == user].tolist()


def test_saving_and_sampling_keep_slices_and_their_times(split, tmp_path):
    graph = time_slices(split.train, 11)
    dgl.save_graphs(str(tmp_path / "graph.bin"), [graph])
    loaded = dgl.load_graphs(str(tmp_path / "graph.bin"))[0][0]
    assert edges_of(loaded) == edges_of(graph)
    np.testing.assert_array_equal(slice_times(loaded), slice_times(graph))
    some = dgl.edge_subgraph(graph, {"t3": torch.arange(2), "t10": torch.arange(1)}, relabel_nodes=False)
    assert [some.num_edges(name) for name in slice_names(some)] == [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1]
    assert np.isnan(slice_times(some)).sum() == 18


def test_under_a_split_by_time_no_query_sees_a_slice_that_ends_after_it():
    split = dglrec.time_point(dglrec.sample("shop", users=200, items=100))
    for by, n in (("equal_lengths", 4), ("equal_counts", 4), ("month", None)):
        ends = slice_times(time_slices(split.train, by, n=n))[:, 1]
        for queries in (split.valid, split.test):
            assert np.nanmax(ends) < queries.time.min()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 4}, r"4 slices of a log, .* 3 distinct times; .* n=3 or fewer \(a model's field `slices`\)"),
        ({"by": "equal_counts", "n": 4}, r"4 slices of a log, .* 3 distinct times; .* n=3 or fewer \(a model's field"),
        ({"n": 0}, "n is 0; expected a number of slices, 1 or more"),
        ({"by": -2}, "n is -2"),
        ({"n": 2.0}, r"n is 2\.0"),
        ({"n": True}, "n is True"),
        ({}, "needs the number of slices; pass n="),
        ({"by": "equal_counts"}, "'equal_counts' needs the number of slices"),
        ({"by": 2, "n": 2}, "by is 2 and n is 2"),
        ({"by": "month", "n": 2}, "takes no n"),
        ({"by": [20.0], "n": 2}, "the boundaries say how many"),
        ({"by": "months"}, "unknown way to cut 'months'; did you mean 'month'"),
        ({"by": [10.0, 20.0]}, "boundary 10 is outside the log, whose events are from 10 to 30"),
        ({"by": [20.0, 31.0]}, "boundary 31 is outside the log"),
        ({"by": [float("nan")]}, "boundary nan is outside"),
        ({"by": [30.0, 20.0]}, "do not ascend: 30 comes before 20; sort them"),
        ({"by": [20.0, 20.0]}, "do not ascend"),
        (
            {"by": np.array(["1970-01-01T00:00:31"], dtype="datetime64[s]")},
            r"boundary 1970-01-01T00:00:31 is outside .* from 1970-01-01T00:00:10 to .*the times at",
        ),
        ({"by": [[20.0]]}, "of shape"),
        ({"by": ["2020-01-31"]}, r'hold <U10 .*, such as np\.array\(\["2020-01-31"\], dtype="datetime64\[D\]"\)'),
        ({"by": np.array(["NaT"], dtype="datetime64[D]")}, "a boundary is NaT; expected a time"),
        (
            {"n": 3, "time": [1e9, np.nextafter(1e9, 2e9), 1e9 + 2.4e-7]},
            "too close or too far apart for 3 slices .* by='equal_counts'",
        ),
        ({"n": 2, "time": [-1e308, 0.0, 1e308]}, "the times of a log are too close or too far apart for 2 slices"),
        ({"by": True}, "boundaries hold bool"),
        ({"by": None}, "boundaries hold object"),
        ({"by": 2, "time": None}, "got no time=, and slices are cut by time; load it with its timestamps"),
        ({"by": 2, "time": [1.0]}, "expected arrays of one length"),
        ({"by": 1, "user": [], "item": [], "time": []}, "no events"),
        ({"by": "month", "time": [0.0, 1.0, 1.6e12]}, "divide milliseconds by 1000"),
    ],
)
def test_errors_say_what_was_seen(arguments, message):
    with pytest.raises(DataError, match=message):
        time_slices(**{"user": [0, 0, 1], "item": [0, 1, 2], "time": [10.0, 20.0, 30.0], **arguments})


def test_a_log_without_times_says_what_can_be_done():
    log = InteractionLog.from_arrays(["a", "a", "b"], ["x", "y", "x"], name="pairs")
    with pytest.raises(DataError, match=r"'pairs' has no times, and slices are cut by time; .* time=log\.position"):
        time_slices(log, 2)
    with pytest.raises(DataError, match=r"'pairs' has no times, .*: slice_boundaries\(log\.position, n=\.\.\.\)"):
        slice_boundaries(log, 2)
    assert slice_boundaries(log.position, n=2).tolist() == [0.5]
    timed = dataclasses.replace(log, time=np.arange(3.0) // 2)
    for call in (slice_boundaries, time_slices):
        with pytest.raises(DataError, match=r"9 slices of 'pairs', which has 2 distinct times; .* n=2 or fewer"):
            call(timed, 9)
    graph = time_slices(user=log.user, item=log.item, time=log.position, n=2)  # what it says works
    assert [graph.num_edges(name) for name in slice_names(graph)] == [2, 1]


def test_other_graphs_are_no_slices(split):
    with pytest.raises(DataError, match="are not slices"):
        slice_names(dglrec.graphs.user_item(split.train))
    gap = dgl.heterograph({("user", "t0", "item"): ([0], [0]), ("user", "t2", "item"): ([0], [0])})
    wrong_way = dgl.heterograph({("item", "t0", "user"): ([0], [0])})
    for graph in (gap, wrong_way):
        with pytest.raises(DataError, match="are not slices"):
            slice_names(graph)
    bare = dgl.heterograph({("user", "t0", "item"): ([0], [0]), ("item", "t0_by", "user"): ([0], [0])})
    with pytest.raises(DataError, match="have no 'time'"):
        slice_times(bare)
