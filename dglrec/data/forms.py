"""Forms of files: how lines are laid out in tidy tables, in the originals of several sources (MovieLens, Amazon,
Taobao, Gowalla, Yelp), and in what other codes pass around (RecBole's atomic files, lists of items, LightGCN's files).

An original is known by the name that its source gives it (`ratings.dat`, `u.data`, `ratings.csv`, `UserBehavior.csv`,
`loc-gowalla_totalCheckins.txt`, `yelp_academic_dataset_review.json`, `reviews_*.json.gz`, `*.inter`, `train.txt` beside
`test.txt`), or its form is named: `dglrec.load("ratings_Books.csv", format="amazon-ratings")`.
"""

from __future__ import annotations

import csv
import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
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
        per_second: units of time per second; 1000: milliseconds.
        typed: the names in the header are followed by a type of RecBole's, as in `user_id:token`.
        lists: a line is a user and items of that user, separated by spaces, oldest first; there are no times.
        split: the file is `train.txt`, the test part is in `test.txt` beside it, and users may be without items.
    """

    delimiter: str
    quotes: bool = False
    fields: tuple[str, ...] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    titles: str = ""
    dates: str = ""
    json: bool = False
    per_second: int = 1
    typed: bool = False
    lists: bool = False
    split: bool = False

    def expected(self) -> str:
        """What an empty file should hold."""
        if self.typed:
            return "a header line such as: user_id:token item_id:token rating:float timestamp:float"
        if self.fields is None:
            return "a header line such as: user_id item_id rating timestamp"
        if self.lists:
            return "lines of a user and its items, such as: 1 10 7 12"
        if self.json:
            return f"lines of JSON objects with {', '.join(self.fields)}"
        return f"lines of {(' ' if self.delimiter.isspace() else self.delimiter).join(self.fields)}"

    def tidy(self, data: bytes) -> bytes:
        """Bytes of the file in UTF-8, with one character between fields."""
        data = data if self.encoding == "utf-8" else data.decode(self.encoding).encode()
        return data.replace(b"::", b"\t") if self.delimiter == "::" else data

    def labels(self, header: Sequence[str]) -> list[str]:
        """The names in a header line, without RecBole's types.

        Raises:
            DataError: a name has no type, or the rows are not interactions.
        """
        if not self.typed:
            return list(header)
        if len(header) == 1 and (mark := next((mark for mark in ",; " if mark in header[0].strip()), "")):
            seen = "spaces" if mark == " " else f"{mark!r}"
            raise DataError(f"the header is one field, with {seen} in it; RecBole's fields are separated by tabs")
        names, kinds = [label.rpartition(":")[0] for label in header], [label.rpartition(":")[2] for label in header]
        wrong = next((label for label, kind in zip(header, kinds, strict=True) if kind not in _RECBOLE_TYPES), None)
        if wrong is not None:
            raise DataError(f"{wrong[:40]!r} in the header has no type; RecBole's labels are such as 'user_id:token'")
        if "item_id_list" in names:
            raise DataError("the header has 'item_id_list': each row is a prefix; take the .inter before it")
        return names

    @property
    def has_behaviors(self) -> bool:
        """Whether lines say what the user did, where only some behaviors count as interactions."""
        return "behavior" in (self.fields or ())

    @property
    def quoting(self) -> Literal[0, 3]:
        """What quotes mean, as `csv` calls it."""
        return csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE

    @property
    def separator(self) -> str:
        """The character between fields after `tidy`."""
        return "\t" if self.delimiter == "::" else self.delimiter


_RECBOLE_TYPES = ("token", "token_seq", "float", "float_seq")
_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_MOVIELENS_HEADER = "userId,movieId,rating,timestamp"

FORMATS = {
    "amazon-ratings": Form(",", quotes=True, fields=_RATINGS),
    "amazon-ratings-2018": Form(",", quotes=True, fields=("item_id", "user_id", "rating", "timestamp")),
    "amazon-ratings-2023": Form(",", quotes=True, columns={"item_id": "parent_asin"}, per_second=1000),
    "amazon-reviews": Form(
        "",
        fields=("reviewerID", "asin", "overall", "unixReviewTime"),
        columns={"user_id": "reviewerID", "item_id": "asin", "rating": "overall", "timestamp": "unixReviewTime"},
        json=True,
    ),
    "amazon-reviews-2023": Form(
        "",
        fields=("user_id", "parent_asin", "rating", "timestamp"),
        columns={"item_id": "parent_asin"},
        json=True,
        per_second=1000,
    ),
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
    "recbole": Form("\t", titles=".item", typed=True),
    "lists": Form(" ", fields=("user_id", "item_id"), lists=True),
    "lightgcn": Form(" ", fields=("user_id", "item_id"), lists=True, split=True),
}
NAMES = {
    "ratings.dat": "movielens-1m",
    "u.data": "movielens-100k",
    "ratings.csv": "movielens-csv",  # where the header is MovieLens's
    "UserBehavior.csv": "taobao",
    "loc-gowalla_totalCheckins.txt": "gowalla",
    "loc-gowalla_totalCheckins.txt.gz": "gowalla",
    "yelp_academic_dataset_review.json": "yelp",
    "train.txt": "lightgcn",  # where test.txt is beside it
    "train.txt.gz": "lightgcn",
    "train.txt.xz": "lightgcn",
}
PATTERNS = {"*.inter": "recbole", "reviews_*.json": "amazon-reviews", "reviews_*.json.gz": "amazon-reviews"}
_TITLES = {
    "movies.dat": Form("::", fields=("item_id", "title", "genres"), encoding="latin-1"),
    "u.item": Form("|", fields=("item_id", "title", *(f"field {n}" for n in range(3, 25))), encoding="latin-1"),
    "movies.csv": Form(",", quotes=True, columns={"item_id": "movieId"}),
}


def stem(path: Path) -> str:
    """The name of a file without its suffixes: "clicks" for clicks.tsv.gz."""
    suffix = next((suffix for suffix in (*SUFFIXES, ".npz", ".inter") if path.name.endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] or path.name


def known_format(path: Path) -> str | None:
    """The format of an original that has the name which its source gives it, and None for any other file."""
    patterns = (format for pattern, format in PATTERNS.items() if fnmatch.fnmatchcase(path.name, pattern))
    name = NAMES.get(path.name) or next(patterns, None)
    if name == "lightgcn" and find_test_part(path) is None:
        return None
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
    endings = ", ".join(SUFFIXES)
    raise DataError(
        f"{path} is not a table that can be read; expected a name that ends in {endings}, or {_instead(path.name)}"
    )


def _instead(name: str) -> str:
    """What to do with a file whose name does not say what it is."""
    plain = name.removesuffix(".gz").removesuffix(".xz")
    if plain.endswith((".json", ".jsonl")):
        return f"the format of its lines: {', '.join(repr(name) for name, form in FORMATS.items() if form.json)}"
    if plain.endswith(".inter"):
        return "format='recbole'"
    if plain.endswith((".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".zst")):
        return "the file in this archive: unpack it first"
    if plain in NAMES and plain != "train.txt":
        return f"format={NAMES[plain]!r}"
    if plain == "train.txt":
        return "test.txt beside it, as LightGCN's data sets have it, or a format such as 'lists'"
    return "a format such as 'lists'"


def id_fields(form: Form) -> tuple[str, str]:
    """What a form calls the ids of users and items."""
    return form.columns.get("user_id", "user_id"), form.columns.get("item_id", "item_id")


def titles_form_of(path: Path) -> Form:
    """The form of a file of titles: those that MovieLens has are known by name.

    Raises:
        DataError: the file's name does not say what it is.
    """
    if path.suffix == ".item" and path.name not in _TITLES:
        return Form("\t", columns={"title": _title_label(path) or "title"}, typed=True)
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
    """The file of titles beside an original, if there is one."""
    known = format or known_format(path)
    name = FORMATS[known].titles if known in FORMATS else ""
    if name == ".item":
        beside = path.with_suffix(name)
        return beside if beside.is_file() and _title_label(beside) else None
    return path.with_name(name) if name and path.with_name(name).is_file() else None


def find_test_part(path: Path) -> Path | None:
    """The file with the test part beside a training part, plain or packed."""
    names = (path.name.replace("train", "test", 1), "test.txt", "test.txt.gz", "test.txt.xz")
    return next((path.with_name(name) for name in names if name != path.name and path.with_name(name).is_file()), None)


def _title_label(path: Path) -> str | None:
    """What RecBole's file of items calls its titles; None where it has none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            names = [label.rpartition(":")[0] for label in file.readline(1 << 16).strip("\ufeff\r\n").split("\t")]
    except OSError:
        return None
    return next((name for name in ("title", "movie_title", "item_name", "name") if name in names), None)
