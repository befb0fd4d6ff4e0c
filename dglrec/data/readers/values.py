"""Columns of a table -> ids, ratings and times, and a log of them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from ..flat import Bools, Floats, Ints
from ..log import InteractionLog, Strings
from .raw import MOST_PACKED
from .wording import shown

if TYPE_CHECKING:
    import polars

LARGEST_RATING = float(np.finfo(np.float32).max)

# What ids may take in memory, where most are far shorter than the longest.
_LARGEST_IDS = 1 << 27


def import_polars() -> Any:
    """polars, imported here alone, so that everything but reading files works without it."""
    try:
        import polars
    except ImportError as error:
        raise DataError("reading tables needs polars; run: pip install polars") from error
    return polars


def to_log(
    table: Mapping[str, polars.Series],
    *,
    use_time: bool,
    dates: str = "",
    titles: Mapping[str, str] | None,
    name: str,
    source: str,
    part: Ints | None = None,
) -> InteractionLog:
    """The log of the columns of a table.

    Args:
        table: our name of a column -> its (n,) values.
        use_time: whether times are read, where there are some.
        dates: how times are written, as `strptime` calls it; "": seconds, or datetimes.
        titles: item id -> title.
        name: name of the log.
        source: what error messages call the table.
        part: (n,) part of the split that a row belongs to.

    Raises:
        DataError: a value cannot be used; the message names the row, from 0, and the caller may know the line.
    """
    user, user_ids = _codes(table["user_id"], "user_id", source)
    item, item_ids = _codes(table["item_id"], "item_id", source)
    rating = _ratings(table["rating"], source) if "rating" in table else None
    time = _times(table["timestamp"], dates, source) if use_time and "timestamp" in table else None
    if len(user) == 0:
        raise DataError(f"{source} has no rows; expected at least one interaction")
    return InteractionLog.from_arrays(
        user, item, time, rating, user_ids=user_ids, item_ids=item_ids, titles=titles, name=name, part=part
    )


def _codes(ids: polars.Series, column: str, source: str) -> tuple[Ints, Strings]:
    """Ids -> index of each row's id in order of first appearance, and the ids."""
    pl = import_polars()
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
    _check_ids(known["id"], text, f"{source}: {column}")
    index = frame.join(known.with_row_index("code"), on="id", how="left", maintain_order="left")["code"]
    return index.to_numpy().astype(np.int64), np.array(known["id"].to_list(), dtype=np.str_)


def _check_ids(known: polars.Series, text: polars.Series, where: str) -> None:
    """Refuses ids that an array of NumPy would change, or hold in far more memory than the file takes."""
    if known.str.contains("\0", literal=True).any():  # NumPy would take off those at the end
        row = _first(text.str.contains("\0", literal=True).to_numpy())
        raise DataError(f"{where} of row {row} holds a zero byte; expected text")
    lengths = known.str.len_chars().to_numpy()
    longest = int(lengths.max(initial=0))
    if 4 * longest * len(known) > max(_LARGEST_IDS, MOST_PACKED * int(lengths.sum())):  # NumPy makes all as long
        row = _first((text.str.len_chars() == longest).to_numpy())
        raise DataError(
            f"{where} of row {row} has {longest:,} characters, {shown(str(text[row]), 20)}; expected ids of about one "
            "length"
        )


def _ratings(values: polars.Series, source: str) -> Floats | None:
    """(n,) ratings, NaN where a row has none; None where no row has one."""
    stars, _ = _floats(values, "rating", source)
    large = np.abs(stars) > LARGEST_RATING
    if large.any():
        row = _first(large)
        raise DataError(f"{source}: rating of row {row} is {stars[row]}; expected a smaller number, or nothing")
    return None if np.isnan(stars).all() else stars


def _times(values: polars.Series, dates: str, source: str) -> Floats | None:
    """(n,) seconds; None where no row has a time."""
    if dates:
        values = _moments(values, dates, source)
    seconds, absent = _floats(values, "timestamp", source)
    if absent.all():
        return None
    if absent.any():
        raise DataError(
            f"{source}: timestamp of row {_first(absent)} is missing, and other rows have one; "
            "fill it in, or leave out the column"
        )
    if not np.isfinite(seconds).all():
        row = _first(~np.isfinite(seconds))
        raise DataError(f"{source}: timestamp of row {row} is {seconds[row]}; expected a finite number of seconds")
    return seconds


def _moments(values: polars.Series, dates: str, source: str) -> polars.Series:
    """Times that are written as `dates` says -> datetimes, null where there is nothing."""
    text = _stripped(values)
    moments = text.str.to_datetime(dates, time_unit="us", strict=False)
    wrong = (moments.is_null() & text.is_not_null()).to_numpy()
    if wrong.any():
        row = _first(wrong)
        raise DataError(
            f"{source}: timestamp of row {row} is {shown(str(text[row]))}; expected a time such as {example(dates)}"
        )
    return moments


def _floats(values: polars.Series, column: str, source: str) -> tuple[Floats, Bools]:
    """Numbers, text of numbers, or datetimes -> float64, NaN where there is nothing; and where there is nothing."""
    pl = import_polars()
    if values.dtype == pl.String:
        values = _stripped(values)
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
        raise DataError(f"{source}: {column} of row {row} is {shown(str(values[row]))}; expected a number")
    result: Floats = numbers.fill_null(float("nan")).to_numpy().astype(np.float64)
    absent: Bools = values.is_null().to_numpy()
    if values.dtype.is_float():  # pandas writes NaN where nothing is
        absent = absent | np.isnan(result)
    return result, absent


def _stripped(text: polars.Series) -> polars.Series:
    """Cells without the space around them; an empty one is null."""
    text = text.str.strip_chars()
    return text.set(text == "", None)


def _first(mask: Any) -> int:
    return int(np.flatnonzero(mask)[0])


# Single values, on the slow path


def number(text: str) -> float | None:
    """A number as text -> its value; None where it is none."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def is_date(text: str, dates: str) -> bool:
    """Whether a time is written as `dates` says."""
    try:
        datetime.datetime.strptime(text, dates)
    except ValueError:
        return False
    return True


def example(dates: str) -> str:
    """A time as `dates` has it, for an error message."""
    return datetime.datetime(2010, 12, 31, 23, 59, 59).strftime(dates)
