"""The slow path: text files line by line, to say what is wrong in which of them."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError
from ..forms import Form, form_of
from .header import Wanted
from .lists import ListRows
from .objects import ObjectRows
from .raw import check_bloat, text_lines
from .values import LARGEST_RATING, example, is_date, number
from .wording import Problem, reason, shown, undecodable


def find_problems(
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    use_time: bool = True,
    *,
    format: str | None = None,
) -> Iterator[Problem]:
    """Reads a text file of interactions line by line and yields what is wrong with it, in the order of the lines.

    This is the slow path: it is taken when the fast one failed, and by `check`.

    Args:
        path: the file.
        columns: its names of the columns, such as {"user_id": "uid"}.
        use_time: whether times are looked at.
        format: as for `read_interactions`.
    """
    path = Path(path)
    try:
        form = form_of(path, format)
    except DataError as error:
        yield Problem(None, str(error))
        return
    yield from problems_of(path, form, Wanted.of_interactions(columns, form), use_time)


def problems_of(path: Path, form: Form, wanted: Wanted, use_time: bool = True) -> Iterator[Problem]:
    """What is wrong with a text file of a known form, in the wanted columns, in the order of the lines."""
    try:
        check_bloat(path)  # line by line it would take hours to find out
        rows = _rows(path, form)
        header = _header(path, form, rows)
    except DataError as error:
        yield Problem(None, str(error))
        return
    except csv.Error as error:
        yield Problem(1, reason(error))
        return
    try:
        layout = _Layout.of(form, header, wanted, use_time)
    except DataError as error:
        yield Problem(1, str(error))
        return
    is_empty = True
    blank = None  # the first blank line
    first: dict[bool, int] = {}  # the first line without a time, and the first with one
    for line, row in _numbered(rows):
        if isinstance(row, str):
            is_empty = False
            yield Problem(line, row)
            continue
        if not row:
            blank = line if blank is None else blank
            continue
        if blank is not None:  # blank lines at the end are no mistake
            yield Problem(blank, "the line is empty; take it out")
            blank = None
        is_empty = False
        yield from (Problem(line, text) for text in layout.problems(row))
        timed = layout.has_time(row)
        if timed is not None and timed not in first:
            first[timed] = line
            if len(first) == 2:
                yield Problem(
                    first[False], "timestamp is empty, and other lines have one; fill it in, or leave out all"
                )
    if is_empty:
        yield Problem(None, f"{path} {_emptiness(form, rows.line_num > 0)}")


def first_duplicate(
    path: str | os.PathLike[str], columns: Mapping[str, str] | None = None, format: str | None = None
) -> int | None:
    """The first line of a text file with user, item and time (and behavior) of an earlier line; None: there is none.

    Lines that cannot be read are left out.
    """
    path = Path(path)
    form = form_of(path, format)
    rows = _rows(path, form)
    header = form.labels(_header(path, form, rows))
    place = Wanted.of_interactions(columns, form).places(header, str(path))
    event_places = [place[column] for column in ("user_id", "item_id", "timestamp", "behavior") if column in place]
    seen: set[int] = set()  # hashes, for the events of a big log would fill the memory
    for line, row in _numbered(rows):
        if isinstance(row, str) or len(row) != len(header):
            continue
        event = hash(tuple(row[column] for column in event_places))
        if event in seen:
            return line
        seen.add(event)
    return None


def _rows(path: Path, form: Form) -> Any:
    """The lines of a file as lists of fields, from a `csv.reader`, which counts lines; quotes may mean nothing."""
    lines = text_lines(path, form.encoding)
    if form.json:
        return ObjectRows(lines, form)
    if form.lists:
        return ListRows(lines, form.split)
    if form.delimiter == "::":
        lines = (line.replace("::", "\t") for line in lines)
    return csv.reader(lines, delimiter=form.separator, quoting=form.quoting)


def _header(path: Path, form: Form, rows: Any) -> list[str]:
    """The names of the fields, from the first row where the form does not know them."""
    header = next(rows, None) if form.fields is None else list(form.fields)
    if header is None:
        raise DataError(f"{path} is empty; expected {form.expected()}")
    return header


def _numbered(rows: Any) -> Iterator[tuple[int, list[str] | str]]:
    """Lines with their numbers; in place of one that cannot be read, or of a damaged file's rest, what is wrong."""
    ends_here = False
    while not ends_here:
        try:
            row = next(rows, None)
        except csv.Error as error:
            row = reason(error)
        except DataError as error:
            row, ends_here = str(error), True
        if row is None:
            return
        yield rows.line_num + ends_here, row


def _emptiness(form: Form, has_lines: bool) -> str:
    """What to say of a file without rows."""
    if form.fields is None:
        return "has a header and no rows; expected at least one"
    alone = form.split and has_lines  # users without items
    return f"{'has no items' if alone else 'is empty'}; expected {form.expected()}"


class _Layout(NamedTuple):
    """How rows should be.

    Attributes:
        width: number of fields.
        expected: an error message's words for that number.
        place: our name of a column -> its place in a row.
        use_time: whether times are looked at.
        dates: how they are written, as in `Form`.
    """

    width: int
    expected: str
    place: Mapping[str, int]
    use_time: bool
    dates: str

    @classmethod
    def of(cls, form: Form, header: list[str], wanted: Wanted, use_time: bool) -> _Layout:
        """That of a file with this header.

        Raises:
            DataError: the header is not as expected.
        """
        expected = f"and in the header {len(header)}" if form.fields is None else f"expected {len(header)}"
        if undecodable("".join(header)):
            raise DataError("the header is not UTF-8; save the file with encoding UTF-8")
        return cls(len(header), expected, wanted.places(form.labels(header)), use_time, form.dates)

    def has_time(self, row: list[str]) -> bool | None:
        """Whether a row has a time; None where that does not matter."""
        if not self.use_time or "timestamp" not in self.place or len(row) != self.width:
            return None
        return row[self.place["timestamp"]].strip() != ""

    def problems(self, row: list[str]) -> Iterator[str]:
        """What is wrong with one row, by itself."""
        broken = next((cell for cell in row if not cell.isascii() and undecodable(cell)), None)
        if broken is not None:
            yield f"{shown(broken)} is not UTF-8; save the file with encoding UTF-8"
            return
        if any("\0" in cell for cell in row):
            yield "the line holds a zero byte; expected text"
            return
        if len(row) != self.width:
            yield f"the number of fields is {len(row)}, {self.expected}"
            return
        for column in ("user_id", "item_id"):
            if column in self.place and row[self.place[column]] == "":
                yield f"{column} is empty; expected an id in every row"
        if "rating" in self.place and (text := row[self.place["rating"]].strip()) != "":
            stars = number(text)
            if stars is None or abs(stars) > LARGEST_RATING:
                yield f"rating is {shown(text)}; expected a {'' if stars is None else 'smaller '}number, or nothing"
        if self.has_time(row):
            text = row[self.place["timestamp"]].strip()
            if expected := _instead_of(text, self.dates):
                yield f"timestamp is {shown(text)}; expected {expected}"


def _instead_of(text: str, dates: str) -> str:
    """What is expected instead of a time that cannot be used; "" for one that can be."""
    if dates:
        return "" if is_date(text, dates) else f"a time such as {example(dates)}"
    seconds = number(text)
    if seconds is None:
        return "a number (seconds since 1970)"
    return "" if math.isfinite(seconds) else "a finite number of seconds"
