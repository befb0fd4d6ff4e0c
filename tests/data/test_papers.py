"""The papers' data sets by name: small originals of the same form, their period and filter."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from dglrec.data import PAPER_SETS, InteractionLog, load, paper_log
from dglrec.data.forms import FORMATS
from dglrec.errors import DataError


def rows(inside: int, outside: int) -> list[tuple[str, str, int]]:
    """7 users with 6 common items at a time inside of the period, with 6 others outside of it, and one event more."""
    common = [(f"u{user}", f"i{item}", inside + 60 * (10 * item + user)) for user in range(7) for item in range(6)]
    other = [(f"u{user}", f"o{item}", outside + 60 * (10 * item + user)) for user in range(7) for item in range(6)]
    return [*common, *other, ("u0", "rare", inside + 1)]


def seconds(date: str) -> int:
    return int(np.datetime64(date, "s").astype(np.int64))


def dated(at: int, form: str) -> str:
    return str(np.datetime64(at, "s")) + "Z" if form == "gowalla" else str(np.datetime64(at, "s")).replace("T", " ")


@pytest.fixture
def originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DGLREC_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for paper in PAPER_SETS.values():
        (tmp_path / paper.name).mkdir()
    events = rows(seconds("2010-01-01"), seconds("2009-12-31"))
    text = "".join(f"{u}\t{dated(at, 'gowalla')}\t30.2\t-97.7\t{i}\n" for u, i, at in events)
    (tmp_path / "selfgnn-gowalla" / "loc-gowalla_totalCheckins.txt.gz").write_bytes(gzip.compress(text.encode()))
    events = rows(seconds("2009-12-31"), seconds("2010-01-01"))
    text = "".join(f"{u}::{i}::4.5::{at}\n" for u, i, at in events)
    (tmp_path / "selfgnn-movielens" / "ratings.dat").write_text(text)
    (tmp_path / "selfgnn-movielens" / "movies.dat").write_text("i0::Heat (1995)::Action\n")
    named = [
        {"user_id": u, "business_id": i, "stars": 4.0, "date": dated(at, "yelp"), "text": "good"} for u, i, at in events
    ]
    text = "".join(json.dumps(row) + "\n" for row in named)
    (tmp_path / "selfgnn-yelp" / "yelp_academic_dataset_review.json").write_text(text)
    return tmp_path


@pytest.mark.parametrize(("name", "items"), [("selfgnn-gowalla", 6), ("selfgnn-movielens", 6), ("selfgnn-yelp", 12)])
def test_period_and_5_core(name: str, items: int, originals: Path) -> None:
    log = load(name)
    assert (log.num_users, log.num_items, len(log), log.name) == (7, items, 7 * items, name)
    assert "rare" not in log.item_ids.tolist()
    assert log.filters[-1] == "5-core"
    assert log.time is not None and (name == "selfgnn-yelp" or len(log.filters) == 2)
    original = next(
        originals.joinpath(name, file) for file in PAPER_SETS[name].files if (originals / name / file).exists()
    )
    assert paper_log(name, original).digest() == log.digest()
    whole = load(original, format=PAPER_SETS[name].format)
    assert paper_log(name, whole).digest() == log.digest()
    assert len(whole) == 85
    if name == "selfgnn-movielens":
        assert log.titles is not None and log.titles[log.item_index("i0")] == "Heat (1995)"


def amazon(folder: Path) -> list[tuple[str, str, int]]:
    """25 users with 25 books in 2014, one with 16 of them and 4 rare ones, one with 19, and the year before."""
    begin = seconds("2014-01-01")
    kept = [(f"u{user}", f"b{item}", begin + 86_400 * item) for user in range(25) for item in range(25)]
    kept += [("edge", f"b{item}", begin + item) for item in range(16)]
    few = [("edge", f"rare{item}", begin + item) for item in range(4)]
    few += [("few", f"b{item}", begin + item) for item in range(19)]
    few += [("low", f"b{item}", begin + item) for item in range(14)]
    few += [("low", f"rare{item}", begin + 99) for item in range(6)]
    few += [("u0", f"rare{item}", begin - 1) for item in range(25)]
    text = "".join(f"{u},{i},5.0,{at}\n" for u, i, at in kept + few)
    (folder / "ratings_Books.csv").write_text(text)
    return kept


def test_amazon_has_the_filter_of_the_public_code(originals: Path) -> None:
    kept = amazon(originals / "selfgnn-amazon-book")
    log = load("selfgnn-amazon-book")
    found = {(log.user_ids[u], log.item_ids[i]) for u, i in zip(log.user, log.item, strict=True)}
    # "edge" has 20 books, of which 16 are left; "low" has 20, of which 14 are: below 15 in the second pass.
    assert found == {(user, item) for user, item, _ in kept}
    assert log.filters == ("from 2014-01-01 to before 2015-01-01", "counts (20, 20), (15, 0), (5, 0)")


def filter_by_hand(pairs: list[tuple[int, int]], passes: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    for least_items, least_users in passes:
        items = {u: {i for v, i in pairs if v == u} for u, _ in pairs}
        users = {i: {u for u, j in pairs if j == i} for _, i in pairs}
        pairs = [(u, i) for u, i in pairs if len(items[u]) >= least_items and len(users[i]) >= least_users]
    return pairs


def test_count_filter_counts_pairs_once_a_pass() -> None:
    rng = np.random.default_rng(0)
    for passes in (((3, 3),), ((4, 2), (3, 0)), ((2, 4), (3, 3), (1, 0))):
        user, item = rng.integers(12, size=60), rng.integers(9, size=60)
        log = InteractionLog.from_arrays(user, item)
        kept = log.count_filter(*passes)
        expected = filter_by_hand(list(zip(user.tolist(), item.tolist(), strict=True)), passes)
        found = [(int(kept.user_ids[u]), int(kept.item_ids[i])) for u, i in zip(kept.user, kept.item, strict=True)]
        assert sorted(found) == sorted(expected)
        assert 0 < len(found) < 60
    with pytest.raises(DataError, match="nothing of 'log' is left by counts"):
        log.count_filter((99, 1))
    with pytest.raises(DataError, match="no passes"):
        log.count_filter()


def test_between_takes_dates_and_seconds() -> None:
    log = InteractionLog.from_arrays(list("abcd"), list("wxyz"), time=[0, 86_399, 86_400, 172_800], name="four")
    for begin, end in (
        ("1970-01-01", "1970-01-02"),
        (0, 86_400.0),
        (np.datetime64("1970-01-01"), np.datetime64(1, "D")),
    ):
        part = log.between(begin, end)
        assert (part.user_ids.tolist(), part.item_ids.tolist()) == (["a", "b"], ["w", "x"])
    with pytest.raises(
        DataError, match=r"no event of 'four' is between 1980-01-01 and 1981-01-01; they are from 0 to 172800"
    ):
        log.between("1980-01-01", "1981-01-01")
    with pytest.raises(DataError, match="'last year' is not a date"):
        log.between("last year", 5)
    with pytest.raises(DataError, match="has no times"):
        InteractionLog.from_arrays(["a"], ["b"]).between(0, 1)


def test_what_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGLREC_DATA", str(tmp_path))
    for name, paper in PAPER_SETS.items():
        assert paper.format in FORMATS and paper.name == name and paper.slices > 1 and paper.users > 1000
        with pytest.raises(DataError, match=f"'{name}' is made of .*, which is not here; get it from http") as error:
            load(name)
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(DataError, match="did you mean 'selfgnn-yelp'"):
        paper_log("selfgnn-yelps")
    with pytest.raises(DataError, match="did you mean 'selfgnn-gowalla'"):
        load("selfgnn-gowala")
