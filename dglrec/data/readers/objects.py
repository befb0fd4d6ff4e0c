"""Objects: a line is one in JSON, as Amazon's and Yelp's reviews are."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError, first_line
from ..forms import FORMATS, Form, id_fields
from .header import Wanted
from .raw import MARK, is_packed, open_bytes, read_bytes
from .values import import_polars
from .wording import Problem, first_error, is_half, shown, undecodable

if TYPE_CHECKING:
    import polars


def read_objects(path: Path, form: Form, wanted: Wanted, problems: Iterator[Problem]) -> dict[str, polars.Series]:
    """The wanted columns of a file with a JSON object per line, as text; what is absent is null.

    Args:
        path: the file; a plain one is streamed, for reviews hold texts that are left alone.
        form: of objects.
        wanted: which columns.
        problems: those of the file, line by line; looked at where something is doubtful.

    Raises:
        DataError: the file cannot be used.
    """
    pl = import_polars()
    header = form.fields or ()
    place = wanted.places(header, str(path))
    ours = {column: header[number] for column, number in place.items()}
    ids = [ours[column] for column in ("user_id", "item_id") if column in ours]
    numbers = {ours.get(column) for column in (("rating",) if form.dates else ("rating", "timestamp"))} - {*ids}
    kinds = {name: pl.Float64 if name in numbers else pl.String for name in header}
    texts = dict.fromkeys(header, pl.String)
    source, chosen = _source(path), sorted(set(ours.values()))
    try:
        table = pl.scan_ndjson(source, schema=kinds).select(chosen).collect()
    except (OSError, pl.exceptions.PolarsError):
        try:  # numbers may be written as text
            table = pl.scan_ndjson(source, schema=texts).select(chosen).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            failed = DataError(f"{path} cannot be read ({first_line(error)})")
            raise (first_error(path, problems) or failed) from None
    if len(table) == 0:
        raise DataError(f"{path} is empty; expected {form.expected()}")
    found = {column: table[name].cast(pl.String) for column, name in ours.items()}
    lists_or_objects = (table[name].str.contains(r"^[\[{]").any() for name in ids)
    if any(lists_or_objects) and (wrong := first_error(path, problems)) is not None:
        raise wrong
    return found


def _source(path: Path) -> Any:
    """What polars reads: a pattern for the path alone, or the bytes of a file that is packed or has Excel's mark."""
    with open_bytes(path) as file:  # which says what is wrong with a file that cannot be opened
        marked = not is_packed(path) and file.read(len(MARK)) == MARK
    if marked or is_packed(path):
        return io.BytesIO(read_bytes(path).removeprefix(MARK))
    return glob.escape(str(path))


class ObjectRows:
    """Lines with a JSON object each as lists of fields, "" where one is absent; counts lines as `csv.reader` does."""

    def __init__(self, lines: Iterator[str], form: Form) -> None:
        self._lines, self._fields, self._ids = lines, form.fields or (), id_fields(form)
        self.line_num = 0

    def __next__(self) -> list[str]:
        line = next(self._lines)
        self.line_num += 1
        if not line.strip():
            return []
        found = _parsed(line)
        absent = next((name for name in self._ids if name not in found), None)
        if absent is not None:
            raise csv.Error(f"no {absent!r}; {_fitting(found)}")
        values = {name: found.get(name) for name in self._fields}
        for name, value in values.items():
            if isinstance(value, list | dict):
                raise csv.Error(f"{name} is {shown(json.dumps(value))}; expected text or a number")
        half = next((name for name, value in values.items() if isinstance(value, str) and is_half(value)), None)
        if half is not None and not undecodable(line):
            raise csv.Error(f"{half} is {json.dumps(values[half])[:40]}; half a pair of \\u escapes is no character")
        return ["" if value is None else str(value) for value in values.values()]


def _parsed(line: str) -> dict[str, Any]:
    """The object in a line.

    Raises:
        csv.Error: there is none.
    """
    expected = "expected a JSON object in every line"
    try:
        found = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise csv.Error(f"{shown(line.rstrip())} is not JSON ({first_line(error)}); {expected}") from error
    if not isinstance(found, dict):
        raise csv.Error(f"{shown(line.rstrip())} is not a JSON object; {expected}")
    return found


def _no_constant(name: str) -> float:
    """Refuses what Python alone takes for JSON."""
    raise ValueError(f"{name} is not a number there")


def _fitting(found: Mapping[str, Any]) -> str:
    """What to do with a JSON object that lacks an id: the format that its names fit, or its names."""
    fits = next((name for name, form in FORMATS.items() if form.json and found.keys() >= set(id_fields(form))), None)
    return f"its names are {shown(' '.join(found), 60)}" if fits is None else f"its names fit format={fits!r}"
