"""Forms of files: how lines are laid out in tidy tables, and in the originals of several sources: MovieLens, Amazon,
Taobao, Gowalla (SNAP) and Yelp.

An original is known by the name that its source gives it (`ratings.dat`, `u.data`, `ratings.csv`, `UserBehavior.csv`,
`loc-gowalla_totalCheckins.txt`, `yelp_academic_dataset_review.json`), or its form is named:
`dglrec.load("ratings_Books.csv", format="amazon-ratings")`.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import DataError, closest

SUFFIXES = (".tsv.gz", ".csv.gz", ".tsv", ".csv", ".parquet")


@dataclass(frozen=True)
class Form:
    """How the lines of a text file are laid out.

    Attributes:
        delimiter: between fields; "::" is read as a tab.
        quotes: whether double quotes may enclose a field.
        fields: names of the fields where the file has no header; None: its first line names them.
        columns: our column -> the header's name, where it is another one.
        encoding: "utf-8" or "latin-1".
        titles: name of the file of titles that its source puts beside it, or "".
        dates: how times are written, as `strptime` calls it, in UTC; "": seconds.
        json: a line is a JSON object with `fields`; there is no delimiter then.
    """

    delimiter: str
    quotes: bool = False
    fields: tuple[str, ...] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    titles: str = ""
    dates: str = ""
    json: bool = False

    def expected(self) -> str:
        """What an empty file should hold."""
        if self.fields is None:
            return "a header line such as: user_id item_id rating timestamp"
        if self.json:
            return f"lines of JSON objects with {', '.join(self.fields)}"
        return f"lines of {(' ' if self.delimiter.isspace() else self.delimiter).join(self.fields)}"

    def tidy(self, data: bytes) -> bytes:
        """Bytes of the file in UTF-8, with one character between fields."""
        data = data if self.encoding == "utf-8" else data.decode(self.encoding).encode()
        return data.replace(b"::", b"\t") if self.delimiter == "::" else data

    @property
    def quoting(self) -> Literal[0, 3]:
        """What quotes mean, as `csv` calls it."""
        return csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE

    @property
    def separator(self) -> str:
        """The character between fields after `tidy`."""
        return "\t" if self.delimiter == "::" else self.delimiter


_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_MOVIELENS_HEADER = "userId,movieId,rating,timestamp"

FORMATS = {
    "amazon-ratings": Form(",", quotes=True, fields=_RATINGS),
    "amazon-ratings-2018": Form(",", quotes=True, fields=("item_id", "user_id", "rating", "timestamp")),
    "movielens-100k": Form("\t", fields=_RATINGS, titles="u.item"),
    "movielens-1m": Form("::", fields=_RATINGS, titles="movies.dat"),
    "movielens-csv": Form(",", quotes=True, columns={"user_id": "userId", "item_id": "movieId"}, titles="movies.csv"),
    "taobao": Form(",", fields=("user_id", "item_id", "category", "behavior", "timestamp")),
    "gowalla": Form(
        "\t", fields=("user_id", "timestamp", "latitude", "longitude", "item_id"), dates="%Y-%m-%dT%H:%M:%SZ"
    ),
    "yelp": Form(
        "",
        fields=("user_id", "business_id", "stars", "date"),
        columns={"item_id": "business_id", "rating": "stars", "timestamp": "date"},
        dates="%Y-%m-%d %H:%M:%S",
        json=True,
    ),
}
NAMES = {
    "ratings.dat": "movielens-1m",
    "u.data": "movielens-100k",
    "ratings.csv": "movielens-csv",  # where the header is MovieLens's
    "UserBehavior.csv": "taobao",
    "loc-gowalla_totalCheckins.txt": "gowalla",
    "loc-gowalla_totalCheckins.txt.gz": "gowalla",
    "yelp_academic_dataset_review.json": "yelp",
}
_TITLES = {
    "movies.dat": Form("::", fields=("item_id", "title", "genres"), encoding="latin-1"),
    "u.item": Form("|", fields=("item_id", "title", *(f"field {n}" for n in range(3, 25))), encoding="latin-1"),
    "movies.csv": Form(",", quotes=True, columns={"item_id": "movieId"}),
}


def known_format(path: Path) -> str | None:
    """The format of an original that has the name which its source gives it, and None for any other file."""
    name = NAMES.get(path.name)
    if name == "movielens-csv":
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                is_original = file.readline(len(_MOVIELENS_HEADER) + 2).strip("\ufeff\r\n") == _MOVIELENS_HEADER
        except OSError:
            return None
        return name if is_original else None
    return name


def form_of(path: Path, format: str | None = None) -> Form:
    """The form of an interactions file.

    Raises:
        DataError: an unknown format, or a file whose name does not say what it is.
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"unknown format {format!r}; {closest(format, FORMATS)}")
    known = format or known_format(path)
    if known is not None:
        return FORMATS[known]
    name = path.name.removesuffix(".gz")
    if name.endswith(".csv"):
        return Form(",", quotes=True)
    if name.endswith(".tsv"):
        return Form("\t")
    raise DataError(f"{path} is no table that can be read; expected a name that ends in {', '.join(SUFFIXES)}")


def titles_form_of(path: Path) -> Form:
    """The form of a file of titles: those that MovieLens has are known by name.

    Raises:
        DataError: the file's name does not say what it is.
    """
    form = _TITLES.get(path.name)
    if form is None or (form.columns and known_format(path.with_name("ratings.csv")) is None):
        return form_of(path)
    if path.name == "movies.dat" and _is_utf8(path):  # that of MovieLens-10M is, that of MovieLens-1M is not
        return dataclasses.replace(form, encoding="utf-8")
    return form


def _is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return False
    return True


def titles_beside(path: Path, format: str | None = None) -> Path | None:
    """The file of titles that stands beside an original, if there is one."""
    known = format or known_format(path)
    name = FORMATS[known].titles if known in FORMATS else ""
    return path.with_name(name) if name and path.with_name(name).is_file() else None
