"""Propagation over time slices against DGL's message passing, dense matrices, and numbers by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dglrec.errors import ConfigError, DataError
from dglrec.graphs import slice_names, time_slices, user_item
from dglrec.nn import Adjacency, SliceAdjacency, SliceEncoder, slice_message_passing
from tests.contract.model_contract import OneDevice

SLICES, USERS, ITEMS, DIM = 3, 5, 4, 3

triples = st.lists(
    st.tuples(st.integers(0, SLICES - 1), st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), max_size=30
)
SETTINGS = [
    {"layers": layers, "norm": norm, "slope": slope, "combine": combine}
    for layers, norm, slope, combine in [
        (0, "sum", 0.5, "sum"),
        (1, "sum", 0.5, "sum"),
        (2, "sum", 0.5, "sum"),
        (3, "sum", 0.5, "last"),
        (2, "sum", 1.0, "mean"),
        (2, "symmetric", 0.01, "mean"),
        (3, "symmetric", 0.5, "sum"),
        (2, "symmetric", 1.0, "last"),
    ]
]
OWN = [(True, True), (False, False), (True, False)]  # a table a slice, or one for all


def graph_of(edges, unique=False):
    """A graph of three slices; an event of nobody's at both ends of each keeps the slices as they are."""
    parts = {"user": [], "item": [], "time": []}
    for t, user, item in [*edges, *((t, USERS, ITEMS) for t in range(SLICES))]:
        for name, value in zip(parts, (user, item, 10.0 * t), strict=True):
            parts[name].append(value)
    return time_slices(by=[10.0, 20.0], unique=unique, **parts)


def tables(own, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for size, each in zip((USERS + 1, ITEMS + 1), own, strict=True):
        shape = (SLICES, size, DIM) if each else (size, DIM)
        made.append(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_())
    return tuple(made)


def dense(edges, x, layers, norm, slope, combine):
    """Eq. 1 and 2 by matrices (T, U, M)."""
    a = torch.zeros(SLICES, USERS + 1, ITEMS + 1, dtype=x[0].dtype)
    a[:, USERS, ITEMS] = 1
    for t, user, item in edges:
        a[t, user, item] = 1
    if norm == "symmetric":
        scale = [torch.where(d > 0, d.clamp(min=1) ** -0.5, 0) for d in (a.sum(2), a.sum(1))]
        a = scale[0][:, :, None] * a * scale[1][:, None, :]
    users, items = (table.expand(SLICES, *table.shape[-2:]) for table in x)
    every = [(users, items)]
    for _ in range(layers):
        users, items = F.leaky_relu(a @ items, slope) + users, F.leaky_relu(a.mT @ users, slope) + items
        every.append((users, items))
    if combine == "last":
        return every[-1]
    divisor = len(every) if combine == "mean" else 1
    return tuple(sum(side) / divisor for side in zip(*every, strict=True))


def gradients(out, x, seed=1):
    generator = torch.Generator().manual_seed(seed)
    objective = sum((part * torch.randn(part.shape, generator=generator, dtype=torch.float64)).sum() for part in out)
    return torch.autograd.grad(objective, x)


def assert_same(ours, theirs, x, their_x=None, **tolerance):
    """Values and gradients."""
    theirs = (*theirs, *gradients(theirs, x if their_x is None else their_x))
    for one, two in zip((*ours, *gradients(ours, x)), theirs, strict=True):
        torch.testing.assert_close(one.double(), two.double(), **tolerance)


@settings(max_examples=100)
@given(edges=triples, how=st.sampled_from(SETTINGS), own=st.sampled_from(OWN))
def test_it_equals_message_passing_and_dense_matrices(how, own, edges):
    x, x64 = tables(own), tables(own, torch.float64)
    ours = SliceEncoder(**how)(graph_of(edges), x)
    assert [tuple(part.shape) for part in ours] == [(SLICES, USERS + 1, DIM), (SLICES, ITEMS + 1, DIM)]
    assert_same(ours, slice_message_passing(graph_of(edges, unique=True), x, **how), x, rtol=1e-5, atol=1e-5)
    exact = SliceEncoder(**how)(graph_of(edges), x64)
    # Weights of the symmetric norm are float32.
    assert_same(exact, dense(edges, x64, **how), x64, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("how", SETTINGS, ids=str)
@pytest.mark.parametrize(
    "rows", [([2], [4]), ([0, 3, 0], [1, 1]), ([*range(USERS)] * 3, [*range(ITEMS)] * 3), ([], [])]
)
@given(edges=triples)
def test_some_rows_equal_those_of_all(how, own, rows, edges):
    """Few rows, rows that are named twice, more than there are, and none: values and gradients."""
    encoder, graph, x = SliceEncoder(**how), graph_of(edges), tables(own, torch.float64)
    user, item = (torch.tensor(part, dtype=torch.int64) for part in rows)
    every = encoder(graph, x)
    assert_same(encoder(graph, x, (user, item)), (every[0][:, user], every[1][:, item]), x)


def test_the_gradient_is_that_of_finite_differences():
    edges = [(0, 0, 1), (0, 0, 1), (0, 2, 1), (2, 3, 0), (2, 3, 3)]
    adjacency, x = SliceAdjacency(graph_of(edges)), tables((True, False), torch.float64)
    for how in ({}, {"norm": "symmetric", "layers": 3, "combine": "mean"}):
        assert torch.autograd.gradcheck(lambda *x: SliceEncoder(**how)(adjacency, x), x)  # noqa: B023


def test_numbers_by_hand():
    """One user with two items in the first slice, nothing in the second: Eq. 1 and 2, twice."""
    graph = time_slices(user=[0, 0, 1], item=[0, 1, 2], time=[0.0, 0.0, 1.0], n=2)
    users, items = torch.tensor([[1.0], [10.0]]), torch.tensor([[2.0], [-6.0], [100.0]])
    out = SliceEncoder(layers=2)(graph, (users, items))
    # Slice 0: z_u = .5 * (2 - 6) = -2, e_u = -1; z_i = 1: e_i = 3, -5. Then z_u = .5 * (3 - 5) = -1, z_i = .5 * -1.
    assert out[0][0].flatten().tolist() == [1 - 1 - 2, 30]  # e_0 + e_1 + e_2; the other user is silent: 3 e_0
    assert out[1][0].flatten().tolist() == [2 + 3 + 2.5, -6 - 5 - 5.5, 300]
    assert out[0][1].flatten().tolist() == [3, 10 + 110 + 220]
    assert out[1][1].flatten().tolist() == [6, -18, 100 + 110 + 220]
    last = SliceEncoder(layers=2, combine="last")(graph, (users, items))
    assert last[0].flatten().tolist() == [-2, 10, 1, 220]


def test_repeats_count_once_whatever_the_builder_did():
    edges, x = [(0, 1, 1), (0, 1, 1), (1, 1, 1), (2, 0, 3)], tables((True, True))
    for one, two in zip(SliceEncoder()(graph_of(edges), x), SliceEncoder()(graph_of(edges, True), x), strict=True):
        assert torch.equal(one, two)


def test_one_slice_is_the_user_item_graph():
    """The rows and weights of one slice are those of LightGCN's adjacency."""
    user, item = [0, 0, 3, 2, 0], [1, 1, 0, 1, 2]
    ours = SliceAdjacency(time_slices(user=user, item=item, time=range(5), n=1))
    theirs = Adjacency(user_item(user=user, item=item))
    assert ours.user_nodes.tolist() == [0, 2, 3]
    assert ours.item_nodes[ours.user_columns].tolist() == theirs.user_items.tolist()
    assert ours.user_nodes[ours.item_columns].tolist() == theirs.item_users.tolist()
    torch.testing.assert_close(ours.weight, theirs.user_weight)
    torch.testing.assert_close(ours.weight[ours.by_item], theirs.item_weight)


def test_a_graph_and_its_adjacency_are_the_same_and_slices_stand_in_the_order_of_time():
    graph = time_slices(user=[0] * 12, item=range(12), time=range(12), n=12)  # DGL lists t10 before t2
    x = torch.zeros(1, 1), torch.arange(12.0)[:, None]
    for how in (graph, SliceAdjacency(graph)):
        assert SliceEncoder(layers=1, combine="last")(how, x)[0].flatten().tolist() == list(range(12))
    assert slice_message_passing(graph, x, 1, combine="last")[0].flatten().tolist() == list(range(12))


def test_no_edges_at_all():
    adjacency = SliceAdjacency(graph_of([]))
    for name in ("user_nodes", "item_nodes", "user_columns", "item_columns", "by_item", "weight"):
        setattr(adjacency, name, getattr(adjacency, name)[:0])
    for name in ("user_offsets", "item_offsets"):
        setattr(adjacency, name, getattr(adjacency, name)[:1])
    for name in ("user_row", "item_row"):
        getattr(adjacency, name).fill_(-1)
    x = tables((True, False))
    for rows in (None, (torch.tensor([1]), torch.tensor([0, 2]))):
        out = SliceEncoder(layers=2)(adjacency, x, rows)
        for part, table, wanted in zip(out, x, rows or (slice(None), slice(None)), strict=True):
            torch.testing.assert_close(part, 3 * table[..., wanted, :].expand(SLICES, -1, -1))
        sum(part.sum() for part in out).backward()


def test_the_structure_moves_with_a_module_and_is_not_saved():
    adjacency = SliceAdjacency(graph_of([(0, 1, 1), (2, 2, 3)]))
    assert not adjacency.state_dict()
    assert {buffer.device.type for buffer in adjacency.to("meta").buffers()} == {"meta"}
    assert len(list(adjacency.buffers())) == 10
    x = tuple(torch.empty(SLICES, n, DIM, device="meta", requires_grad=True) for n in (USERS + 1, ITEMS + 1))
    with OneDevice():
        for norm in ("sum", "symmetric"):
            sum(out.sum() for out in SliceEncoder(2, norm)(adjacency, x)).backward()


def test_nothing_is_kept_for_a_gradient_that_nobody_wants():
    adjacency, x = SliceAdjacency(graph_of([(0, 1, 1)])), tables((True, True))
    with torch.no_grad():
        assert SliceEncoder()(adjacency, x)[0].grad_fn is None
    frozen = (x[0], x[1].detach())
    out = SliceEncoder()(adjacency, frozen)
    torch.testing.assert_close(
        torch.autograd.grad(out[0].sum(), x[0])[0], gradients_of_users(adjacency, x), rtol=1e-6, atol=1e-6
    )


def gradients_of_users(adjacency, x):
    return torch.autograd.grad(SliceEncoder()(adjacency, x)[0].sum(), x[0])[0]


def test_wrong_arguments_are_named():
    graph = graph_of([(0, 1, 1)])
    with pytest.raises(ConfigError, match="norm is 'sums'; did you mean 'sum'"):
        SliceEncoder(norm="sums")
    with pytest.raises(ConfigError, match="combine is 'first'"):
        SliceEncoder(combine="first")
    with pytest.raises(ConfigError, match=r"slope is -0\.1; expected at least 0"):
        SliceEncoder(slope=-0.1)
    users, items = tables((True, True))
    with pytest.raises(DataError, match=r"items have shape \(2, 5, 3\); expected \(3, 5, d\) or \(5, d\)"):
        SliceEncoder()(graph, (users, items[:2]))
    with pytest.raises(DataError, match="users have shape"):
        SliceEncoder()(graph, (users[0, 0], items))
    with pytest.raises(DataError, match="are not slices"):
        SliceEncoder()(user_item(user=[0], item=[0]), (users, items))
    assert "layers=2, norm='sum'" in repr(SliceEncoder())


# --- Cost ------------------------------------------------------------------------------------------------------------


def random_slices(slices, users=3000, items=2000, edges=60_000):
    rng = np.random.default_rng(0)
    arrays = {"user": rng.integers(users, size=edges), "item": rng.integers(items, size=edges)}
    return SliceAdjacency(time_slices(time=np.arange(edges), n=slices, num_users=users, num_items=items, **arrays))


def step_of(adjacency, dim=32):
    """Forward and backward over tables of its own for each slice, as a function."""
    shape = [(adjacency.num_slices, size, dim) for size in (adjacency.num_users, adjacency.num_items)]
    x = tuple(torch.randn(one).requires_grad_() for one in shape)
    encoder = SliceEncoder(layers=2)

    def step():
        sum(out.sum() for out in encoder(adjacency, x)).backward()
        for table in x:
            table.grad = None

    return step


def test_the_sums_cost_as_much_as_the_edges_in_however_many_slices(monkeypatch):
    counts = []
    bag = F.embedding_bag

    def counted(columns, *arguments, **named):
        counts[-1] += len(columns)
        return bag(columns, *arguments, **named)

    monkeypatch.setattr(F, "embedding_bag", counted)
    for slices in (1, 4, 8, 16):
        counts.append(0)
        adjacency = random_slices(slices)
        step_of(adjacency)()
        assert counts[-1] == 2 * 2 * 2 * len(adjacency.user_columns)  # layers, directions, forward and backward
        assert len(adjacency.user_nodes) <= len(adjacency.user_columns)
    assert max(counts) < 1.02 * min(counts)  # fewer repeats within a slice


def test_twice_the_slices_cost_at_most_2_2_times():
    """Processor time, the least of several: the tables double, the edges do not."""
    steps = {slices: step_of(random_slices(slices)) for slices in (6, 12)}
    ratio = float("inf")
    for _ in range(3):
        seconds = {}
        for slices, step in steps.items():
            step()
            took = []
            for _ in range(5):
                began = time.process_time()
                step()
                took.append(time.process_time() - began)
            seconds[slices] = min(took)
        ratio = min(ratio, seconds[12] / seconds[6])
        if ratio < 2.2:
            break
    assert ratio < 2.2


def test_slices_without_edges_are_there_too():
    graph = time_slices(user=[0, 0, 0], item=[0, 1, 1], time=[0.0, 8.0, 9.0], n=3)
    assert [graph.num_edges(name) for name in slice_names(graph)] == [1, 0, 1]
    x = torch.ones(1, 2), torch.ones(2, 2)
    for one, two in zip(SliceEncoder()(graph, x), slice_message_passing(graph, x), strict=True):
        assert one.shape[0] == 3
        torch.testing.assert_close(one, two)
