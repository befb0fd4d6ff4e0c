"""Readers of tables: a file or a frame with one interaction a row -> an InteractionLog.

A tidy table has the columns `user_id item_id rating timestamp`; the last two may be absent or empty. Files are .tsv,
.csv (either also as .gz) or .parquet; `dglrec.data.forms` has the forms of other sources that are read. Reading takes
the fast path through polars; only where that fails the file is read again, line by line, to say in which line it is
wrong.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import difflib
import functools
import gzip
import io
import itertools
import json
import lzma
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..errors import DataError, closest
from .forms import FORMATS, SUFFIXES, Form, form_of, id_fields, test_beside, titles_form_of
from .log import Bools, Floats, InteractionLog, Ints, Strings, _first_line
from .trial import mistake

if TYPE_CHECKING:
    import polars

COLUMNS = ("user_id", "item_id", "rating", "timestamp")
ITEM_TEXTS = ("brand", "categories", "description")  # what a file of items may say beside titles

# What a packed file may unpack to: so many times its own size, or so many bytes if that is more. Tables pack to about a
# fifth; what packs to less than a hundredth was made to fill somebody's memory.
_MOST_PACKED = 100
_ALWAYS_UNPACKED = 1 << 24

# What ids may take in memory, where most are far shorter than the longest.
_LARGEST_IDS = 1 << 27

_STRAY_RETURN = "a carriage return within the line; save the file with line ends of Unix or Windows"

_LARGEST_RATING = float(np.finfo(np.float32).max)

# Headers that other sources use. They are not guessed at: the error says how to name them.
_OTHER_SPELLINGS = {
    "user_id": ("user", "uid", "userid", "reviewerid", "user_idx", "visitorid", "session_id"),
    "item_id": ("item", "iid", "itemid", "asin", "movieid", "movie_id", "business_id", "product_id", "item_idx"),
    "rating": ("ratings", "stars", "score", "overall"),
    "timestamp": ("time", "ts", "date", "datetime", "timestamps", "unixreviewtime", "unix_time"),
}


class Problem(NamedTuple):
    """Something wrong in a file: the line (1 is the header; None: the file as a whole), and what."""

    line: int | None
    text: str


def read_interactions(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    order: Literal["time", "file"] = "time",
    titles: Mapping[str, str] | None = None,
    name: str | None = None,
    format: str | None = None,
    behaviors: Sequence[str] = ("pv",),
) -> InteractionLog:
    """Reads an interaction file: a tidy one, or an original of a known form.

    Args:
        path: a .tsv, .csv, .tsv.gz, .csv.gz or .parquet file with a header.
        columns: the file's names of the columns, such as {"user_id": "uid"}; those not named have their own name.
        order: "time" sorts each user's rows by time; "file" drops the times and keeps the rows as they stand.
        titles: item id -> title.
        name: name of the log; the file's name without suffix by default.
        format: a key of `dglrec.data.forms.FORMATS`; None: tidy, or as the file's name says.
        behaviors: for "taobao", what counts as an interaction, of "pv" (a view), "buy", "cart" and "fav".

    Raises:
        DataError: the file cannot be used; the message names file, line and value.
    """
    path = Path(path)
    if path.suffix == ".parquet" and format is None:
        frame = _read_parquet(path, ("user_id", "item_id"), ("rating", "timestamp"), columns)
        return from_frame(frame, columns=columns, order=order, titles=titles, name=name or stem(path), source=str(path))
    form = form_of(path, format)
    has_behavior = "behavior" in (form.fields or ())
    required = ("user_id", "item_id", "behavior") if has_behavior else ("user_id", "item_id")
    table = _read_text(path, form, required, ("rating", "timestamp"), columns)
    if has_behavior:
        table = _with_behaviors(table, behaviors, path)
    use_time = order == "time"
    part = None
    if form.split:
        table, part = _with_test(table, path, form)
    try:
        if use_time:
            table = _with_dates(table, form.dates, str(path))
        log = _to_log(table, use_time, titles, name or stem(path), str(path), part)
    except DataError as error:
        raise _with_line(path, error, find_problems(path, columns, use_time, format=format)) from None
    if form.per_second > 1 and log.time is not None:
        return dataclasses.replace(log, time=log.time / form.per_second)
    return log


def _with_test(table: dict[str, polars.Series], path: Path, form: Form) -> tuple[dict[str, polars.Series], Ints]:
    """The rows of a training part and of the test part beside it, and to which part each row belongs."""
    beside = test_beside(path)
    if beside is None:
        raise DataError(f"{path} has no test.txt beside it; expected both parts of the split in one folder")
    test = _read_text(beside, form, form.fields or (), (), None)
    part = np.repeat([0, 2], [len(rows["user_id"]) for rows in (table, test)])
    return {name: values.append(test[name]) for name, values in table.items()}, part


def _with_behaviors(table: dict[str, polars.Series], behaviors: Sequence[str], path: Path) -> dict[str, polars.Series]:
    """The rows of some behaviors."""
    known = table["behavior"].unique().drop_nulls().sort().to_list()
    wanted = (behaviors,) if isinstance(behaviors, str) else tuple(behaviors)
    if not set(wanted) & set(known):
        raise DataError(
            f"{path}: no line has a behavior of {', '.join(wanted) or 'none'}; there are {_shown(', '.join(known), 60)}"
        )
    keep = table["behavior"].is_in(wanted)
    return {name: values.filter(keep) for name, values in table.items()}


def from_frame(
    frame: Any,
    *,
    columns: Mapping[str, str] | None = None,
    order: Literal["time", "file"] = "time",
    titles: Mapping[str, str] | None = None,
    name: str = "frame",
    source: str = "the frame",
) -> InteractionLog:
    """A log from a pandas or polars frame with the columns of a tidy file; times may be seconds or datetimes.

    Args:
        frame: the frame.
        columns: the frame's names of the columns, such as {"user_id": "uid"}.
        order: as in `read_interactions`.
        titles: item id -> title.
        name: name of the log.
        source: what error messages call the frame.

    Raises:
        DataError: a column is missing or holds what it should not; rows are counted from 0.
    """
    if hasattr(frame, "collect"):  # a lazy polars frame
        frame = frame.collect()
    header = [str(column) for column in frame.columns]
    wanted = _match_columns(header, ("user_id", "item_id"), ("rating", "timestamp"), columns, source)
    series = {column: _to_polars(frame[frame.columns[place]]) for column, place in wanted.items()}
    return _to_log(series, order == "time", titles, name, source)


def read_items(
    path: str | os.PathLike[str], *, columns: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str] | None]:
    """Item id -> title, and item id -> all that is said of it, from a file with the columns `item_id title`.

    What is said of an item is its title and, where there are such columns, its brand, categories and description; None
    where that adds nothing to the titles. Other columns are left alone. MovieLens's own `movies.dat`, `u.item` and
    `movies.csv` are read as they are.

    Args:
        path: the file.
        columns: its names of `item_id` and `title`, such as {"item_id": "business_id"}; other keys are left alone.

    Raises:
        DataError: the file cannot be used.
    """
    path = Path(path)
    names = {ours: theirs for ours, theirs in (columns or {}).items() if ours in ("item_id", "title")}
    if path.suffix == ".parquet":
        frame = _read_parquet(path, ("item_id", "title"), (), names, ITEM_TEXTS)
        ours = {theirs: ours for ours, theirs in names.items()}
        table = {ours.get(column, column): frame[column] for column in frame.columns}
    else:
        table = _read_text(path, titles_form_of(path), ("item_id", "title"), (), names, ITEM_TEXTS)
    more = [column for column in ITEM_TEXTS if column in table and not table[column].dtype.is_nested()]
    ids, titles, *others = (
        table[column].cast(_pl().String).fill_null("").to_list() for column in ("item_id", "title", *more)
    )
    texts = [". ".join(filter(None, said)) for said in zip(titles, *others, strict=True)]
    return dict(zip(ids, titles, strict=True)), None if texts == titles else dict(zip(ids, texts, strict=True))


def find_problems(
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    use_time: bool = True,
    *,
    required: Sequence[str] = ("user_id", "item_id"),
    optional: Sequence[str] = ("rating", "timestamp"),
    format: str | None = None,
    form: Form | None = None,
) -> Iterator[Problem]:
    """Reads a text file line by line and yields what is wrong with it, in the order of the lines.

    This is the slow path: it is taken when the fast one failed, and by `check`.
    """
    path = Path(path)
    try:
        _check_bloat(path)  # line by line it would take hours to find out
        form = form_of(path, format) if form is None else form
        rows = _rows(path, form)
        header = next(rows, None) if form.fields is None else list(form.fields)
    except (DataError, csv.Error) as error:
        yield Problem(None, _reason(error))
        return
    if header is None:
        yield Problem(None, f"{path} is empty; expected {form.expected()}")
        return
    expected = f"and in the header {len(header)}" if form.fields is None else f"expected {len(header)}"
    try:
        if _undecodable("".join(header)):
            raise DataError("the header is not UTF-8; save the file with encoding UTF-8")
        header = form.labels(header)
        place = _match_columns(header, required, optional, {**form.columns, **(columns or {})}, "")
    except DataError as error:
        yield Problem(1, str(error))
        return
    number_of_rows = 0
    blank = timed = untimed = None  # the first blank line, the first with a time, the first without
    mixed = False  # whether it was said that some lines have a time and some have none
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            number_of_rows += 1
            yield Problem(rows.line_num, _reason(error))
            continue
        except DataError as error:  # the file ends here
            yield Problem(rows.line_num + 1, str(error))
            return
        line = rows.line_num
        if not row:
            blank = line if blank is None else blank
            continue
        if blank is not None:  # blank lines at the end are nobody's mistake
            yield Problem(blank, "the line is empty")
            blank = None
        number_of_rows += 1
        problems = _row_problems(row, len(header), expected, place, use_time, form.dates)
        yield from (Problem(line, text) for text in problems)
        if use_time and "timestamp" in place and len(row) == len(header):
            if row[place["timestamp"]].strip() == "":
                untimed = line if untimed is None else untimed
            else:
                timed = line if timed is None else timed
            if untimed is not None and timed is not None and not mixed:
                yield Problem(untimed, "timestamp is empty, and other lines have one; fill it in, or leave out all")
                mixed = True
    if number_of_rows == 0:
        empty = "has a header and no rows; expected at least one"
        if form.fields is not None:
            alone = form.split and rows.line_num > 0  # users without items
            empty = f"{'has no items' if alone else 'is empty'}; expected {form.expected()}"
        yield Problem(None, f"{path} {empty}")


def _row_problems(
    row: list[str], width: int, expected: str, place: Mapping[str, int], use_time: bool, dates: str
) -> Iterator[str]:
    """What is wrong with one row, by itself."""
    broken = next((cell for cell in row if not cell.isascii() and _undecodable(cell)), None)
    if broken is not None:
        yield f"{_shown(broken)} is not UTF-8; save the file with encoding UTF-8"
        return
    if any("\0" in cell for cell in row):
        yield "the line holds a zero byte; expected text"
        return
    if len(row) != width:
        yield f"the number of fields is {len(row)}, {expected}"
        return
    for column in ("user_id", "item_id"):
        if column in place and row[place[column]] == "":
            yield f"{column} is empty"
    if "rating" in place and (text := row[place["rating"]].strip()) != "":
        stars = _number(text)
        if stars is None or abs(stars) > _LARGEST_RATING:
            yield f"rating is {_shown(text)}; expected a {'' if stars is None else 'smaller '}number, or nothing"
    if use_time and "timestamp" in place and (text := row[place["timestamp"]].strip()) != "":
        if dates:
            if not _is_date(text, dates):
                yield f"timestamp is {_shown(text)}; expected a time such as {_example(dates)}"
            return
        seconds = _number(text)
        if seconds is None:
            yield f"timestamp is {_shown(text)}; expected a number (seconds since 1970)"
        elif not math.isfinite(seconds):
            yield f"timestamp is {_shown(text)}; expected a finite number of seconds"


def first_duplicate(
    path: str | os.PathLike[str], columns: Mapping[str, str] | None = None, format: str | None = None
) -> tuple[int | None, int]:
    """Lines of a sound text file with user, item and time of an earlier line: (the first of them, their number)."""
    path = Path(path)
    form = form_of(path, format)
    rows = _rows(path, form)
    header = form.labels(next(rows)) if form.fields is None else form.fields
    names = {**form.columns, **(columns or {})}
    place = _match_columns(header, ("user_id", "item_id"), ("timestamp",), names, str(path))
    seen: set[tuple[str, ...]] = set()
    first, number = None, 0
    for row in rows:
        event = tuple(row[column] for column in place.values()) if row else ()
        if event and event in seen:
            first, number = rows.line_num if first is None else first, number + 1
        seen.add(event)
    return first, number


def stem(path: Path) -> str:
    """The name of a file without its suffixes: "clicks" for clicks.tsv.gz."""
    suffix = next((suffix for suffix in (*SUFFIXES, ".npz", ".inter") if path.name.endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] or path.name


# The fast path --------------------------------------------------------------------------------------------------------


def _pl() -> Any:
    """polars, imported here alone, so that everything but reading files works without it."""
    try:
        import polars
    except ImportError as error:
        raise DataError("reading tables needs polars; run: pip install polars") from error
    return polars


def _read_text(
    path: Path,
    form: Form,
    required: Sequence[str],
    optional: Sequence[str],
    columns: Mapping[str, str] | None,
    more: Sequence[str] = (),
) -> dict[str, polars.Series]:
    """The columns of a text file that were asked for, as text; an empty cell is null.

    Those of `more` are taken where they are there; what only looks like one of them is no mistake.
    """
    pl = _pl()
    if form.json:
        return _read_json(path, form, required, optional, columns)
    data = _read_bytes(path)
    delimiter, quoting = form.separator, form.quoting
    _check_encoding(path, data)
    if form.lists:
        return _read_lists(path, form, data.removeprefix(b"\xef\xbb\xbf"))
    data = form.tidy(data.removeprefix(b"\xef\xbb\xbf"))  # the mark that Excel puts before UTF-8
    while data.endswith((b"\n\n", b"\r\n\r\n")):  # blank lines at the end
        data = data.rstrip(b"\r\n") + b"\n"
    if not data.strip():
        raise DataError(f"{path} is empty; expected {form.expected()}")
    header = list(form.fields or ())
    if form.fields is None:
        try:
            first = io.BytesIO(data).readline().rstrip(b"\r\n").decode()
            header = form.labels(next(csv.reader([first], delimiter=delimiter, quoting=quoting), []))
        except UnicodeDecodeError as error:
            raise DataError(f"{path} line 1: the header is not UTF-8; save the file with encoding UTF-8") from error
        except (csv.Error, DataError) as error:
            raise DataError(f"{path} line 1: {_reason(error)}") from error
    header_lines = 1 if form.fields is None else 0
    place = _match_columns(header, required, optional, {**form.columns, **(columns or {})}, str(path))
    place |= {name: header.index(name) for name in more if name in header}
    problems = functools.partial(find_problems, path, columns, required=required, optional=optional, form=form)
    try:
        table = pl.read_csv(
            io.BytesIO(data),
            separator=delimiter,
            quote_char='"' if form.quotes else None,
            infer_schema=False,
            has_header=False,
            skip_rows=header_lines,
            new_columns=[f"c{number}" for number in range(len(header))],
            schema={f"c{number}": pl.String for number in range(len(header))},
        )
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path} has a header and no rows; expected at least one") from error
    except pl.exceptions.PolarsError as error:
        failed = DataError(f"{path} cannot be read ({_first_line(error)})")
        if form.quotes and (line := _stray_quote(data, delimiter)) is not None:
            failed = DataError(
                f"{path} line {line}: a quote within a field; double it, and enclose the field in quotes"
            )
        raise _with_line(path, failed, problems()) from None
    if len(table) == 0:
        raise DataError(f"{path} has a header and no rows; expected at least one")
    # A row that is too short arrives as nulls at its end, and an empty field too many at the file's end not at all.
    # Within quotes a delimiter may be text.
    exact = not form.quotes or b'"' not in data
    uneven = data.count(delimiter.encode()) != (len(table) + header_lines) * (len(header) - 1)
    if (uneven and (exact or table[:, -1].null_count() > 0)) or b"\0" in data:
        problem = next(problems(), None)
        if problem is not None:
            raise _error(path, problem)
    return {column: table[:, number] for column, number in place.items()}


def _stray_quote(data: bytes, delimiter: str) -> int | None:
    """The first line with a quote that neither encloses a field nor is doubled in one that is enclosed."""
    end = re.escape(delimiter.encode())
    field = re.compile(rb'(?:"[^"]*(?:""[^"]*)*"|[^"\n%s]*)(?:%s|\r?\n|\Z)' % (end, end))
    place = 0
    while place < len(data):
        found = field.match(data, place)
        if found is None:
            return data.count(b"\n", 0, place) + 1
        place = found.end()
    return None


def _read_lists(path: Path, form: Form, data: bytes) -> dict[str, polars.Series]:
    """The users and items of a file with a user and its items a line."""
    pl = _pl()
    problems = find_problems(path, required=form.fields or (), optional=(), form=form)
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _with_line(path, DataError(f"{path} is not UTF-8 ({error})"), problems) from None
    if not text.strip():
        raise DataError(f"{path} is empty; expected {form.expected()}")
    fields = pl.Series("item_id", [text]).str.split("\n").explode().str.extract_all(r"[^ \t\r]+")
    least = 1 if form.split else 2
    doubtful = (fields.list.len() < least).any() or re.search(r"\r[^\r\n]", text) or set("\0,;|[{") & set(text)
    # That there are no items at all is not this part's problem: the other one may have them.
    if doubtful and (problem := next((one for one in problems if one.line is not None), None)) is not None:
        raise _error(path, problem)
    table = pl.DataFrame({"user_id": fields.list.first(), "item_id": fields.list.slice(1)})
    table = table.filter(pl.col("item_id").list.len() > 0).explode("item_id")
    return {name: table[name] for name in ("user_id", "item_id")}


def _read_json(
    path: Path,
    form: Form,
    required: Sequence[str],
    optional: Sequence[str],
    columns: Mapping[str, str] | None,
) -> dict[str, polars.Series]:
    """The columns of a file with a JSON object a line that were asked for, as text; what is absent is null.

    The file is streamed, for reviews hold texts that are left alone.
    """
    pl = _pl()
    header = form.fields or ()
    place = _match_columns(header, required, optional, {**form.columns, **(columns or {})}, str(path))
    problems = functools.partial(find_problems, path, columns, required=required, optional=optional, form=form)
    numbers = [place.get(column) for column in (("rating",) if form.dates else ("rating", "timestamp"))]
    kinds = {name: pl.Float64 if number in numbers else pl.String for number, name in enumerate(header)}
    texts = dict.fromkeys(header, pl.String)
    with _open(path) as file:  # which says what is wrong with a file that cannot be opened
        marked = not _is_packed(path) and file.read(3) == b"\xef\xbb\xbf"
    in_memory = marked or _is_packed(path)
    source = io.BytesIO(_read_bytes(path).removeprefix(b"\xef\xbb\xbf")) if in_memory else path
    wanted = [header[number] for number in place.values()]
    try:
        table = pl.scan_ndjson(source, schema=kinds).select(wanted).collect()
    except (OSError, pl.exceptions.PolarsError):
        try:  # numbers may be written as text
            table = pl.scan_ndjson(source, schema=texts).select(wanted).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            failed = DataError(f"{path} cannot be read ({_first_line(error)})")
            raise _with_line(path, failed, problems()) from None
    if len(table) == 0:
        raise DataError(f"{path} is empty; expected {form.expected()}")
    ids = [table[header[place[column]]] for column in ("user_id", "item_id") if column in place]
    if any(values.str.contains(r"^[\[{]").any() for values in ids) and (problem := next(problems(), None)) is not None:
        raise _error(path, problem)  # the text of a list or an object
    return {column: table[header[number]].cast(pl.String) for column, number in place.items()}


def _with_dates(table: dict[str, polars.Series], dates: str, source: str) -> dict[str, polars.Series]:
    """The columns, with times that are written as `dates` as datetimes."""
    if not dates or "timestamp" not in table:
        return table
    text = table["timestamp"].str.strip_chars()
    text = text.set(text == "", None)
    times = text.str.to_datetime(dates, time_unit="us", strict=False)
    wrong = (times.is_null() & text.is_not_null()).to_numpy()
    if wrong.any():
        row = _first(wrong)
        seen = f"timestamp of row {row} is {_shown(str(text[row]))}"
        raise DataError(f"{source}: {seen}; expected a time such as {_example(dates)}")
    return {**table, "timestamp": times}


def _to_log(
    table: Mapping[str, polars.Series],
    use_time: bool,
    titles: Mapping[str, str] | None,
    name: str,
    source: str,
    part: Ints | None = None,
) -> InteractionLog:
    """Columns -> a log; an error names the row (from 0), and the caller may know the line."""
    user, user_ids = _codes(table["user_id"], "user_id", source)
    item, item_ids = _codes(table["item_id"], "item_id", source)
    rating = time = None
    if "rating" in table:
        stars, _ = _floats(table["rating"], "rating", source)
        large = np.abs(stars) > _LARGEST_RATING
        if large.any():
            row = _first(large)
            raise DataError(f"{source}: rating of row {row} is {stars[row]}; expected a smaller number, or nothing")
        rating = None if np.isnan(stars).all() else stars
    if "timestamp" in table and use_time:
        seconds, absent = _floats(table["timestamp"], "timestamp", source)
        if not absent.all():
            if absent.any():
                raise DataError(
                    f"{source}: timestamp of row {_first(absent)} is missing, and other rows have one; "
                    "fill it in, or leave out the column"
                )
            if not np.isfinite(seconds).all():
                row = _first(~np.isfinite(seconds))
                raise DataError(
                    f"{source}: timestamp of row {row} is {seconds[row]}; expected a finite number of seconds"
                )
            time = seconds
    if len(user) == 0:
        raise DataError(f"{source} has no rows; expected at least one interaction")
    return InteractionLog.from_arrays(
        user, item, time, rating, user_ids=user_ids, item_ids=item_ids, titles=titles, name=name, part=part
    )


def _codes(ids: polars.Series, column: str, source: str) -> tuple[Ints, Strings]:
    """Ids -> index of each row's id in order of first appearance, and the ids."""
    pl = _pl()
    if ids.dtype.is_float() or not (
        ids.dtype.is_integer() or ids.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    ):
        raise DataError(f"{source}: column {column!r} holds {ids.dtype}; expected ids as text or integers")
    text = ids.cast(pl.String)
    empty = (text.is_null() | (text == "")).fill_null(True).to_numpy()
    if empty.any():
        raise DataError(f"{source}: {column} of row {_first(empty)} is empty; expected an id in every row")
    frame = text.alias("id").to_frame()
    known = frame.unique(maintain_order=True)
    if known["id"].str.contains("\0", literal=True).any():  # NumPy would take off those at the end
        row = _first(text.str.contains("\0", literal=True).to_numpy())
        raise DataError(f"{source}: {column} of row {row} holds a zero byte; expected text")
    lengths = known["id"].str.len_chars().to_numpy()
    longest = int(lengths.max(initial=0))
    if 4 * longest * len(known) > max(_LARGEST_IDS, _MOST_PACKED * int(lengths.sum())):  # NumPy makes all as long
        row = _first((text.str.len_chars() == longest).to_numpy())
        raise DataError(
            f"{source}: {column} of row {row} has {longest:,} characters, {_shown(str(text[row]), 20)}; expected ids "
            "of about one length"
        )
    index = frame.join(known.with_row_index("code"), on="id", how="left", maintain_order="left")["code"]
    return index.to_numpy().astype(np.int64), np.array(known["id"].to_list(), dtype=np.str_)


def _floats(values: polars.Series, column: str, source: str) -> tuple[Floats, Bools]:
    """Numbers, text of numbers, or datetimes -> float64, NaN where there is nothing; and where there is nothing."""
    pl = _pl()
    if values.dtype == pl.String:
        values = values.str.strip_chars()
        values = values.set(values == "", None)
        numbers = values.cast(pl.Float64, strict=False)
    elif values.dtype.is_temporal() and values.dtype in (pl.Datetime, pl.Date):
        numbers = values.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    elif values.dtype.is_numeric() or values.dtype == pl.Null:
        numbers = values.cast(pl.Float64)
    else:
        raise DataError(f"{source}: column {column!r} holds {values.dtype}; expected numbers")
    wrong = (numbers.is_null() & values.is_not_null()).to_numpy()
    if wrong.any():
        row = _first(wrong)
        raise DataError(f"{source}: {column} of row {row} is {_shown(str(values[row]))}; expected a number")
    result: Floats = numbers.fill_null(float("nan")).to_numpy().astype(np.float64)
    absent: Bools = values.is_null().to_numpy()
    if values.dtype.is_float():  # pandas writes NaN where nothing is
        absent = absent | np.isnan(result)
    return result, absent


def _to_polars(values: Any) -> polars.Series:
    """A column of a pandas or polars frame as a polars series (without pyarrow)."""
    pl = _pl()
    if isinstance(values, pl.Series):
        return values
    kind = getattr(values.dtype, "kind", "O")
    if kind == "M":
        zone = getattr(values.dtype, "tz", None)
        naive = values if zone is None else values.dt.tz_convert("UTC").dt.tz_localize(None)
        return pl.Series(naive.to_numpy().astype("datetime64[us]"))
    if isinstance(values.dtype, np.dtype) and kind in "iufb":
        return pl.Series(values.to_numpy())
    present = values.notna().to_numpy()
    objects = values.astype(object).to_numpy()
    if present.any() and kind in "iuf":  # pandas' nullable numbers
        return pl.Series([one if here else None for one, here in zip(objects, present, strict=True)])
    texts = [str(one) if here else None for one, here in zip(objects, present, strict=True)]
    return pl.Series(texts, dtype=pl.String)


def _match_columns(
    header: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str],
    columns: Mapping[str, str] | None,
    source: str,
) -> dict[str, int]:
    """Our column name -> its place in the header; a column that only looks like one of ours is an error."""
    where = f"{source}: " if source else ""
    names = {column: column for column in (*required, *optional)}
    for ours, theirs in (columns or {}).items():
        if ours not in (*COLUMNS, *required):
            raise DataError(f"columns has no {ours!r}; {closest(ours, COLUMNS)}")
        if ours in names:
            names[ours] = theirs
    place: dict[str, int] = {}
    for column, theirs in names.items():
        found = [number for number, label in enumerate(header) if label == theirs]
        if len(found) > 1:
            raise DataError(f"{where}the header has {theirs!r} twice")
        if found:
            place[column] = found[0]
            continue
        if theirs != column:
            known = [_shown(label)[1:-1] for label in header[:20]]
            raise DataError(f"{where}no column {theirs!r}; {closest(theirs, known)}")
        like = _looks_like(column, [label for label in header if label not in names.values()])
        if like:
            raise DataError(
                f'{where}no column {column!r}, but {like!r}; rename it, or pass columns={{"{column}": "{like}"}}'
            )
        if column in required:
            raise DataError(
                f"{where}no column {column!r}; the header line is {_shown(' '.join(header), 60)}{_header_hint(header)}"
            )
    return place


def _looks_like(column: str, header: Sequence[str]) -> str:
    """The label that probably means `column`, or ""."""
    bare = column.replace("_", "")
    for label in header:
        plain = label.strip().lower()
        if plain == column or plain.replace("_", "") == bare or plain in _OTHER_SPELLINGS.get(column, ()):
            return label
    found = difflib.get_close_matches(column, header, n=1, cutoff=0.8)
    return found[0] if found else ""


def _header_hint(header: Sequence[str]) -> str:
    if len(header) == 1 and "\t" in header[0]:
        return " (separated by tabs: name the file .tsv)"
    if len(header) == 1 and "," in header[0]:
        return " (separated by commas: name the file .csv)"
    return " (has the file no header?)" if any(any(c.isdigit() for c in label) for label in header) else ""


# Bytes, lines, and the slow path --------------------------------------------------------------------------------------


class _JsonRows:
    """Lines with a JSON object each as lists of fields, "" where one is absent; counts lines as `csv.reader` does."""

    def __init__(self, lines: Iterator[str], form: Form) -> None:
        self._lines, self._fields, self._ids = lines, form.fields or (), id_fields(form)
        self.line_num = 0

    def __iter__(self) -> _JsonRows:
        return self

    def __next__(self) -> list[str]:
        line = next(self._lines)
        self.line_num += 1
        if not line.strip():
            return []
        try:
            found = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise csv.Error(f"{_shown(line.rstrip())} is no JSON ({_first_line(error)})") from error
        if not isinstance(found, dict):
            raise csv.Error(f"{_shown(line.rstrip())} is no JSON object")
        absent = next((name for name in self._ids if name not in found), None)
        if absent is not None:
            raise csv.Error(f"no {absent!r}; {_fitting(found)}")
        values = {name: found.get(name) for name in self._fields}
        wrong = next((name for name, value in values.items() if isinstance(value, list | dict)), None)
        if wrong is not None:
            raise csv.Error(f"{wrong} is {_shown(json.dumps(values[wrong]))}; expected text or a number")
        half = next((name for name, value in values.items() if isinstance(value, str) and _is_half(value)), None)
        if half is not None and not _undecodable(line):
            raise csv.Error(f"{half} is {json.dumps(values[half])[:40]}; half a pair of \\u escapes is no character")
        return ["" if value is None else str(value) for value in values.values()]


def _fitting(found: Mapping[str, Any]) -> str:
    """What to do with a JSON object that lacks an id: the format that its names fit, or its names."""
    fits = next((name for name, form in FORMATS.items() if form.json and found.keys() >= set(id_fields(form))), None)
    return f"its names are {_shown(' '.join(found), 60)}" if fits is None else f"its names fit format={fits!r}"


def _no_constant(name: str) -> float:
    """Refuses what Python alone takes for JSON."""
    raise ValueError(f"{name} is no number there")


class _ListRows:
    """Lines with a user and its items as rows of a user and one item; counts lines as `csv.reader` does."""

    def __init__(self, lines: Iterator[str], may_be_empty: bool) -> None:
        self._lines, self._may_be_empty = lines, may_be_empty
        self._rows: Iterator[list[str]] = iter(())
        self.line_num = 0

    def __iter__(self) -> _ListRows:
        return self

    def __next__(self) -> list[str]:
        while (row := next(self._rows, None)) is None:
            line = next(self._lines)
            self.line_num += 1
            fields = re.findall(r"[^ \t\r\n]+", line)
            if not fields:
                return []
            if "\r" in line.rstrip("\r\n"):
                raise csv.Error(_STRAY_RETURN)
            if wrong := self._wrong(fields):
                raise csv.Error(f"{wrong}; expected a user and its items, separated by spaces")
            self._rows = iter([[fields[0], item] for item in fields[1:]])
        return row

    def _wrong(self, fields: list[str]) -> str:
        """What tells that a line is of another form, or ""; in LightGCN's files users may be without items."""
        if fields[0].startswith(("{", "[")):
            return f"{_shown(fields[0])} begins as JSON does"
        if len(fields) == 1 and (not self._may_be_empty or re.search("[,;|]", fields[0])):
            return f"{_shown(fields[0])} stands alone"
        ends = next((field for field in fields if field.endswith((",", ";"))), None)
        return "" if ends is None else f"{_shown(ends)} ends with a separator"


def _rows(path: Path, form: Form) -> Any:
    """The lines of a file as lists of fields, from a `csv.reader`, which counts lines; quotes may mean nothing."""
    lines = _text_lines(path, form.encoding)
    if form.json:
        return _JsonRows(lines, form)
    if form.lists:
        return _ListRows(lines, form.split)
    if form.delimiter == "::":
        lines = (line.replace("::", "\t") for line in lines)
    return csv.reader(lines, delimiter=form.separator, quoting=form.quoting)


def _open(path: Path) -> Any:
    """The file's bytes as a stream, decompressed where the name ends in .gz or .xz."""
    try:
        if path.name.endswith(".xz"):
            return lzma.open(path, "rb")
        return gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb")
    except FileNotFoundError as error:
        raise DataError(f"no file {path}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _is_packed(path: Path) -> bool:
    return path.name.endswith((".gz", ".xz"))


def _chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes in blocks; a damaged, cut-off or bloated .gz is an error that names the last line."""
    lines = unpacked = 0
    packed = _is_packed(path)
    with _open(path) as stream:
        while True:
            try:
                block = stream.read1(1 << 20) if packed else stream.read(1 << 24)
            except EOFError as error:
                raise DataError(
                    f"{path} is cut off in line {lines + 1}: the compressed file has no end; fetch it again"
                ) from error
            except gzip.BadGzipFile as error:
                raise DataError(
                    f"{path} is damaged or no gzip file, in line {lines + 1} ({error}); fetch it again"
                ) from error
            except (zlib.error, lzma.LZMAError) as error:
                raise DataError(f"{path} is damaged in line {lines + 1} ({error}); fetch it again") from error
            except OSError as error:
                raise DataError(f"cannot read {path}: {error.strerror or error}") from error
            if not block:
                return
            lines += block.count(b"\n")
            unpacked += len(block)
            if packed and unpacked > most_unpacked(path.stat().st_size):
                raise _BloatError(
                    f"{path} unpacks to more than {_MOST_PACKED} times its size, in line {lines + 1}, which no table "
                    "does; if it is one, unpack it first"
                )
            yield block


def most_unpacked(packed: int) -> int:
    """Bytes that a packed file of so many bytes may unpack to."""
    return max(_ALWAYS_UNPACKED, _MOST_PACKED * packed)


class _BloatError(DataError):
    """A packed file that unpacks to what no table is."""


def _check_bloat(path: Path) -> None:
    if _is_packed(path):
        try:
            for _ in _chunks(path):
                pass
        except _BloatError:
            raise
        except DataError:  # it is damaged; the lines before that may be worth a look
            return


def _read_bytes(path: Path) -> bytes:
    return b"".join(_chunks(path))


def _text_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Lines as text with their ends; bytes that are not UTF-8 become surrogates, which `_undecodable` finds."""
    rest, first = b"", True
    for block in itertools.chain(_chunks(path), [b""]):
        if first:
            _check_encoding(path, block)
            block, first = block.removeprefix(b"\xef\xbb\xbf"), False
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        if not block:
            lines, rest = ([rest] if rest else []), b""
            yield from (line.decode(encoding, "surrogateescape") for line in lines)
            return
        yield from (line.decode(encoding, "surrogateescape") + "\n" for line in lines)


def _check_encoding(path: Path, data: bytes) -> None:
    for name, marks in (("UTF-32", (b"\xff\xfe\0\0", b"\0\0\xfe\xff")), ("UTF-16", (b"\xff\xfe", b"\xfe\xff"))):
        if data.startswith(marks):
            raise DataError(f"{path} is encoded as {name}, in line 1; save it with encoding UTF-8")
    if data.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed; give it a name that ends in .gz")
    if b"\0" in data[:4096]:
        raise DataError(
            f"{path} holds zero bytes, in line {data[: data.index(0)].count(10) + 1}; expected text in UTF-8"
        )


def _read_parquet(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str],
    columns: Mapping[str, str] | None,
    more: Sequence[str] = (),
) -> polars.DataFrame:
    """The columns of a Parquet file that were asked for, and those of `more` that it has, under the file's names."""
    pl = _pl()
    try:
        most = most_unpacked(path.stat().st_size)
        names = {*required, *optional, *more, *(columns or {}).values()}
        if said := mistake(path, sorted(names), most_rows=most, most_bytes=most):
            raise pl.exceptions.ComputeError(said)
        lazy = pl.scan_parquet(path, glob=False)
        header = lazy.collect_schema().names()
        place = _match_columns(header, required, optional, columns, str(path))
        place |= {name: header.index(name) for name in more if name in header}
        rows = lazy.select(pl.len()).collect().item()
        if rows > most:
            raise DataError(f"{path} has {rows:,} rows in {path.stat().st_size:,} bytes, which no log has")
        frame: polars.DataFrame = lazy.select(header[number] for number in place.values()).collect()
    except FileNotFoundError as error:
        raise DataError(f"no file {path}") from error
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{path} is damaged or no parquet file ({_first_line(error)})") from error
    return frame


def _with_line(path: Path, error: DataError, problems: Iterator[Problem]) -> DataError:
    """The first problem that the slow path finds, as an error; what the fast path said where it finds none."""
    problem = next(problems, None)
    return error if problem is None else _error(path, problem)


def _error(path: Path, problem: Problem) -> DataError:
    if problem.line is None or str(path) in problem.text:
        return DataError(problem.text if str(path) in problem.text else f"{path}: {problem.text}")
    return DataError(f"{path} line {problem.line}: {problem.text}")


def _reason(error: csv.Error | DataError) -> str:
    """What an error says; for Python's `csv` speaks of its own use on line ends of an old Macintosh, and of limits."""
    if "new-line character" in str(error):
        return _STRAY_RETURN
    if "field limit" in str(error):
        return f"a field has more than {csv.field_size_limit():,} characters"
    return str(error)


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _is_date(text: str, dates: str) -> bool:
    try:
        datetime.datetime.strptime(text, dates)
    except ValueError:
        return False
    return True


def _example(dates: str) -> str:
    """A time as `dates` has it, for an error message."""
    return datetime.datetime(2010, 12, 31, 23, 59, 59).strftime(dates)


def _undecodable(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)


def _is_half(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _shown(text: str, width: int = 40) -> str:
    """A value for an error message: quoted, on one line, not too long."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def _first(mask: Any) -> int:
    return int(np.flatnonzero(mask)[0])
