"""Titles of items, and all that is said of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..forms import titles_form_of
from .header import Wanted
from .parquet import read_parquet
from .tables import read_text
from .values import import_polars

if TYPE_CHECKING:
    import polars

ITEM_TEXTS = ("brand", "categories", "description")  # what a file of items may say beside titles


def read_items(
    path: str | os.PathLike[str], *, columns: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str] | None]:
    """Item id -> title, and item id -> all that is said of it, from a file with the columns `item_id title`.

    What is said of an item is its title and, where there are such columns, its brand, categories and description; None
    where that adds nothing to the titles. Other columns are left alone. MovieLens's own `movies.dat`, `u.item` and
    `movies.csv` are read as they are.

    Args:
        path: the file.
        columns: its names of `item_id` and `title`, such as {"item_id": "business_id"}; other keys are left alone.

    Raises:
        DataError: the file cannot be used.
    """
    table = read_titles(Path(path), ITEM_TEXTS, columns)
    more = [column for column in ITEM_TEXTS if column in table and not table[column].dtype.is_nested()]
    ids, titles, *others = (
        table[column].cast(import_polars().String).fill_null("").to_list() for column in ("item_id", "title", *more)
    )
    texts = [". ".join(filter(None, said)) for said in zip(titles, *others, strict=True)]
    return dict(zip(ids, titles, strict=True)), None if texts == titles else dict(zip(ids, texts, strict=True))


def read_titles(
    path: Path, more: Sequence[str] = (), columns: Mapping[str, str] | None = None
) -> dict[str, polars.Series]:
    """The columns `item_id` and `title` of a file of items, and those of `more` that it has.

    Raises:
        DataError: the file cannot be used.
    """
    names = {ours: theirs for ours, theirs in (columns or {}).items() if ours in ("item_id", "title")}
    if path.suffix == ".parquet":
        return read_parquet(path, Wanted(("item_id", "title"), columns=names, more=tuple(more)))
    form = titles_form_of(path)
    return read_text(path, form, Wanted(("item_id", "title"), columns={**form.columns, **names}, more=tuple(more)))
