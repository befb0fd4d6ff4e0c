"""Files and frames of interactions -> logs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...errors import DataError
from ..flat import Ints
from ..forms import Form, find_test_part, form_of, stem
from ..log import InteractionLog
from .header import Wanted
from .lines import problems_of
from .parquet import read_parquet
from .tables import read_text
from .values import import_polars, to_log
from .wording import first_error, shown

if TYPE_CHECKING:
    import polars


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
        order: "time" sorts each user's rows by time; "file" drops the times and keeps the rows as they are.
        titles: item id -> title.
        name: name of the log; the file's name without suffix by default.
        format: a key of `dglrec.data.forms.FORMATS`; None: tidy, or as the file's name says.
        behaviors: for "taobao", what counts as an interaction, of "pv" (a view), "buy", "cart" and "fav".

    Raises:
        DataError: the file cannot be used; the message names file, line and value.
    """
    path = Path(path)
    use_time = by_time(order)
    about: dict[str, Any] = {"use_time": use_time, "titles": titles, "name": name or stem(path), "source": str(path)}
    if path.suffix == ".parquet" and format is None:
        return to_log(read_parquet(path, Wanted.of_interactions(columns)), **about)
    form = form_of(path, format)
    wanted = Wanted.of_interactions(columns, form)
    table, part = read_text(path, form, wanted, use_time), None
    if form.has_behaviors:
        table = _with_behaviors(table, behaviors, path)
    if form.split:
        table, part = _with_test(table, path, form)
    try:
        log = to_log(table, **about, dates=form.dates, part=part)
    except DataError as error:
        raise (first_error(path, problems_of(path, form, wanted, use_time)) or error) from None
    if form.per_second > 1 and log.time is not None:
        return dataclasses.replace(log, time=log.time / form.per_second)
    return log


def by_time(order: str) -> bool:
    """Whether rows are sorted by their times.

    Raises:
        DataError: `order` is neither "time" nor "file".
    """
    if order not in ("time", "file"):
        raise DataError(f"order is {order!r}; expected 'time' or 'file'")
    return order == "time"


def _with_test(table: dict[str, polars.Series], path: Path, form: Form) -> tuple[dict[str, polars.Series], Ints]:
    """The rows of a training part and of the test part beside it, and to which part each row belongs."""
    beside = find_test_part(path)
    if beside is None:
        raise DataError(f"{path} has no test.txt beside it; expected both parts of the split in one folder")
    test = read_text(beside, form, Wanted.of_interactions(None, form))
    part = np.repeat([0, 2], [len(rows["user_id"]) for rows in (table, test)])
    return {name: values.append(test[name]) for name, values in table.items()}, part


def _with_behaviors(table: dict[str, polars.Series], behaviors: Sequence[str], path: Path) -> dict[str, polars.Series]:
    """The rows of some behaviors."""
    known = table["behavior"].unique().drop_nulls().sort().to_list()
    wanted = (behaviors,) if isinstance(behaviors, str) else tuple(behaviors)
    if not set(wanted) & set(known):
        raise DataError(
            f"{path}: no line has a behavior of {', '.join(wanted) or 'none'}; there are "
            f"{shown(', '.join(known), 60)}, of which behaviors=... takes some"
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
    use_time = by_time(order)
    if hasattr(frame, "collect"):  # a lazy polars frame
        frame = frame.collect()
    place = Wanted.of_interactions(columns).places([str(column) for column in frame.columns], source)
    table = {column: _to_polars(frame[frame.columns[number]]) for column, number in place.items()}
    return to_log(table, use_time=use_time, titles=titles, name=name, source=source)


def _to_polars(values: Any) -> polars.Series:
    """A column of a pandas or polars frame as a polars series (without pyarrow)."""
    pl = import_polars()
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
    if any(isinstance(one, bytes) for one in objects):  # their text would be "b'...'"; as they are, they are refused
        return pl.Series(values.name, objects.tolist(), dtype=pl.Object)
    texts = [str(one) if here else None for one, here in zip(objects, present, strict=True)]
    return pl.Series(texts, dtype=pl.String)
