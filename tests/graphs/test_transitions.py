"""The item graph of what came after what, against a loop over events."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dglrec
from dglrec._dgl import dgl
from dglrec.errors import DataError
from dglrec.graphs import transitions

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 40)), max_size=40)


def edges(graph, relation="next"):
    source, target = (end.tolist() for end in graph.edges(order="eid", etype=relation))
    return list(zip(source, target, strict=True))


def by_hand(events, reach, most):
    """Pairs with their counts and newest times, event by event."""
    count, newest = Counter(), {}
    for user in range(5):
        own = sorted((event for event in events if event[0] == user), key=lambda event: event[2])
        for place, (_, first, began) in enumerate(own):
            for _, second, at in own[place + 1 : place + 1 + reach]:
                if most is None or at - began <= most:
                    count[first, second] += 1
                    newest[first, second] = max(at, newest.get((first, second), at))
    return count, newest


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(1, 3), st.one_of(st.none(), st.integers(0, 20)))
def test_it_holds_what_a_loop_over_events_finds(events, reach, most):
    columns = np.array(events, dtype=np.int64).reshape(-1, 3).T
    named = {"user": columns[0], "item": columns[1], "time": columns[2].astype(float)}
    graph = transitions(**named, num_items=6, reach=reach, max_seconds=most)
    count, newest = by_hand(events, reach, most)
    assert edges(graph) == sorted(count)
    assert graph.edges["next"].data["count"].tolist() == [count[pair] for pair in sorted(count)]
    assert graph.edges["next"].data["time"].tolist() == [newest[pair] for pair in sorted(count)]
    assert edges(graph, "previous") == [pair[::-1] for pair in sorted(count)]
    assert torch.equal(graph.edges["previous"].data["count"], graph.edges["next"].data["count"])
    assert graph.num_nodes("item") == 6


def test_events_at_one_moment_before_1970():
    graph = transitions(user=[0, 0, 0], item=[1, 2, 1], time=[-5.0, -3.0, -3.0], max_seconds=0)
    assert edges(graph) == [(2, 1)]
    assert graph.edges["next"].data["time"].tolist() == [-3.0]


def test_no_items_and_more_pairs_than_32_bits_count():
    assert edges(transitions(user=[], item=[])) == []
    assert edges(transitions(user=[0, 0], item=[99_999, 70_000])) == [(99_999, 70_000)]


def test_the_counts_model_reads_the_same():
    split = dglrec.leave_one_out(dglrec.sample("shop", users=60, items=40, seed=1))
    model = dglrec.models.preset("transitions", split)
    graph = transitions(split.train)
    for item in (0, 7, 21):
        with graph.local_scope():  # one step of message passing from the last item
            start = torch.zeros(graph.num_nodes("item"))
            start[item] = 1
            graph.ndata["x"] = start
            counts = graph.edges["next"].data["count"].float()
            graph.edges["next"].data["w"] = counts
            graph.update_all(dgl.function.u_mul_e("x", "w", "m"), dgl.function.sum("m", "y"), etype="next")
            scores = model.scores(dglrec.data.Queries.from_histories([[item]]))[0]
            assert torch.equal(scores.floor(), graph.ndata["y"])  # what is below one is popularity


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"reach": 0}, "reach is 0; expected 1"),
        ({"reach": 1.5}, "reach is 1.5; expected 1"),
        ({"max_seconds": 60.0}, "have no times; leave it out, or give times"),
        ({"time": [1.0, 2.0], "max_seconds": float("nan")}, "max_seconds is nan; expected a number of seconds"),
        ({"time": [1.0, 2.0], "max_seconds": -1}, "max_seconds is -1; expected a number of seconds"),
        (
            {"time": [1.0, 2.0], "max_seconds": np.timedelta64(1, "h")},
            "max_seconds is .*; expected a number of seconds",
        ),
        ({"num_items": "3"}, "num_items is '3'; expected a number of nodes"),
        ({"item": [4_000_000_000, 5]}, "item= holds 4000000000; expected indices that count from 0"),
    ],
)
def test_bad_arguments_are_named(fields, words):
    with pytest.raises(DataError, match=words):
        transitions(**{"user": [0, 0], "item": [1, 2], **fields})
    with pytest.raises(DataError, match="transitions\\(\\) got neither a log nor both"):
        transitions(user=[0, 0])
