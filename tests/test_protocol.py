"""Protocols print themselves, survive JSON, and say which results may share a column."""

from __future__ import annotations

import dataclasses
import json

import pytest

from dglrec.data.log import InteractionLog
from dglrec.data.splits import leave_one_out
from dglrec.errors import DataError
from dglrec.protocol import Protocol

FULL = Protocol(
    data="amazon-beauty",
    filters=("5-core",),
    split="leave_one_out(ties='file')",
    split_digest="0123456789abcdef",
    kind="position",
    part="test",
    seen="keep",
    candidates="1+999",
    metrics=("recall@10", "ndcg@10"),
    ties="pessimistic",
    tie_rule="file",
    beam=20,
    queries=22363,
    counts={"cold_targets": 12, "older_share": 0.992},
)


def split_of_shop():
    times = [1, 2, 3, 4, 1, 2, 9, 1]
    return leave_one_out(InteractionLog.from_arrays(list("aaaabbbc"), list("pqrspqrp"), time=times, name="shop"))


@pytest.mark.parametrize("protocol", [FULL, Protocol()])
def test_json_round_trip(protocol):
    assert Protocol.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(sean="mask"), "unknown field 'sean'.*'seen'"),
        (lambda d: d.pop("ties"), "lacks the fields ties"),
        (lambda d: d.update(queries="many"), "'queries'"),
        (lambda d: d.update(filters="5-core"), "'filters'"),
        (lambda d: d.update(counts={"cold": "12"}), "'counts'"),
        (lambda d: d.update(seen=None), "'seen'"),
        (lambda d: d.update(queries=True), "'queries'"),
    ],
)
def test_damaged_json_is_an_error(change, message):
    values = FULL.to_dict()
    change(values)
    with pytest.raises(DataError, match=message):
        Protocol.from_dict(values)


def test_text_is_short_and_says_what_matters():
    text = str(FULL)
    assert 5 <= len(text.splitlines()) <= 8
    assert all(len(line) <= 160 for line in text.splitlines())
    wanted = ["amazon-beauty (5-core)", "test queries: 22,363", "leave_one_out", "position", "0123456789ab", "kept"]
    wanted += ["1+999 candidates", "pessimistic", "beam 20", "recall@10", "cold targets 12", "training event 99.2 %"]
    assert [part for part in wanted if part not in text] == []
    assert "made by hand" in str(Protocol())


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("data", "toys", False),
        ("filters", (), True),  # the digest knows what they left
        ("split_digest", "ff", False),
        ("part", "valid", False),
        ("seen", "mask", False),
        ("candidates", "full", False),
        ("ties", "expected", False),
        ("tie_rule", "random", False),
        ("queries", 5, False),  # for instance new items only
        ("metrics", ("recall@10",), True),
        ("beam", None, True),
    ],
)
def test_same_column(field, value, same):
    other = dataclasses.replace(FULL, **{field: value})
    assert FULL.same_column(other) is same
    assert FULL.differences(other) == ([] if same else [field])


def test_of_a_split():
    split = split_of_shop()
    protocol = Protocol.of(split.test, split, seen="mask", metrics=["recall@1"])
    assert (protocol.data, protocol.kind, protocol.part, protocol.queries) == ("shop", "position", "test", 2)
    assert protocol.split == "leave_one_out(ties='file', order='time')"
    assert protocol.split_digest == split.digest
    assert protocol.tie_rule == "file"
    assert protocol.counts["short_users"] == 1
    assert "cold_targets" in protocol.counts
    assert not any(name.endswith(("_valid", "_test")) for name in protocol.counts)
    assert protocol.candidates == "full"


def test_of_a_split_with_sampled_candidates():
    log = InteractionLog.from_arrays(list("aaabbb"), list("pqrstu"), time=range(6))
    split = leave_one_out(log, negatives=3, test_users=1, seed=5)
    text = str(Protocol.of(split.test, split, seen="keep", metrics=["hit@10", "ndcg@10"]))
    assert "leave_one_out(ties='file', order='time', negatives=3, test_users=1, seed=5), by position" in text
    assert "ranking     1+3 candidates" in text
    assert "unasked users 1" in text


def test_candidates_are_counted():
    split = split_of_shop()
    few = dataclasses.replace(split.test, candidate_offsets=[0, 3, 6], candidates=[0, 1, 3, 0, 1, 2])
    assert Protocol.of(few, split, seen="mask", metrics=[]).candidates == "1+2"
    uneven = dataclasses.replace(split.test, candidate_offsets=[0, 4, 6], candidates=[0, 1, 2, 3, 0, 2])
    assert Protocol.of(uneven, split, seen="mask", metrics=[]).candidates == "1+1..3"
