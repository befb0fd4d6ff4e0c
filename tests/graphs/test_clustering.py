"""Clustering of many small sets: against scikit-learn, on ties, on tiny and masked sets."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering, Birch, KMeans

from dglrec.errors import ConfigError, DataError
from dglrec.graphs import clustering
from dglrec.graphs.clustering import birch, kmeans, ward

METHODS = [ward, kmeans, birch]


def canonical(labels):
    """Labels numbered in the order of first appearance."""
    number = {}
    return [number.setdefault(int(label), len(number)) for label in labels]


def reference(points, k):
    return canonical(AgglomerativeClustering(k, linkage="ward").fit_predict(points))


def variance(points, labels):
    """Sum of squares within clusters."""
    labels = np.asarray(labels)
    return sum(((part - part.mean(0)) ** 2).sum() for part in (points[labels == one] for one in np.unique(labels)))


def padded(sets, width):
    """Sets of different size as one tensor, with not-a-number where nothing is, and its mask."""
    points = torch.full((len(sets), width, sets[0].shape[1]), torch.nan, dtype=torch.float64)
    mask = torch.zeros(len(sets), width, dtype=torch.bool)
    for row, some in enumerate(sets):
        points[row, : len(some)] = torch.as_tensor(some)
        mask[row, : len(some)] = True
    return points, mask


def draws(rng, sets):
    """Random sets of 10 to 80 points, in 1 to 64 dimensions, each batch of them of one kind."""
    dim, k = int(rng.choice([1, 2, 3, 8, 32, 64])), int(rng.integers(1, 11))
    sizes = rng.integers(10, 81, sets)
    kind = rng.integers(3)
    if kind == 0:
        found = [rng.standard_normal((size, dim)) for size in sizes]
    elif kind == 1:  # clusters of points
        found = [
            rng.standard_normal((6, dim))[rng.integers(6, size=size)] + 0.2 * rng.standard_normal((size, dim))
            for size in sizes
        ]
    else:  # far from the origin, and every dimension of another size
        found = [100 + rng.standard_normal((size, dim)) * np.geomspace(0.1, 10, dim) for size in sizes]
    return found, k


# --- Ward against scikit-learn ----------------------------------------------------------------------------------------


@pytest.fixture(params=["compiled", "rounds"])
def way(request, monkeypatch):
    """Ward set by set with numba, or of all sets at once without it, as on a GPU."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(clustering, "compiled_ward", lambda: None)
    return request.param


@pytest.mark.parametrize("way", ["compiled", "rounds"])
@pytest.mark.parametrize("scale", [2.0**600, 2.0**1000, 2.0**-40])
def test_the_scale_of_a_set_changes_nothing(monkeypatch, way, scale):
    """Near 1e180 and 1e300 squares have no float64 any more; sets beside one of that size are left as they are."""
    if way == "rounds":
        monkeypatch.setattr(clustering, "compiled_ward", lambda: None)
    points = torch.randn(40, 30, 5, generator=torch.Generator().manual_seed(0)).double()
    large = points.clone()
    large[::2] *= scale
    for method in (ward, kmeans):
        assert torch.equal(method(large, 4), method(points, 4))
    single = points.float()
    assert torch.equal(kmeans(single * 2.0**120, 4), kmeans(single, 4))
    assert torch.equal(ward(single * 2.0**120, 4), ward(single, 4))
    with pytest.raises(DataError, match=r"points reach 1e\+200, of which Birch"):
        birch(torch.tensor([[[1e200], [0.0], [1.0]]], dtype=torch.float64), 2)


def test_ward_is_that_of_scikit_learn_on_ten_thousand_sets(way):
    rng = np.random.default_rng(0)
    for _ in range(100):
        points, k = draws(rng, 100)
        batch, mask = padded(points, 80)
        for some, label in zip(points, ward(batch, k, mask).tolist(), strict=True):
            assert label[: len(some)] == reference(some, k)
            assert set(label[len(some) :]) <= {-1}


@pytest.mark.parametrize(("grid", "dim"), [(2, 1), (3, 2), (4, 3), (10, 2), (30, 1), (2, 8)])
def test_ties_have_the_variance_of_scikit_learn(grid, dim, way):
    """Integer grids: duplicates, equal distances everywhere, fewer distinct points than k."""
    rng = np.random.default_rng(grid * 100 + dim)
    for k in (2, 5, 9):
        points = rng.integers(0, grid, (20, 24, dim)).astype(float)
        for some, label in zip(points, ward(torch.as_tensor(points), k).tolist(), strict=True):
            assert len(set(label)) == k
            assert variance(some, label) == pytest.approx(variance(some, reference(some, k)), abs=1e-9)


def test_fewer_distinct_points_than_clusters_are_split_as_scikit_learn_does(way):
    rng = np.random.default_rng(5)
    points = rng.standard_normal((40, 5, 3))[:, rng.integers(0, 5, 20)]
    for some, label in zip(points, ward(torch.as_tensor(points), 8).tolist(), strict=True):
        assert label == reference(some, 8)


def test_without_numba_or_where_it_fails_ward_goes_in_rounds(monkeypatch):
    chains = pytest.importorskip("dglrec.graphs._chains")

    def broken(*_):
        raise OSError("no compiler")

    monkeypatch.setattr(chains, "ward_leaders", broken)
    assert clustering.compiled_ward.__wrapped__() is None


def test_repeated_points_are_no_ties():
    """Items that stand in a history twice do not send it the slow way."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((30, 20, 8))[:, rng.integers(0, 20, 50)]
    valid = torch.ones(30, 50, dtype=torch.bool)
    _, tied = clustering._rounds(torch.as_tensor(points), valid, valid.sum(1) - 6)
    assert not tied.any()
    for some, label in zip(points, ward(torch.as_tensor(points), 6).tolist(), strict=True):
        assert label == reference(some, 6)


def test_both_ways_give_the_same_where_nothing_ties():
    rng = np.random.default_rng(3)
    points, k = draws(rng, 50)
    points, mask = padded(points, 80)
    points = points.masked_fill(~mask[:, :, None], 0.0)
    needed = mask.sum(1) - k
    leader, tied = clustering._rounds(points, mask, needed)
    assert not tied.any()
    other = clustering._linkage(points, mask, needed)
    assert torch.equal(clustering._number(leader, mask), clustering._number(other, mask, 2 * 80 + 1))


def test_threads_that_share_the_sets_out(monkeypatch):
    points = torch.randn(37, 20, 3, generator=torch.Generator().manual_seed(0))
    alone = ward(points, 4)
    chains = pytest.importorskip("dglrec.graphs._chains")
    monkeypatch.setattr(chains, "_THREAD_WORK", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(ward(points, 4), alone)


def test_nearly_equal_points(way):
    """Distances a millionth of the set's size are told apart."""
    rng = np.random.default_rng(4)
    points = rng.standard_normal((20, 5, 4))[:, np.arange(30) % 5] + 1e-6 * rng.standard_normal((20, 30, 4))
    for k in (3, 5, 12):
        for some, label in zip(points, ward(torch.as_tensor(points), k).tolist(), strict=True):
            assert label == reference(some, k)


def test_a_long_chain_of_nearest_neighbours(way):
    """1, 3, 9, ...: one pair a round at most."""
    points = torch.tensor(3.0, dtype=torch.float64).pow(torch.arange(20))[None, :, None]
    assert ward(points, 3).tolist() == [reference(points[0].numpy(), 3)]


# --- K-means and Birch ------------------------------------------------------------------------------------------------


def test_kmeans_takes_the_steps_of_scikit_learn():
    rng = np.random.default_rng(0)
    for k in (2, 5, 8):
        points = torch.as_tensor(rng.standard_normal((20, 40, 6)))
        valid = torch.ones(points.shape[:2], dtype=torch.bool)
        starts, used = clustering._far_apart(points, k, valid)
        assert used.all()
        found = kmeans(points, k, iterations=100).tolist()
        for some, start, label in zip(points.numpy(), starts.numpy(), found, strict=True):
            expected = KMeans(k, init=start, n_init=1, tol=0, max_iter=100).fit(some)
            assert label == canonical(expected.labels_)


def test_kmeans_starts_from_points_far_apart():
    points = torch.tensor([[[0.0], [1.0], [5.0], [10.0]]])
    centres, used = clustering._far_apart(points, 4, torch.ones(1, 4, dtype=torch.bool))
    assert centres[0, :, 0].tolist() == [10.0, 0.0, 5.0, 1.0]  # the mean is 4
    assert used.all()


def test_a_centre_that_loses_its_points_stays():
    points = torch.tensor([[[0.0], [1.0], [2.0], [10.0]]])
    for iterations in (0, 1, 10):
        labels = kmeans(points, 3, iterations=iterations)[0].tolist()
        assert labels[3] not in labels[:3]
        assert all(label >= 0 for label in labels)


def test_birch_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((5, 30, 4))
    for some, label in zip(points, birch(torch.as_tensor(points), 4, threshold=0.3).tolist(), strict=True):
        assert label == canonical(Birch(n_clusters=4, threshold=0.3).fit_predict(some))


def test_birch_of_one_cluster():
    """Where the threshold leaves one group, scikit-learn has no clustering of it."""
    points = torch.rand(2, 6, 3) * torch.tensor([0.01, 10.0]).view(2, 1, 1)  # in one group, and in several
    mask = torch.tensor([[True] * 6, [False] + [True] * 5])
    assert birch(points, 1, mask).tolist() == [[0] * 6, [-1] + [0] * 5]


# --- What all three promise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_planted_clusters_are_found(method):
    rng = np.random.default_rng(1)
    owner = np.stack([rng.permutation(np.arange(40) % 5) for _ in range(12)])
    centres = 10 * np.eye(5, 6)
    points = torch.as_tensor(centres[owner] + 0.1 * rng.standard_normal((12, 40, 6)))
    assert method(points, 5).tolist() == [canonical(row) for row in owner]


@pytest.mark.parametrize("method", METHODS)
def test_tiny_sets(method):
    one = torch.zeros(1, 1, 3)
    assert method(one, 1).tolist() == [[0]]
    assert method(one, 4).tolist() == [[0]]
    few = torch.tensor([[[0.0], [5.0], [9.0]]])
    assert method(few, 3).tolist() == method(few, 8).tolist() == [[0, 1, 2]]
    assert method(few, 1).tolist() == [[0, 0, 0]]
    for shape in ((0, 4, 2), (3, 0, 2), (0, 0, 0)):
        assert method(torch.zeros(shape), 2).shape == shape[:2]


def test_equal_points():
    """Ward cuts at k clusters whatever the points are; K-means cannot tell equal points apart."""
    equal = torch.ones(2, 6, 3)
    assert [len(set(row)) for row in ward(equal, 4).tolist()] == [4, 4]
    assert kmeans(equal, 4).tolist() == [[0] * 6] * 2
    two = torch.tensor([[[0.0], [3.0], [0.0], [3.0], [0.0]]])
    assert ward(two, 2).tolist() == kmeans(two, 2).tolist() == birch(two, 2).tolist() == [[0, 1, 0, 1, 0]]


@pytest.mark.parametrize("method", METHODS)
def test_masked_points_have_no_say(method):
    """Masked anywhere, whatever they hold: the labels are those of the points alone."""
    rng = np.random.default_rng(2)
    points = torch.as_tensor(rng.standard_normal((8, 30, 4)))
    mask = torch.as_tensor(rng.random((8, 30)) < 0.6)
    mask[0], mask[1, 1:] = False, False
    points[~mask] = torch.nan
    labels = method(points, 4, mask)
    assert bool((labels[~mask] == -1).all())
    for some, which, label in zip(points, mask, labels, strict=True):
        assert torch.equal(label[which], method(some[which][None], 4)[0])


@pytest.mark.parametrize("method", METHODS)
def test_neighbours_in_the_batch_have_no_say(method):
    rng = np.random.default_rng(5)
    points = torch.as_tensor(
        np.concatenate([rng.standard_normal((6, 25, 3)), rng.integers(0, 3, (6, 25, 3)).astype(float)])
    )
    labels = method(points, 5)
    order = torch.as_tensor(rng.permutation(12))
    assert torch.equal(method(points[order], 5), labels[order])
    assert torch.equal(torch.cat([method(some[None], 5) for some in points]), labels)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_points_has_no_say(method):
    """Where nothing ties, permuting a set permutes its clusters."""
    if method is birch:
        pytest.skip("Birch reads its points one after the other")
    rng = np.random.default_rng(6)
    points = torch.as_tensor(rng.standard_normal((10, 40, 4)))
    order = torch.as_tensor(rng.permutation(40))
    expected = [canonical(row) for row in method(points, 6)[:, order].tolist()]
    assert method(points[:, order], 6).tolist() == expected


@pytest.mark.parametrize("method", [ward, kmeans])
def test_chunks_change_nothing_and_bound_the_memory(method, monkeypatch):
    rng = np.random.default_rng(7)
    points, mask = padded([rng.standard_normal((size, 3)) for size in rng.integers(1, 31, 40)], 30)
    whole = method(points, 4, mask)
    monkeypatch.setitem(clustering.CHUNK_BYTES, "cpu", 40_000)
    seen = []
    monkeypatch.setattr(clustering, "compiled_ward", lambda: None)
    for name in ("_ward", "_kmeans"):
        work = getattr(clustering, name)

        def spy(some, *rest, work=work):
            seen.append(len(some))
            return work(some, *rest)

        monkeypatch.setattr(clustering, name, spy)
    assert torch.equal(method(points, 4, mask), whole)
    assert len(seen) > 3 and sum(seen) == 40


def test_memory_of_ward_is_what_it_says(monkeypatch):
    """Beside points and labels, no more than `CHUNK_BYTES` is held at a time."""
    from torch.profiler import ProfilerActivity, profile

    monkeypatch.setattr(clustering, "compiled_ward", lambda: None)  # what numba holds is n^2 numbers a thread
    monkeypatch.setitem(clustering.CHUNK_BYTES, "cpu", 2**21)
    points = torch.randn(120, 40, 4, generator=torch.Generator().manual_seed(0))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        ward(points, 4)
    held = peak = 0
    for event in sorted(profiler.events(), key=lambda event: event.time_range.start):
        held += event.self_cpu_memory_usage
        peak = max(peak, held)
    assert 2**20 < peak < 2**21 + points.numel() * 8


@pytest.mark.parametrize("method", METHODS)
def test_labels_take_no_gradient_and_leave_the_points_alone(method):
    points = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before = points.detach().clone()
    labels = method(points, 3)
    assert labels.dtype == torch.int64 and not labels.requires_grad
    assert torch.equal(points, before)
    assert torch.equal(labels, method(points.detach().half().float(), 3)) or method is not ward
    assert torch.equal(labels, method(points, 3))


@pytest.mark.parametrize("method", METHODS)
def test_numpy_arrays_are_taken_as_they_are(method):
    points = np.random.default_rng(0).standard_normal((3, 12, 2))
    mask = np.arange(12) < np.array([[12], [7], [2]])
    labels = method(torch.tensor(points), 4, torch.tensor(mask))
    reversed_rows = points[:, ::-1]
    points.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written
        assert torch.equal(method(points, np.int64(4), mask), labels)
        assert torch.equal(method(reversed_rows, 4), method(torch.tensor(reversed_rows.copy()), 4))
    with pytest.raises(DataError, match="points: a list; expected a tensor or a NumPy array of numbers"):
        method([["a", "b"]], 2)
    with pytest.raises(DataError, match=r"mask holds torch.int64 of shape \(3, 12\); expected torch.bool"):
        method(points, 2, mask.astype(int))


@pytest.mark.parametrize("method", METHODS)
def test_bad_input(method):
    points = torch.zeros(2, 5, 3)
    for k in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match=f"k is {k}; expected the number of clusters, 1 or more"):
            method(points, k)
    with pytest.raises(DataError, match=r"shape \(2, 5\); expected \(sets, points, dimensions\)"):
        method(points[:, :, 0], 2)
    for mask in (torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 5)):
        with pytest.raises(DataError, match=r"expected torch.bool of shape \(2, 5\)"):
            method(points, 2, mask)
    points[1, 3, 0] = torch.inf
    with pytest.raises(DataError, match="points of set 1 are not all finite"):
        method(points, 2)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert method(points, 2, mask)[1, 3] == -1
    if method is kmeans:
        with pytest.raises(ConfigError, match="iterations is -1; expected the most steps to take, 0 or more"):
            method(points, 2, mask, iterations=-1)
