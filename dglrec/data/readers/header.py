"""Headers: which column of a table is which of ours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import DataError, closest
from ..forms import Form
from .wording import shown

COLUMNS = ("user_id", "item_id", "rating", "timestamp")

# Headers that other sources use. They are not guessed at: the error says how to name them.
_OTHER_SPELLINGS = {
    "user_id": ("user", "uid", "reviewerid", "user_idx", "visitorid", "session_id"),
    "item_id": ("item", "iid", "asin", "movieid", "movie_id", "business_id", "product_id", "item_idx"),
    "rating": ("ratings", "stars", "score", "overall"),
    "timestamp": ("time", "ts", "date", "datetime", "timestamps", "unixreviewtime", "unix_time"),
}


@dataclass(frozen=True)
class Wanted:
    """The columns that are read from a table, under our names.

    Attributes:
        required: those that it must have.
        optional: those that it may have; what only looks like one of them is a mistake.
        columns: our name -> the table's, where it is another one.
        more: those that are read where they are there; what only looks like one of them is no mistake.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()

    @classmethod
    def of_interactions(cls, columns: Mapping[str, str] | None, form: Form | None = None) -> Wanted:
        """What is read of interactions; the caller's names of columns override those of the form."""
        required: tuple[str, ...] = ("user_id", "item_id")
        if form is None:
            return cls(required, ("rating", "timestamp"), columns or {})
        required += ("behavior",) * form.has_behaviors
        return cls(required, ("rating", "timestamp"), {**form.columns, **(columns or {})})

    def places(self, header: Sequence[str], source: str = "") -> dict[str, int]:
        """Our name of each column that is there -> its place in the header.

        Raises:
            DataError: a required column is not there, one only looks like ours, or one is there twice.
        """
        where = f"{source}: " if source else ""
        names = self._their_names()
        place: dict[str, int] = {}
        for column, theirs in names.items():
            found = [number for number, label in enumerate(header) if label == theirs]
            if len(found) > 1:
                raise DataError(f"{where}the header has {theirs!r} twice; rename one of them")
            if found:
                place[column] = found[0]
            elif wrong := self._absence(column, names, header):
                raise DataError(f"{where}no column {theirs!r}{wrong}")
        return place | {name: header.index(name) for name in self.more if name in header}

    def _their_names(self) -> dict[str, str]:
        """Our name of each column that is looked for -> the table's."""
        names = {column: column for column in (*self.required, *self.optional)}
        for ours, theirs in self.columns.items():
            if ours not in (*COLUMNS, *self.required):
                raise DataError(f"columns has no {ours!r}; {closest(ours, COLUMNS)}")
            if ours in names:
                names[ours] = theirs
        return names

    def _absence(self, column: str, names: Mapping[str, str], header: Sequence[str]) -> str:
        """What to do about a column that is not in the header; "" where it need not be."""
        if len(header) == 1 and (separated := _separated(header[0])):
            return f"; the header line is {shown(header[0], 60)}, one column{separated}"
        if names[column] != column:
            return f"; {closest(names[column], [shown(label)[1:-1] for label in header[:20]])}"
        like = _looks_like(column, [label for label in header if label not in names.values()])
        if like:
            return f', but {like!r}; rename it, or pass columns={{"{column}": "{like}"}}'
        if column in self.required:
            named = f'pass columns={{"{column}": "..."}}' if "user_id" in self.required else "rename the right one"
            return f"; the header line is {shown(' '.join(header), 60)}{_hint(header)}; {named}"
        return ""


def _looks_like(column: str, header: Sequence[str]) -> str:
    """The label that probably means `column`, or ""."""
    bare = column.replace("_", "")
    for label in header:
        plain = label.strip().lower().replace(" ", "_")
        if plain.replace("_", "") == bare or plain in _OTHER_SPELLINGS.get(column, ()):
            return label
    found = difflib.get_close_matches(column, header, n=1, cutoff=0.8)
    return found[0] if found else ""


def _separated(line: str) -> str:
    """What to do with a header line of one column that seems to be several; "" where it is one."""
    if "\t" in line:
        return " (separated by tabs: name the file .tsv)"
    if "," in line:
        return " (separated by commas: name the file .csv)"
    other = next((name for sign, name in ((";", "semicolons"), ("|", "bars")) if sign in line), "")
    return f" (separated by {other}: save the file with commas in their place)" if other else ""


def _hint(header: Sequence[str]) -> str:
    """What is probably wrong with a header line, in brackets, or ""."""
    return " (has the file no header?)" if any(any(c.isdigit() for c in label) for label in header) else ""
