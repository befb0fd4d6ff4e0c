"""The fast path: text with fields between separators, through polars."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError, first_line
from ..forms import Form
from .header import Wanted
from .lines import problems_of
from .lists import read_lists
from .objects import read_objects
from .raw import read_bytes, unmarked
from .values import import_polars
from .wording import first_error, reason

if TYPE_CHECKING:
    import polars


def read_text(path: Path, form: Form, wanted: Wanted, use_time: bool = True) -> dict[str, polars.Series]:
    """The wanted columns of a text file under our names, as text; an empty cell is null.

    Args:
        path: the file.
        form: how its lines are laid out.
        wanted: which columns.
        use_time: whether a time that cannot be read is a mistake.

    Raises:
        DataError: the file cannot be used; the message names the line.
    """
    problems = problems_of(path, form, wanted, use_time)
    if form.json:
        return read_objects(path, form, wanted, problems)
    data = unmarked(path, read_bytes(path))
    if form.lists:
        return read_lists(path, form, data, problems_of(path, form, Wanted(("user_id", "item_id"))))
    data = _without_blank_end(form.tidy(data))
    if not data or data.isspace():
        raise DataError(f"{path} is empty; expected {form.expected()}")
    header = list(form.fields or _header(path, form, data))
    place = wanted.places(header, str(path))
    try:
        table = _split(data, form, len(header))
    except import_polars().exceptions.PolarsError as error:
        failed = DataError(f"{path} cannot be read ({first_line(error)})")
        if form.quotes and (line := _stray_quote(data, form.separator)) is not None:
            failed = DataError(
                f"{path} line {line}: a quote within a field; double it, and enclose the field in quotes"
            )
        raise (first_error(path, problems) or failed) from None
    if len(table) == 0:
        raise DataError(f"{path} has a header and no rows; expected at least one")
    if _is_doubtful(data, form, table) and (wrong := first_error(path, problems)) is not None:
        raise wrong
    return {column: table[:, number] for column, number in place.items()}


def _without_blank_end(data: bytes) -> bytes:
    """The bytes without blank lines at the end."""
    while data.endswith((b"\n\n", b"\r\n\r\n")):
        data = data.rstrip(b"\r\n") + b"\n"
    return data


def _header(path: Path, form: Form, data: bytes) -> list[str]:
    """The names in the first line."""
    try:
        first = io.BytesIO(data).readline().rstrip(b"\r\n").decode()
        return form.labels(next(csv.reader([first], delimiter=form.separator, quoting=form.quoting), []))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} line 1: the header is not UTF-8; save the file with encoding UTF-8") from error
    except (csv.Error, DataError) as error:
        raise DataError(f"{path} line 1: {reason(error)}") from error


def _split(data: bytes, form: Form, width: int) -> polars.DataFrame:
    """The fields of the lines after a header, as text in columns c0, c1, ...; an empty one is null."""
    pl = import_polars()
    table: polars.DataFrame = pl.read_csv(
        io.BytesIO(data),
        separator=form.separator,
        quote_char='"' if form.quotes else None,
        infer_schema=False,
        has_header=False,
        skip_rows=1 if form.fields is None else 0,
        schema={f"c{number}": pl.String for number in range(width)},
        raise_if_empty=False,
    )
    return table


def _is_doubtful(data: bytes, form: Form, table: polars.DataFrame) -> bool:
    """Whether lines may have too few or too many fields, or zero bytes.

    A row that is too short arrives as nulls at its end, and an empty field too many at the file's end not at all.
    """
    lines = len(table) + (form.fields is None)
    uneven = data.count(form.separator.encode()) != lines * (table.width - 1)
    exact = not form.quotes or b'"' not in data  # within quotes a separator may be text
    return (uneven and (exact or table[:, -1].null_count() > 0)) or b"\0" in data


def _stray_quote(data: bytes, separator: str) -> int | None:
    """The first line with a quote that neither encloses a field nor is doubled in one that is enclosed."""
    end = re.escape(separator.encode())
    field = re.compile(rb'(?:"[^"]*(?:""[^"]*)*"|[^"\n%s]*)(?:%s|\r?\n|\Z)' % (end, end))
    place = 0
    while place < len(data):
        found = field.match(data, place)
        if found is None:
            return data.count(b"\n", 0, place) + 1
        place = found.end()
    return None
