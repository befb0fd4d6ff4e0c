"""Real data sets: the counts that their sources publish, and the share of targets that only a tie decides.

The folder of the environment variable DGLREC_DATA holds them; what is not there is skipped.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from dglrec.data import InteractionLog, leave_one_out, load, make_split, time_point, windows
from dglrec.data.check import check
from dglrec.data.datasets import REGISTRY, _read_original, table_digest
from dglrec.graphs import slice_names, time_slices

FOLDER = Path(os.environ.get("DGLREC_DATA") or "no folder")

# name: users, items, interactions, items with a title
SIZES = {
    "amazon-beauty": (22_363, 12_101, 198_502, 12_094),
    "amazon-sports": (35_598, 18_357, 296_337, 0),
    "amazon-toys": (19_412, 11_924, 167_597, 11_865),
    "foursquare-nyc": (1_083, 5_135, 147_938, None),
    "ml-latest-small": (610, 9_724, 100_836, 9_724),
    "yelp-2019": (30_431, 20_033, 316_354, 20_033),
}
# name: users whose last two events are on one day
TIES = {"amazon-beauty": 9_719, "amazon-toys": 9_518, "amazon-sports": 16_049, "yelp-2019": 0}
# name: pairs of the training log, prefixes with a target in it
TRAINING = {"amazon-beauty": (153_776, 131_413), "amazon-toys": (128_773, 109_361), "amazon-sports": (225_141, 189_543)}


@lru_cache(maxsize=2)
def log_of(name: str) -> InteractionLog:
    if not (FOLDER / name).is_dir():
        pytest.skip(f"no {name} in DGLREC_DATA")
    return load(name)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    log = log_of(name)
    users, items, interactions, titles = SIZES[name]
    assert (log.num_users, log.num_items, len(log)) == (users, items, interactions)
    assert log.time is not None
    if titles is None:
        assert log.titles is None
    else:
        assert log.titles is not None
        assert (log.titles != "").sum() == titles
        assert log.texts is not None
        assert all(log.texts.tolist())
        plain = (log.titles != "") & (log.texts != "")
        pairs = zip(log.texts[plain].tolist(), log.titles[plain].tolist(), strict=True)
        assert all(text.startswith(title) for text, title in pairs)


@pytest.mark.parametrize("name", [name for name in SIZES if name != "ml-latest-small"])
def test_published_sets_are_5_cores_already(name: str) -> None:
    log = log_of(name)
    core = log.k_core(5)
    assert core.digest() == log.digest()
    assert core.filters == ("5-core",)


def test_ml_latest_small_is_none() -> None:
    core = log_of("ml-latest-small").k_core(5)
    assert (core.num_users, core.num_items, len(core)) == (610, 3_650, 90_274)


@pytest.mark.parametrize("name", TRAINING)
def test_training_pairs_and_targets(name: str) -> None:
    split = leave_one_out(log_of(name))
    lengths = np.diff(split.train.offsets)
    assert (len(split.train), int((lengths - 1).sum())) == TRAINING[name]
    split.verify()


@pytest.mark.parametrize("name", TIES)
def test_targets_that_a_tie_decides(name: str) -> None:
    log = log_of(name)
    assert leave_one_out(log).counts["tie_decided_targets_test"] == TIES[name]
    report = check(name)
    assert report.statistics["leave_one_out"]["tie_decided_targets_test"] == TIES[name]
    assert report.ok


@pytest.mark.parametrize("name", ["amazon-beauty", "amazon-sports", "amazon-toys"])
def test_ties_are_sorted_by_item_so_that_the_largest_id_is_the_target(name: str) -> None:
    """Why the rule for ties matters: the file's order of a tied day is the order of the ids."""
    log = log_of(name)
    assert log.time is not None
    tied = (np.diff(log.user) == 0) & (np.diff(log.time) == 0)
    ids = log.item_ids[log.item]
    assert (ids[:-1][tied] < ids[1:][tied]).all()
    by_file, by_chance = leave_one_out(log), leave_one_out(log, ties="random", seed=1)
    changed = (by_file.test.targets != by_chance.test.targets).mean()
    assert 0.5 * TIES[name] / log.num_users < changed < TIES[name] / log.num_users


@pytest.mark.parametrize("name", [name for name in REGISTRY if REGISTRY[name].table_sha256 is not None])
def test_the_registry_has_the_digest_of_the_table(name: str) -> None:
    assert table_digest(log_of(name)) == REGISTRY[name].table_sha256


def test_a_ratings_file_in_any_order_becomes_the_table_of_the_registry(tmp_path: Path) -> None:
    log = log_of("amazon-beauty")
    assert log.time is not None
    rows = np.random.default_rng(0).permutation(len(log))
    columns = (log.user_ids[log.user[rows]], log.item_ids[log.item[rows]], log.time[rows].astype(int))
    lines = [f"{user},{item},5.0,{time}\n" for user, item, time in zip(*columns, strict=True)]
    (tmp_path / "ratings.csv").write_text("".join(lines))
    found = _read_original("beauty", REGISTRY["amazon-beauty"], tmp_path / "ratings.csv")[0].k_core(5)
    assert table_digest(found) == REGISTRY["amazon-beauty"].table_sha256
    last = [
        dict(zip(one.user_ids[split.test.user].tolist(), one.item_ids[split.test.targets].tolist(), strict=True))
        for one in (log, found)
        for split in [leave_one_out(one)]
    ]
    assert last[0] == last[1]


def test_repeats_are_counted() -> None:
    counts = leave_one_out(log_of("foursquare-nyc")).counts
    assert 0.69 < counts["repeat_targets_test"] / counts["queries_test"] < 0.70
    counts = leave_one_out(log_of("yelp-2019")).counts
    assert 0.06 < counts["repeat_targets_test"] / counts["queries_test"] < 0.07
    assert leave_one_out(log_of("amazon-beauty")).counts["repeat_targets_test"] == 0


@pytest.mark.parametrize("name", SIZES)
def test_leave_one_out_leaks_in_time_and_a_time_point_does_not(name: str) -> None:
    log = log_of(name)
    assert leave_one_out(log).counts["older_share_test"] > 0.99
    split = time_point(log)
    split.verify()
    assert split.counts["older_share_test"] == 0
    assert abs(len(split.train) / len(log) - 0.8) < 0.01
    assert make_split(log, split.rule).digest == split.digest


def test_a_saved_log_is_the_same_log(tmp_path: Path) -> None:
    log = log_of("amazon-beauty")
    log.save(tmp_path / "beauty.npz")
    assert (tmp_path / "beauty.npz").stat().st_size < 4_000_000
    back = load(tmp_path / "beauty.npz")
    assert back.digest() == log.digest()
    assert log.titles is not None
    assert back.titles is not None
    assert back.titles.tolist() == log.titles.tolist()
    assert leave_one_out(back).digest == leave_one_out(log).digest


# name: users, items and windows after MIP's filter, and how many more windows there are with the last full ones
WINDOWS = {"foursquare-nyc": (398, 3_146, 765, 6), "ml-latest-small": (221, 2_110, 526, 5)}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("by", ["window", "user", "time"])
def test_windows_of_long_histories(name: str, by: str) -> None:
    log = log_of(name).one_pass_core()
    users, items, number, lost = WINDOWS[name]
    assert (log.num_users, log.num_items) == (users, items)
    split = windows(log, by=by)  # type: ignore[arg-type]
    split.verify()
    assert split.counts["windows"] == number
    assert windows(log, by=by, last="keep").counts["windows"] == number + lost  # type: ignore[arg-type]
    assert make_split(log, split.rule).digest == split.digest
    if by == "time":
        assert split.counts["older_share_test"] == split.counts["later_training_test"] == 0
    else:
        assert split.counts["windows_dropped"] == 0
        assert (split.counts["known_users_test"] > 40) == (by == "window")


def test_check_ins_come_back() -> None:
    split = windows(log_of("foursquare-nyc").one_pass_core())
    assert split.windows is not None
    share = np.mean([len(q.new_items().targets) / len(q.targets) for q in (split.windows, split.valid, split.test)])
    assert 0.16 < share < 0.19  # 82 % of the positives stand in their inputs
    assert windows(log_of("ml-latest-small").one_pass_core()).counts["repeat_share_test"] == 0


@pytest.mark.parametrize(("name", "queries"), [("yelp-2019", 11_072), ("foursquare-nyc", 797), ("ml-latest-small", 29)])
def test_queries_after_a_time_point(name: str, queries: int) -> None:
    """Why the tables of SelfGNN have no time point on ml-latest-small, most of whose users rate on one day."""
    assert len(time_point(log_of(name).k_core(5), targets="next").test) == queries


def test_slices_of_equal_length_where_a_log_grows() -> None:
    """Why the tables cut amazon-beauty into equal counts: its last fifth of time has 84 % of the edges."""
    train = leave_one_out(log_of("amazon-beauty").k_core(5)).train
    shares = {}
    for by in ("equal_lengths", "equal_counts"):
        graph = time_slices(train, by, n=5)
        edges = np.array([graph.num_edges(name) for name in slice_names(graph)])
        shares[by] = edges / edges.sum()
    assert shares["equal_lengths"][-1] == pytest.approx(0.84, abs=0.005)
    assert shares["equal_counts"].max() < 0.21
