"""Splits by ratio and as the source gives them, against a user-by-user second implementation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import dglrec
from dglrec.cli import main
from dglrec.data import InteractionLog, given, make_split, ratio, sample
from dglrec.data.splits import Split
from dglrec.errors import DataError


def recbole_cut(n: int, shares: tuple[float, float]) -> tuple[int, int]:
    """Held-out events of a user with n events: (validation, test), counted as RecBole counts."""
    counts = [0, int(shares[0] * n), int(shares[1] * n)]
    counts[0] = n - sum(counts)
    for part, share in ((2, shares[1]), (1, shares[0])):
        if counts[0] > 1 and 0 < share * n < 1:
            counts[part], counts[0] = counts[part] + 1, counts[0] - 1
    return counts[1], counts[2]


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(60), rng.integers(1, 40, 60))
    return InteractionLog.from_arrays(user, rng.integers(0, 30, len(user)), rng.integers(0, 50, len(user)))


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.2, 0.3), (0.0, 0.2), (0.05, 0.5)])
def test_the_end_of_each_history(log: InteractionLog, shares: tuple[float, float]) -> None:
    split = ratio(log, valid=shares[0], test=shares[1])
    split.verify()
    assert split.kind == "position"
    parts = {"valid": split.valid, "test": split.test}
    number = dict.fromkeys(parts, 0)
    for user in range(log.num_users):
        items = log.item[log.user == user].tolist()
        valid, test = recbole_cut(len(items), shares)
        ends = {"train": len(items) - valid - test, "valid": len(items) - test, "test": len(items)}
        assert split.train.item[split.train.user == user].tolist() == items[: ends["train"]]
        for name, begin in (("valid", ends["train"]), ("test", ends["valid"])):
            if begin == ends[name] or begin == 0:
                assert user not in parts[name].user
                continue
            query = parts[name][parts[name].user == user]
            assert query.items.tolist() == items[:begin]
            assert query.targets.tolist() == list(dict.fromkeys(items[begin : ends[name]]))
            assert query.time == log.time[log.user == user][begin]  # type: ignore[index]
            number[name] += 1
    assert number == {name: len(queries) for name, queries in parts.items()}


def test_any_events(log: InteractionLog) -> None:
    split = ratio(log, by="random", valid=0.2, test=0.2, seed=3)
    split.verify()
    assert split.kind == "random"
    assert not np.array_equal(split.test.targets, ratio(log, valid=0.2, test=0.2).test.targets)
    assert not np.array_equal(split.test.targets, ratio(log, by="random", valid=0.2, test=0.2, seed=4).test.targets)
    for user in range(log.num_users):
        valid, test = recbole_cut(int((log.user == user).sum()), (0.2, 0.2))
        assert (split.train.user == user).sum() == (log.user == user).sum() - valid - test
    last = log.time[log.offsets[split.test.user + 1] - 1]  # type: ignore[index]
    assert (split.test.time < last).mean() > 0.5  # not the end of the history


@pytest.mark.parametrize("how", ["last", "random"])
def test_it_is_made_again_from_its_rule(log: InteractionLog, how: str) -> None:
    split = ratio(log, by=how, valid=0.2)  # type: ignore[arg-type]
    again = make_split(log, split.rule)
    assert again.digest == split.digest
    assert np.array_equal(again.test.targets, split.test.targets)
    assert ratio(log, by=how, valid=0.3).digest != split.digest  # type: ignore[arg-type]


def test_ties_that_decide_are_counted() -> None:
    times = [1, 2, 3, 3, 1, 2, 3, 4, 1, 1, 1, 1]
    log = InteractionLog.from_arrays([0] * 4 + [1] * 4 + [2] * 4, range(12), time=times)
    counts = ratio(log, valid=0.25, test=0.25).counts
    assert (counts["tie_decided_targets_test"], counts["tie_decided_targets_valid"]) == (2, 1)
    log = InteractionLog.from_arrays([0] * 10, range(10), time=[0, 1, 2, 3, 4, 5, 6, 6, 7, 7])
    counts = ratio(log, valid=0.2, test=0.2).counts  # ties among the targets of a part decide nothing
    assert (counts["tie_decided_targets_test"], counts["tie_decided_targets_valid"]) == (0, 0)


def with_parts(valid: bool) -> InteractionLog:
    rng = np.random.default_rng(1)
    pairs = np.unique(rng.integers(0, [20, 40], (400, 2)), axis=0)
    part = rng.choice([0, 0, 0, 1 if valid else 0, 2], len(pairs))
    order = np.argsort(part, kind="stable")
    return InteractionLog.from_arrays(*pairs[order].T, part=part[order])


def test_the_parts_of_the_source() -> None:
    log = with_parts(valid=True)
    split = given(log)
    split.verify()
    assert log.part is not None and split.rule == {"function": "given"}
    for number, queries in ((1, split.valid), (2, split.test)):
        for q in range(len(queries)):
            rows = log.user == queries.user[q]
            assert queries[q].items.tolist() == log.item[rows & (log.part < number)].tolist()
            assert queries[q].targets.tolist() == log.item[rows & (log.part == number)].tolist()
    halves = InteractionLog.from_arrays([0, 0, 1, 1], [0, 1, 0, 1], part=[0, 1, 0, 2])  # one query each
    assert given(halves).counts["short_users"] == 0
    with pytest.raises(DataError, match="has a validation part of its own"):
        given(log, valid=0.1)


def test_validation_is_drawn_where_the_source_has_none() -> None:
    log = with_parts(valid=False)
    assert log.part is not None
    everything = given(log, valid=0)
    everything.verify()
    assert (len(everything.valid), len(everything.train)) == (0, int((log.part == 0).sum()))
    assert make_split(log, everything.rule).digest == everything.digest
    split = given(log, valid=0.2)
    split.verify()
    assert len(split.train) + len(split.valid.targets) == int((log.part == 0).sum())
    assert np.array_equal(np.sort(split.test.targets), np.sort(log.item[log.part == 2]))
    lengths = np.bincount(log.user[log.part == 0])
    drawn = np.bincount(split.valid.user, np.diff(split.valid.target_offsets), minlength=20)
    assert drawn.tolist() == [recbole_cut(n, (0.2, 0.0))[0] for n in lengths]
    other = given(log, valid=0.2, seed=1)
    assert not np.array_equal(other.valid.targets, split.valid.targets)
    assert np.array_equal(make_split(log, other.rule).valid.targets, other.valid.targets)
    small = log.k_core(4)
    assert small.part is not None and len(small.part) == len(small) < len(log)


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_a_leak_is_found(log: InteractionLog, name: str) -> None:
    split = ratio(log, valid=0.2, test=0.2)
    split.verify()
    if name == "train":
        leaky: Split = dataclasses.replace(split, train=log)
    else:
        queries = getattr(split, name)
        other = dataclasses.replace(queries, targets=np.roll(queries.items, 1)[: len(queries.targets)])
        leaky = dataclasses.replace(split, **{name: other})
    with pytest.raises(DataError, match="is in another part too, or not in the log"):
        leaky.verify()


def test_a_leak_between_two_parts_is_found() -> None:
    log = InteractionLog.from_arrays([1] * 5 + [0], range(6), time=range(6), user_ids=["b", "a"])
    split = ratio(log, valid=0.2, test=0.2)
    early = dataclasses.replace(split.valid, items=split.valid.items[[0, 1, 2]] + [0, 0, 2])
    leaks = [
        dataclasses.replace(split, train=log.select([0, 1, 2, 3, 4])),  # with the validation event
        dataclasses.replace(split, train=log.select([0, 1, 2, 3, 5])),  # with the test event
        dataclasses.replace(split, valid=early),  # a validation history with the test event
        dataclasses.replace(split, test=dataclasses.replace(split.test, targets=np.array([5]))),  # the other user's
    ]
    for leak in leaks:
        with pytest.raises(DataError, match="is in another part too, or not in the log"):
            leak.verify()


def test_a_model_trains_and_is_ranked_under_both() -> None:
    log = sample("communities", users=300, items=200, seed=1)
    parts = InteractionLog.from_arrays(
        log.user,
        log.item,
        user_ids=log.user_ids,
        item_ids=log.item_ids,
        part=np.where(np.random.default_rng(0).random(len(log)) < 0.2, 2, 0),
    )
    for split in (ratio(log, test=0.2, by="random"), given(parts)):
        chance = 10 / split.train.num_items
        model = dglrec.models.preset("popularity", split)
        assert dglrec.fit(model, split, epochs=1).test()["recall@10"] > 0.5 * chance
        lightgcn = dglrec.models.preset("lightgcn", split, dim=16, train={"lr": 0.02, "batch_size": 256})
        metrics = dglrec.fit(lightgcn, split, epochs=30).test()
        assert metrics["recall@10"] > 1.5 * chance
        assert "ratio(" in str(metrics.protocol) or "given(" in str(metrics.protocol)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda log: ratio(log, by="first"), "by is 'first'"),
        (lambda log: ratio(log, valid=0.5, test=0.5), "sum to less than 1"),
        (lambda log: ratio(log, test=0.0), "test is above 0"),
        (lambda log: ratio(log, order="file"), "is sorted by time already"),
        (lambda log: given(log), "comes without a split"),
        (lambda log: given(InteractionLog.from_arrays([0, 0], [0, 1], part=[0, 1])), "without test events"),
        (lambda log: given(InteractionLog.from_arrays([0, 0], [0, 1], part=[2, 2])), "held out; nothing to train on"),
        (lambda log: given(InteractionLog.from_arrays([0, 1], [0, 1], part=[0, 2])), "in the test part and before it"),
        (lambda log: given(with_parts(False), valid=1.0), "expected a share from 0 to below 1"),
        (lambda log: InteractionLog.from_arrays([0], [0], part=[3]), "part holds other values"),
        (lambda log: InteractionLog.from_arrays([0], [0], part=[256]), "part holds other values"),
        (lambda log: InteractionLog.from_arrays([0], [0], part=[0.5]), "part holds other values"),
        (lambda log: ratio(log, by="random", seed=-1), "seed is -1; expected at least 0"),
        (lambda log: given(with_parts(False), seed=-1), "seed is -1; expected at least 0"),
        (lambda log: dglrec.windows(log, inputs=2, targets=1, negatives=1, seed=-1), "seed is -1; expected at least 0"),
        (lambda log: sample("shop", seed=-1), "seed is -1; expected at least 0"),
        (lambda log: InteractionLog.from_arrays([0], [0], part=[0, 2]), "column 'part' has 2 rows"),
    ],
)
def test_what_cannot_be_split_is_refused(log: InteractionLog, make, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(log)


def test_the_command_line_splits_by_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.txt").write_text(
        "".join(f"{u} {' '.join(str((u + i) % 9) for i in range(5))}\n" for u in range(20))
    )
    (tmp_path / "test.txt").write_text("".join(f"{u} {(u + 6) % 9}\n" for u in range(20)))
    train = ["train", "popularity", "--data", str(tmp_path), "--device", "cpu", "--json"]
    for number, words in enumerate(
        (["--split", "given"], ["--split", "ratio", "--set", "split.by=random", "--set", "data.order=file"])
    ):
        assert main([*train, *words, "--out", str(tmp_path / f"run{number}")]) == 0
        protocol = json.loads(capsys.readouterr().out)["protocol"]
        assert protocol["split"].startswith(words[1]) and protocol["kind"] == ("given", "random")[number]
        assert main(["evaluate", str(tmp_path / f"run{number}"), "--device", "cpu"]) == 0
        capsys.readouterr()
