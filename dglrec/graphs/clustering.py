"""Many small sets clustered at once: Ward, K-means and Birch over a batch of B sets of up to n points.

Each function takes points (B, n, d) and, where sets are of different size, a mask (B, n) of the points that count; it
returns labels (B, n), numbered from 0 in the order in which the clusters appear in their set, and -1 at masked points.
No set is touched by its neighbours in the batch. A set of at most k points gets a cluster a point.

Ward and K-means work on all sets in each step, on the CPU or a GPU, in chunks of sets: `CHUNK_BYTES` bounds what they
hold at a time beside points and labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError

CHUNK_BYTES = {"cpu": 2**25, "cuda": 2**31}
"""Working memory of `ward` and `kmeans`, by device: 320 sets of 50 points at a time on the CPU, 20,000 on a GPU."""

_TIE = 1e-9  # distances that differ by less, relative to themselves, are ties: rounding is well below
_ZERO = 1e-13  # of the largest squared norm in a set: squared distances below it are rounding
_INFINITE = 0x7FF << 52  # the bits of an infinite float64; no finite one has larger bits


def ward(points: Tensor, k: int, mask: Tensor | None = None) -> Tensor:
    """Ward's hierarchical clustering of each set, cut at k clusters.

    It starts from single points and merges, as long as there are more than k clusters, the two whose merger adds least
    to the sum of squares within clusters, |a| |b| / (|a| + |b|) * ||mean(a) - mean(b)||^2. The partition is that of
    scikit-learn's `AgglomerativeClustering(k, linkage="ward")`, also where ties leave a choice (see `_chain`).

    How it is done: two clusters that are each other's nearest stay so, whatever merges elsewhere (for Ward, a merger is
    never nearer to a third cluster than its nearer part was). So each round merges all such pairs of all sets, which
    takes some 10 rounds for 50 points in place of 42 steps; merges above the cut are forgotten in the end.

    Args:
        points: (B, n, d), on any device; computed in float64.
        k: clusters a set.
        mask: (B, n) bool, True where a point counts; all do by default.

    Returns:
        (B, n) int64 labels: min(k, points) clusters a set, -1 at masked points.

    Raises:
        ConfigError: k below 1.
        DataError: shapes that do not fit, or values that are not finite at points that count.

    >>> ward(torch.tensor([[[0.0], [9.0], [1.0], [10.0]]]), 2)
    tensor([[0, 1, 0, 1]])
    """
    points, valid = _checked(points, k, mask)
    set_bytes = 40 * points.shape[1] ** 2  # five float64 matrices of distances
    return _in_chunks(lambda some, which: _ward(some, k, which), points, valid, set_bytes)


def kmeans(points: Tensor, k: int, mask: Tensor | None = None, *, iterations: int = 10) -> Tensor:
    """K-means of each set: k points that are far apart to start with, then Lloyd's steps.

    The first centre is the point farthest from the mean of the set, each further one the point farthest from the
    centres so far (of several, the first). A step moves each centre to the mean of the points that are nearest to it; a
    centre that lost all points stays where it is. Nothing is random.

    Args:
        points: (B, n, d), on any device; computed in their own precision, at least float32.
        k: clusters a set.
        mask: (B, n) bool, True where a point counts; all do by default.
        iterations: of Lloyd's steps at most; it stops earlier where nothing changes.

    Returns:
        (B, n) int64 labels, -1 at masked points. Equal points share a label, so that a set of fewer distinct points
        than k has fewer clusters.

    Raises:
        ConfigError: k below 1.
        DataError: shapes that do not fit, or values that are not finite at points that count.

    >>> kmeans(torch.tensor([[[0.0], [9.0], [1.0], [10.0]]]), 2)
    tensor([[0, 1, 0, 1]])
    """
    points, valid = _checked(points, k, mask)
    set_bytes = 8 * points.shape[1] * (2 * points.shape[2] + 4 * k)
    return _in_chunks(lambda some, which: _kmeans(some, k, which, iterations), points, valid, set_bytes)


def birch(points: Tensor, k: int, mask: Tensor | None = None, *, threshold: float = 0.5) -> Tensor:
    """Birch of each set, by scikit-learn, one set after the other on the CPU: for comparison, not for speed.

    Args:
        points: (B, n, d), on any device.
        k: clusters a set.
        mask: (B, n) bool, True where a point counts; all do by default.
        threshold: radius below which points are taken together before they are clustered, in the unit of the points;
            where it leaves fewer than k groups, those are the clusters.

    Returns:
        (B, n) int64 labels on the device of the points, -1 at masked points.

    Raises:
        ConfigError: k below 1.
        DataError: shapes that do not fit, or values that are not finite at points that count.
    """
    from sklearn.cluster import Birch
    from sklearn.exceptions import ConvergenceWarning

    points, valid = _checked(points, k, mask)
    leader = torch.zeros(valid.shape, dtype=torch.int64)
    for row, (some, which) in enumerate(zip(points.cpu(), valid.cpu(), strict=True)):
        number = int(which.sum())
        if number <= k:
            leader[row, which] = torch.arange(number)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # "fewer subclusters than k", as documented above
            found = Birch(n_clusters=k, threshold=threshold).fit_predict(some[which].numpy())
        leader[row, which] = torch.as_tensor(found, dtype=torch.int64)
    return _number(leader.to(valid.device), valid, k)


# --- What the three share ---------------------------------------------------------------------------------------------


def _checked(points: Tensor, k: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Points as floating numbers, 0 where masked, and the mask."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"k is {k!r}; expected the number of clusters, 1 or more")
    if points.ndim != 3:
        raise DataError(f"points have shape {tuple(points.shape)}; expected (sets, points, dimensions)")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != points.shape[:2]):
        seen = f"{mask.dtype} of shape {tuple(mask.shape)}"
        raise DataError(f"mask holds {seen}; expected torch.bool of shape {tuple(points.shape[:2])}")
    points = points.detach()
    if points.dtype not in (torch.float32, torch.float64):
        points = points.float()
    if mask is not None:
        mask = mask.to(points.device)
        points = points.masked_fill(~mask[:, :, None], 0.0)
    if not bool(points.isfinite().all()):
        row = int((~points.isfinite()).flatten(1).any(1).int().argmax())
        raise DataError(f"points of set {row} are not all finite; mask the rows that hold no point")
    return points, torch.ones(points.shape[:2], dtype=torch.bool, device=points.device) if mask is None else mask


def _in_chunks(work: Callable[[Tensor, Tensor], Tensor], points: Tensor, valid: Tensor, set_bytes: int) -> Tensor:
    """(B, n) labels, from as many sets at a time as `CHUNK_BYTES` allows."""
    if valid.numel() == 0:
        return torch.full(valid.shape, -1, device=valid.device)
    sets = max(1, CHUNK_BYTES.get(points.device.type, CHUNK_BYTES["cpu"]) // max(set_bytes, 1))
    pairs = zip(points.split(sets), valid.split(sets), strict=True)
    return torch.cat([work(some, which) for some, which in pairs])


def _number(leader: Tensor, valid: Tensor, numbers: int = 0) -> Tensor:
    """(B, n) labels in the order of first appearance, from anything that is equal within a cluster alone.

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
    """Labels of one chunk: all sets by rounds, then those with ties once more, step by step."""
    points = points.double()
    needed = valid.sum(1) - k  # (B,) merges
    leader, tied = _rounds(points, valid, needed)
    again = tied.nonzero().squeeze(1)
    if len(again):
        leader[again] = _chain(points[again], valid[again], needed[again])
    return _number(leader, valid)


def _cut(dead: Tensor, into: Tensor, height: Tensor, needed: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The clusters after the `needed` lowest merges; of equal height, those that were listed first.

    Args:
        dead, into: (B, m) the point that stands for a cluster that ends, and the one of the cluster that it joins; n
            where there is none.
        height: (B, m).
        needed: (B,).
        n: points a set.

    Returns:
        (B, n) one point that stands for each point's cluster, and (B, m) the heights, sorted.
    """
    height, order = height.sort(dim=1, stable=True)
    dead, into = dead.gather(1, order), into.gather(1, order)
    lowest = torch.arange(dead.shape[1], device=dead.device) < needed[:, None]
    leader = torch.arange(n + 1, device=dead.device).repeat(len(dead), 1)
    leader.scatter_(1, dead, torch.where(lowest, into, dead))
    for _ in range((n - 1).bit_length()):  # each pass doubles the length of the path that a point has gone
        leader = leader.gather(1, leader)
    return leader[:, :n], height


@dataclass(frozen=True)
class _Pairs:
    """T pairs of clusters that merge: their distance and their numbers of points, each (T, 1)."""

    merged: Tensor
    one_size: Tensor
    two_size: Tensor

    def distance(self, one: Tensor, two: Tensor, size: Tensor) -> Tensor:
        """(T, c) from the merger to other clusters of `size` (T, c), from those of its parts (Lance-Williams)."""
        found = one * (size + self.one_size)
        found.addcmul_(two, size + self.two_size).addcmul_(size, self.merged, value=-1)
        return found.div_(size + (self.one_size + self.two_size))


def _rounds(points: Tensor, valid: Tensor, needed: Tensor) -> tuple[Tensor, Tensor]:
    """Ward's clusters where no tie leaves a choice: all pairs of mutually nearest clusters merge in each round.

    Distances stand as their float64 bits, of which the lowest few are replaced by the number of the column: the minimum
    of a row is then both the distance and whose it is. (Bits of positive numbers are ordered as the numbers are.)

    Args:
        points: (B, n, d) float64.
        valid: (B, n) bool.
        needed: (B,) merges to make; none where below 1.

    Returns:
        (B, n) one point that stands for each point's cluster, and (B,) whether a tie left a choice in that set.
    """
    sets, n, _ = points.shape
    device = points.device
    low = (1 << (n - 1).bit_length()) - 1  # bits of a column's number
    high = (1 << 63) - 1 - low  # without the sign, too: what is below 0 is so by rounding

    points = points - points.sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]
    points = points.masked_fill_(~valid[:, :, None], 0.0)
    half = points.square().sum(2) / 2  # (B, n)
    zero = half.amax(1) * (2 * _ZERO)  # (B,)
    distance = half[:, :, None] + half[:, None]  # (B, n, n), of two points: 1 * 1 / (1 + 1) * ||a - b||^2
    distance.baddbmm_(points, points.mT, alpha=-1)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)

    # What is known of the sets, by point: which cluster it ended in, how high. Nothing is for the last of a set.
    into = torch.arange(n, device=device).repeat(sets, 1)
    height = torch.full((sets, n), _INFINITE, device=device)
    next_height = torch.full((sets,), _INFINITE, device=device)
    ties = torch.zeros(sets, dtype=torch.int64, device=device)

    # What is known of the c clusters of the b sets that are not done, c being the largest number in any of them.
    which = torch.arange(sets, device=device)  # (b,)
    alive, size = valid, torch.ones_like(half)  # (b, c)
    point = into.clone()  # (b, c), that stands for the cluster: its first one
    while True:
        b, c = alive.shape
        column = torch.arange(c, device=device)
        absent = torch.where(alive, 0, _INFINITE)  # (b, c)
        packed = (distance.view(torch.int64) & high).bitwise_or_((absent | column)[:, None])
        nearest = packed.amin(2) | absent  # (b, c)
        partner = nearest & low
        closest = nearest.amin(1).clamp(max=_INFINITE)  # (b,)
        next_height.index_copy_(0, which, closest)

        # A set is done when `needed` merges are known to be lower than all that are still to come.
        done = (height.index_select(0, which) <= closest[:, None]).sum(1) >= needed.index_select(0, which)
        ends = (partner.gather(1, partner) == column) & (partner < column) & (nearest < _INFINITE)
        stuck = ~(done | ends.any(1))  # happens where rounding makes a ring of ties, no two of them mutual
        ties.index_add_(0, which, stuck.long())
        done |= stuck
        ends &= ~done[:, None]
        going = (~done).nonzero().squeeze(1)
        if len(going) == 0:
            break

        # The T pairs of this round, over all sets: row (set * c + cluster) `two` joins row `one`.
        two = ends.view(-1).nonzero().squeeze(1)  # (T,)
        place = two // c  # (T,) in `which`
        start = place * c
        one = start + partner.view(-1).index_select(0, two)
        bits = nearest.view(-1).index_select(0, two) & high
        at = which.index_select(0, place)  # (T,) set
        end = at * n + point.view(-1).index_select(0, two)
        into.view(-1).index_copy_(0, end, point.view(-1).index_select(0, one))
        height.view(-1).index_copy_(0, end, bits)

        # The clusters that are left move up; places behind the last one of a set hold anything and are not alive.
        left = alive & ~ends
        count = left.sum(1).index_select(0, going)
        width = int(count.max())
        position = left.cumsum(1) - 1
        rows = torch.zeros((b, c + 1), dtype=torch.int64, device=device)
        rows = rows.scatter_(1, torch.where(left, position, c), column.expand(b, c))[:, :width].index_select(0, going)

        pair = _Pairs(
            merged=bits.view(torch.float64)[:, None],
            one_size=size.view(-1).index_select(0, one)[:, None],
            two_size=size.view(-1).index_select(0, two)[:, None],
        )
        # Both sides of the matrix in turn: merge its rows, turn it over, merge its rows.
        matrix = distance.view(b * c, c)
        first, second = matrix.index_select(0, one), matrix.index_select(0, two)  # (T, c)
        near = (torch.minimum(first, second) <= pair.merged * (1 + _TIE)) & alive.index_select(0, place)
        tie = (near.sum(1) > 2) & (pair.merged[:, 0] > zero.index_select(0, at))  # a third one is as near
        ties.index_add_(0, at, tie.long())
        merged = pair.distance(first, second, size.index_select(0, place))

        set_of = (~done).cumsum(0) - 1  # place in `which` -> place in `which[going]`
        place = set_of.index_select(0, place)
        target = place * width + position.view(-1).index_select(0, one)
        kept = (rows + going[:, None] * c).view(-1)
        matrix = matrix.index_select(0, kept).index_copy_(0, target, merged)
        matrix = matrix.view(-1, width, c).mT.reshape(-1, width)  # (b * c, width)

        size.view(-1).index_copy_(0, one, (pair.one_size + pair.two_size)[:, 0])
        size = size.view(-1).index_select(0, kept).view(-1, width)
        point = point.view(-1).index_select(0, kept).view(-1, width)
        alive = column[:width] < count[:, None]
        which = which.index_select(0, going)

        shift = place * c - start
        first, second = matrix.index_select(0, one + shift), matrix.index_select(0, two + shift)  # (T, width)
        kept = (rows + torch.arange(len(going), device=device)[:, None] * c).view(-1)
        merged = pair.distance(first, second, size.index_select(0, place))
        distance = matrix.index_select(0, kept).index_copy_(0, target, merged).view(-1, width, width)

    leader, lowest = _cut(torch.arange(n, device=device).expand(sets, n), into, height, needed, n)
    last = lowest.gather(1, (needed - 1).clamp(min=0)[:, None])[:, 0].view(torch.float64)
    following = torch.minimum(lowest.gather(1, needed.clamp(min=0)[:, None])[:, 0], next_height).view(torch.float64)
    at_cut = (following <= last * (1 + _TIE)) & (following > zero) & (needed > 0)
    return leader, (ties > 0) | at_cut


def _chain(points: Tensor, valid: Tensor, needed: Tensor) -> Tensor:
    """Ward's clusters where ties leave a choice, which is then that of SciPy, and so of scikit-learn.

    SciPy follows a chain: from the first cluster to its nearest, from that to its nearest and so on (the previous one
    if it is as near, else the first of the nearest), until two are mutually nearest; they merge, and the chain goes on
    from what is left of it. In the end the merges are sorted, stably. The same here, a step of all sets at a time, with
    the same operations on float64 in the same order, as ties are often broken by what rounding left.

    Args:
        points: (B, n, d) float64.
        valid: (B, n) bool.
        needed: (B,) merges to make.

    Returns:
        (B, n) one point that stands for each point's cluster.
    """
    sets, n, _ = points.shape
    device = points.device
    distance = points.new_zeros(sets, n, n)
    for values in points.unbind(2):
        distance += (values[:, :, None] - values[:, None]) ** 2
    distance = _root(distance)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)

    row = torch.arange(sets, device=device)
    size = valid.double()  # 0 for what has merged into another
    merges = valid.sum(1) - 1
    made = torch.zeros_like(merges)
    chain = torch.zeros((sets, n + 2), dtype=torch.int64, device=device)
    length = torch.zeros_like(merges)
    dead = torch.full((sets, n), n, device=device)  # the last column is never a merge
    into, height = dead.clone(), torch.full((sets, n), torch.inf, dtype=torch.float64, device=device)
    for _ in range(3 * n):  # each step makes the chain longer or merges; it grows by 2 for each merge, at most
        going = made < merges
        start = length == 0
        tip = torch.where(start, (size > 0).int().argmax(1), chain[row, (length - 1).clamp(min=0)])
        length = torch.where(start, 1, length)
        chain[row, length - 1] = tip
        near, nearest = distance[row, tip].masked_fill(size == 0, torch.inf).min(1)  # of several, the first
        previous = chain[row, (length - 2).clamp(min=0)]
        back = distance[row, tip, previous]
        mutual = (length > 1) & (back <= near)

        # Where not mutual: one longer. Where mutual: two shorter, and the smaller index joins the larger one.
        chain[row, length] = nearest
        x, y = torch.minimum(tip, previous), torch.maximum(tip, previous)
        merge = mutual & going
        place = torch.where(merge, made, n - 1)
        dead[row, place] = torch.where(merge, x, dead[row, place])
        into[row, place] = torch.where(merge, y, into[row, place])
        height[row, place] = torch.where(merge, back, height[row, place])

        size_x, size_y = size[row, x][:, None], size[row, y][:, None]
        t = 1.0 / (size_x + size_y + size)  # (b, n)
        to_x, to_y, between = distance[row, x], distance[row, y], back[:, None]
        found = (size + size_x) * t * to_x * to_x + (size + size_y) * t * to_y * to_y - size * t * between * between
        found = torch.where(merge[:, None], _root(found.clamp_(min=0)), to_y)
        distance[row, y] = found
        distance[row, :, y] = found
        size[row, y] = torch.where(merge, size_x[:, 0] + size_y[:, 0], size_y[:, 0])
        size[row, x] = torch.where(merge, 0.0, size[row, x])
        length = torch.where(going, torch.where(mutual, length - 2, length + 1), length)
        made = made + merge
    return _cut(dead, into, height, needed, n)[0]


def _root(values: Tensor) -> Tensor:
    """Square roots, correctly rounded as C's are. (PyTorch's on the CPU come from MKL; one in a hundred is not.)"""
    return torch.from_numpy(np.sqrt(values.numpy())) if values.device.type == "cpu" else values.sqrt()


# --- K-means ----------------------------------------------------------------------------------------------------------


def _kmeans(points: Tensor, k: int, valid: Tensor, iterations: int) -> Tensor:
    """Labels of one chunk."""
    centres, used = _far_apart(points, k, valid)
    weight = valid.to(points.dtype)[:, None]  # (B, 1, n)
    number = torch.arange(k, device=points.device)[:, None]
    label: Tensor | None = None
    for step in range(iterations + 1):
        norm = centres.square().sum(2).masked_fill_(~used, torch.inf)  # (B, k)
        # ||x||^2 is the same for all centres of a point: ||c||^2 - 2 x c has its minimum where the distance has.
        nearest = torch.baddbmm(norm[:, :, None], centres, points.mT, alpha=-2).argmin(1)  # (B, n)
        if step == iterations or (label is not None and torch.equal(nearest, label)):
            break
        label = nearest
        member = (label[:, None] == number) * weight  # (B, k, n)
        count = member.sum(2)[:, :, None]
        centres = torch.where(count > 0, torch.bmm(member, points) / count.clamp(min=1), centres)
    return _number(nearest, valid, k)


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
