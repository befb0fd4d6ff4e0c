"""The protocol of an evaluation: everything that a metric depends on besides the model.

It is printed with every number. Two results may share a column of a table only where their protocols agree
(`Protocol.same_column`); what a paper measured on other data, or in another way, is printed separately.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError, closest

if TYPE_CHECKING:
    from .data.queries import Queries
    from .data.splits import Split

# What makes two results incomparable. Not here: `metrics` (a column is one metric), `beam` (how one model ranks, shown
# in its row), `filters` (the digest knows what they left) and `counts` (they follow from the data and the split).
_COLUMN = (
    *("data", "split", "split_digest", "kind", "part", "tie_rule", "queries"),
    *("seen", "candidates", "ties"),
)


@dataclass(frozen=True)
class Protocol:
    """How a model was evaluated.

    Attributes:
        data: name of the interaction log; "" where it is not known.
        filters: what was filtered before ids were assigned, e.g. ("5-core",).
        split: the rule of the split as text, e.g. "leave_one_out(order='time', ties='file')".
        split_digest: digest of the log and the rule; "" for queries made by hand.
        kind: of the split, such as "position" (leave-one-out) or "time" (a global time point); "": not known.
        part: "valid", "test", either with "-new" (only items that are new to the user), or "" (made by hand).
        seen: "mask" (items of the history are not ranked, the query's own positives always are) or "keep".
        candidates: "full", or positives + negatives of a query: "1+999", "50+50".
        metrics: the names that were computed, e.g. ("recall@10", "ndcg@10").
        ties: items of one score: "expected" (mean over the tied orders) or "pessimistic" (positives come last).
        tie_rule: events of one time: "file" (file order) or "random"; "" where it is not known.
        beam: length of a generative model's list, None for a model that scores all items.
        queries: number of queries.
        counts: what the split counted: users without a query, cold and repeated targets, targets that a tie in time
            decides, and the share of queries older than the newest event that the model knows.
    """

    data: str = ""
    filters: tuple[str, ...] = ()
    split: str = ""
    split_digest: str = ""
    kind: str = ""
    part: str = ""
    seen: str = "mask"
    candidates: str = "full"
    metrics: tuple[str, ...] = ()
    ties: str = "expected"
    tie_rule: str = ""
    beam: int | None = None
    queries: int = 0
    counts: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        queries: Queries,
        split: Split | None,
        *,
        seen: str,
        metrics: Iterable[str],
        ties: str = "expected",
        beam: int | None = None,
    ) -> Protocol:
        """The protocol of ranking for `queries`, which belong to `split` (None: made by hand)."""
        known: dict[str, Any] = {}
        if split is not None:
            known = {
                "data": split.log.name,
                "filters": tuple(split.log.filters),
                "split": rule_text(split.rule),
                "kind": split.kind,
                "tie_rule": str(split.rule.get("ties", "")),
                "counts": _counts_of(split.counts, queries.name),
            }
        return cls(
            split_digest=queries.split_digest,
            part=queries.name,
            seen=seen,
            candidates=_candidates_text(queries),
            metrics=tuple(metrics),
            ties=ties,
            beam=beam,
            queries=len(queries),
            **known,
        )

    def differences(self, other: Protocol) -> list[str]:
        """Names of the fields that keep two results from sharing a column."""
        return [name for name in _COLUMN if getattr(self, name) != getattr(other, name)]

    def same_column(self, other: Protocol) -> bool:
        """Whether results under both protocols may share a column of a table.

        >>> Protocol(seen="keep").same_column(Protocol(seen="mask"))
        False
        """
        return not self.differences(other)

    def __str__(self) -> str:
        filters = f" ({', '.join(self.filters)})" if self.filters else ""
        kind = f", by {self.kind}" if self.kind else ""
        digest = f", digest {self.split_digest[:12]}" if self.split_digest else ""
        seen = "masked, except a query's own targets" if self.seen == "mask" else "kept in the ranking"
        lines = [
            f"data        {self.data or 'unnamed'}{filters}, {self.part or 'own'} queries: {self.queries:,}",
            f"split       {self.split or 'none: queries made by hand'}{kind}{digest}",
            f"seen items  {seen}",
            f"ranking     {self.candidates}{' catalogue' if self.candidates == 'full' else ' candidates'}; "
            f"ties in scores: {self.ties}" + ("" if self.beam is None else f"; beam {self.beam}"),
            f"metrics     {', '.join(self.metrics) or 'none'}",
        ]
        if self.counts:
            function = self.split.partition("(")[0]
            texts = (_count_text(name, value, function) for name, value in self.counts.items())
            lines.append("counts      " + ", ".join(texts))
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**fields, "filters": list(self.filters), "metrics": list(self.metrics), "counts": dict(self.counts)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """The protocol of `to_dict`.

        Raises:
            DataError: an unknown or missing field, or a value of another type.
        """
        hints = typing.get_type_hints(cls)
        for name in values:
            if name not in hints:
                raise DataError(f"unknown field {name!r} of a protocol; {closest(name, hints)}")
        if missing := [name for name in hints if name not in values]:
            raise DataError(f"a protocol lacks the fields {', '.join(missing)}; was the file cut off?")
        for name, value in values.items():
            if not _fits(name, value):
                raise DataError(f"field {name!r} of a protocol is {value!r}, which is not what it holds")
        return cls(**{**values, "filters": tuple(values["filters"]), "metrics": tuple(values["metrics"])})


_SHORT = {"leave_one_out": "users with < 3 events", "windows": "users too short for a window"}


def rule_text(rule: Mapping[str, Any]) -> str:
    """A split's rule as the call that makes it.

    >>> rule_text({"function": "leave_one_out", "ties": "file"})
    "leave_one_out(ties='file')"
    """
    arguments = dict(rule)
    name = arguments.pop("function", "split")
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _fits(name: str, value: Any) -> bool:
    """Whether `value` is valid in the field `name`."""
    if name == "counts":
        return isinstance(value, Mapping) and all(isinstance(v, int | float) for v in value.values())
    if name in ("filters", "metrics"):
        return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    if name in ("beam", "queries"):
        return (isinstance(value, int) and not isinstance(value, bool)) or (name == "beam" and value is None)
    return isinstance(value, str)


def _counts_of(counts: Mapping[str, float], part: str) -> dict[str, float]:
    """The counts that concern `part`: those of the other part are left out, the part's name is taken off."""
    part = part.removesuffix("-new")
    other = {"valid": "_test", "test": "_valid"}.get(part, "no other part")
    return {name.removesuffix(f"_{part}"): value for name, value in counts.items() if not name.endswith(other)}


def _count_text(name: str, value: float, function: str) -> str:
    """A count as in "cold targets 12", a share as in "queries older than the newest training event 99.2 %"."""
    label = {"older_share": "queries older than the newest training event"}.get(name, name.replace("_", " "))
    if name == "short_users":  # what is too short depends on the split
        label = _SHORT.get(function, "users without a query")
    return f"{label} {value:,}" if isinstance(value, int) else f"{label} {100 * value:.1f} %"


def _candidates_text(queries: Queries) -> str:
    """The numbers of positives and negatives of a query, "1+999" (a range where they differ), or "full"."""
    if queries.candidates is None or queries.candidate_offsets is None:
        return "full"
    positives = np.diff(queries.target_offsets)
    negatives = np.diff(queries.candidate_offsets) - positives
    return "+".join(f"{n.min()}" if n.min() == n.max() else f"{n.min()}..{n.max()}" for n in (positives, negatives))
