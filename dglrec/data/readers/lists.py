"""Lists: a line is a user and its items, oldest first, as S3-Rec, SASRec and LightGCN's data sets have it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from ..forms import Form
from .values import import_polars
from .wording import STRAY_RETURN, Problem, first_error, shown

if TYPE_CHECKING:
    import polars


def read_lists(path: Path, form: Form, data: bytes, problems: Iterator[Problem]) -> dict[str, polars.Series]:
    """The users and items of a file of lists, a row for each item.

    Args:
        path: the file, for error messages.
        form: of lists.
        data: all bytes of the file.
        problems: those of the file, line by line; looked at where something is doubtful.

    Raises:
        DataError: it is of another form.
    """
    pl = import_polars()
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise (first_error(path, problems) or DataError(f"{path} is not UTF-8 ({error})")) from None
    if not text or text.isspace():
        raise DataError(f"{path} is empty; expected {form.expected()}")
    fields = pl.Series("item_id", [text]).str.split("\n").explode().str.extract_all(r"[^ \t\r]+")
    least = 1 if form.split else 2
    doubtful = (fields.list.len() < least).any() or re.search(r"\r[^\r\n]", text) or set("\0,;|[{") & set(text)
    # That there are no items at all is not this part's problem: the other one may have them.
    in_a_line = (problem for problem in problems if problem.line is not None)
    if doubtful and (wrong := first_error(path, in_a_line)) is not None:
        raise wrong
    table = pl.DataFrame({"user_id": fields.list.first(), "item_id": fields.list.slice(1)})
    table = table.filter(pl.col("item_id").list.len() > 0).explode("item_id")
    return {name: table[name] for name in ("user_id", "item_id")}


class ListRows:
    """Lines with a user and its items as rows of a user and one item; counts lines as `csv.reader` does."""

    def __init__(self, lines: Iterator[str], may_be_empty: bool) -> None:
        self._lines, self._may_be_empty = lines, may_be_empty
        self._rows: Iterator[list[str]] = iter(())
        self.line_num = 0

    def __next__(self) -> list[str]:
        while (row := next(self._rows, None)) is None:
            line = next(self._lines)
            self.line_num += 1
            fields = re.findall(r"[^ \t\r\n]+", line)
            if not fields:
                return []
            if "\r" in line.rstrip("\r\n"):
                raise csv.Error(STRAY_RETURN)
            if wrong := self._wrong(fields):
                raise csv.Error(f"{wrong}; expected a user and its items, separated by spaces")
            self._rows = iter([[fields[0], item] for item in fields[1:]])
        return row

    def _wrong(self, fields: list[str]) -> str:
        """What tells that a line is of another form, or ""; in LightGCN's files users may be without items."""
        if fields[0].startswith(("{", "[")):
            return f"{shown(fields[0])} begins as JSON does"
        if len(fields) == 1 and (not self._may_be_empty or re.search("[,;|]", fields[0])):
            return f"{shown(fields[0])} is alone in its line"
        ends = next((field for field in fields if field.endswith((",", ";"))), None)
        return "" if ends is None else f"{shown(ends)} ends with a separator"
