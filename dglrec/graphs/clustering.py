"""Many small sets clustered at once: Ward, K-means and Birch over a batch of B sets of up to n points.

Each function takes points (B, n, d) and, where sets are of different size, a mask (B, n) of the points that count; it
returns labels (B, n), numbered from 0 in the order in which the clusters appear in their set, and -1 at masked points.
Sets in a batch do not affect each other. A set of at most k points gets a cluster per point. Points and masks may
be tensors or NumPy arrays; labels are tensors.

Ward and K-means work on all sets in each step, on the CPU or a GPU, in chunks of sets: `CHUNK_BYTES` bounds what they
hold at a time beside points and labels.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..config import is_whole
from ..errors import ConfigError, DataError

Array: TypeAlias = Tensor | npt.NDArray[Any]

CHUNK_BYTES = {"cpu": 2**25, "cuda": 2**31}
"""Working memory of `ward` and `kmeans`, by device: 400 sets of 50 points at a time on the CPU, 26,000 on a GPU."""

_TIE = 1e-9  # distances that differ by less, relative to themselves, are ties: rounding is well below
_ZERO = 1e-13  # of the largest squared norm in a set: what is below is rounding
_NEAR, _FAR = 2.0**480, 2.0**960  # distances are below the first; those about the second (low bits 0) mean none


def ward(points: Array, k: int, mask: Array | None = None) -> Tensor:
    """Ward's hierarchical clustering of each set, cut at k clusters.

    It starts from single points and merges, as long as there are more than k clusters, the two whose merger adds least
    to the sum of squares within clusters, n_a n_b / (n_a + n_b) * ||mean(a) - mean(b)||^2. The partition is that of
    scikit-learn's `AgglomerativeClustering(k, linkage="ward")`, also where ties leave a choice.

    How it is done: two clusters that are each other's nearest stay so, whatever merges elsewhere (for Ward, a merger is
    never nearer to a third cluster than its nearer part was), so that all such pairs may merge at once; merges above
    the cut are forgotten in the end. On a CPU with numba (`pip install dglrec[fast]`) a compiled chain of nearest
    neighbours finds them, set after set. Elsewhere each round merges all such pairs of all sets, which takes some 10
    rounds for 50 points in place of 42 steps; sets with ties that leave a choice are given to SciPy's `linkage`.

    Args:
        points: (B, n, d), a tensor on any device or a NumPy array; computed in float64.
        k: clusters per set.
        mask: (B, n) bool, True where a point counts; all do by default.

    Returns:
        (B, n) int64 labels: min(k, points) clusters per set, -1 at masked points.

    Raises:
        ConfigError: k below 1.
        DataError: shapes that do not fit, or values that are not finite at points that count.

    >>> ward(torch.tensor([[[0.0], [9.0], [1.0], [10.0]]]), 2)
    tensor([[0, 1, 0, 1]])
    >>> ward(np.array([[[0.0], [9.0], [1.0], [10.0]]]), 2, np.array([[True, True, True, False]]))
    tensor([[ 0,  1,  0, -1]])
    """
    points, k, valid = _checked(points, k, mask)
    points = _in_reach(points)
    leaders = compiled_ward() if points.device.type == "cpu" else None
    if leaders is not None:
        set_bytes = 8 * points.shape[1] * points.shape[2]  # a float64 copy; of matrices there is one per thread
        return _in_chunks(
            lambda some, which: _number(leaders(some.double(), k, which), which), points, valid, set_bytes
        )
    set_bytes = 32 * points.shape[1] ** 2  # a float64 matrix of distances, and the rows that change in a round
    return _in_chunks(lambda some, which: _ward(some, k, which), points, valid, set_bytes)


def kmeans(points: Array, k: int, mask: Array | None = None, *, iterations: int = 10) -> Tensor:
    """K-means of each set: k points that are far apart to start with, then Lloyd's steps.

    The first centre is the point farthest from the mean of the set, each further one the point farthest from the
    centres so far (of several, the first). A step moves each centre to the mean of the points that are nearest to it; a
    centre that lost all points stays where it is. Nothing is random.

    Args:
        points: (B, n, d), a tensor on any device or a NumPy array; computed in their own precision, at least float32.
        k: clusters per set.
        mask: (B, n) bool, True where a point counts; all do by default.
        iterations: of Lloyd's steps at most; it stops earlier where nothing changes.

    Returns:
        (B, n) int64 labels, -1 at masked points. Equal points share a label, so that a set of fewer distinct points
        than k has fewer clusters.

    Raises:
        ConfigError: k below 1, or `iterations` below 0.
        DataError: shapes that do not fit, or values that are not finite at points that count.

    >>> kmeans(torch.tensor([[[0.0], [9.0], [1.0], [10.0]]]), 2)
    tensor([[0, 1, 0, 1]])
    """
    points, k, valid = _checked(points, k, mask)
    if not is_whole(iterations) or iterations < 0:
        raise ConfigError(f"iterations is {iterations!r}; expected the most steps to take, 0 or more")
    points = _in_reach(points)
    set_bytes = 8 * points.shape[1] * (2 * points.shape[2] + 4 * k)
    return _in_chunks(lambda some, which: _kmeans(some, k, which, iterations), points, valid, set_bytes)


def birch(points: Array, k: int, mask: Array | None = None, *, threshold: float = 0.5) -> Tensor:
    """Birch of each set, by scikit-learn, one set after the other on the CPU: for comparison, not for speed.

    Args:
        points: (B, n, d), a tensor on any device or a NumPy array.
        k: clusters per set.
        mask: (B, n) bool, True where a point counts; all do by default.
        threshold: radius below which points are taken together before they are clustered, in the unit of the points;
            where it leaves fewer than k groups, those are the clusters.

    Returns:
        (B, n) int64 labels on the device of the points, -1 at masked points.

    Raises:
        ConfigError: k below 1.
        DataError: shapes that do not fit, or values that are not finite, or too large to be squared, at points that
            count.
    """
    from sklearn.cluster import Birch
    from sklearn.exceptions import ConvergenceWarning

    points, k, valid = _checked(points, k, mask)
    if points is not _in_reach(points):
        raise DataError(
            f"points reach {points.abs().max():.0e}, of which Birch cannot take sums of squares; scale them"
        )
    leader = torch.zeros(valid.shape, dtype=torch.int64)
    for row, (some, which) in enumerate(zip(points.cpu(), valid.cpu(), strict=True)):
        number = int(which.sum())
        if number <= k:
            leader[row, which] = torch.arange(number)
            continue
        if k == 1:  # all points; scikit-learn refuses to cluster one group of them
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # "fewer subclusters than k", as documented above
            found = Birch(n_clusters=k, threshold=threshold).fit_predict(some[which].numpy())
        leader[row, which] = torch.as_tensor(found, dtype=torch.int64)
    return _number(leader.to(valid.device), valid, k)


# --- What the three share ---------------------------------------------------------------------------------------------


def as_tensor(values: Array, what: str) -> Tensor:
    """The tensor of a NumPy array, which shares its memory where it can; tensors as they are.

    Raises:
        DataError: no array of numbers.
    """
    if isinstance(values, Tensor):
        return values
    try:  # torch takes no reversed, read-only or byte-swapped rows
        array = np.asarray(values)
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), requirements=["C", "W"]))
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: a {type(values).__name__}; expected a tensor or a NumPy array of numbers") from error


def _checked(points: Array, k: int, mask: Array | None) -> tuple[Tensor, int, Tensor]:
    """Points as floating numbers, 0 where masked, k and the mask."""
    if not is_whole(k) or k < 1:
        raise ConfigError(f"k is {k!r}; expected the number of clusters, 1 or more")
    points = as_tensor(points, "points")
    if points.ndim != 3:
        raise DataError(f"points have shape {tuple(points.shape)}; expected (sets, points, dimensions)")
    mask = None if mask is None else as_tensor(mask, "mask")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != points.shape[:2]):
        seen = f"{mask.dtype} of shape {tuple(mask.shape)}"
        raise DataError(f"mask holds {seen}; expected torch.bool of shape {tuple(points.shape[:2])}")
    points = points.detach()
    if points.dtype not in (torch.float32, torch.float64):
        points = points.float()
    if mask is not None:
        mask = mask.to(points.device)
        points = points.masked_fill(~mask[:, :, None], 0.0)
    if not bool(points.sum().isfinite()) and not bool(points.isfinite().all()):  # the sum is a quick check
        row = int((~points.isfinite()).flatten(1).any(1).int().argmax())
        raise DataError(f"points of set {row} are not all finite; mask the rows that hold no point")
    valid = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device) if mask is None else mask
    return points, int(k), valid


def _in_reach(points: Tensor) -> Tensor:
    """The points; those of a set that goes beyond 2^50 times a power of two, so that squares stay within their type.

    A power of two rounds nothing, and the scale of a set does not change its clusters.
    """
    if points.numel() == 0 or max(abs(float(end)) for end in points.aminmax()) <= 2.0**50:
        return points
    exponent = points.abs().amax((1, 2), keepdim=True).frexp().exponent  # (B, 1, 1)
    return torch.where(exponent > 50, points.ldexp(-exponent), points)


def _in_chunks(work: Callable[[Tensor, Tensor], Tensor], points: Tensor, valid: Tensor, set_bytes: int) -> Tensor:
    """(B, n) labels, from as many sets at a time as `CHUNK_BYTES` allows."""
    if valid.numel() == 0:
        return torch.full(valid.shape, -1, device=valid.device)
    sets = max(1, CHUNK_BYTES.get(points.device.type, CHUNK_BYTES["cpu"]) // max(set_bytes, 1))
    pairs = zip(points.split(sets), valid.split(sets), strict=True)
    return torch.cat([work(some, which) for some, which in pairs])


def _number(leader: Tensor, valid: Tensor, numbers: int = 0) -> Tensor:
    """(B, n) labels in the order of first appearance, from anything that is equal within a cluster and nowhere else.

    Args:
        leader: (B, n) int64, below n or `numbers`.
        valid: (B, n) bool.
        numbers: how many different leaders there can be, where more than n.
    """
    sets, n = valid.shape
    places = torch.arange(n, device=valid.device)
    first = torch.full((sets, max(n, numbers)), n - 1, device=valid.device)  # leader -> first place
    first.scatter_reduce_(1, leader, torch.where(valid, places, n - 1), "amin")
    first = first.gather(1, leader)  # (B, n)
    label = ((first == places) & valid).cumsum(1) - 1
    return label.gather(1, first).masked_fill_(~valid, -1)


# --- Ward -------------------------------------------------------------------------------------------------------------


def _ward(points: Tensor, k: int, valid: Tensor) -> Tensor:
    """Labels of one chunk: of all sets by rounds, and then, by SciPy, of those in which a tie left a choice."""
    points = points.double()
    needed = valid.sum(1) - k  # (B,) merges
    leader, tied = _rounds(points, valid, needed)
    again = tied.nonzero().squeeze(1)
    if len(again):
        leader[again] = _linkage(points[again], valid[again], needed[again])
    return _number(leader, valid, 2 * valid.shape[1])


@functools.cache
def compiled_ward() -> Callable[[Tensor, int, Tensor], Tensor] | None:
    """`ward_leaders`, or None where numba, which the extra "fast" installs, is missing or cannot compile it."""
    try:
        from ._chains import ward_leaders

        ward_leaders(torch.zeros(1, 2, 1, dtype=torch.float64), 1, torch.ones(1, 2, dtype=torch.bool))
    except Exception:  # whatever is wrong with numba, its compiler or its cache: there is another way
        return None
    return ward_leaders


def _joined(part: Tensor, whole: Tensor, numbers: int) -> Tensor:
    """Where each cluster ends up, after some became part of others.

    Args:
        part, whole: (B, m) number of a cluster, and of the one that it became part of (its own: of none).
        numbers: of clusters per set.

    Returns:
        (B, numbers) number of the cluster.
    """
    leader = torch.arange(numbers, device=part.device).repeat(len(part), 1).scatter_(1, part, whole)
    for _ in range((numbers - 1).bit_length()):  # each pass doubles the length of the path that a point has gone
        leader = leader.gather(1, leader)
    return leader


def _linkage(points: Tensor, valid: Tensor, needed: Tensor) -> Tensor:
    """Ward's clusters by SciPy, which scikit-learn calls as well, so that ties break alike; one set after the other.

    Args:
        points: (B, n, d) float64.
        valid: (B, n) bool.
        needed: (B,) merges to make, 1 or more.

    Returns:
        (B, n) number of each point's cluster.
    """
    from scipy.cluster.hierarchy import linkage

    sets, n, _ = points.shape
    part = np.full((sets, n, 2), 2 * n)  # two of each merge m become n + m; number 2 n is no cluster
    for row, (some, which, merges) in enumerate(zip(points.cpu(), valid.cpu(), needed.tolist(), strict=True)):
        place = which.numpy().nonzero()[0]  # SciPy numbers the points that count from 0, and merges from there on
        ends = linkage(some.numpy()[place], "ward")[:merges, :2].astype(np.int64)
        numbers = np.concatenate([place, np.arange(n, n + merges)])
        part[row, :merges] = numbers[ends]
    whole = np.arange(n, 2 * n)[None, :, None].repeat(sets, 0).repeat(2, 2)
    whole[part == 2 * n] = 2 * n
    found = _joined(torch.from_numpy(part).flatten(1), torch.from_numpy(whole).flatten(1), 2 * n + 1)
    return found[:, :n].to(points.device)


class _Pairs(NamedTuple):
    """T pairs of clusters that merge in one round, cluster `two` into cluster `one`, of B sets with c clusters each.

    Attributes:
        place: (T,) set.
        lead: (T,) number of `one` within its set.
        one, two: (T,) numbers over all sets, c * place more than within the set.
        height: (T,) distance.
    """

    place: Tensor
    lead: Tensor
    one: Tensor
    two: Tensor
    height: Tensor


def _rounds(points: Tensor, valid: Tensor, needed: Tensor) -> tuple[Tensor, Tensor]:
    """Ward's clusters where no tie leaves a choice: all pairs of mutually nearest clusters merge in each round.

    A distance is a float64 of which the lowest few bits are replaced by the number of its column: the minimum of a row
    is both the distance and its column.

    Args:
        points: (B, n, d) float64.
        valid: (B, n) bool.
        needed: (B,) merges to make; none where below 1.

    Returns:
        (B, n) one point that represents each point's cluster, and (B,) whether a tie left a choice in that set.
    """
    sets, n, _ = points.shape
    device = points.device
    low = (1 << (n - 1).bit_length()) - 1  # the bits of a column's number
    distance, zero = _first_distances(points, valid)
    column = torch.arange(n, device=device)
    _mark(distance, column, low)

    # By point: which one it joined, and how high. Nothing for the last one of a set.
    into = column.repeat(sets, 1)
    height = points.new_full((sets, n), torch.inf)
    ties = torch.zeros(sets, dtype=torch.int64, device=device)

    # By cluster, of which there are up to c per set: its number of points, and the first of them.
    size, point = torch.ones_like(height), into.clone()  # (B, c)
    left = int(valid.sum())  # clusters of all sets
    while True:
        c = len(column)
        nearest = distance.amin(2)  # (B, c)
        partner = nearest.view(torch.int64) & low
        closest = nearest.amin(1)
        # A set is done when `needed` of its merges are lower than all that are still to come.
        going = (height <= closest[:, None]).sum(1) < needed  # (B,)
        mutual = (partner.gather(1, partner) == column) & (nearest < _NEAR) & going[:, None]
        ends, stays = mutual & (partner < column), mutual & (partner > column)
        two = ends.view(-1).nonzero().squeeze(1)
        if len(two) == 0:
            break
        place, lead = two // c, partner.view(-1).index_select(0, two)
        pairs = _Pairs(place, lead, place * c + lead, two, nearest.view(-1).index_select(0, two))
        end = place * n + point.view(-1).index_select(0, two)
        into.view(-1).index_copy_(0, end, point.view(-1).index_select(0, pairs.one))
        height.view(-1).index_copy_(0, end, pairs.height)

        joined = torch.where(stays, partner, column)
        means, third, size = _merge(distance, size, nearest, joined, stays, pairs)
        ties.index_add_(0, place, (third & (pairs.height > zero.index_select(0, place))).long())
        _replace(distance, means, pairs, column, low)
        left -= len(two)
        if 2 * left <= sets * c:  # half of the matrices, on average, may be empty
            distance, size, point = _without_gaps(distance, size, point, low)
            column = column[: distance.shape[2]]

    leader, cut = _cut(into, height, needed, closest, zero)
    return leader, (ties > 0) | cut | going  # going, but nothing mutual: rounding made a ring of ties


def _mark(distance: Tensor, column: Tensor, low: int) -> None:
    """Write the numbers `column` (c,) into the lowest bits of distances (..., c)."""
    distance.view(torch.int64).bitwise_and_(~low).bitwise_or_(column)


def _merge(
    distance: Tensor, size: Tensor, nearest: Tensor, joined: Tensor, stays: Tensor, pairs: _Pairs
) -> tuple[Tensor, Tensor, Tensor]:
    """What becomes of distances and sizes in a round.

    Ward's distance is that of the means, squared, over 1 / |a| + 1 / |b|. If b moves the mean of a by the share g of
    the way, squared distances to it become (1 - g) of those to a plus g of those to b, less d(a, b) / |a + b|.

    Args:
        distance: (B, c, c) before the round.
        size: (B, c) before the round.
        nearest: (B, c) distance of the nearest cluster.
        joined: (B, c) number of the cluster that joins it, its own where none does.
        stays: (B, c) bool, whether one does.
        pairs: those that merge.

    Returns:
        (T, c) distances of the merged clusters to all clusters after the round; (T,) whether a third cluster was as
        near to a pair as the two to each other; and (B, c) sizes after the round.
    """
    place, _, one, two, height = pairs
    inverse = size.reciprocal()
    joining = size.gather(1, joined) * stays
    after = size + joining
    share = joining / after
    less = (nearest / after).masked_fill_(~stays, 0.0)
    rows = distance.view(-1, distance.shape[2])
    first, second = rows.index_select(0, one), rows.index_select(0, two)  # (T, c)
    near = torch.minimum(first, second) <= (height * (1 + _TIE))[:, None]

    columns = inverse.index_select(0, place)
    first *= columns + inverse.view(-1).index_select(0, one)[:, None]
    second *= columns + inverse.view(-1).index_select(0, two)[:, None]
    means = first.lerp_(second, share.view(-1).index_select(0, one)[:, None])  # to the clusters before this round
    means -= less.view(-1).index_select(0, one)[:, None]
    means = means.lerp(means.gather(1, joined.index_select(0, place)), share.index_select(0, place))  # to those after
    means -= less.index_select(0, place)
    inverse = after.reciprocal()
    means /= inverse.index_select(0, place) + inverse.view(-1).index_select(0, one)[:, None]
    return means.clamp_(0.0, _FAR), near.sum(1) > 2, after


def _replace(distance: Tensor, means: Tensor, pairs: _Pairs, column: Tensor, low: int) -> None:
    """New distances (T, c) go into the row of `one` and into its column; `two` is far from all from now on."""
    place, lead, one, two, _ = pairs
    c = len(column)
    rows, flat = distance.view(-1, c), distance.view(-1)
    bits = means.view(torch.int64).bitwise_and_(~low)
    rows.index_copy_(0, one, (bits | column).view(torch.float64))
    across = (place * c * c + lead)[:, None] + column * c  # (T, c) places in the matrices
    flat.index_copy_(0, across.view(-1), bits.bitwise_or_(lead[:, None]).view(torch.float64).view(-1))
    flat.index_fill_(0, one * c + lead, _FAR)
    rows.index_fill_(0, two, _FAR)
    across += (two - one)[:, None]
    flat.index_fill_(0, across.view(-1), _FAR)


def _without_gaps(distance: Tensor, size: Tensor, point: Tensor, low: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (B, c, c), sizes and points (B, c) without the empty ones, if that at least halves c."""
    sets, c, _ = distance.shape
    gone = distance.amin(2) >= _NEAR  # the last cluster of a set as well: it has nothing left to do
    most = int((~gone).sum(1).max())
    if not 0 < 2 * most <= c:
        return distance, size, point
    keep = gone.byte().sort(dim=1, stable=True).indices[:, :most]  # (B, most)
    flat = (keep + torch.arange(sets, device=keep.device)[:, None] * c).view(-1)
    size, point = (values.view(-1).index_select(0, flat).view(sets, most) for values in (size, point))
    half = distance.view(-1, c).index_select(0, flat).view(sets, most, c).mT.reshape(sets * c, most)
    distance = half.index_select(0, flat).view(sets, most, most)
    _mark(distance, torch.arange(most, device=keep.device), low)
    return distance, size, point


def _cut(into: Tensor, height: Tensor, needed: Tensor, closest: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
    """(B, n) one point of each point's cluster after the lowest `needed` merges, and (B,) whether a tie is at the cut.

    Args:
        into, height: (B, n) which point each joined, and how high.
        needed: (B,) merges.
        closest: (B,) distance of the next merge.
        zero: (B,) what is zero among distances.
    """
    n = into.shape[1]
    lowest, order = height.sort(dim=1, stable=True)
    taken = torch.arange(n, device=into.device) < needed[:, None]
    leader = _joined(order, torch.where(taken, into.gather(1, order), order), n)
    last = lowest.gather(1, (needed - 1).clamp(min=0)[:, None])[:, 0]
    following = torch.minimum(lowest.gather(1, needed.clamp(min=0)[:, None])[:, 0], closest)
    # Below zero's limit there is only rounding; a cut there is between equal points, more of them than clusters.
    last = torch.where(last <= zero, zero, last)
    return leader, (following <= last * (1 + _TIE)) & (needed > 0)


def _first_distances(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B, n, n) Ward's distances of single points, half of the squared ones; and (B,) what is zero among them."""
    points = points - points.sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]  # products then lose less
    points *= valid[:, :, None]
    half = torch.linalg.vecdot(points, points) / 2  # (B, n)
    zero = half.amax(1) * _ZERO
    half.masked_fill_(~valid, _FAR)
    distance = half[:, :, None] + half[:, None]
    distance.baddbmm_(points, points.mT, alpha=-1).diagonal(dim1=1, dim2=2).fill_(_FAR)
    return distance, zero


# --- K-means ----------------------------------------------------------------------------------------------------------


def _kmeans(points: Tensor, k: int, valid: Tensor, iterations: int) -> Tensor:
    """Labels of one chunk."""
    mean = points.sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]
    points = (points - mean).mul_(valid[:, :, None])  # products of small numbers lose less
    centres, used = _far_apart(points, k, valid)
    weight = valid.to(points.dtype)[:, None]  # (B, 1, n)
    number = torch.arange(k, device=points.device, dtype=points.dtype)[:, None]
    label: Tensor | None = None
    for step in range(iterations + 1):
        norm = centres.square().sum(2).masked_fill_(~used, torch.inf)  # (B, k)
        # ||x||^2 is the same for all centres of a point: ||c||^2 - 2 x c has its minimum where the distance has.
        distance = torch.baddbmm(norm[:, :, None], centres, points.mT, alpha=-2)  # (B, k, n)
        is_nearest = distance <= distance.amin(1, keepdim=True)
        # Of several, the first. (argmin along this dimension takes ten times as long.)
        nearest = torch.where(is_nearest, number, k).amin(1)  # (B, n)
        if step == iterations or (label is not None and torch.equal(nearest, label)):
            break
        label = nearest
        member = (label[:, None] == number) * weight  # (B, k, n)
        count = member.sum(2)[:, :, None]
        centres = torch.where(count > 0, torch.bmm(member, points) / count.clamp(min=1), centres)
    return _number(nearest.long(), valid, k)


def _far_apart(points: Tensor, k: int, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B, k, d) points of each set, each as far as can be from those before it, the first from the mean; and (B, k)
    which of them differ from all before.
    """

    def squares(centre: Tensor) -> Tensor:
        return (points - centre[:, None]).square_().sum(2).masked_fill_(~valid, -1.0)  # (B, n)

    row = torch.arange(len(points), device=points.device)
    far, place = squares(points.sum(1) / valid.sum(1).clamp(min=1)[:, None]).max(1)
    centres, used = [points[row, place]], [torch.ones_like(far, dtype=torch.bool)]
    gap = squares(centres[0])
    for _ in range(k - 1):
        far, place = gap.max(1)
        centres.append(points[row, place])
        used.append(far > 0)
        gap = torch.minimum(gap, squares(centres[-1]))
    return torch.stack(centres, 1), torch.stack(used, 1)
