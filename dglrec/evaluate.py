"""Ranking metrics of any model, over the full catalogue or given candidates, with the protocol beside them.

A block of queries is scored at a time, and each positive is compared with its whole row (where a query has several,
those that a cut may reach): `greater` counts the items that score higher, `equal` the block of items that score the
same (the positive among them). Rows are not sorted, and no scores are kept. All metrics follow from those two numbers,
as their *mean over the orders of tied items*: a positive has each rank from greater + 1 to greater + equal with the
same probability, so that a model which gives all items the same score gets chance level, recall@k = k / M.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from .config import CUTS, is_whole
from .data.flat import among
from .data.queries import Queries
from .errors import ConfigError, DataError, closest
from .protocol import Protocol

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

AT_K = ("recall", "ndcg", "mrr", "hit", "precision")  # "mrr" also gives the reciprocal rank without a cut
WHOLE = ("auc", "auc_pooled")  # metrics of the whole ranking
_BLOCK_QUERIES = 1024  # queries whose vectors are made at once
BLOCK_SCORES = 1 << 24  # most scores per block, for models that make all of a block at once: 64 MiB of float32
_SLICE_SCORES = {"cpu": 1 << 20, "cuda": 1 << 26}  # scores made and compared at once: 4 MiB stay in a CPU's cache
_BEYOND = 2**31 - 1  # the largest cut, and `greater` of a positive that no cut reaches


class Metrics(Mapping[str, float]):
    """Metric names to values ("recall@10": 0.0826), with the protocol that they were measured under.

    Attributes:
        protocol: how they were measured.
        standard_errors: by name, with queries taken as independent; see `user_bootstrap` for users with several. Empty
            for a single query, which does not tell how much others would vary.
        queries: number of queries.
        seconds: seconds of the evaluation, scoring included.
        per_query: name -> (Q,) values of each query, if requested. "auc_pooled" is not a mean over queries;
            its values here are those of `pooled_auc`, whose mean it is.
    """

    def __init__(
        self,
        values: Mapping[str, float],
        protocol: Protocol,
        standard_errors: Mapping[str, float] | None = None,
        seconds: float = 0.0,
        per_query: Mapping[str, Floats] | None = None,
    ) -> None:
        self._values = dict(values)
        self.protocol = protocol
        self.standard_errors = dict(standard_errors or {})
        self.seconds = seconds
        self.per_query = per_query

    @property
    def queries(self) -> int:
        """Number of queries."""
        return self.protocol.queries

    def __getitem__(self, name: str) -> float:
        if name not in self._values:
            raise KeyError(f"no metric {name!r}; {closest(name, self._values)}")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Metrics({', '.join(f'{name}={value:.4f}' for name, value in self.items())})"

    def __str__(self) -> str:
        """The protocol, then the table."""
        errors = f"+- standard error of the mean over {self.queries:,} queries"
        errors = errors if self.standard_errors else "no standard errors: they need at least two queries"
        return f"{self.protocol}\n\n{self.table()}\n({errors}; measured in {self.seconds:.1f} s)"

    def table(self) -> str:
        """The metrics as text: a row for each metric, a column for each cut."""
        cuts = sorted({int(name.partition("@")[2]) for name in self if "@" in name})
        rows = list(dict.fromkeys(name.partition("@")[0] for name in self))
        whole = any("@" not in name for name in self)
        head = [f"@{k}" for k in cuts] + (["all"] if whole else [])
        lines = [" " * 12 + "".join(f"{column:>16}" for column in head)]
        for row in rows:
            names = [f"{row}@{k}" for k in cuts] + ([row] if whole else [])
            lines.append(f"{row:<12}" + "".join(f"{self._cell(name):>16}" for name in names))
        return "\n".join(lines)

    def _cell(self, name: str) -> str:
        if name not in self:
            return ""
        error = self.standard_errors.get(name)
        return f"{self[name]:.4f}" + ("" if error is None else f" +-{error:.4f}")

    def to_dict(self) -> dict[str, Any]:
        """Values, standard errors, seconds and protocol as JSON-able values (not `per_query`)."""
        return {
            "metrics": dict(self._values),
            "standard_errors": self.standard_errors,
            "seconds": self.seconds,
            "protocol": self.protocol.to_dict(),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1)


def evaluate(
    model: Any,
    queries: Queries,
    *,
    k: Sequence[int] | int | None = None,
    metrics: Sequence[str] | str | None = None,
    seen: Literal["mask", "keep"] | None = None,
    ties: Literal["expected", "pessimistic"] = "expected",
    block: int | None = None,
    per_query: bool = False,
    progress: Callable[[int, int], object] | bool | None = None,
) -> Metrics:
    """Rank items for each query and average the metrics.

    Args:
        model: anything with `scores(queries, items=None)` -> (B, M), or (B, C) for items (B, C), whose rows may end in
            padding, item 0; `score_slices` is used where there is one (see `Model`). A model whose `beam` is a number
            is generative: its `top(queries, beam)` -> (ids (B, beam), scores) is the ranking, best first, -1 where a
            list ends early.
        queries: histories and positives; where they hold candidates, only those are ranked.
        k: cuts of the ranking; None: 5, 10, 20 and 50, or those of them that a generative model's list reaches and the
            list's length.
        metrics: of "recall", "ndcg", "mrr", "hit", "precision" (at each k; "mrr" also without a cut), "auc" (per query)
            and "auc_pooled" (over all pairs of query and candidate: scores of different queries are compared as they
            are). None: recall and ndcg, with candidates auc too, and auc_pooled where queries have several targets, as
            those of windows do (one among 1 + 999 is read by its rank, and all pairs would take long to sort).
        seen: "mask" takes the items of the history out of the ranking, though never a query's own positive; "keep"
            leaves all in; None takes `model.config.seen`, and masks where that is not set.
        ties: "expected" means over the orders of items of one score, "pessimistic" puts positives after them.
        block: queries encoded at a time; None: 1,024, fewer where their scores would take more than 64 MiB.
        per_query: keep the values of each query as well.
        progress: True for a bar, or a function of (queries done, queries in all).

    Returns:
        Metrics, a mapping from names such as "recall@5" to means, with `.protocol` and `.standard_errors`.

    Raises:
        DataError: a score is NaN; the queries are none, or come from another split than the model; a query has no
            positive.
        ConfigError: a wrong k; an unknown metric, or one that the model cannot give.
    """
    start = time.perf_counter()
    if not isinstance(queries, Queries):
        raise DataError(f"evaluate needs queries, such as split.test, and got {type(queries).__name__}")
    beam = getattr(model, "beam", None)
    cuts = _checked_cuts(default_cuts(beam) if k is None else k, beam)
    wanted = _wanted(metrics, queries, beam)
    masked = str(seen or getattr(getattr(model, "config", None), "seen", "mask"))
    _choice("seen", masked, ("mask", "keep"))
    _choice("ties", ties, ("expected", "pessimistic"))
    check_split(model, queries)
    _check_queries(queries)
    parts: list[dict[str, Floats]] = []
    ranker = _Ranker(model, masked, wanted, max(cuts))
    with eval_mode(model), torch.no_grad():
        for part in blocks(queries, block_size(model, queries, beam) if block is None else block, progress):
            ranks = ranker.scored(part) if beam is None else ranker.listed(part, beam)
            ranks = ranks.pessimistic() if ties == "pessimistic" else ranks
            parts.append(query_metrics(ranks, wanted, cuts, whole=beam is None))
    each = {name: np.concatenate([values[name] for values in parts]) for name in parts[0]}
    means = {name: float(values.mean()) for name, values in each.items()}
    if "auc_pooled" in wanted:
        query, scores, positive = (np.concatenate(part) for part in zip(*ranker.pairs, strict=True))
        means["auc_pooled"], each["auc_pooled"] = pooled_auc(query, scores, positive, len(queries), ties)
    split = getattr(model, "split", None) if queries.split_digest else None
    protocol = Protocol.of(queries, split, seen=masked, metrics=means, ties=ties, beam=beam)
    errors = {name: _standard_error(values) for name, values in each.items()} if len(queries) > 1 else {}
    return Metrics(means, protocol, errors, time.perf_counter() - start, each if per_query else None)


def check_split(model: Any, queries: Queries) -> None:
    """Refuse to evaluate a model on queries that it may have learnt from.

    Raises:
        DataError: the queries were cut by another split than the model's, or, where the split is by time, the model's
            training log reaches into the time of the queries.
    """
    split = getattr(model, "split", None)
    if split is None:
        return
    if queries.split_digest and queries.split_digest != split.digest:
        raise DataError(
            f"the model was made from split {split.digest[:12]}, the queries of split {queries.split_digest[:12]}: it "
            "may have trained on their targets; evaluate on model.split.valid or .test, or train a model on this split"
        )
    if split.kind == "time" and queries.time is not None and split.train.time is not None and len(queries):
        last, first = float(split.train.time.max()), float(queries.time.min())
        if last >= first:
            raise DataError(
                f"the model's training log reaches to time {last:.0f}, the queries begin at {first:.0f}: "
                "a split by time must end its training log before its first query"
            )


# --- From scores to ranks ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ranks:
    """The ranks of the positives of B queries; positive p belongs to query `row[p]`, rows ascend.

    Attributes:
        row: (P,) query of each positive.
        greater: (P,) items of its row that score higher.
        equal: (P,) items of its row that score the same, itself among them.
        tied: (P,) positives of its row that score the same, itself among them.
        positives: (B,) positives of each query.
        ranked: (B,) items in each ranking, positives among them; empty if not requested.
    """

    row: Ints
    greater: Ints
    equal: Ints
    tied: Ints
    positives: Ints
    ranked: Ints

    @classmethod
    def of(cls, row: Ints, greater: Ints, equal: Ints, num_queries: int, ranked: Ints | None = None) -> Ranks:
        """Ranks with the numbers of positives counted: those of a row with equal `greater` are tied."""
        positives = np.bincount(row, minlength=num_queries)
        tied = np.ones_like(row)
        if len(row) > num_queries:
            _, inverse, counts = np.unique(_keys(row, greater), return_inverse=True, return_counts=True)
            tied = counts[inverse.reshape(-1)]
        return cls(row, greater, equal, tied, positives, np.zeros(0, np.int64) if ranked is None else ranked)

    def pessimistic(self) -> Ranks:
        """The same with every positive after the other items of its score."""
        greater = self.greater + self.equal - self.tied
        return Ranks(self.row, greater, self.tied, self.tied, self.positives, self.ranked)


class _Ranker:
    """Turns the scores of a block of queries into `Ranks`; its work space is used again from block to block."""

    def __init__(self, model: Any, seen: str, metrics: Sequence[str], last_cut: int) -> None:
        self.model, self.seen, self.metrics = model, seen, metrics
        self.reach = 0 if {"mrr", *WHOLE} & set(metrics) else last_cut  # places that matter; 0: all
        self.pairs: list[tuple[Ints, Floats, Flags]] = []  # query, score, is it positive; for "auc_pooled"
        self.work = torch.empty(2, 0)
        self.done = 0  # queries ranked so far, for messages

    def scored(self, queries: Queries) -> Ranks:
        """Ranks by the model's scores of all items, or of the queries' candidates."""
        if queries.candidates is None:
            row, counts = _spread(queries.target_offsets), self._rank_all(queries)
        else:
            items = _padded(queries.candidate_offsets, queries.candidates)
            device = getattr(self.model, "device", "cpu")
            scores = self.model.scores(queries, items=torch.from_numpy(np.maximum(items, 0)).to(device))
            scores = self._check(scores, (len(queries), items.shape[1])).clone()
            row, col, hidden = _candidate_cells(queries, self.seen, items, self.done)
            counts = self._rank(scores, row, col, hidden)
            self.done += len(queries)
        greater, equal, ranked = (part.cpu().numpy() for part in counts)
        return Ranks.of(row, greater, equal, len(queries), ranked)

    def _rank_all(self, queries: Queries) -> tuple[torch.Tensor, ...]:
        """`_rank` over all items, one slice of the queries after another."""
        cells, parts, first = None, [], 0
        for scores in self._slices(queries):
            last = first + len(self._check(scores))
            if cells is None:
                row, col, hidden = cells = _full_cells(queries, self.seen, scores.shape[1])
            own, hide = (slice(*np.searchsorted(rows, (first, last))) for rows in (row, hidden[0]))
            parts.append(self._rank(scores, row[own] - first, col[own], (hidden[0][hide] - first, hidden[1][hide])))
            self.done += len(scores)
            first = last
        if first != len(queries):
            raise DataError(f"{self._name} gave scores of {first} queries; expected {len(queries)}")
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _slices(self, queries: Queries) -> Iterator[torch.Tensor]:
        """Scores of all items that may be overwritten, a few queries at a time."""
        slices = getattr(self.model, "score_slices", None)
        if slices is None:
            yield self.model.scores(queries).clone()
        else:
            yield from slices(queries, _SLICE_SCORES.get(torch.device(self.model.device).type, 1 << 20))

    def _rank(self, scores: torch.Tensor, row: Ints, col: Ints, hidden: tuple[Ints, Ints]) -> tuple[torch.Tensor, ...]:
        """(P,) greater and (P,) equal of each positive (row, col), (B,) ranked; hides cells in `scores` itself."""
        scores = scores if scores.dtype == torch.float64 else scores.float()
        if len(hidden[0]):  # NaN is neither greater than nor equal to anything
            scores[_to(hidden, scores.device)] = math.nan
        ranked = torch.empty(0, dtype=torch.int64)
        if "auc" in self.metrics:
            out = np.bincount(np.unique(_keys(*hidden)) >> 32, minlength=len(scores))
            ranked = torch.from_numpy(scores.shape[1] - out)
        if "auc_pooled" in self.metrics:
            self.pairs.append(_pairs(scores, row, col, self.done))
        at = _to((row, col), scores.device)
        target = scores[at]  # (P,)
        if len(row) == len(scores):  # one of each row, in order
            return *self._count(scores, None, target), ranked
        near = self._near(scores, at[0], target)
        greater, equal = torch.full_like(at[0], _BEYOND), torch.ones_like(at[0])
        greater[near], equal[near] = self._count(scores, at[0][near], target[near])
        return greater, equal, ranked

    def _near(self, scores: torch.Tensor, row: torch.Tensor, target: torch.Tensor) -> torch.Tensor | slice:
        """Which targets (P,) may be within `reach`, as numbers or all of them.

        Items are dealt to groups. Where the best of `reach` groups score above a target, so do `reach` items at least.
        """
        groups = 4 * self.reach
        size = scores.shape[1] // groups if groups else 0
        if size < 2:
            return slice(None)
        best = scores[:, : size * groups].unflatten(1, (size, groups)).amax(1)  # (B, groups), NaN where one is hidden
        bound = torch.where(best.isnan(), -math.inf, best).topk(self.reach, sorted=False).values.amin(1)  # (B,)
        return (target >= bound[row]).nonzero().squeeze(1)

    def listed(self, queries: Queries, beam: int) -> Ranks:
        """Ranks by a generative model's list; a positive that is not in it comes after every cut."""
        ids = torch.as_tensor(self.model.top(queries, beam)[0]).cpu().numpy()  # (B, beam), -1 where there are fewer
        row = _spread(queries.target_offsets)
        wanted = _keys(row, queries.targets)
        keys = _keys(np.arange(len(ids))[:, None], ids)
        drop = (ids < 0) | _repeated(keys)
        if self.seen == "mask":
            drop |= np.isin(keys, np.setdiff1d(_keys(_spread(queries.offsets), queries.items), wanted))
        rank = np.cumsum(~drop, axis=1)  # 1 for the first item that stays
        _, where, which = np.intersect1d(np.where(drop, -1, keys), wanted, return_indices=True)
        greater = np.full(len(row), _BEYOND, np.int64)
        greater[which] = rank.reshape(-1)[where] - 1
        alone = np.ones_like(row)
        return Ranks(row, greater, alone, alone, np.diff(queries.target_offsets), np.zeros(0, np.int64))

    def _check(self, scores: torch.Tensor, wanted: tuple[int, int] | None = None) -> torch.Tensor:
        """The scores, if they have the right shape (any of two dimensions for None) and no NaN among them."""
        shape = tuple(scores.shape)
        if len(shape) != 2 or wanted not in (None, shape):
            raise DataError(f"{self._name} gave scores of shape {shape}; expected {wanted or '(queries, items)'}")
        if not scores.is_floating_point():
            raise DataError(f"{self._name} gave scores of type {scores.dtype}; expected floating point numbers")
        bad = scores.amax(1).isnan()  # the largest of a row with a NaN is NaN
        if bool(bad.any()):
            query = self.done + int(bad.nonzero()[0, 0])
            raise DataError(f"{self._name} gave NaN scores, first for query {query}; did training diverge?")
        return scores

    @property
    def _name(self) -> str:
        name = getattr(self.model, "preset", None)
        return f"model {name!r}" if isinstance(name, str) else f"model {type(self.model).__name__}"

    def _count(
        self, scores: torch.Tensor, row: torch.Tensor | None, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(P,) greater and (P,) equal of targets (P,) in the rows (P,); row None: target p is of row p.

        The outcome is written as floats, which torch sums 20 times faster than truth values, in chunks that
        stay in the cache.
        """
        num_items = scores.shape[1]
        step = max(1, _SLICE_SCORES.get(scores.device.type, 1 << 20) // max(1, num_items))
        greater, equal = torch.empty(2, len(target), dtype=torch.int64, device=scores.device)
        most = min(step, len(target)) * num_items
        if self.work.shape[1] < most:
            self.work = scores.new_empty(2, most)
        exact = torch.float64 if num_items > 1 << 24 else torch.float32  # float32 counts no further than 2^24
        for start in range(0, len(target), step):
            part = slice(start, start + step)
            asked = target[part].unsqueeze(1)
            copy, flags = self.work[:, : len(asked) * num_items].unflatten(1, (len(asked), num_items))
            cells = scores[part] if row is None else torch.index_select(scores, 0, row[part], out=copy)
            greater[part] = torch.gt(cells, asked, out=flags).sum(1, dtype=exact)
            equal[part] = torch.ge(cells, asked, out=flags).sum(1, dtype=exact) - greater[part]
        return greater, equal


def _full_cells(queries: Queries, seen: str, num_items: int) -> tuple[Ints, Ints, tuple[Ints, Ints]]:
    """Rows and columns of the positives in (B, M), and of the cells to hide."""
    row, col = _spread(queries.target_offsets), queries.targets
    last = max(col.max(), queries.items.max(initial=0))
    if last >= num_items:
        raise DataError(f"item {last} is in a query, but the model scores {num_items} items; are both of one log?")
    if seen == "keep" or not len(queries.items):
        return row, col, (row[:0], col[:0])
    rows, cols = _spread(queries.offsets), queries.items
    stay = ~among(_keys(rows, cols), np.sort(_keys(row, col)))
    return row, col, (rows[stay], cols[stay])


def _candidate_cells(queries: Queries, seen: str, items: Ints, done: int) -> tuple[Ints, Ints, tuple[Ints, Ints]]:
    """Rows and columns of the positives in (B, C), and of the cells to hide: padding, and what was seen."""
    keys = _keys(np.arange(len(items))[:, None], items)
    positive = among(keys, np.sort(_keys(_spread(queries.target_offsets), queries.targets)))
    wrong = np.flatnonzero(positive.sum(1) != np.diff(queries.target_offsets))
    if len(wrong):
        raise DataError(f"query {done + wrong[0]}: each of its positives must be among its candidates exactly once")
    hide = items < 0
    if seen == "mask":
        hide |= among(keys, np.sort(_keys(_spread(queries.offsets), queries.items))) & ~positive
    row, col = positive.nonzero()
    return row.astype(np.int64), col.astype(np.int64), (hide.nonzero()[0], hide.nonzero()[1])


def _pairs(scores: torch.Tensor, row: Ints, col: Ints, first: int) -> tuple[Ints, Floats, Flags]:
    """Query, score and truth of all (query, candidate) pairs that are ranked; the block begins at query `first`."""
    cells = scores.cpu().numpy()
    positive = np.zeros(cells.shape, bool)
    positive[row, col] = True
    ranked = ~np.isnan(cells)
    return first + ranked.nonzero()[0], cells[ranked].astype(np.float64), positive[ranked]


def _padded(offsets: Ints | None, values: npt.NDArray[np.signedinteger[Any]]) -> Ints:
    """Packed values as (B, longest), -1 after the end of a row."""
    assert offsets is not None
    lengths = np.diff(offsets)
    inside = np.arange(lengths.max()) < lengths[:, None]
    table = np.full(inside.shape, -1, np.int64)
    table[inside] = values
    return table


def _spread(offsets: Ints) -> Ints:
    """Row of each packed value: offsets [0, 2, 3] -> [0, 0, 1]."""
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))


def _keys(row: Ints, item: Ints) -> Ints:
    """One number for each pair of row and item (or count), below 2^31 each."""
    return (row << 32) + item


def _repeated(keys: Ints) -> Flags:
    """Which entries occurred before, in reading order."""
    again = np.ones(keys.size, bool)
    again[np.unique(keys, return_index=True)[1]] = False
    return again.reshape(keys.shape)


def _to(arrays: tuple[Ints, Ints], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(arrays[0]).to(device), torch.from_numpy(arrays[1]).to(device)


# --- From ranks to metrics -----------------------------------------------------------------------------------------


def query_metrics(ranks: Ranks, metrics: Iterable[str], cuts: Sequence[int], whole: bool = True) -> dict[str, Floats]:
    """Metrics of each query, name -> (B,), as their mean over the orders of tied items.

    Recall, precision, DCG and AUC are sums over positives, and each positive is spread evenly over its tied block. A
    hit and the reciprocal rank depend on the *first* positive: the t positives of the best block of n items are drawn
    without replacement, so that none is in the first j places with probability C(n - t, j) / C(n, j).

    Args:
        ranks: of the positives.
        metrics: names; "auc_pooled" is left out, as it is not a metric of a query.
        cuts: the k.
        whole: also give "mrr" without a cut.
    """
    places = min(max(cuts), int((ranks.greater + ranks.equal).max()))  # a cut may be far beyond the last item
    gains = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(places) + 2))])  # gains[r]: DCG of r hits on top
    table: dict[str, Floats] = {}
    for name in metrics:
        if name == "auc":
            table["auc"] = _auc(ranks)
        if name == "mrr" and whole:
            table["mrr"] = _reciprocal_rank(ranks)
        for k in cuts if name in AT_K else ():
            table[f"{name}@{k}"] = _AT_K[name](ranks, k, gains)
    return table


def _sum(ranks: Ranks, values: Floats) -> Floats:
    """(B,) sums over the positives of each query of `values` (P,)."""
    return np.bincount(ranks.row, values, len(ranks.positives)).astype(np.float64)


def _hits(ranks: Ranks, k: int) -> Floats:
    """(B,) expected number of positives in the first k places."""
    return _sum(ranks, np.clip(k - ranks.greater, 0, ranks.equal) / ranks.equal)


def _recall(ranks: Ranks, k: int, gains: Floats) -> Floats:
    return _hits(ranks, k) / ranks.positives


def _precision(ranks: Ranks, k: int, gains: Floats) -> Floats:
    return _hits(ranks, k) / k


def _ndcg(ranks: Ranks, k: int, gains: Floats) -> Floats:
    """DCG over that of min(k, positives) hits on top."""
    gain = (gains[np.minimum(k, ranks.greater + ranks.equal)] - gains[np.minimum(k, ranks.greater)]) / ranks.equal
    return _sum(ranks, gain) / gains[np.minimum(k, ranks.positives)]


def _row_sum(values: Floats) -> Floats:
    return np.asarray(values.sum(1), np.float64)


def _best(ranks: Ranks) -> tuple[Ints, Ints, Ints]:
    """(B,) greater, equal and tied of the best block of each query that holds a positive."""
    order = np.lexsort((ranks.greater, ranks.row))
    first = order[np.concatenate([[0], np.cumsum(ranks.positives)[:-1]])]
    return ranks.greater[first], ranks.equal[first], ranks.tied[first]


def _first_place(equal: Ints, tied: Ints, places: int) -> Floats:
    """(B, places) chance that the first of `tied` positives in a block of `equal` is at place 1, 2, ... of it."""
    place = np.arange(places)
    others, left = equal[:, None] - tied[:, None] - place, equal[:, None] - place  # (B, places)
    none_yet = np.cumprod(np.maximum(others, 0) / np.maximum(left, 1), axis=1)
    return -np.diff(none_yet, axis=1, prepend=1.0)


def _most_places(equal: Ints, tied: Ints) -> int:
    """Places of a block in which its first positive may be, in the longest of the blocks."""
    return int((equal - tied).max()) + 1


def _hit(ranks: Ranks, k: int, gains: Floats) -> Floats:
    greater, equal, tied = _best(ranks)
    chance = _first_place(equal, tied, min(k, _most_places(equal, tied)))
    rank = np.arange(1, chance.shape[1] + 1) + greater[:, None]
    return _row_sum(np.where(rank <= k, chance, 0.0))


def _reciprocal_rank_at(ranks: Ranks, k: int, gains: Floats) -> Floats:
    greater, equal, tied = _best(ranks)
    chance = _first_place(equal, tied, min(k, _most_places(equal, tied)))
    rank = np.arange(1, chance.shape[1] + 1) + greater[:, None]
    return _row_sum(np.where(rank <= k, chance / rank, 0.0))


def _reciprocal_rank(ranks: Ranks) -> Floats:
    """(B,) mean of 1 / rank of the first positive; the many queries with one block in common are computed once."""
    blocks, inverse = np.unique(np.stack(_best(ranks)), axis=1, return_inverse=True)
    values = np.empty(blocks.shape[1])
    for start in range(0, len(values), 64):
        greater, equal, tied = blocks[:, start : start + 64]
        places = _most_places(equal, tied)
        rank = np.arange(1, places + 1) + greater[:, None]
        values[start : start + 64] = _row_sum(_first_place(equal, tied, places) / rank)
    return values[inverse.reshape(-1)]


def _auc(ranks: Ranks) -> Floats:
    """(B,) chance that a positive ranks before a negative, from the sum of the positives' ranks."""
    negatives = ranks.ranked - ranks.positives
    if not negatives.all():
        raise DataError("a query has no negative to rank; auc needs one in each query")
    total = _sum(ranks, ranks.greater + (ranks.equal + 1) / 2)
    return 1 - (total - ranks.positives * (ranks.positives + 1) / 2) / (ranks.positives * negatives)


def pooled_auc(
    query: Ints, scores: Floats, positive: Flags, num_queries: int, ties: str = "expected"
) -> tuple[float, Floats]:
    """Chance that a positive pair scores above a negative one, over the pairs of all queries together.

    It is not a mean over queries, as pairs of different queries meet. To first order it is: with P positives and N
    negatives in all, of which query q holds n_q and m_q, let A_q be the sum over its positives of the share of all
    negatives that score lower, and B_q the sum over its negatives of the share of all positives that score higher
    (ties count half). Then AUC = sum A_q / P = sum B_q / N, and the values

        AUC + Q ((A_q - AUC n_q) / P + (B_q - AUC m_q) / N)

    have the AUC as their mean, and its standard error as theirs. DeLong et al., Biometrics 1988; for pairs that come in
    clusters Obuchowski, Biometrics 1997.

    Args:
        query: (n,) of each pair, from 0.
        scores: (n,).
        positive: (n,) whether the pair is a positive one.
        num_queries: Q.
        ties: "expected", or "pessimistic": a negative of the same score counts as higher.

    Returns:
        The AUC, and a value for each query, (Q,).

    Raises:
        DataError: there is no positive, or no negative.
    """
    num_positives = int(positive.sum())
    num_negatives = len(positive) - num_positives
    if num_positives == 0 or num_negatives == 0:
        raise DataError("no query has a negative to rank; auc_pooled needs one")
    distinct, level = np.unique(scores, return_inverse=True)  # the one sort
    positives, negatives = (np.bincount(level[part], minlength=len(distinct)) for part in (positive, ~positive))
    half = 0.5 if ties == "expected" else 0.0
    lower = np.cumsum(negatives) - negatives + half * negatives  # negatives below each score
    higher = num_positives - np.cumsum(positives) + half * positives  # positives above each score
    auc = float((positives * lower).sum() / (num_positives * num_negatives))
    influence = np.where(
        positive,
        (lower[level] / num_negatives - auc) / num_positives,
        (higher[level] / num_positives - auc) / num_negatives,
    )
    each = np.bincount(query, influence, num_queries).astype(np.float64)
    return auc, auc + num_queries * each


_AT_K: dict[str, Callable[[Ranks, int, Floats], Floats]] = {
    "recall": _recall,
    "ndcg": _ndcg,
    "mrr": _reciprocal_rank_at,
    "hit": _hit,
    "precision": _precision,
}


# --- Arguments, blocks, modes --------------------------------------------------------------------------------------


def default_cuts(beam: int | None) -> tuple[int, ...]:
    """The usual cuts; for a generative model those that its list reaches, and the end of the list."""
    return CUTS if beam is None else tuple(sorted({*(k for k in CUTS if k < beam), beam}))


def _checked_cuts(k: Sequence[int] | int, beam: int | None) -> list[int]:
    given = tuple(k) if isinstance(k, Iterable) else (k,)
    if not given or not all(is_whole(cut) and 1 <= cut <= _BEYOND for cut in given):
        raise ConfigError(f"k is {k!r}; expected positive whole numbers below 2^31, e.g. (10, 50)")
    cuts = sorted({int(cut) for cut in given})
    if beam is not None and cuts[-1] > beam:
        raise ConfigError(f"k={cuts[-1]} is more than the model's beam of {beam}; take a smaller k, or widen the beam")
    return cuts


def has_pools(queries: Queries) -> bool:
    """Whether a query has several targets among its candidates, where the pooled AUC is the usual metric."""
    return queries.candidates is not None and len(queries.targets) > len(queries)


def _wanted(metrics: Sequence[str] | str | None, queries: Queries, beam: int | None) -> list[str]:
    if metrics is None:
        metrics = ("recall", "ndcg")
        if queries.candidates is not None and beam is None:
            metrics = (*metrics, *WHOLE) if has_pools(queries) else (*metrics, "auc")
    wanted = list(dict.fromkeys((metrics,) if isinstance(metrics, str) else metrics))
    if not wanted:
        raise ConfigError("no metrics requested; known: " + ", ".join(AT_K + WHOLE))
    for name in wanted:
        if name not in AT_K + WHOLE:
            hint = "cuts go into k=" if "@" in name else closest(name, AT_K + WHOLE)
            raise ConfigError(f"unknown metric {name!r}; {hint}")
        if name in WHOLE and beam is not None:
            raise ConfigError(f"{name} needs a ranking of all items; this model gives a list of {beam}")
    if "auc_pooled" in wanted and queries.candidates is None:
        raise ConfigError("auc_pooled is measured over given candidates; these queries have none")
    if beam is not None and queries.candidates is not None:
        raise ConfigError("a generative model cannot rank given candidates; evaluate it on queries without them")
    return wanted


def _standard_error(values: Floats) -> float:
    """Of the mean of `values` (Q,), two or more."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; {closest(str(value), choices)}")


def _check_queries(queries: Queries) -> None:
    """At least one query, a positive in each; none twice, unless each is a separate candidate; items from 0."""
    if not len(queries):
        raise DataError("there are no queries to evaluate")
    counts = np.diff(queries.target_offsets)
    if not counts.all():
        raise DataError(f"query {int(np.argmin(counts))} has no positive, so that nothing can be measured")
    for items in (queries.targets, queries.items, queries.candidates):
        if items is not None and items.min(initial=0) < 0:
            raise DataError(f"item {items.min()} is in a query; expected numbers of items, from 0")
    if len(queries.targets) > len(queries) and queries.candidates is None:
        row = _spread(queries.target_offsets)
        twice = row[_repeated(_keys(row, queries.targets))]
        if len(twice):
            raise DataError(f"query {twice[0]} holds a positive twice; expected a set")


def block_size(model: Any, queries: Queries, beam: int | None) -> int:
    """Queries per block: as many as are encoded at once, if their scores do not take too much memory."""
    split = getattr(model, "split", None)
    width = 4096 if split is None else int(split.log.num_items)
    if queries.candidate_offsets is not None:
        width = int(np.diff(queries.candidate_offsets).max())
    elif hasattr(model, "score_slices"):
        width = 1  # never all of them at once
    return int(min(_BLOCK_QUERIES, max(1, BLOCK_SCORES // max(1, beam or width))))


def blocks(queries: Queries, size: int, progress: Callable[[int, int], object] | bool | None) -> Iterator[Queries]:
    """The queries in slices of `size`, with progress reported after each."""
    if not is_whole(size) or size < 1:
        raise ConfigError(f"block is {size!r}; expected a whole number, at least 1")
    bar = None
    if progress is True:
        from tqdm.auto import tqdm

        bar = tqdm(total=len(queries), unit="query", desc="evaluate", leave=False)
    for start in range(0, len(queries), size):
        part = queries[start : start + size]
        yield part
        if bar is not None:
            bar.update(len(part))
        elif callable(progress):
            progress(min(start + size, len(queries)), len(queries))
    if bar is not None:
        bar.close()


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """All modules in evaluation mode, and afterwards in the mode that they had."""
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, torch.nn.Module) else []
    if modes:
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
