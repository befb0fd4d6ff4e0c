"""LightGCN propagation against DGL's message passing and against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dglrec.data.queries import Queries
from dglrec.graphs import user_item
from dglrec.nn import Adjacency, LightGCNEncoder, message_passing
from dglrec.nn.propagation import fold_in
from tests.contract.model_contract import OneDevice

USERS, ITEMS, DIM = 7, 5, 3

pairs = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), max_size=30)


def graph_of(edges, unique=False):
    """With repeats, and with nodes that have no edge."""
    user, item = ([pair[n] for pair in edges] for n in (0, 1))
    return user_item(user=user, item=item, num_users=USERS, num_items=ITEMS, unique=unique)


def vectors(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(n, DIM, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for n in (USERS, ITEMS)
    )


def dense_layers(edges, users, items, layers):
    """[e^(0), ..., e^(L)] over users and items, by the matrix D^-1/2 A D^-1/2."""
    a = torch.zeros(USERS + ITEMS, USERS + ITEMS, dtype=users.dtype)
    for user, item in edges:
        a[user, USERS + item] = a[USERS + item, user] = 1
    degree = a.sum(1)
    scale = torch.where(degree > 0, degree.clamp(min=1) ** -0.5, 0)
    a = scale[:, None] * a * scale
    x = [torch.cat([users, items])]
    for _ in range(layers):
        x.append(a @ x[-1])
    return x


def dense(edges, x, layers, combine):
    out = dense_layers(edges, *x, layers)
    return (sum(out) / (layers + 1) if combine == "mean" else out[-1]).split([USERS, ITEMS])


def gradients(out, x, seed=1):
    """Gradients of a random linear function of both outputs."""
    generator = torch.Generator().manual_seed(seed)
    objective = sum((part * torch.randn(part.shape, generator=generator, dtype=torch.float64)).sum() for part in out)
    return torch.autograd.grad(objective, x)


@pytest.mark.parametrize("combine", ["mean", "last"])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("rows", [([2], [4]), ([0, 3, 0], [1, 1]), ([*range(USERS)] * 3, [*range(ITEMS)] * 3)])
@given(edges=pairs)
def test_some_rows_equal_those_of_all(layers, combine, rows, edges):
    """Few rows, rows that are named twice, and more than there are: values and gradients."""
    encoder, graph, x = LightGCNEncoder(layers, combine), graph_of(edges), vectors(torch.float64)
    user, item = (torch.tensor(part) for part in rows)
    some, every = encoder(graph, x, (user, item)), encoder(graph, x)
    every = every[0][user], every[1][item]
    for one, two in zip(some + gradients(some, x), every + gradients(every, x), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("combine", ["mean", "last"])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@given(edges=pairs)
def test_it_equals_message_passing_and_the_dense_matrix(layers, combine, edges):
    encoder, graph = LightGCNEncoder(layers, combine), graph_of(edges)
    x, x64 = vectors(), vectors(torch.float64)
    ours, by_dgl = encoder(graph, x), message_passing(graph_of(edges, unique=True), x, layers, combine)
    exact = dense(edges, x64, layers, combine)
    for one, two, three in zip(ours, by_dgl, exact, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one.double(), three, rtol=1e-5, atol=1e-5)
    for one, two, three in zip(gradients(ours, x), gradients(by_dgl, x), gradients(exact, x64), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one.double(), three, rtol=1e-5, atol=1e-5)


@given(edges=pairs)
def test_in_double_precision_it_is_exact_too(edges):
    x = vectors(torch.float64)
    for one, two in zip(LightGCNEncoder(2)(graph_of(edges), x), dense(edges, x, 2, "mean"), strict=True):
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_the_gradient_of_one_output_alone():
    edges, x, x64 = [(0, 1), (2, 1), (2, 3)], vectors(), vectors(torch.float64)
    for side in (0, 1):
        ours = gradients(LightGCNEncoder(2)(graph_of(edges), x)[side : side + 1], x)
        exact = gradients(dense(edges, x64, 2, "mean")[side : side + 1], x64)
        for one, two in zip(ours, exact, strict=True):
            torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-5)


def test_on_a_larger_graph_it_equals_message_passing():
    rng = np.random.default_rng(0)
    user, item = rng.integers(300, size=4000), rng.zipf(1.5, size=4000) % 150
    arrays = {"user": user, "item": item, "num_users": 310, "num_items": 160}
    x = [torch.randn(n, 32, generator=torch.Generator().manual_seed(n), requires_grad=True) for n in (310, 160)]
    ours = LightGCNEncoder(2)(user_item(**arrays), x)
    by_dgl = message_passing(user_item(**arrays, unique=True), x)
    for one, two in zip((*ours, *gradients(ours, x)), (*by_dgl, *gradients(by_dgl, x)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_a_graph_and_its_adjacency_are_the_same():
    edges, x, encoder = [(0, 1), (0, 1), (2, 3), (6, 4)], vectors(), LightGCNEncoder(2)
    adjacency = Adjacency(graph_of(edges))
    for one, two in zip(encoder(graph_of(edges), x), encoder(adjacency, x), strict=True):
        assert torch.equal(one, two)


def test_the_structure_moves_with_a_module_and_is_not_saved():
    adjacency = Adjacency(graph_of([(0, 1), (2, 3)]))
    assert not adjacency.state_dict()
    assert {buffer.device.type for buffer in adjacency.to("meta").buffers()} == {"meta"}
    assert len(list(adjacency.buffers())) >= 5
    x = tuple(torch.empty(n, DIM, device="meta", requires_grad=True) for n in (USERS, ITEMS))
    with OneDevice():
        sum(out.sum() for out in LightGCNEncoder(2)(adjacency, x)).backward()


def test_isolated_nodes_keep_their_share_of_layer_0():
    users, _ = vectors()
    out, _ = LightGCNEncoder(2)(graph_of([(0, 1)]), vectors())
    torch.testing.assert_close(out[3], users[3] / 3)
    out, _ = LightGCNEncoder(2, "last")(graph_of([(0, 1)]), vectors())
    assert not out[3].any()


def test_answers_in_evaluation_follow_the_vectors():
    """What is kept from one evaluation to the next is dropped when a vector changes, however training does it."""
    edges, encoder = [(0, 1), (2, 3), (2, 1)], LightGCNEncoder(2).eval()
    adjacency = Adjacency(graph_of(edges))
    users, items = (torch.nn.Parameter(x.detach().clone()) for x in vectors())
    ways = {
        "fused Adam": lambda: step(torch.optim.Adam([users, items], lr=0.1, fused=True), users, items),
        "Adam": lambda: step(torch.optim.Adam([users, items], lr=0.1, fused=False), users, items),
        "SGD": lambda: step(torch.optim.SGD([users, items], lr=0.1), users, items),
        "in place": lambda: add_one(items),
        "another tensor": lambda: setattr(users, "data", users.detach() + 1),
    }
    for way, change in ways.items():
        with torch.no_grad():
            encoder(adjacency, (users, items))
        encoder.train()
        change()
        encoder.eval()
        with torch.no_grad():
            after = encoder(adjacency, (users, items))
            for one, two in zip(after, dense(edges, (users, items), 2, "mean"), strict=True):
                torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5, msg=f"stale after: {way}")


def step(optimizer, users, items):
    users.grad, items.grad = torch.ones_like(users), torch.ones_like(items)
    optimizer.step()


@torch.no_grad()
def add_one(x):
    x += 1


def test_some_rows_are_summed_alone_where_that_is_less_work():
    adjacency = Adjacency(graph_of([(0, 1), (0, 2), (1, 1), (2, 3)]))  # 4 pairs, read from both sides
    for users, items, spares in (([2], [3], True), ([0, 1], [1, 1], True), (range(7), range(5), False)):
        assert adjacency.spares_work((torch.tensor(users), torch.tensor(items))) == spares
    assert not adjacency.spares_work((torch.tensor([2]), torch.tensor([1, 1, 1, 1])))  # as often as listed


# --- Folding in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["mean", "last"])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_an_unknown_user_is_folded_in_as_documented(layers, combine):
    """e_u^(l+1) = sum over the distinct items of e_i^(l) / sqrt(|S| d_i), layer 0 zero; dense and with loops."""
    edges = [(0, 1), (0, 2), (1, 1), (2, 3), (3, 1), (3, 2), (3, 2)]
    x = vectors()
    histories = [[1], [2, 3, 2], [4], [1, 2, 3, 4]]  # item 4 has no user
    items = [out[USERS:] for out in dense_layers(edges, *x, layers)]
    degree = [len({u for u, i in edges if i == item}) for item in range(ITEMS)]
    expected = torch.zeros(len(histories), DIM)
    for row, history in enumerate(histories):
        items_of = [item for item in set(history) if degree[item]]
        outs = [torch.zeros(DIM)]
        outs += [
            sum((items[layer][i] / (len(set(history)) * degree[i]) ** 0.5 for i in items_of), torch.zeros(DIM))
            for layer in range(layers)
        ]
        expected[row] = sum(outs) / (layers + 1) if combine == "mean" else outs[-1]
    encoder, adjacency = LightGCNEncoder(layers, combine).eval(), Adjacency(graph_of(edges))
    found = fold_in(encoder, adjacency, x, Queries.from_histories(histories))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_known_user_s_own_history_folds_in_to_all_but_layer_0():
    """The neighbours and the degree are the same, so only the user's own layer 0 is missing."""
    edges, layers = [(0, 1), (0, 2), (1, 1), (2, 3), (3, 1), (3, 2)], 2
    x, encoder, adjacency = vectors(), LightGCNEncoder(layers), Adjacency(graph_of(edges))
    known = fold_in(encoder, adjacency, x, Queries.from_histories([[1, 2], [3]], users=[0, 2]))
    folded = fold_in(encoder, adjacency, x, Queries.from_histories([[1, 2], [3]]))
    assert torch.equal(known, encoder(adjacency, x)[0][[0, 2]])
    torch.testing.assert_close(folded, known - x[0][[0, 2]] / (layers + 1), rtol=1e-5, atol=1e-5)


def test_known_and_unknown_users_in_one_block():
    """User 5 has a row and no training pair, so nobody knows it either."""
    edges, x, encoder = [(0, 1), (0, 2), (1, 1), (2, 3)], vectors(), LightGCNEncoder(2)
    adjacency = Adjacency(graph_of(edges))
    mixed = fold_in(encoder, adjacency, x, Queries.from_histories([[1], [2, 3], [3], [2, 3]], users=[1, -1, 2, 5]))
    alone = fold_in(encoder, adjacency, x, Queries.from_histories([[2, 3]]))
    assert torch.equal(mixed[[0, 2]], encoder(adjacency, x)[0][[1, 2]])
    torch.testing.assert_close(mixed[[1, 3]], alone.expand(2, -1))


@pytest.mark.parametrize("combine", ["mean", "last"])
def test_evaluation_propagates_once_for_all_blocks(combine, monkeypatch):
    """Layers L for known users, and L - 1 for those who are folded in, however many blocks of queries there are."""
    x, encoder = vectors(), LightGCNEncoder(3, combine).eval()
    adjacency, asked = Adjacency(graph_of([(0, 1), (0, 2), (1, 1), (2, 3)])), []
    plain = Adjacency.propagate

    def counted(self, users, items, layers, mean):
        asked.append(layers)
        return plain(self, users, items, layers, mean)

    monkeypatch.setattr(Adjacency, "propagate", counted)
    with torch.no_grad():
        for _ in range(3):
            fold_in(encoder, adjacency, x, Queries.from_histories([[1], [2, 3]], users=[1, -1]))
    assert asked == [3, 2]
