"""Readers: every format gives the same log, and every bad file a short error with its line and value."""

from __future__ import annotations

import gzip
import io
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dglrec.data import InteractionLog, from_frame, load, read_interactions
from dglrec.data.forms import form_of
from dglrec.data.readers import find_problems, read_items
from dglrec.data.readers.header import Wanted
from dglrec.data.readers.tables import read_text
from dglrec.errors import DataError

HEADER = "user_id\titem_id\trating\ttimestamp\n"
ROWS = [("ann", "007", 4.5, 30), ("bob", "B é", 3.0, 20), ("ann", "B é", 1.0, 10), ("ann", "x,y", 2.0, 10)]


def tsv(rows: list[tuple[object, ...]] = ROWS) -> str:
    return HEADER + "".join("\t".join(map(str, row)) + "\n" for row in rows)


@pytest.fixture
def expected() -> InteractionLog:
    users, items, ratings, times = zip(*ROWS, strict=True)
    return InteractionLog.from_arrays(users, items, times, ratings)


# Every way in gives the same log --------------------------------------------------------------------------------------


def as_csv() -> str:
    return tsv().replace("x,y", '"x#y"').replace("\t", ",").replace("x#y", "x,y")


FILES: dict[str, Callable[[], bytes]] = {
    "log.tsv": lambda: tsv().encode(),
    "log.csv": lambda: as_csv().encode(),
    "log.tsv.gz": lambda: gzip.compress(tsv().encode()),
    "log.csv.gz": lambda: gzip.compress(as_csv().encode()),
    "crlf.tsv": lambda: tsv().replace("\n", "\r\n").encode(),
    "mark.tsv": lambda: b"\xef\xbb\xbf" + tsv().encode(),
    "noend.tsv": lambda: tsv().rstrip().encode(),
    "blank_end.tsv": lambda: (tsv() + "\n\n").encode(),
    "spaces.tsv": lambda: tsv().replace("\t30\n", "\t 30 \n").encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_every_text_file_gives_the_same_log(name: str, tmp_path: Path, expected: InteractionLog) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    log = read_interactions(path)
    assert log.digest() == expected.digest()
    assert log.name == name.partition(".")[0]
    assert list(find_problems(path)) == []


def polars_frame() -> pl.DataFrame:
    return pl.DataFrame(ROWS, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")


def pandas_frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating", "timestamp"])


FRAMES: dict[str, Callable[[], object]] = {
    "polars": polars_frame,
    "polars lazy": lambda: polars_frame().lazy(),
    "polars text": lambda: polars_frame().cast(pl.String),
    "polars categorical": lambda: polars_frame().with_columns(pl.col("item_id").cast(pl.Categorical)),
    "polars datetime": lambda: polars_frame().with_columns(pl.from_epoch("timestamp", time_unit="s")),
    "pandas": pandas_frame,
    "pandas object": lambda: pandas_frame().astype(object),
    "pandas category": lambda: pandas_frame().astype({"user_id": "category"}),
    "pandas nullable": lambda: pandas_frame().astype({"timestamp": "Int64", "rating": "Float64"}),
    "pandas datetime": lambda: pandas_frame().assign(timestamp=lambda t: pd.to_datetime(t.timestamp, unit="s")),
    "pandas zone": lambda: pandas_frame().assign(
        timestamp=lambda t: pd.to_datetime(t.timestamp, unit="s", utc=True).dt.tz_convert("Asia/Tokyo")
    ),
    "pandas with another index": lambda: pandas_frame().set_index(pd.Index([7, 7, 1, 3])),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_gives_the_same_log(kind: str, expected: InteractionLog) -> None:
    assert from_frame(FRAMES[kind]()).digest() == expected.digest()


def test_parquet_gives_the_same_log(tmp_path: Path, expected: InteractionLog) -> None:
    polars_frame().write_parquet(tmp_path / "log.parquet")
    assert read_interactions(tmp_path / "log.parquet").digest() == expected.digest()


def test_integer_ids_become_text() -> None:
    frame = pl.DataFrame({"user_id": [10, 2], "item_id": [1, 1]})
    assert from_frame(frame).user_ids.tolist() == ["10", "2"]
    assert from_frame(pd.DataFrame({"user_id": [10, 2], "item_id": [1, 1]})).user_ids.tolist() == ["10", "2"]


def test_rating_and_time_may_be_absent_or_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    for text in (
        "item_id\tuser_id\nx\ta\ny\ta\n",
        HEADER + "a\tx\t\t\na\ty\t\t\n",
        "extra\tuser_id\tprice\titem_id\nq\ta\t1\tx\nq\ta\t2\ty\n",
    ):
        path.write_text(text)
        log = read_interactions(path)
        assert (log.time, log.rating) == (None, None)
        assert log.item_ids.tolist() == ["x", "y"]
    path.write_text('user_id,item_id,timestamp\na,x,""\na,y,""\n')
    assert read_interactions(path.rename(tmp_path / "log.csv")).time is None
    frame = pandas_frame().assign(timestamp=np.nan, rating=np.nan)
    assert from_frame(frame).time is None
    assert from_frame(frame).rating is None


def test_some_ratings_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(HEADER + "a\tx\t\t1\na\ty\t2\t2\n")
    log = read_interactions(path)
    assert log.rating is not None
    np.testing.assert_array_equal(log.rating, np.array([np.nan, 2], dtype=np.float32))


def test_order_file_does_without_times(tmp_path: Path, expected: InteractionLog) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(tsv().replace("\t30\n", "\tyesterday\n"))
    log = read_interactions(path, order="file")
    assert log.time is None
    assert log.item_ids[log.item].tolist() == ["007", "B é", "x,y", "B é"]
    quoted = tmp_path / "log.csv"
    quoted.write_text('user_id,item_id,timestamp\na,"x,y",\nb,z,2014-07-23\n')  # commas are counted line by line
    assert read_interactions(quoted, order="file").item_ids.tolist() == ["x,y", "z"]
    for read, source in ((read_interactions, path), (from_frame, pandas_frame())):
        with pytest.raises(DataError, match="order is 'rows'; expected 'time' or 'file'"):
            read(source, order="rows")  # type: ignore[operator]


def test_other_names_of_columns(tmp_path: Path, expected: InteractionLog) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(tsv().replace("user_id", "uid").replace("timestamp", "when"))
    columns = {"user_id": "uid", "timestamp": "when"}
    assert read_interactions(path, columns=columns).digest() == expected.digest()
    assert load(path, columns=columns).digest() == expected.digest()
    assert from_frame(pandas_frame().rename(columns={"user_id": "uid"}), columns={"user_id": "uid"}).digest()
    with pytest.raises(DataError, match="no column 'wen'; did you mean 'when'"):
        read_interactions(path, columns=columns | {"timestamp": "wen"})
    with pytest.raises(DataError, match="columns has no 'user'; did you mean 'user_id'"):
        read_interactions(path, columns={"user": "uid"})


def test_quotes_mean_something_in_csv_alone(tmp_path: Path) -> None:
    text = 'user_id,item_id\na,"two\nlines"\na,"say ""hi"", twice"\n'
    (tmp_path / "log.csv").write_text(text)
    log = read_interactions(tmp_path / "log.csv")
    assert log.item_ids.tolist() == ["two\nlines", 'say "hi", twice']
    (tmp_path / "log.tsv").write_text('user_id\titem_id\na\t"half\nb\tx"\n')
    assert read_interactions(tmp_path / "log.tsv").item_ids.tolist() == ['"half', 'x"']


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6),
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6),
            st.integers(-(2**40), 2**40),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_ids_survive_writing_and_reading(tmp_path: Path, rows: list[tuple[str, str, int]]) -> None:
    users, items, times = zip(*rows, strict=True)
    expected = InteractionLog.from_arrays(users, items, times)
    frame = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
    frame.write_csv(tmp_path / "log.csv")
    frame.write_csv(tmp_path / "log.tsv", separator="\t", quote_style="never")
    for name in ("log.csv", "log.tsv"):
        assert read_interactions(tmp_path / name).digest() == expected.digest()


def test_titles(tmp_path: Path) -> None:
    path = tmp_path / "items.tsv"
    path.write_text('item_id\ttitle\tbrand\n1\t11" pan\t\n2\t\tb\n3\tCafé\tc\n', encoding="utf-8")
    titles, texts = read_items(path)
    assert titles == {"1": '11" pan', "2": "", "3": "Café"}
    assert texts == {"1": '11" pan', "2": "b", "3": "Café. c"}
    path.write_text("item_id\tname\n1\tpan\n")
    with pytest.raises(DataError, match=r"items.tsv: no column 'title'; the header line is 'item_id name'; rename"):
        read_items(path)
    path.write_text("item_id\ttitle\n1\tpan\n2\ta\tb\n")
    with pytest.raises(DataError, match=r"items.tsv line 3: the number of fields is 3"):
        read_items(path)
    pl.DataFrame({"item_id": [1], "title": ["pan"]}).write_parquet(tmp_path / "items.parquet")
    assert read_items(tmp_path / "items.parquet") == ({"1": "pan"}, None)


def test_texts_are_all_that_is_said_of_an_item(tmp_path: Path) -> None:
    """Title, brand, categories and description, in that order; what only looks like one of them is left alone."""
    columns = {
        "description": ["Flat.", None, ""],
        "categories": ["Home > Kitchen | Pans", "", None],
        "item_id": [1, 2, 3],
        "title": ["pan", None, "pot"],
        "brand": ["Acme", "Best", None],
        "Brands": ["x", "y", "z"],
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "items.parquet")
    pl.DataFrame(columns).write_csv(tmp_path / "items.csv")
    wanted = {"1": "pan. Acme. Home > Kitchen | Pans. Flat.", "2": "Best", "3": "pot"}
    for name in ("items.parquet", "items.csv"):
        assert read_items(tmp_path / name) == ({"1": "pan", "2": "", "3": "pot"}, wanted)
    pl.DataFrame(columns | {"categories": [["a"], ["b"], []]}).write_parquet(tmp_path / "items.parquet")
    assert read_items(tmp_path / "items.parquet")[1] == {"1": "pan. Acme. Flat.", "2": "Best", "3": "pot"}
    pl.DataFrame(columns).select("item_id", "title", pl.lit("").alias("brand")).write_csv(tmp_path / "items.csv")
    assert read_items(tmp_path / "items.csv")[1] is None


# Every bad file gives a short error -----------------------------------------------------------------------------------

GOOD = "a\tx\t1\t10\n"
BAD_TEXT = {
    "missing column": (
        "user_id\trating\ttimestamp\na\t1\t10\n",
        r"no column 'item_id'; the header line is '.*'; pass columns=\{\"item_id\": \"\.\.\.\"\}",
    ),
    "other spelling": (HEADER.replace("user_id", "userId") + GOOD, r"line 1.*|no column 'user_id', but 'userId'"),
    "other word": (HEADER.replace("item_id", "asin") + GOOD, r'pass columns=\{"item_id": "asin"\}'),
    "other time": (HEADER.replace("timestamp", "time") + GOOD, r"no column 'timestamp', but 'time'; rename it"),
    "column twice": (HEADER.replace("rating", "user_id") + GOOD, r"has 'user_id' twice; rename one of them"),
    "no header": (GOOD + GOOD, r"no column 'user_id'; the header line is 'a x 1 10' \(has the file no header\?\)"),
    "semicolons": (tsv().replace("\t", ";"), r"item_id;rating;timestamp', one column \(separated by semicolons: save"),
    "wrong separator": (tsv().replace("\t", ","), r"separated by commas: name the file \.csv"),
    "text in time": (HEADER + GOOD + "a\ty\t1\t2014-07-23\n", r"line 3: timestamp is '2014-07-23'; expected a number"),
    "text in rating": (HEADER + GOOD * 3 + "a\ty\tgood\t11\n", r"line 5: rating is 'good'; expected a number"),
    "infinite rating": (HEADER + GOOD + "a\ty\tinf\t11\n", r"line 3: rating is 'inf'"),
    "NaN time": (HEADER + GOOD + "a\ty\t1\tnan\n", r"line 3: timestamp is 'nan'; expected a finite number"),
    "infinite time": (HEADER + "a\ty\t1\t-inf\n" + GOOD, r"line 2: timestamp is '-inf'; expected a finite number"),
    "some times": (HEADER + GOOD + "a\ty\t1\t\n" + GOOD, r"line 3: timestamp is empty, and other lines have one"),
    "empty user": (HEADER + GOOD + "\ty\t1\t11\n", r"line 3: user_id is empty; expected an id in every row"),
    "empty item": (HEADER + GOOD + "a\t\t1\t11\n", r"line 3: item_id is empty"),
    "too few fields": (HEADER + GOOD + "a\ty\n" + GOOD, r"line 3: the number of fields is 2, and in the header 4"),
    "too many fields": (HEADER + GOOD + "a\ty\t1\t11\t9\n", r"line 3: the number of fields is 5, and in the header 4"),
    "ragged, no times": ("user_id\titem_id\trating\na\tx\t\nb\ty\n", r"line 3: the number of fields is 2"),
    "blank line": (HEADER + GOOD + "\n" + GOOD, r"line 3: the line is empty; take it out"),
    "empty": ("", r"is empty; expected a header line"),
    "blank": ("\n\n", r"is empty; expected a header line"),
    "header alone": (HEADER, r"has a header and no rows"),
    "header without end": (HEADER.rstrip("\n"), r"has a header and no rows"),
}
BAD_BYTES = {
    "latin-1.tsv": ((HEADER + GOOD + "b\tcafé\t1\t11\n").encode("latin-1"), r"line 3: .* is not UTF-8"),
    "latin-1 header.tsv": (
        "user_id\titem_id\tbewertöng\na\tx\t1\n".encode("latin-1"),
        r"line 1: the header is not UTF-8",
    ),
    "utf-16.tsv": (tsv().encode("utf-16"), r"is encoded as UTF-16, in line 1"),
    "utf-32.tsv": (tsv().encode("utf-32"), r"is encoded as UTF-32, in line 1"),
    "utf-32-be.tsv": (b"\0\0\xfe\xff" + tsv().encode("utf-32-be"), r"is encoded as UTF-32, in line 1"),
    "utf-16-le.tsv": (tsv().encode("utf-16-le"), r"holds zero bytes, in line 1"),
    "long.tsv": (
        (HEADER + GOOD + "b\t" + "x" * 200_000 + "\tno\t11\n").encode(),
        r"line 3: a field has more than 131,072 characters; is a closing quote or a line end missing",
    ),
    "compressed.tsv": (gzip.compress(tsv().encode()), r"is compressed; give it a name that ends in \.gz"),
    "plain.tsv.gz": (tsv().encode(), r"is damaged or not a gzip file, in line 1"),
    "empty.tsv.gz": (b"", r"is empty"),
    "no.parquet": (b"hello", r"is damaged or not a parquet file \(.*\); fetch or save it again"),
    "picture.png": (b"hello", r"is not a table that can be read; expected a name that ends in \.tsv\.gz"),
    "open quote.csv": (b'user_id,item_id\na,"x\nb,y\n', r"line|cannot be read"),
    "stray quote.csv": (b'user_id,item_id\n"a",x\nb,5" pan\n', r"line 3: a quote within a field; double it"),
    "quote after.csv": (b'user_id,item_id\n"a\n1","x"\n"b"c,x\n', r"line 4: a quote within a field; double it"),
    "mac.csv": (b"user_id,item_id\ra,x\rb,y\r", r"line 1: a carriage return within the line"),
}


def assert_short(error: pytest.ExceptionInfo[DataError], path: Path) -> None:
    text = str(error.value)
    assert str(path) in text
    assert text.count(str(path)) == 1
    assert len(text.splitlines()) <= 2
    assert len(text.replace(str(path), "")) < 200


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_text(case: str, tmp_path: Path) -> None:
    text, message = BAD_TEXT[case]
    path = tmp_path / "log.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_interactions(path)
    assert_short(error, path)
    assert next(find_problems(path), None) is not None  # what `check` reads finds it too


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_bytes(name: str, tmp_path: Path) -> None:
    content, message = BAD_BYTES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_interactions(path)
    assert_short(error, path)


def test_a_cut_off_gzip_names_the_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[tuple[object, ...]] = [(rng.integers(1 << 60), rng.integers(1 << 60), 1, 2) for _ in range(20_000)]
    whole = gzip.compress(tsv(rows).encode())
    path = tmp_path / "log.tsv.gz"
    for share in (0.2, 0.6):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"is cut off in line \d+: the compressed file has no end") as error:
            read_interactions(path)
        assert_short(error, path)
        line = int(str(error.value).partition("line ")[2].partition(":")[0])
        assert abs(line / 20_000 - share) < 0.05
    broken = bytearray(whole)
    broken[len(broken) // 2] ^= 0xFF
    path.write_bytes(bytes(broken))
    with pytest.raises(DataError, match="is damaged") as error:
        read_interactions(path)
    assert_short(error, path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_interactions(tmp_path / "log.tsv")
    with pytest.raises(DataError, match="no file"):
        read_interactions(tmp_path / "log.parquet")
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        read_interactions(tmp_path / "folder.tsv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": ["a", None, "b", "c"]}, "user_id of row 1 is empty"),
        ({"item_id": ["a", "b", "", "c"]}, "item_id of row 2 is empty"),
        ({"user_id": [1.5, 2, 3, 4]}, "'user_id' holds Float64"),
        ({"user_id": [True, False, True, True]}, "'user_id' holds Boolean"),
        ({"timestamp": [1.0, 2.0, float("nan"), 4.0]}, "timestamp of row 2 is missing, and other rows have one"),
        ({"timestamp": [1.0, 2.0, 3.0, float("inf")]}, "timestamp of row 3 is inf"),
        ({"timestamp": ["1", "2", "soon", "4"]}, "timestamp of row 2 is 'soon'; expected a number"),
        ({"rating": [1.0, 2.0, float("-inf"), 4.0]}, "rating of row 2 is -inf; expected a smaller number"),
    ],
)
def test_bad_frames(change: dict[str, list[object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_frame(pandas_frame().assign(**change))
    with pytest.raises(DataError, match=message):
        from_frame(polars_frame().with_columns(**{name: pl.Series(values) for name, values in change.items()}))


def test_one_long_id_among_many_is_refused(tmp_path: Path) -> None:
    """In an array of text all would be as long: 16 GB."""
    users = [*map(str, range(40_000)), "a" * 100_000]
    frame = pl.DataFrame({"user_id": users, "item_id": "x"})
    frame.write_csv(tmp_path / "log.tsv", separator="\t")
    for read in (lambda: from_frame(frame), lambda: read_interactions(tmp_path / "log.tsv")):
        with pytest.raises(DataError, match=r"user_id of row 40000 has 100,000 characters, 'aaa"):
            read()
    assert len(from_frame(frame[-2:])) == 2


def test_bytes_are_no_ids() -> None:
    """pandas keeps them as objects, and their text would be "b'a'"; polars has a type for them."""
    for values, frame in (("Object", pd.DataFrame), ("Binary", pl.DataFrame)):
        with pytest.raises(DataError, match=f"column 'user_id' holds {values}; expected ids as text or integers"):
            from_frame(frame({"user_id": [b"a", b"b"], "item_id": ["x", "y"]}))


def test_frames_without_rows_or_columns() -> None:
    for frame in (polars_frame(), pandas_frame()):
        with pytest.raises(DataError, match="the frame has no rows"):
            from_frame(frame[:0])
    with pytest.raises(DataError, match="the frame: no column 'item_id', but 'item'"):
        from_frame(pandas_frame().rename(columns={"item_id": "item"}))
    with pytest.raises(DataError, match="timestamp of row 1 is missing"):
        from_frame(pandas_frame().assign(timestamp=pd.to_datetime([1, None, 2, 3], unit="s")))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["log.tsv", "log.csv"]),
    st.one_of(
        st.binary(max_size=60),
        st.text('\t\n\r",ab1. \0é', max_size=40).map(lambda text: HEADER.encode() + text.encode()),
        st.text('\t\n\r",ab1. \0é', max_size=40).map(lambda text: b"user_id,item_id\n" + text.encode("latin-1")),
    ),
)
def test_no_bytes_break_the_reader(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    try:
        log = read_interactions(path)
    except DataError as error:
        message = str(error)
    else:
        message = ""
        assert len(log) > 0
    assert len(message.splitlines()) <= 2
    list(find_problems(path))


def test_reading_is_not_slow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "user_id": rng.integers(0, 30_000, 300_000),
            "item_id": rng.integers(0, 10_000, 300_000),
            "timestamp": rng.integers(0, 10**9, 300_000),
        }
    )
    buffer = io.BytesIO()
    frame.write_csv(buffer, separator="\t")
    (tmp_path / "log.tsv").write_bytes(buffer.getvalue())
    start = time.process_time()
    assert len(read_interactions(tmp_path / "log.tsv")) == 300_000
    assert time.process_time() - start < 5  # about .3 s on an idle machine; the slow path takes many times as long


def test_a_file_is_in_memory_once(tmp_path: Path) -> None:
    """Besides the columns, which polars keeps."""
    path = tmp_path / "log.tsv"
    path.write_text(HEADER + "a\tx\t1\t10\n" * 2_000_000)
    tracemalloc.start()
    read_text(path, form_of(path), Wanted.of_interactions(None))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.2 * path.stat().st_size


def test_a_panic_of_polars_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed bytes of a Parquet file raise it, and it is no Exception."""
    polars_frame().write_parquet(tmp_path / "log.parquet")

    def panic(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("entered\0unreachable code\nand more")

    monkeypatch.setattr(pl.LazyFrame, "collect", panic)
    with pytest.raises(DataError, match=r"is damaged or not a parquet file \(entered\?unreachable code\)"):
        read_interactions(tmp_path / "log.parquet")


def test_parquet_takes_the_columns_that_are_needed_and_no_bombs(tmp_path: Path) -> None:
    import polars as pl

    path = tmp_path / "log.parquet"
    table = pl.DataFrame({"text": ["so"], "item_id": ["i"], "user_id": ["u"], "vectors": [[1.0]]})
    table.write_parquet(path)
    assert len(read_interactions(path)) == 1
    assert read_interactions(path, columns={"item_id": "text"}).item_ids.tolist() == ["so"]
    with pytest.raises(DataError, match="no column 'uid'; did you mean"):
        read_interactions(path, columns={"user_id": "uid"})
    rows = pl.select(user_id=pl.lit("u", dtype=pl.String).repeat_by(20_000_000).explode()).with_columns(
        item_id="user_id"
    )
    rows.write_parquet(path)
    assert path.stat().st_size < 150_000
    with pytest.raises(
        DataError, match=r"has 20,000,000 rows in .* bytes, which no log has; if it is one, save it as .tsv"
    ):
        read_interactions(path)
