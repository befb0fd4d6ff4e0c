"""Finding data: a name, a path or a frame -> an InteractionLog."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError, closest
from .log import InteractionLog
from .readers import SUFFIXES, from_frame, read_interactions, read_titles, stem


def load(
    source: Any,
    *,
    k_core: int | None = None,
    order: Literal["time", "file"] = "time",
    columns: Mapping[str, str] | None = None,
    items: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> InteractionLog:
    """The interaction log of a data set, a file or a frame.

    Args:
        source: the name of a data set, a folder, a .tsv, .csv (.gz), .parquet or saved .npz file, a pandas or polars frame,
            "sample" or "sample:KIND", or an InteractionLog.
        k_core: keep users and items with at least so many interactions with each other.
        order: "time" sorts each user's rows by time; "file" drops the times and takes the rows as oldest first.
        columns: the source's names of the columns, such as {"user_id": "uid"}.
        items: a file with titles (`item_id title ...`); beside a file `interactions.*`, a file `items.*` is found.
        name: name of the log.

    Raises:
        DataError: the source is not found or cannot be used.
    """
    if order not in ("time", "file"):
        raise DataError(f"order is {order!r}; expected 'time' or 'file'")
    log = _load(source, order, columns, items, name)
    if order == "file" and log.time is not None:
        raise DataError(f"{log.name!r} is sorted by time already; order='file' needs its original table")
    if name is not None:
        log = dataclasses.replace(log, name=name)
    return log if k_core is None else log.k_core(k_core)


def _load(
    source: Any,
    order: Literal["time", "file"],
    columns: Mapping[str, str] | None,
    items: str | os.PathLike[str] | None,
    name: str | None,
) -> InteractionLog:
    if isinstance(source, InteractionLog):
        return source
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "columns"):
            raise DataError(f"cannot load {type(source).__name__}; expected a name, a path, a pandas or a polars frame")
        titles = None if items is None else read_titles(items)
        return from_frame(source, columns=columns, order=order, titles=titles, name=name or "frame")
    text = os.fspath(source)
    path = Path(text)
    looks_like_path = not isinstance(source, str) or os.sep in text or "/" in text or text.endswith((*SUFFIXES, ".npz"))
    if not looks_like_path:
        path = _folder_of(text)
    if not path.exists():
        raise DataError(f"no file or folder {path}")
    if path.is_dir():
        return _load_folder(path, order, columns, items, name)
    if path.name.endswith(".npz"):
        return InteractionLog.load(path)
    if items is None and stem(path) == "interactions":
        items = _table(path.parent, "items")
        name = name or path.absolute().parent.name
    titles = None if items is None else read_titles(items)
    return read_interactions(path, columns=columns, order=order, titles=titles, name=name)


def _load_folder(
    folder: Path,
    order: Literal["time", "file"],
    columns: Mapping[str, str] | None,
    items: str | os.PathLike[str] | None,
    name: str | None,
) -> InteractionLog:
    table = _table(folder, "interactions")
    if table is None:
        raise DataError(f"{folder} holds no interactions table; expected interactions{', interactions'.join(SUFFIXES)}")
    return _load(table, order, columns, items, name or folder.absolute().name)


def _table(folder: Path, name: str) -> Path | None:
    """The table `name` of a folder, whatever its format."""
    return next((folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()), None)


def folders() -> list[Path]:
    """Where data sets are looked for: $DGLREC_DATA, then the user's cache."""
    given = os.environ.get("DGLREC_DATA")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return ([Path(given)] if given else []) + [Path(cache) / "dglrec"]


def _folder_of(name: str) -> Path:
    for folder in folders():
        if (folder / name).is_dir():
            return folder / name
    known = [entry.name for folder in folders() if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()]
    looked = " and ".join(str(folder) for folder in folders())
    raise DataError(f"unknown data set {name!r} (looked in {looked}); {closest(name, known)}")
