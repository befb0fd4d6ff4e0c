"""Originals of known sources: small files of the same form, sound ones and hostile ones."""

from __future__ import annotations

import gzip
import json
import lzma
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dglrec
from dglrec.cli import main
from dglrec.data import InteractionLog, list_datasets, load, read_interactions
from dglrec.data.check import check
from dglrec.data.forms import FORMATS, NAMES
from dglrec.data.readers import find_problems, read_items
from dglrec.errors import DataError

ROWS = [("1", "10", "5", "978300760"), ("2", "10", "3", "978302109"), ("1", "7", "4.5", "978300275")]


def lines(separator: str, order: tuple[int, ...] = (0, 1, 2, 3)) -> str:
    return "".join(separator.join(row[field] for field in order) + "\n" for row in ROWS)


def taobao() -> str:
    kinds = ("pv", "buy", "pv")
    rows = [(user, item, "982926", kind, at) for (user, item, _, at), kind in zip(ROWS, kinds, strict=True)]
    return "".join(",".join(row) + "\n" for row in rows)


def dated(seconds: str, form: str) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime(form)


def gowalla() -> str:
    rows = [(user, dated(at, "%Y-%m-%dT%H:%M:%SZ"), "30.2", "-97.7", item) for user, item, _, at in ROWS]
    return "".join("\t".join(row) + "\n" for row in rows)


def yelp() -> str:
    rows = [
        {"review_id": "r", "user_id": user, "business_id": item, "stars": float(stars), "useful": 0, "text": 'so\n"so"'}
        | {"date": dated(at, "%Y-%m-%d %H:%M:%S")}
        for user, item, stars, at in ROWS
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def reviews(second: int = 1, names: tuple[str, ...] = ("reviewerID", "asin", "overall", "unixReviewTime")) -> str:
    rows = [(user, item, float(stars), second * int(at)) for user, item, stars, at in ROWS]
    return "".join(json.dumps({**dict(zip(names, row, strict=True)), "helpful": [0, 0]}) + "\n" for row in rows)


RECBOLE = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
HEADER = "userId,movieId,rating,timestamp\n"
FILES = {  # name, format (None: known by its name), text
    "ratings.dat": (None, lines("::")),
    "u.data": (None, lines("\t")),
    "ratings.csv": (None, HEADER + lines(",")),
    "ratings_Books.csv": ("amazon-ratings", lines(",")),
    "Books.csv": ("amazon-ratings-2018", lines(",", (1, 0, 2, 3))),
    "Toys.csv": (
        "amazon-ratings-2023",
        "user_id,parent_asin,rating,timestamp\n" + lines(",").replace("\n", "000\n"),
    ),
    "my.txt": ("movielens-1m", lines("::")),
    "last.data": ("movielens-100k", lines("\t").replace("\n", "\r\n") + "\r\n"),
    "no end.csv": ("amazon-ratings", lines(",").rstrip()),
    "yelp_academic_dataset_review.json": (None, yelp()),
    "reviews.json": ("yelp", yelp().rstrip()),
    "reviews_Beauty_5.json": ("amazon-reviews", reviews()),
    "All_Beauty.jsonl": (
        "amazon-reviews-2023",
        reviews(1000, ("user_id", "parent_asin", "rating", "timestamp")),
    ),
    "films.inter": (None, RECBOLE + lines("\t")),
    "other.inter": ("recbole", RECBOLE.strip() + "\tage:float\n" + lines("\t").replace("\n", "\t7\n")),
}


@pytest.mark.parametrize("name", FILES)
def test_every_form_gives_the_same_log(name: str, tmp_path: Path) -> None:
    users, items, ratings, times = zip(*ROWS, strict=True)
    expected = InteractionLog.from_arrays(users, items, [float(t) for t in times], [float(r) for r in ratings])
    format, text = FILES[name]
    folder = tmp_path / "films"
    folder.mkdir()
    path = folder / name
    path.write_text(text)
    log = load(path, format=format)
    assert log.digest() == expected.digest()
    assert log.name == ("films" if format is None else path.name.removesuffix(".csv").removesuffix(".inter"))
    assert log.time is not None and log.time.tolist() == expected.time.tolist()  # type: ignore[union-attr]
    assert list(find_problems(path, format=format)) == []
    report = check(path, format=format)
    assert report.ok and report.statistics["size"]["interactions"] == 3
    if format is None:
        assert load(folder).digest() == expected.digest()  # the folder is enough


def test_an_archive_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "ratings_Books.csv.gz"
    path.write_bytes(gzip.compress(lines(",").encode()))
    assert len(load(path, format="amazon-ratings")) == 3


def test_json_may_have_the_mark_of_excel(tmp_path: Path) -> None:
    for name, pack in (("reviews_a.json", bytes), ("reviews_a.json.gz", gzip.compress)):
        path = tmp_path / name
        path.write_bytes(pack(b"\xef\xbb\xbf" + reviews().encode()))
        assert len(load(path)) == 3


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    for name in ("reviews_[1].json", "reviews_*.json"):
        (tmp_path / name).write_text(reviews())
        (tmp_path / "reviews_1.json").write_text(reviews() + reviews())
        assert len(load(tmp_path / name)) == 3


def test_a_column_may_be_two_of_ours(tmp_path: Path) -> None:
    (tmp_path / "reviews_a.json").write_text(reviews())
    pl.DataFrame({"id": ["a", "b"]}).write_parquet(tmp_path / "log.parquet")
    for name, column, ids in (("reviews_a.json", "asin", ["10", "7"]), ("log.parquet", "id", ["a", "b"])):
        log = load(tmp_path / name, columns={"user_id": column, "item_id": column})
        assert log.user_ids.tolist() == log.item_ids.tolist() == ids
    stars = load(tmp_path / "reviews_a.json", columns={"user_id": "overall"})  # a number, as text
    assert sorted(stars.user_ids.tolist()) == ["3", "4.5", "5"] and stars.rating is not None
    moments = load(tmp_path / "reviews_a.json", columns={"user_id": "unixReviewTime"})
    assert all(moment.isdecimal() for moment in moments.user_ids.tolist())  # as they stand, not as floats
    titles, _ = read_items(tmp_path / "reviews_a.json", columns={"title": "overall"})
    assert set(titles) == set(stars.item_ids.tolist())


def test_taobao_counts_views_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "UserBehavior.csv"
    path.write_text(taobao())
    log = load(path)
    assert (len(log), log.num_users, log.rating) == (2, 1, None)
    assert log.item_ids[log.item].tolist() == ["7", "10"]  # by time
    assert len(load(path, behaviors=("buy", "cart"))) == 1
    assert len(load(path, behaviors="buy")) == 1
    assert len(load(path, behaviors=("pv", "buy"))) == 3
    with pytest.raises(DataError, match=r"no line has a behavior of fav; there are 'buy, pv', of which behaviors="):
        load(path, behaviors=("fav",))
    assert len(load(path, order="file")) == 2


def test_gowalla_has_times_and_places_but_no_ratings(tmp_path: Path) -> None:
    users, items, _, times = zip(*ROWS, strict=True)
    expected = InteractionLog.from_arrays(users, items, [float(t) for t in times])
    plain, packed = tmp_path / "loc-gowalla_totalCheckins.txt", tmp_path / "loc-gowalla_totalCheckins.txt.gz"
    plain.write_text(gowalla())
    packed.write_bytes(gzip.compress(gowalla().encode()))
    for source in (plain, packed, tmp_path):
        log = load(source)
        assert (log.digest(), log.name) == (expected.digest(), tmp_path.name)
    assert load(plain, order="file").time is None
    assert check(packed).ok


def test_yelp_may_be_packed_and_without_stars(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(gzip.compress(yelp().replace('"stars"', '"points"').encode()))
    log = load(path, format="yelp")
    assert (len(log), log.rating) == (3, None)


def test_reviews_may_be_packed_and_are_known_by_name(tmp_path: Path) -> None:
    path = tmp_path / "reviews_Beauty_5.json.gz"
    path.write_bytes(gzip.compress(reviews().encode()))
    for source in (path, tmp_path):
        log = load(source)
        assert (len(log), log.num_items, log.rating is not None) == (3, 2, True)
    text = reviews() + json.dumps({"reviewerID": "z", "asin": "y", "overall": "4.0", "unixReviewTime": "978300770"})
    path.write_bytes(gzip.compress(text.encode()))
    log = load(path)  # numbers as text
    assert log.time is not None and log.rating is not None
    assert (log.time[-1], log.rating[-1], log.rating[0]) == (978300770, 4.0, 4.5)


@pytest.mark.parametrize("title", ["title", "movie_title", "name"])
def test_recbole_has_titles_beside(title: str, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "films.inter").write_text(RECBOLE + lines("\t"))
    (folder / "films.train.inter").write_text(RECBOLE + lines("\t").splitlines()[0])  # another file of RecBole's
    items = folder / "films.item"
    items.write_text(f"item_id:token\t{title}:token_seq\tclass:token_seq\n10\tCafé, The\tDrama\n7\tHeat\t\n")
    log = load(folder)
    assert log.titles is not None and sorted(log.titles.tolist()) == ["Café, The", "Heat"]
    assert (log.name, len(log), check(folder).ok) == ("films", 3, True)
    assert read_items(items)[0]["7"] == "Heat"
    items.write_text(f"movie_id:token\t{title}:token_seq\n10\tCafé\n7\tHeat\n")  # as RecBole's Yelp has it
    (folder / "films.inter").write_text(RECBOLE.replace("item_id", "movie_id") + lines("\t"))
    with pytest.raises(
        DataError, match=r"films\.item: no column 'item_id', but 'movie_id'; rename it, or pass columns"
    ):
        load(folder)
    assert load(folder, columns={"item_id": "movie_id"}).titles.tolist() == ["Café", "Heat"]  # type: ignore[union-attr]
    assert check(folder, columns={"item_id": "movie_id"}).ok
    (folder / "films.inter").write_text(RECBOLE + lines("\t"))
    items.write_text("item_id:token\tlatitude:float\n10\t30.2\n")
    assert load(folder).titles is None
    with pytest.raises(DataError, match="no column 'title'"):
        read_items(items)


LISTS = "5 9 7 9\n3\t7  8\n5 2 \n\n"  # spaces, tabs, a user on two lines, a repeated item


def test_lists_of_items_have_an_order_and_no_times(tmp_path: Path) -> None:
    path = tmp_path / "Beauty.txt"
    for text in (LISTS, LISTS.strip(), LISTS.replace("\n", "\r\n")):
        path.write_bytes(text.encode())
        log = load(path, format="lists", order="file")
        assert (log.user_ids.tolist(), log.time, log.rating) == (["5", "3"], None, None)
        assert log.item_ids[log.item].tolist() == ["9", "7", "9", "2", "7", "8"]
        assert list(find_problems(path, format="lists")) == []
        assert check(path, format="lists").ok
    path.write_text("a,b c;d [e] {\n")  # odd ids
    assert load(path, format="lists", order="file").item_ids.tolist() == ["c;d", "[e]", "{"]
    path.write_text(LISTS)
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("5 9\n5 7\n3 7\n5 9\n3 8\n5 2\n")  # SASRec's files: a pair a line
    assert load(pairs, format="lists").digest() == log.digest()
    split = dglrec.leave_one_out(log, order="file")
    assert log.item_ids[split.test.targets].tolist() == ["2"]


def test_the_two_files_of_lightgcn_are_one_log_with_its_split(tmp_path: Path) -> None:
    train, test = "0 10 11 12 13\n1 12 10 14\n2 11 14\n", "0 14\n1 11 13\n2\n"  # user 2 has no test items
    (tmp_path / "train.txt").write_text(train)
    with pytest.raises(DataError, match=r"is not a table that can be read; .* or test\.txt beside it"):
        load(tmp_path / "train.txt")
    with pytest.raises(DataError, match=r"holds no interactions; .*, or test\.txt beside train\.txt$"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"has no test\.txt beside it"):
        load(tmp_path / "train.txt", format="lightgcn")
    (tmp_path / "test.txt").write_text(test)
    log = load(tmp_path)
    assert (len(log), log.num_users, log.num_items, log.name) == (12, 3, 5, tmp_path.name)
    assert log.part is not None and log.part.tolist() == [0, 0, 0, 0, 2, 0, 0, 0, 2, 2, 0, 0]
    split = dglrec.given(log, valid=0.3)
    assert [log.item_ids[split.test[q].targets].tolist() for q in range(2)] == [["14"], ["11", "13"]]
    assert len(split.train) + len(split.valid.targets) == 9
    split.verify()
    packed = tmp_path / "packed"
    packed.mkdir()
    for name, text in (("train", train), ("test", test)):
        (packed / f"{name}.txt.xz").write_bytes(lzma.compress(text.encode()))
    assert load(packed).digest() == log.digest()
    log.save(tmp_path / "log.npz")
    assert np.array_equal(load(tmp_path / "log.npz").part, log.part)
    for text, message in (
        (test + "1,2,3\n", r"test\.txt line 4: '1,2,3' is alone in its line"),
        ("1,2,3\n4,5\n", r"test\.txt line 1: '1,2,3' is alone in its line"),
        ("0\r1 2\r", r"test\.txt line 1: a carriage return within the line"),
    ):
        (tmp_path / "test.txt").write_bytes(text.encode())
        with pytest.raises(DataError, match=message):
            load(tmp_path)
    (tmp_path / "test.txt").write_text("0 1\n")
    (tmp_path / "train.txt").write_text("0{\n")  # an odd id without items
    assert len(load(tmp_path)) == 1
    (tmp_path / "test.txt").write_text("0\n")
    (tmp_path / "train.txt").write_text("0\n1\n")
    with pytest.raises(DataError, match=r"train\.txt has no items; expected lines of a user and its items"):
        load(tmp_path)
    (tmp_path / "train.txt").write_text(train)
    (tmp_path / "test.txt").write_text(test + "1 caf\udce9\n", errors="surrogateescape")
    with pytest.raises(DataError, match=r"test\.txt line 4: .* is not UTF-8"):
        load(tmp_path)


def test_titles_of_movielens_10m_are_utf_8(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text(lines("::"))
    (tmp_path / "movies.dat").write_text("10::Café, The (1995)::Comedy\n7::Heat (1995)::\n", encoding="utf-8")
    titles = load(tmp_path / "ratings.dat").titles
    assert titles is not None and "Café, The (1995)" in titles.tolist()


TITLES = {
    "movies.dat": ("ratings.dat", "10::Café, The (1995)::Comedy|Drama\n7::Heat (1995)::\n", "latin-1"),
    "u.item": (
        "u.data",
        "".join(
            f"{item}|{title}|01-Jan-1995||http://us.imdb.com/{item}|" + "|".join("0" * 19) + "\n"
            for item, title in (("10", "Café, The (1995)"), ("7", "Heat (1995)"))
        ),
        "latin-1",
    ),
    "movies.csv": ("ratings.csv", 'movieId,title,genres\n10,"Café, The (1995)",Comedy\n7,Heat (1995),\n', "utf-8"),
}


@pytest.mark.parametrize("name", TITLES)
def test_titles_stand_beside(name: str, tmp_path: Path) -> None:
    ratings, text, encoding = TITLES[name]
    (tmp_path / ratings).write_text(FILES[ratings][1])
    assert load(tmp_path / ratings).titles is None
    (tmp_path / name).write_text(text, encoding=encoding)
    log = load(tmp_path / ratings)
    assert log.titles is not None
    assert dict(zip(log.item_ids.tolist(), log.titles.tolist(), strict=True)) == {
        "10": "Café, The (1995)",
        "7": "Heat (1995)",
    }
    assert check(tmp_path).ok
    (tmp_path / name).write_text(text.rpartition("\n7")[0] + "\n7\n", encoding=encoding)  # the last line is cut off
    with pytest.raises(DataError, match=f"{name} line .*the number of fields is 1"):
        read_items(tmp_path / name)
    assert not check(tmp_path).ok
    (tmp_path / name).write_text(300 * text + text.replace("Heat", "He\0at"), encoding=encoding)
    with pytest.raises(DataError, match=f"{name} line .*zero byte"):
        read_items(tmp_path / name)


BAD = {
    "too few fields": (
        "ratings.dat",
        None,
        lines("::") + "1::7::3\n",
        r"line 4: the number of fields is 3, expected 4",
    ),
    "single colons": ("ratings.dat", None, lines(":"), r"line 1: the number of fields is 1, expected 4"),
    "text in a rating": ("u.data", None, lines("\t") + "1\t7\tgood\t5\n", r"line 4: rating is 'good'"),
    "text in a time": ("u.data", None, "1\t7\t3\t2000-01-01\n", r"line 1: timestamp is '2000-01-01'"),
    "empty": ("ratings.dat", None, "", r"is empty; expected lines of user_id::item_id::rating::timestamp"),
    "blank": ("u.data", None, "\n\n", r"is empty; expected lines of user_id"),
    "header alone": ("ratings.csv", None, HEADER, r"has a header and no rows"),
    "missing column": ("r.csv", "movielens-csv", "userId,rating,timestamp\n1,2,3\n", r"no column 'movieId'"),
    "a long header": ("r.csv", "movielens-csv", "x" * 500 + "\n1\n", r"no column 'userId'; known: x{37}\.\.\.$"),
    "no header": ("r.csv", "movielens-csv", lines(","), r"no column 'userId'"),
    "a header": ("b.csv", "amazon-ratings", "user,item,rating,timestamp\n" + lines(","), r"line 1: rating is 'rating'"),
    "too many fields": ("b.csv", "amazon-ratings", lines(",") + "1,2,3,4,5\n", r"line 4: the number of fields is 5"),
    "empty item": ("b.csv", "amazon-ratings", lines(",") + "1,,3,4\n", r"line 4: item_id is empty"),
    "no behavior": ("UserBehavior.csv", None, lines(","), r"line 1: the number of fields is 4, expected 5"),
    "time of a view": ("UserBehavior.csv", None, taobao() + "1,2,3,pv,\n", r"line 4: timestamp is empty"),
    "seconds in gowalla": (
        "loc-gowalla_totalCheckins.txt",
        None,
        gowalla() + "1\t978300760\t1\t2\t3\n",
        r"line 4: timestamp is '978300760'; expected a time such as 2010-12-31T23:59:59Z",
    ),
    "no dates in gowalla": (
        "loc-gowalla_totalCheckins.txt",
        None,
        "1\tnoon\t1\t2\t3\n",
        r"line 1: timestamp is 'noon'; expected a time",
    ),
    "place missing in gowalla": (
        "loc-gowalla_totalCheckins.txt",
        None,
        gowalla() + "1\t2010-10-19T23:55:27Z\t1\t2\n",
        r"line 4: the number of fields is 4, expected 5",
    ),
    "a field too many at the end": (
        "ratings.dat",
        None,
        lines("::").strip() + "::",
        r"line 3: the number of fields is 5",
    ),
    "no json": (
        "r.json",
        "yelp",
        yelp() + "1,2,3\n",
        r"line 4: '1,2,3' is not JSON .*; expected a JSON object in every line",
    ),
    "no number": ("r.json", "yelp", yelp().replace("5.0", "NaN"), r"line 1: .* is not JSON \(NaN is not a number"),
    "no object": ("r.json", "yelp", yelp() + "[1]\n", r"line 4: '\[1\]' is not a JSON object; expected a JSON object"),
    "no business": (
        "r.json",
        "yelp",
        yelp() + '{"user_id": "u", "date": "2018-07-07 22:09:11"}\n',
        r"line 4: no 'business_id'; its names are 'user_id date'",
    ),
    "no user": ("r.json", "yelp", yelp().replace('"1"', "null"), r"line 1: user_id is empty"),
    "reviews of 2023": (
        "r.json",
        "amazon-reviews",
        reviews(1000, ("user_id", "parent_asin", "rating", "timestamp")),
        r"line 1: no 'reviewerID'; its names fit format='amazon-reviews-2023'",
    ),
    "stars in words beside times as text": (
        "r.json",
        "amazon-reviews",
        '{"reviewerID": "a", "asin": "b", "overall": "five", "unixReviewTime": "3"}\n',
        r"line 1: rating is 'five'",
    ),
    "no date": ("r.json", "yelp", '{"user_id": "u", "business_id": "b", "date": "x"}\n', r"line 1: timestamp is 'x'"),
    "stars in words": (
        "r.json",
        "yelp",
        '{"user_id": "u", "business_id": "b", "stars": "five", "date": "2018-07-07 22:09:11"}\n',
        r"line 1: rating is 'five'",
    ),
    "empty json": ("r.json", "yelp", "", r"is empty; expected lines of JSON objects with user_id, business_id"),
    "no type": ("r.inter", None, RECBOLE.replace(":float", "") + lines("\t"), r"line 1: 'rating' in the header has no"),
    "prefixes": ("r.inter", None, RECBOLE.strip() + "\titem_id_list:token_seq\n", r"line 1: .* row is a prefix"),
    "commas in recbole": ("r.inter", None, RECBOLE.replace("\t", ",") + lines(","), r"',' in it; .* separated by tabs"),
    "spaces in recbole": ("r.inter", None, RECBOLE.replace("\t", " ") + lines(" "), r"spaces in it; .* by tabs"),
    "other names in recbole": ("r.inter", None, RECBOLE.replace("item_id", "venue_id"), r"no column 'item_id'"),
    "text in recbole": ("r.inter", None, RECBOLE + "1\t2\tgood\t3\n", r"line 2: rating is 'good'"),
    "empty recbole": ("r.inter", None, "", r"is empty; expected a header line such as: user_id:token"),
    "a list as an id": (
        "r.json",
        "amazon-reviews",
        reviews() + '{"reviewerID": ["a"], "asin": "b", "overall": 5, "unixReviewTime": 3}\n',
        r"line 4: reviewerID is '\[\"a\"\]'; expected text",
    ),
    "half a pair": (
        "r.json",
        "amazon-reviews",
        reviews() + '{"reviewerID": "a", "asin": "\\ud800", "overall": 5, "unixReviewTime": 3}\n',
        r'line 4: asin is "\\ud800"; half a pair of \\u escapes is no character',
    ),
    "deep json": ("r.json", "amazon-reviews", reviews() + "[" * 100_000 + "\n", r"line 4: .* is not JSON"),
    "a user alone": ("b.txt", "lists", "1 2 3\n4\n", r"line 2: '4' is alone in its line; expected a user"),
    "commas in lists": ("b.txt", "lists", "1,2,3\n", r"line 1: '1,2,3' is alone in its line"),
    "commas and spaces in lists": ("b.txt", "lists", "1 2\n3 4, 5\n", r"line 2: '4,' ends with a separator"),
    "json in lists": ("b.txt", "lists", '{"1": [2, 3]}\n', r"line 1: '\{\"1\":' begins as JSON does"),
    "ends of an old Macintosh": ("b.txt", "lists", "1 2 3\r2 3 4\r", r"line 1: a carriage return within the line"),
    "a blank line in lists": ("b.txt", "lists", "1 2\n\n3 4\n", r"line 2: the line is empty"),
    "empty lists": ("b.txt", "lists", " \n", r"is empty; expected lines of a user and its items"),
    "zero bytes late": ("u.data", None, lines("\t") * 200 + "a\0\t1\t2\t3\n", r"line 601: the line holds a zero byte"),
    "zero bytes late in lists": (
        "b.txt",
        "lists",
        "1 2 3\n" * 900 + "4 5\x006 7\n",
        r"line 901: the line holds a zero byte",
    ),
    "unknown format": ("b.csv", "amazon", lines(","), r"unknown format 'amazon'; did you mean 'amazon-reviews'"),
    "json without a format": ("r.jsonl", None, yelp(), r"or the format of its lines: 'amazon-reviews', .*, 'yelp'$"),
    "packed recbole": ("r.inter.gz", None, "", r"or format='recbole'$"),
    "packed movielens": ("ratings.dat.gz", None, "", r"or format='movielens-1m'$"),
    "another archive": ("log.csv.bz2", None, "", r"unpack it first$"),
    "an archive": ("ml-1m.zip", None, "", r"unpack it first$"),
    "unknown form": ("b.txt", None, lines(","), r"is not a table that can be read"),
}
BAD_BYTES = {
    "utf-16": ("ratings.dat", lines("::").encode("utf-16"), r"is encoded as UTF-16, in line 1"),
    "latin-1": ("u.data", lines("\t").encode() + "caf\xe9\t1\t2\t3\n".encode("latin-1"), r"line 4: .* is not UTF-8"),
    "zero bytes": ("UserBehavior.csv", b"1,2,\0,pv,3\n", r"holds zero bytes, in line 1"),
    "latin-1 in lists": ("train.txt", b"1 caf\xe9\n", r"is not a table that can be read"),
    "not packed": ("reviews_a.json.gz", reviews().encode(), r"is damaged or not a gzip file, in line 1"),
    "compressed": ("ratings.dat", gzip.compress(b"1::2::3::4\n"), r"is compressed"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_text_names_the_line(case: str, tmp_path: Path) -> None:
    name, format, text, message = BAD[case]
    path = tmp_path / name
    path.write_bytes(text.encode())
    with pytest.raises(DataError, match=message) as error:
        read_interactions(path, format=format)
    assert len(str(error.value).splitlines()) <= 2
    assert len(str(error.value).replace(str(path), "")) < 200
    report = check(path, format=format)
    assert not report.ok and report.problems


@pytest.mark.parametrize("case", BAD_BYTES)
def test_bad_bytes_name_the_line(case: str, tmp_path: Path) -> None:
    name, content, message = BAD_BYTES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_interactions(path)
    assert not check(path).ok


def test_another_ratings_csv_is_none_of_movielens(tmp_path: Path) -> None:
    """The name alone says little: a header that is not MovieLens's is not guessed at."""
    path = tmp_path / "ratings.csv"
    path.write_text("user_id,item_id,timestamp\na,b,1\n")
    assert len(load(path)) == 1
    path.write_text("userId,movieId,timestamp\na,b,1\n")
    with pytest.raises(DataError, match="no column 'user_id', but 'userId'"):
        load(path)


def test_a_folder_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ratings.dat").write_text(lines("::"))
    monkeypatch.setenv("DGLREC_DATA", str(tmp_path))
    assert len(load("ml-1m")) == 3
    assert {info.name: info.place for info in list_datasets()}["ml-1m"] == "DGLREC_DATA"
    assert set(NAMES.values()) <= set(FORMATS)


def test_the_command_line_takes_a_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ratings_Books.csv"
    path.write_text(lines(","))
    assert main(["data", "check", str(path)]) == 2
    assert main(["data", "check", str(path), "--format", "amazon-ratings"]) == 0
    assert "3 of 2 users and 2 items" in capsys.readouterr().out


def test_the_command_line_takes_behaviors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "UserBehavior.csv"
    kinds = ("pv", "buy", "fav", "pv")
    path.write_text("".join(f"u{n},i{n + at},c,{kind},{at}\n" for n in range(5) for at, kind in enumerate(kinds)))
    train = ["train", "popularity", "--data", str(path), "--out", str(tmp_path / "run"), "--json", "--device", "cpu"]
    assert main([*train, "--set", "data.behaviors=pv,buy"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["queries"] == 5
    assert main([*train[:-4], str(tmp_path / "other")]) == 2  # two views are too few
    assert "no user" in capsys.readouterr().err
