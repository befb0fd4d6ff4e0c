"""Finding data: a name, a path or a frame -> an InteractionLog; and fetching the data sets that can be fetched.

A name is looked up in the folder of the environment variable DGLREC_DATA, then in the user's cache, then it is
downloaded into that cache. A download is checked by SHA-256, turned into tidy tables, and shows up under its name
complete or not at all.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import stat
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import DataError, closest, first_line
from .download import Interrupted, Progress, download, locked
from .forms import FORMATS, NAMES, PATTERNS, SUFFIXES, known_format, stem, titles_beside
from .log import InteractionLog, by_item
from .papers import PAPER_SETS, original_of
from .places import cache_folder, folders
from .readers import by_time, from_frame, import_polars, most_unpacked, read_interactions, read_items, read_titles
from .sample import KINDS, sample

if TYPE_CHECKING:
    import polars


def load(
    source: Any,
    *,
    k_core: int | None = None,
    order: Literal["time", "file"] = "time",
    columns: Mapping[str, str] | None = None,
    items: str | os.PathLike[str] | None = None,
    name: str | None = None,
    format: str | None = None,
    behaviors: Sequence[str] = ("pv",),
) -> InteractionLog:
    """The interaction log of a data set, a file or a frame.

    Args:
        source: the name of a data set, a folder, a .tsv, .csv (.gz), .parquet or saved .npz file, a pandas or polars
            frame, "sample" or "sample:KIND", or an InteractionLog. The names in `dglrec.data.PAPER_SETS` refer to
            originals that you have, filtered as the paper says.
        k_core: keep users and items with at least this many interactions with each other.
        order: "time" sorts each user's rows by time; "file" drops the times and takes the rows as oldest first.
        columns: the source's names of the columns, such as {"user_id": "uid"}; RecBole's `.item` shares its item_id.
        items: a file with titles (`item_id title`, and, where there is more to say, `brand categories description`);
            beside a file `interactions.*`, a file `items.*` is found, and beside MovieLens's ratings its own.
        name: name of the log.
        format: the form of a file that is not tidy: "movielens-1m" (`ratings.dat`), "movielens-100k" (`u.data`),
            "movielens-csv" (`ratings.csv`), "amazon-ratings" (user, item, rating, time, without a header),
            "amazon-ratings-2018" (item first), "amazon-ratings-2023" (with a header; milliseconds), "amazon-reviews"
            (`reviews_*.json.gz`), "amazon-reviews-2023", "taobao" (`UserBehavior.csv`), "gowalla"
            (`loc-gowalla_totalCheckins.txt`), "yelp" (`yelp_academic_dataset_review.json`), "recbole" (`*.inter`),
            "lists" (a user and its items per line) or "lightgcn" (`train.txt` beside `test.txt`, for `dglrec.given`).
            Files and folders with the names in brackets are known by them.
        behaviors: for "taobao", what counts as an interaction, of "pv" (a view), "buy", "cart" and "fav".

    Raises:
        DataError: the source is not found or cannot be used, or it does not take an argument that is given.

    >>> load("sample:grammar", k_core=5).name
    'sample-grammar'
    """
    by_time(order)  # an unknown order is refused before any work
    log = _load(source, order, columns, items, name, format, behaviors)
    if order == "file" and log.time is not None:  # a saved log, a sample: its rows are in their order of time
        log = dataclasses.replace(log, time=None)
    if name is not None and log.name != name:
        log = dataclasses.replace(log, name=name)
    return log if k_core is None else log.k_core(k_core)


def _load(
    source: Any,
    order: Literal["time", "file"],
    columns: Mapping[str, str] | None,
    items: str | os.PathLike[str] | None,
    name: str | None,
    format: str | None,
    behaviors: Sequence[str],
) -> InteractionLog:
    if isinstance(source, InteractionLog):
        refuse("a log", columns=columns, items=items, format=format)
        return source
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "columns"):
            raise DataError(f"cannot load {type(source).__name__}; expected a name, a path, a pandas or a polars frame")
        refuse("a frame", format=format)
        titles, texts = (None, None) if items is None else read_items(items)
        return _with_texts(from_frame(source, columns=columns, order=order, titles=titles, name=name or "frame"), texts)
    if isinstance(source, str) and (source == "sample" or source.startswith("sample:")):
        refuse("a sample", columns=columns, items=items, format=format)
        return sample(source.partition(":")[2] or "shop")  # type: ignore[arg-type]  # sample checks the kind
    if source in PAPER_SETS:
        refuse(f"{source!r}, which is read as its paper does,", columns=columns, items=items, format=format)
        return paper_log(source)
    path = find_table(source)
    if path.name.endswith(".npz"):
        refuse("a saved log", columns=columns, items=items, format=format)
        return InteractionLog.load(path)
    items = find_items(path, format) if items is None else items
    titles, texts = (None, None) if items is None else read_items(items, columns=columns_of_items(items, columns))
    log = read_interactions(
        path,
        columns=columns,
        order=order,
        titles=titles,
        name=name or log_name(path),
        format=format,
        behaviors=behaviors,
    )
    return _with_texts(log, texts)


def refuse(source: str, **given: Any) -> None:
    """Refuse arguments that a source does not take; they would be ignored."""
    for name, value in given.items():
        if value:
            raise DataError(f"{name} is {value!r}, and {source} takes none; leave it out")


def _with_texts(log: InteractionLog, texts: Mapping[str, str] | None) -> InteractionLog:
    return log if texts is None else dataclasses.replace(log, texts=by_item(texts, log.item_ids, "texts"))


def paper_log(name: str, source: str | Path | InteractionLog | None = None) -> InteractionLog:
    """A paper's data set, from its original.

    Args:
        name: a key of `PAPER_SETS`.
        source: the original, as a file or as a log; by default it is looked for in a folder `name`.

    Raises:
        DataError: an unknown name, or the original is not there; the message says where it comes from and goes to.
    """
    if name not in PAPER_SETS:
        raise DataError(f"unknown data set {name!r} of a paper; {closest(name, PAPER_SETS)}")
    paper = PAPER_SETS[name]
    if not isinstance(source, InteractionLog):
        source = load(original_of(paper) if source is None else Path(source), format=paper.format, name=name)
    return paper.filter(source)


def log_name(path: Path) -> str:
    """A log's name: that of its file, or of its folder where the file has the name that all such files have."""
    common = stem(path) == "interactions" or (path.name in NAMES and known_format(path) is not None)
    return path.absolute().parent.name if common else stem(path)


def find_table(source: str | os.PathLike[str], *, download: bool = True) -> Path:
    """The interactions file that a name, a folder or a path refers to.

    Args:
        source: name, folder or path.
        download: fetch a data set that is known by name and not here yet.

    Raises:
        DataError: there is none; the message says where it was looked for, and names the closest data set.
    """
    text = os.fspath(source)
    endings = (*SUFFIXES, ".npz", ".inter", ".json", ".jsonl", ".json.gz", ".jsonl.gz", ".zip", *NAMES)
    is_path = not isinstance(source, str) or "/" in text or os.sep in text or text in (".", "..")
    is_path = is_path or text.endswith(endings)
    path = Path(text).expanduser() if is_path else _find_name(text, download)
    try:
        mode = path.stat().st_mode  # unlike `exists`, it says why
    except FileNotFoundError as error:
        raise DataError(f"no file or folder {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise DataError(f"no file or folder {path} ({getattr(error, 'strerror', error)})") from error
    if stat.S_ISREG(mode):
        return path
    if not stat.S_ISDIR(mode):  # a pipe or a device may never end
        raise DataError(f"{path} is neither a file nor a folder; write what it gives to a file first")
    table = _interactions(path)
    if table is None:
        alone = next((f", or test.txt beside {one.name}" for one in sorted(path.glob("train.txt*"))), "")
        raise DataError(
            f"folder {path} holds no interactions; expected one of interactions{', interactions'.join(SUFFIXES)}{alone}"
        )
    return table


def find_items(path: Path, format: str | None = None) -> Path | None:
    """The file of titles beside an interactions file, if there is one."""
    return _table(path.parent, "items") if stem(path) == "interactions" else titles_beside(path, format)


def columns_of_items(items: str | os.PathLike[str], columns: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """The names of columns that hold for a file of titles, too: RecBole names items there as in its interactions."""
    return columns if Path(items).suffix == ".item" else None


def _interactions(folder: Path) -> Path | None:
    """The tidy table of a folder, or else the original there that is known by its name."""
    originals = [folder / name for name in NAMES if (folder / name).is_file()]
    for pattern in PATTERNS:
        found = list(folder.glob(pattern))
        originals += found if len(found) == 1 else [path for path in found if path.name == f"{folder.name}.inter"]
    return _table(folder, "interactions") or next((path for path in originals if known_format(path)), None)


def _table(folder: Path, name: str) -> Path | None:
    """The table `name` of a folder, whatever its format."""
    return next((folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()), None)


def _find_name(name: str, fetch: bool) -> Path:
    """The folder of a data set; one that can be fetched is fetched."""
    for folder in folders():
        if name and (folder / name).is_dir():
            return folder / name
    if name and Path(name).exists():  # a folder or a file of this name in the working directory
        return Path(name)
    if name in REGISTRY and fetch:
        print(f"fetching {REGISTRY[name].about(name)}", file=sys.stderr)
        return get(name)
    looked = " or ".join(str(folder) for folder in folders())
    raise DataError(f"no data set {name!r} in {looked}; {_hint(name)}")


def _hint(name: str) -> str:
    """What to do about a name without a file; some are those of data sets that are made when they are loaded."""
    if name in REGISTRY:
        return f"dglrec data get {name} fetches it"
    if name in PAPER_SETS:
        return "it is filtered from its original when it is loaded, which can be checked by its path"
    if name.partition(":")[0] == "sample":
        return "a sample is drawn when it is loaded, and is no file"
    return closest(name, ["sample", *(info.name for info in list_datasets())])


# What can be fetched --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and how it becomes tidy tables.

    A digest is given where it is known from a public source; without one, any file is accepted, and `source.json`
    says so.

    Attributes:
        url: the original file.
        format: its form, a key of `FORMATS`; of a .zip, that of the file of interactions in it.
        page: where the source describes the data set.
        terms: what the source says on its use, in short.
        sha256: hex digest of the original file.
        table_sha256: `table_digest` of the finished table.
        k_core: filter that the published data set went through.
    """

    url: str
    format: str
    page: str
    terms: str
    sha256: str | None = None
    table_sha256: str | None = None
    k_core: int | None = None

    def about(self, name: str) -> str:
        """What a user should know before fetching: the address, the terms, and what is checked."""
        checked = "file" if self.sha256 else f"{self.k_core}-core" if self.table_sha256 else None
        digest = f"the SHA-256 of the {checked} is checked" if checked else "its SHA-256 is unknown, nothing is checked"
        return f"{name} from {self.url} ({digest})\nterms: {self.terms}\nsee {self.page}"


@dataclass(frozen=True)
class DatasetInfo:
    """A line of `dglrec data list`.

    Attributes:
        name: what `load` takes.
        place: "DGLREC_DATA" or "cache" (it is here), "download" (it can be fetched), "original" (you have to
            bring the original, see `PAPER_SETS`), "sample" (it is drawn).
        path: the folder, where it is here.
        terms: what the source says on its use, where it is known; of an original, where it comes from.
    """

    name: str
    place: Literal["DGLREC_DATA", "cache", "download", "original", "sample"]
    path: Path | None = None
    terms: str = ""


_MOVIELENS = "https://files.grouplens.org/datasets/movielens"
_MOVIELENS_TERMS = (
    "research use, cite GroupLens; no commercial use without their permission (see the README in the file)"
)
_AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_AMAZON_PAGE = "http://jmcauley.ucsd.edu/data/amazon"
_AMAZON_TERMS = "no licence stated; the source asks to cite He & McAuley (WWW 2016) or McAuley et al. (SIGIR 2015)"


def _movielens(name: str, format: str, sha256: str) -> Source:
    page = "https://grouplens.org/datasets/movielens/"
    return Source(f"{_MOVIELENS}/{name}.zip", format, page, _MOVIELENS_TERMS, sha256)


def _amazon(category: str, table_sha256: str) -> Source:
    url = f"{_AMAZON}/ratings_{category}.csv"
    return Source(url, "amazon-ratings", _AMAZON_PAGE, _AMAZON_TERMS, table_sha256=table_sha256, k_core=5)


REGISTRY: dict[str, Source] = {
    "amazon-beauty": _amazon("Beauty", "7b3efda763bc808f2efa9b1c43d4849d5cfea488e9982125570d002e3095fe93"),
    "amazon-sports": _amazon("Sports_and_Outdoors", "81438a2e10c7a3527d8d4640e34f7b019d79473a89e2c0ca0de8f4e4454dd2c6"),
    "amazon-toys": _amazon("Toys_and_Games", "2036e523da463f02d643ac7bf11bebf83137fa0cf2c04deaa260b20111cbbd6a"),
    "gowalla": Source(
        "https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz",
        "gowalla",
        "https://snap.stanford.edu/data/loc-gowalla.html",
        "no licence stated; the source asks to cite Cho, Myers & Leskovec (KDD 2011)",
    ),
    "ml-100k": _movielens(
        "ml-100k", "movielens-100k", "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
    ),
    "ml-1m": _movielens("ml-1m", "movielens-1m", "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"),
    "ml-20m": _movielens("ml-20m", "movielens-csv", "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3"),
    "ml-25m": _movielens("ml-25m", "movielens-csv", "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa"),
    "ml-latest-small": _movielens(
        "ml-latest-small", "movielens-csv", "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436"
    ),
}


def is_here(name: str) -> bool:
    """Whether a data set that can be fetched is in the cache."""
    return _interactions(cache_folder() / name) is not None


def list_datasets() -> list[DatasetInfo]:
    """The data sets that are here, those that can be fetched, the papers' of `PAPER_SETS`, and the samples."""
    found: dict[str, DatasetInfo] = {}
    for folder in folders():
        place: Literal["DGLREC_DATA", "cache"] = "cache" if folder == cache_folder() else "DGLREC_DATA"
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir()):
            if entry.name not in found and not entry.name.startswith(".") and _interactions(entry):
                terms = REGISTRY[entry.name].terms if entry.name in REGISTRY else ""
                found[entry.name] = DatasetInfo(entry.name, place, entry, terms)
    for name, source in REGISTRY.items():
        found.setdefault(name, DatasetInfo(name, "download", None, source.terms))
    for name, paper in PAPER_SETS.items():
        found.setdefault(
            name,
            DatasetInfo(name, "original", None, f"put {paper.files[0]} into a folder of this name; from {paper.page}"),
        )
    return [*found.values(), *(DatasetInfo(f"sample:{kind}", "sample") for kind in KINDS)]


def get(name: str, *, folder: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
    """Downloads a data set, checks it and turns it into tidy tables; does nothing if it is there.

    The caller fetches the set under the terms of its source: `REGISTRY[name].terms`, and the page named there.

    Args:
        name: a key of `REGISTRY`.
        folder: where the data set's own folder goes; the user's cache by default.
        progress: called with bytes so far and bytes in all (None: unknown).

    Returns:
        The data set's folder. `source.json` there says where it came from, and the SHA-256 that was seen.

    Raises:
        DataError: an unknown name, no connection, a full disk, or a file that is not the expected one. Nothing
            half-finished stays, except what arrived before a connection broke: the next call goes on from there.
    """
    if name not in REGISTRY:
        raise DataError(f"data set {name!r} cannot be fetched; {closest(name, REGISTRY)}")
    source = REGISTRY[name]
    parent = cache_folder() if folder is None else Path(folder)
    target = parent / name
    if _interactions(target):
        return target
    if target.is_dir() and any(target.iterdir()):
        raise DataError(f"{target} holds files, and no interactions among them; move it away first")
    part = parent / f".{name}.part"
    try:
        part.mkdir(parents=True, exist_ok=True)
        with locked(part / name):
            if not _interactions(target):  # another process may have been faster
                _fetch(name, source, part, target, progress)
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}; nothing was changed there") from error
    return target


def _fetch(name: str, source: Source, part: Path, target: Path, progress: Progress | None) -> None:
    """Makes the folder `target` in the folder `part`; whatever fails but a connection leaves neither."""
    original, tables = part / f"original{Path(source.url).suffix}", part / name
    try:
        digest = download(source.url, original, progress)
        if source.sha256 is not None and digest != source.sha256:
            raise DataError(
                f"{source.url} has SHA-256 {digest[:12]}..., expected {source.sha256[:12]}...: "
                f"{_seen(original)}; try again, or put the tidy tables there yourself"
            )
        shutil.rmtree(tables, ignore_errors=True)
        tables.mkdir()
        _write_tables(name, source, original, tables, digest)
        os.replace(tables, target)
    except (Interrupted, KeyboardInterrupt):
        raise
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _seen(path: Path) -> str:
    """What a file seems to be that is not the expected one."""
    with open(path, "rb") as file:
        begin = file.read(200).lstrip().lower()
    page = begin.startswith((b"<!doctype html", b"<html"))
    return "it is a web page, perhaps of a proxy" if page else "it was changed or cut off"


def _write_tables(name: str, source: Source, original: Path, folder: Path, sha256: str) -> None:
    """The original file -> interactions.tsv.gz, items.tsv.gz and source.json in `folder`."""
    pl = import_polars()
    try:
        log, items = _read_original(name, source, original)
    except (DataError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        said = str(error) if isinstance(error, DataError) else first_line(error)
        said = said.replace(f"{original.parent}{os.sep}", "")
        raise DataError(f"{source.url} is not in the expected form ({said}; {_seen(original)})") from error
    if source.k_core is not None:
        log = log.k_core(source.k_core)
    if source.table_sha256 is not None and (digest := table_digest(log)) != source.table_sha256:
        raise DataError(
            f"the {source.k_core}-core of {source.url} has SHA-256 {digest[:12]}..., "
            f"expected {source.table_sha256[:12]}...: the source has changed since"
        )
    assert log.time is not None  # _read_original checked it
    table = pl.DataFrame({"user_id": log.user_ids[log.user], "item_id": log.item_ids[log.item]}).with_columns(
        rating=pl.lit("") if log.rating is None else pl.Series(log.rating),
        timestamp=pl.Series(log.time).cast(pl.Int64),
    )
    _write_tsv(table, folder / "interactions.tsv.gz")
    if items is not None:
        plain = items.with_columns(pl.col(pl.String).str.replace_all(r"[\t\r\n]+", " "))
        _write_tsv(plain, folder / "items.tsv.gz")
    checked = "sha256" if source.sha256 else "table_sha256" if source.table_sha256 else None
    seen = {"bytes": original.stat().st_size, "sha256": sha256, "table_sha256": table_digest(log), "checked": checked}
    about = {"url": source.url, "page": source.page, "terms": source.terms, "k_core": source.k_core, **seen}
    (folder / "source.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _write_tsv(table: polars.DataFrame, path: Path) -> None:
    text = table.write_csv(separator="\t", quote_style="never", null_value="")
    path.write_bytes(gzip.compress(text.encode(), compresslevel=6, mtime=0))


def table_digest(log: InteractionLog) -> str:
    """Hex SHA-256 of a log's lines `user_id item_id timestamp`: users sorted by id, each one's lines oldest first.

    Two logs with one digest have the same interactions at the same times, and the same order where times are tied, so
    that `leave_one_out` holds out the same items. How users and items are numbered, ratings and titles do not count.
    """
    pl = import_polars()
    assert log.time is not None
    table = pl.DataFrame(
        {"user": log.user_ids[log.user], "item": log.item_ids[log.item], "time": log.time.astype("int64")}
    ).sort("user", maintain_order=True)
    lines = table.select(pl.concat_str("user", "item", "time", separator="\t")).to_series()
    return hashlib.sha256("\n".join(lines.to_list()).encode()).hexdigest()


# Reading originals ----------------------------------------------------------------------------------------------------


def _read_original(name: str, source: Source, original: Path) -> tuple[InteractionLog, polars.DataFrame | None]:
    """The log of an original file, and the columns of items.tsv.gz where it has titles; archives are unpacked beside.

    Raises:
        DataError: it is not in the form of `source.format`.
    """
    path, titles = original, FORMATS[source.format].titles
    if titles:  # MovieLens's
        ratings = next(name for name, format in NAMES.items() if format == source.format)
        names = (ratings, titles, *(("u.genre",) if titles == "u.item" else ()))
        _unpack(original, names)
        path = original.with_name(ratings)
    log = read_interactions(path, format=source.format, name=name)
    if log.time is None:
        raise DataError("there are no times")
    if source.format == "amazon-ratings":
        log = _ties_by_item(log)
    return log, _item_table(original.with_name(titles)) if titles else None


def _unpack(archive: Path, names: Sequence[str]) -> None:
    """Writes files of an archive, from whatever folder in it, beside the archive."""
    with zipfile.ZipFile(archive) as packed:
        for name in names:
            info = next((info for info in packed.infolist() if info.filename.rpartition("/")[2] == name), None)
            if info is None:
                raise DataError(f"no {name} in the archive")
            if info.file_size > most_unpacked(min(info.compress_size, archive.stat().st_size)):
                raise DataError(f"{name} would unpack to {info.file_size:,} bytes, which no table does")
            with packed.open(info) as file, open(archive.with_name(name), "wb") as unpacked:
                shutil.copyfileobj(file, unpacked)


def _ties_by_item(log: InteractionLog) -> InteractionLog:
    """The log with tied events in the order of their items' ids: in the sequences of the literature on Amazon's reviews
    that order decides every tied day, whatever the order of the lines.
    """
    rank = np.argsort(np.argsort(log.item_ids))
    rows = np.argsort(rank[log.item], kind="stable")
    return InteractionLog.from_arrays(
        log.user[rows],
        log.item[rows],
        None if log.time is None else log.time[rows],
        None if log.rating is None else log.rating[rows],
        user_ids=log.user_ids,
        item_ids=log.item_ids,
        name=log.name,
    )


def _item_table(path: Path) -> polars.DataFrame:
    """MovieLens's file of titles -> the columns of items.tsv.gz, with the genres as categories."""
    pl = import_polars()
    if path.name == "u.item":  # a column of 0 and 1 for each genre, from the sixth on
        genres = [line.rpartition("|")[0] for line in path.with_name("u.genre").read_text("latin-1").splitlines()]
        flags = {f"field {6 + number}": genre for number, genre in enumerate(genres) if genre not in ("", "unknown")}
        table = pl.DataFrame(read_titles(path, list(flags)))
        marked = [pl.when(pl.col(field) == "1").then(pl.lit(genre)) for field, genre in flags.items()]
        table = table.with_columns(genres=pl.concat_str(marked, separator="|", ignore_nulls=True))
    else:
        table = pl.DataFrame(read_titles(path, ["genres"]))
    genres_text = pl.col("genres").fill_null("").replace("(no genres listed)", "")
    return table.select(
        "item_id",
        "title",
        pl.lit("").alias("brand"),
        genres_text.str.replace_all("|", " | ", literal=True).alias("categories"),
        pl.lit("").alias("description"),
    )
