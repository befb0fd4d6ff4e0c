"""Interest sub-graphs: the equations by hand, sparsification against a sort, and the two forms against each other."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from dglrec._dgl import dgl
from dglrec.errors import ConfigError, DataError
from dglrec.graphs import clustering, dense_interests, interests, sparsify, weighted_cosine
from dglrec.graphs.interests import RANKS


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(similarity, cluster, gamma, rank):
    """Eq. 9 of one user, with a sort and loops."""
    n = len(cluster)
    here = [i for i in range(n) if cluster[i] >= 0]
    pairs = [(i, j) for i in here for j in here if i < j and (rank == "pairs" or cluster[i] == cluster[j])]
    if rank != "matrix":
        values = sorted((similarity[i][j] for i, j in pairs), reverse=True)
        number = math.ceil(round(gamma * len(pairs), 6))
    else:
        values = sorted((1.0 if i == j else similarity[i][j] for i in here for j in here), reverse=True)
        number = math.ceil(round(gamma * len(here) ** 2, 6))
    edges = {(i, i) for i in here}
    for i, j in pairs:
        if similarity[i][j] >= values[number - 1]:
            edges |= {(i, j), (j, i)}
    return edges


def edges_of(matrix):
    return {(int(i), int(j)) for i, j in matrix.nonzero()}


# --- Eq. 7 and 8 ------------------------------------------------------------------------------------------------------


def test_weighted_cosine_is_the_equation():
    vectors, weight = normal(3, 7, 5), normal(4, 5, seed=1)
    found = weighted_cosine(vectors, weight)
    assert torch.equal(found, found.mT)
    for user in range(3):
        for i in range(7):
            for j in range(7):
                one, two = vectors[user, i], vectors[user, j]
                heads = [torch.cosine_similarity(w * one, w * two, dim=0) for w in weight]
                assert float(found[user, i, j]) == pytest.approx(float(sum(heads) / 4), abs=1e-5)
    plain = weighted_cosine(vectors)
    torch.testing.assert_close(plain, weighted_cosine(vectors, torch.ones(1, 5)))
    torch.testing.assert_close(plain.diagonal(dim1=1, dim2=2), torch.ones(3, 7))


def test_weighted_cosine_carries_gradients():
    vectors, weight = normal(2, 4, 3).double().requires_grad_(), normal(2, 3, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(weighted_cosine, (vectors, weight))
    found = dense_interests(vectors, 2, 0.5, weight=weight)
    found.similarity.sum().backward()
    assert vectors.grad is not None and weight.grad is not None
    assert dense_interests(vectors, 2, 0.5).similarity.dtype == torch.float64
    assert not found.cluster.requires_grad and not found.edges.requires_grad


# --- Eq. 9 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("gamma", [0.01, 0.1, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("tied", [False, True])
def test_sparsify_is_a_sort(rank, gamma, tied):
    generator = torch.Generator().manual_seed(2)
    similarity = torch.rand(30, 11, 11, generator=generator) * 1.9 - 0.95
    if tied:
        similarity = (similarity * 3).round() / 4
    similarity = similarity.triu(1) + similarity.triu(1).mT
    similarity.diagonal(dim1=1, dim2=2).fill_(1.0)
    cluster = torch.randint(-1, 3, (30, 11), generator=generator)
    cluster[0], cluster[1] = -1, 0  # nobody there; one interest
    cluster[2] = torch.arange(11)  # an interest an item
    found = sparsify(similarity, cluster, gamma, rank)
    for user in range(30):
        assert edges_of(found[user]) == by_hand(similarity[user].tolist(), cluster[user].tolist(), gamma, rank)


@pytest.mark.parametrize("rank", RANKS)
def test_sparsify_of_tiny_graphs(rank):
    both, loops = {(0, 0), (0, 1), (1, 0), (1, 1)}, {(0, 0), (1, 1)}
    for cluster, expected in (
        ([], set()),
        ([0], {(0, 0)}),
        ([-1], set()),
        ([0, 0], loops if rank == "matrix" else both),  # one pair, which is the top half; or 2 of 4: the loops
        ([0, 1], both if rank == "pairs" else loops),
        ([-1, 0], {(1, 1)}),
        ([-1, 0, 0], {(i + 1, j + 1) for i, j in (loops if rank == "matrix" else both)}),
    ):
        found = sparsify(torch.eye(len(cluster))[None], torch.tensor([cluster], dtype=torch.int64), 0.5, rank)
        assert edges_of(found[0]) == expected, cluster
    assert sparsify(torch.zeros(0, 4, 4), torch.zeros(0, 4, dtype=torch.int64), 0.5, rank).shape == (0, 4, 4)


def test_a_share_that_is_whole_but_for_rounding_is_whole():
    """.28 of 25 entries, 7.000000000000001 in floating point, are the five loops and a pair, which is there twice."""
    similarity = torch.eye(5)
    similarity[0, 1] = similarity[1, 0] = 0.9
    similarity[2, 3] = similarity[3, 2] = 0.8
    found = sparsify(similarity[None], torch.zeros(1, 5, dtype=torch.int64), 0.28, "matrix")
    assert edges_of(found[0]) == {(i, i) for i in range(5)} | {(0, 1), (1, 0)}


def test_all_pairs_that_tie_stay():
    equal = torch.ones(1, 5, 5)
    assert sparsify(equal, torch.zeros(1, 5, dtype=torch.int64), 0.1).all()


def test_the_two_readings_differ():
    """With many clusters, half of the whole matrix holds every pair within a cluster."""
    vectors = normal(6, 24, 8)
    few = dense_interests(vectors, 6, 0.5, rank="clusters").edges
    many = dense_interests(vectors, 6, 0.5, rank="matrix").edges
    same = dense_interests(vectors, 6, 1.0).edges
    assert (few & ~many).sum() == 0
    assert few.sum() < 0.7 * same.sum() < many.sum()


# --- The graph --------------------------------------------------------------------------------------------------------

LENGTHS = [5, 0, 12, 1, 8]


def packed(lengths=LENGTHS, dim=4, seed=0):
    return normal(sum(lengths), dim, seed=seed)


def padded(vectors, lengths):
    found = torch.full((len(lengths), max(lengths), vectors.shape[1]), torch.nan)
    for row, part in enumerate(vectors.split(lengths)):
        found[row, : len(part)] = part
    return found


@pytest.mark.parametrize("method", ["ward", "kmeans", "birch"])
@pytest.mark.parametrize("rank", RANKS)
def test_the_graph_is_the_tensors(method, rank):
    vectors, weight = packed(), normal(2, 4, seed=9)
    graph = interests(vectors, LENGTHS, 3, 0.4, method, weight=weight, rank=rank)
    assert graph.canonical_etypes == [("item", "similar", "item")]
    assert graph.num_nodes("item") == sum(LENGTHS)
    assert graph.batch_num_nodes("item").tolist() == LENGTHS
    graphs = dgl.unbatch(graph)
    for part, some in zip(graphs, vectors.split(LENGTHS), strict=True):
        found = dense_interests(some[None], 3, 0.4, method=method, weight=weight, rank=rank)
        assert torch.equal(part.nodes["item"].data["cluster"], found.cluster[0])
        source, target = part.edges(etype="similar", order="eid")
        assert torch.equal(torch.stack([source, target], 1), found.edges[0].nonzero())
        torch.testing.assert_close(part.edges["similar"].data["similarity"], found.similarity[0, source, target])


def test_numpy_arrays_give_the_same():
    vectors, weight = packed(), normal(2, 4, seed=9)
    graph = interests(vectors.numpy(), np.array(LENGTHS), np.int64(3), weight=weight.numpy())
    assert_equal_graphs(graph, interests(vectors, LENGTHS, 3, weight=weight))
    whole, mask = padded(vectors, LENGTHS), torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    found = dense_interests(whole.numpy(), np.int64(3), 0.5, mask.numpy(), weight=weight.numpy())
    for one, two in zip(found, dense_interests(whole, 3, 0.5, mask, weight=weight), strict=True):
        assert torch.equal(one, two)


def test_packed_and_padded_vectors_give_one_graph():
    vectors = packed()
    one, two = interests(vectors, LENGTHS, 3), interests(padded(vectors, LENGTHS), torch.tensor(LENGTHS), 3)
    assert_equal_graphs(one, two)
    wide = torch.nn.functional.pad(padded(vectors, LENGTHS), (0, 0, 0, 2), value=torch.nan)  # than the longest history
    assert_equal_graphs(one, interests(wide, LENGTHS, 3))


def assert_equal_graphs(one, two):
    for left, right in zip(one.edges(etype="similar"), two.edges(etype="similar"), strict=True):
        assert torch.equal(left, right)
    assert torch.equal(one.nodes["item"].data["cluster"], two.nodes["item"].data["cluster"])
    torch.testing.assert_close(one.edges["similar"].data["similarity"], two.edges["similar"].data["similarity"])


def test_edges_are_symmetric_within_clusters_and_have_loops():
    graph = interests(packed([20, 30]), [20, 30], 4, 0.3)
    source, target = graph.edges(etype="similar")
    cluster = graph.nodes["item"].data["cluster"]
    assert torch.equal(cluster[source], cluster[target])
    assert bool(((source < 20) == (target < 20)).all())
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    assert len(pairs) == graph.num_edges("similar")
    assert {(j, i) for i, j in pairs} == pairs
    assert {(i, i) for i in range(50)} <= pairs
    assert graph.edges["similar"].data["similarity"].dtype == torch.float32


def test_permuting_users_permutes_their_graphs():
    vectors, order = packed(), [3, 0, 4, 2, 1]
    parts = vectors.split(LENGTHS)
    graph = interests(vectors, LENGTHS, 3)
    other = interests(torch.cat([parts[user] for user in order]), [LENGTHS[user] for user in order], 3)
    there = dgl.unbatch(graph)
    for user, found in zip(order, dgl.unbatch(other), strict=True):
        assert_equal_graphs(there[user], found)


def test_permuting_items_permutes_nodes():
    vectors = normal(1, 20, 6)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    one, two = dense_interests(vectors, 4, 0.5), dense_interests(vectors[:, order], 4, 0.5)
    assert torch.equal(one.edges[0][order][:, order], two.edges[0])


def test_blocks_of_users_change_nothing(monkeypatch):
    vectors, lengths = packed([7, 3, 9, 0, 4] * 6), [7, 3, 9, 0, 4] * 6
    whole = interests(vectors, lengths, 2)
    blocks = []
    inner = dense_interests

    def spy(some, *rest, **named):
        blocks.append(len(some))
        return inner(some, *rest, **named)

    monkeypatch.setattr(sys.modules["dglrec.graphs.interests"], "dense_interests", spy)
    monkeypatch.setitem(clustering.CHUNK_BYTES, "cpu", 12_000)
    assert_equal_graphs(whole, interests(vectors, lengths, 2))
    assert len(blocks) > 5 and sum(blocks) == 30


def test_no_users_at_all():
    graph = interests(torch.zeros(0, 4), [], 3)
    assert (graph.num_nodes("item"), graph.num_edges("similar")) == (0, 0)
    assert interests(torch.zeros(0, 4), [0, 0], 3).batch_num_nodes("item").tolist() == [0, 0]


def test_planted_interests_are_the_sub_graphs():
    owner = np.random.default_rng(0).permutation(np.arange(30) % 3)
    vectors = 5 * torch.eye(3, 8)[owner] + 0.1 * normal(30, 8)
    graph = interests(vectors, [30], k=3, gamma=1.0)
    source, target = graph.edges(etype="similar")
    expected = {(i, j) for i in range(30) for j in range(30) if owner[i] == owner[j]}
    assert set(zip(source.tolist(), target.tolist(), strict=True)) == expected


@pytest.mark.parametrize("dtype", ["int64", "uint8", "uint32", "bool", ">f4", "float16"])
def test_vectors_and_lengths_of_any_type_of_number(dtype):
    vectors = np.array([[3, 0], [2, 1], [0, 3], [1, 0], [0, 1]]).astype(dtype)
    graph = interests(vectors, np.array([2, 3], dtype=np.uint32)[::-1], 2, 1.0)
    expected = interests(torch.from_numpy(vectors.astype(np.float32)), [3, 2], 2, 1.0)
    assert graph.nodes["item"].data["cluster"].tolist() == expected.nodes["item"].data["cluster"].tolist()
    similarity = graph.edges["similar"].data["similarity"]
    torch.testing.assert_close(similarity, expected.edges["similar"].data["similarity"], rtol=1e-3, atol=1e-3)


def test_bad_input():
    vectors = packed()
    for gamma in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(ConfigError, match=r"gamma is .*; expected the share .*, above 0 and at most 1"):
            interests(vectors, LENGTHS, 3, gamma)
    with pytest.raises(ConfigError, match="k is 0; expected the number of clusters"):
        interests(vectors, LENGTHS, 0)
    with pytest.raises(ConfigError, match="unknown method 'word'; did you mean 'ward'"):
        interests(vectors, LENGTHS, 3, method="word")
    with pytest.raises(ConfigError, match="rank is 'cluster'; did you mean 'clusters'"):
        interests(vectors, LENGTHS, 3, rank="cluster")
    with pytest.raises(DataError, match=r"lengths sum to 5, but vectors have shape \(26, 4\)"):
        interests(vectors, [5], 3)
    with pytest.raises(DataError, match="expected \\(users,\\) integers from 0"):
        interests(vectors, [27, -1], 3)
    with pytest.raises(DataError, match="expected \\(users,\\) integers from 0"):
        interests(vectors, [13.0, 13.0], 3)
    with pytest.raises(DataError, match="lengths hold object"):
        interests(vectors, None, 3)
    with pytest.raises(DataError, match=r"1 lengths of at most 3, but vectors have shape \(1, 2, 4\)"):
        interests(torch.zeros(1, 2, 4), [3], 3)
    with pytest.raises(DataError, match=r"expected \(items, dimensions\) or \(users, items, dimensions\)"):
        interests(torch.zeros(4), [4], 3)
    with pytest.raises(DataError, match=r"weight \(2, 5\); expected"):
        interests(vectors, LENGTHS, 3, weight=torch.ones(2, 5))
    vectors[7] = torch.nan
    with pytest.raises(DataError, match="points of set 2 are not all finite"):
        interests(vectors, LENGTHS, 3)
