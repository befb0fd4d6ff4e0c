"""Readers of tables: a file or a frame with one interaction per row -> an InteractionLog.

A tidy table has the columns `user_id item_id rating timestamp`; the last two may be absent or empty. Files are .tsv,
.csv (either also as .gz) or .parquet; `dglrec.data.forms` has the forms of other sources that are read. Reading takes
the fast path through polars; only where that fails the file is read again, line by line, to say in which line it is
wrong.

From a file to a log:

    interactions.py   read_interactions, from_frame: the parts put together
    titles.py         read_items: titles and texts of items
    tables.py         the fast path: fields between separators
    lists.py          a user and its items per line
    objects.py        a JSON object per line
    parquet.py        Parquet
    lines.py          the slow path: find_problems, first_duplicate
    header.py         which column is which
    values.py         columns of text -> ids, ratings and times
    raw.py            bytes: opened, unpacked within bounds, decoded
    wording.py        what is wrong, and where, in words
"""

from __future__ import annotations

from .interactions import by_time, from_frame, read_interactions
from .lines import find_problems, first_duplicate
from .raw import most_unpacked
from .titles import ITEM_TEXTS, read_items, read_titles
from .values import import_polars
from .wording import Problem

__all__ = [
    "ITEM_TEXTS",
    "Problem",
    "by_time",
    "find_problems",
    "first_duplicate",
    "from_frame",
    "import_polars",
    "most_unpacked",
    "read_interactions",
    "read_items",
    "read_titles",
]
