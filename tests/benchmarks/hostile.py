"""Files that somebody broke: each gives a clear error or the right log, in bounded time and memory.

    python tests/benchmarks/hostile.py [--files 12000] [--checkpoints 1000] [--seed 1]

Sound files of many forms are cut, doubled, shuffled, written in other encodings and with other separators, given huge
numbers, quotes, zero bytes and thousands of new ids, and damaged byte by byte; some are bombs that unpack to gigabytes.
What comes back is compared with a second reader, written here with Python's own `csv` and `json`: a log has to be equal
to what that one reads, and where that one finds a mistake there has to be an error, of one or two lines, that names the
file. A saved log (.npz) is the very same, or refused. Of Parquet, which has no second reader here, nothing is asked but
a log or an error, and that the process goes on: the reader's own child may end. One file at a time, in a process that
may take 1 GiB above what it has after its imports, and a minute a file.

Then a run folder has one byte changed, a thousand times: it is refused, or loads the very same model.

The counts go to `hostile.json` beside this file.
"""

from __future__ import annotations

import argparse
import csv
import faulthandler
import gzip
import io
import json
import lzma
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOM = 1 << 30  # bytes that a reader may take above what its process has after the imports
SECONDS = 60
BOMB = 1 << 32  # bytes that a bomb unpacks to
LARGEST = float(np.finfo(np.float32).max)  # a rating
UNSURE = "unsure"  # the second reader does not decide

Row = tuple[str, str, "float | None"]  # user, item, seconds


# Sound files ----------------------------------------------------------------------------------------------------------


# The other file of a form with two: name -> (its name, its content). What is read of the test part is both.
BESIDE = {
    "train.txt": ("test.txt", b"0 3 4\n1 5\n8 2\n"),
    "test.txt": ("train.txt", b"0 1 2\n1 1\n5 2 2\n"),
    "movies.csv": ("ratings.csv", b"userId,movieId,rating,timestamp\n1,2,3,4\n"),
}
TITLES = {"movies.dat": 3, "u.item": 24, "movies.csv": 3, "items.tsv": 2, "a.item": 3}  # files of titles: fields
RECBOLE_TYPES = ("token", "token_seq", "float", "float_seq")
MOVIELENS = ["userId", "movieId", "rating", "timestamp"]
JSON_FIELDS = {
    "reviews_a.json": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "reviews_2023.jsonl": ("user_id", "parent_asin", "rating", "timestamp"),
    "yelp_academic_dataset_review.json": ("user_id", "business_id", "stars", "date"),
}


def sound(rng: np.random.Generator) -> dict[str, tuple[str | None, bytes]]:
    """A file of each form: name -> (format, content)."""
    import polars as pl

    from dglrec import InteractionLog

    users, items = ["ann", "bob", "07", "Zoë", "A1YJ"], ["tea", "jam 2", "7806397051", "café", "x:y"]
    rows = []
    for n in range(int(rng.integers(3, 30))):
        pair = str(rng.choice(users)), str(rng.choice(items))
        rows.append((*pair, str(int(rng.integers(1, 6))), str(978300760 + 60 * n)))
    numbers = [(str(int(rng.integers(9))), str(int(rng.integers(9))), stars, at) for _, _, stars, at in rows]
    header = ("user_id", "item_id", "rating", "timestamp")

    def table(separator: str, lines: list[Any]) -> bytes:
        return "".join(separator.join(line) + "\n" for line in lines).encode()

    def quoted(lines: list[Any]) -> bytes:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(lines)
        return file.getvalue().encode()

    def objects(name: str) -> bytes:
        names, kinds = JSON_FIELDS[name], (str, str, float, _day if name.startswith("yelp") else int)
        found = [{name: kind(cell) for name, kind, cell in zip(names, kinds, row, strict=True)} for row in rows]
        return "".join(json.dumps({**one, "text": "so, so"}, ensure_ascii=False) + "\n" for one in found).encode()

    places = [(u, str(np.datetime64(int(at), "s")) + "Z", "1.5", "2.5", i) for u, i, _, at in rows]
    lists = "".join(f"{u} {i} {i}1 {stars}\n" for u, i, stars, _ in numbers).encode()
    titles = [(i, f"Zoë's {i} (1999)", "Drama|Noir") for i in dict.fromkeys(i for _, i, _, _ in numbers)]
    films = [(i, text, *["0"] * 22) for i, text, _ in titles]
    columns, times = dict(zip(header, zip(*rows, strict=True), strict=True)), [int(row[3]) for row in rows]
    log, frame = InteractionLog.from_arrays(columns["user_id"], columns["item_id"], times), pl.DataFrame(columns)
    parquet = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        log.save(Path(folder) / "log.npz")
        saved = (Path(folder) / "log.npz").read_bytes()
    packing = str(rng.choice(["zstd", "snappy", "uncompressed"]))
    frame.write_parquet(parquet, compression=packing)  # type: ignore[arg-type]
    typed = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    tidy = table("\t", [header, *rows])
    return {
        "tidy.tsv": (None, tidy),
        "tidy.csv": (None, table(",", [header, *rows])),
        "quoted.csv": (None, quoted([header, *rows])),
        "tidy.tsv.gz": (None, gzip.compress(tidy)),
        "ratings.dat": (None, table("::", numbers)),
        "u.data": (None, table("\t", rows)),
        "amazon.csv": ("amazon-ratings", table(",", rows)),
        "UserBehavior.csv": (None, table(",", [(u, i, "1", "pv", at) for u, i, _, at in rows])),
        "loc-gowalla_totalCheckins.txt": (None, table("\t", places)),
        "reviews_a.json": (None, objects("reviews_a.json")),
        "reviews_2023.jsonl": ("amazon-reviews-2023", objects("reviews_2023.jsonl")),
        "yelp_academic_dataset_review.json": (None, objects("yelp_academic_dataset_review.json")),
        "ratings.csv": (None, table(",", [MOVIELENS, *numbers])),
        "amazon2018.csv": ("amazon-ratings-2018", table(",", [(i, u, stars, at) for u, i, stars, at in rows])),
        "a.inter": (None, table("\t", [typed, *rows])),
        "lists.txt": ("lists", lists),
        "lists.txt.xz": ("lists", lzma.compress(lists)),
        "train.txt": (None, lists + b"9\n"),
        "test.txt": (None, lists + b"9\n"),
        "movies.dat": (None, table("::", titles).decode().encode("latin-1" if rng.random() < 0.5 else "utf-8")),
        "u.item": (None, table("|", films).decode().encode("latin-1")),
        "movies.csv": (None, quoted([("movieId", "title", "genres"), *titles])),
        "items.tsv": (None, table("\t", [("item_id", "title"), *(row[:2] for row in titles)])),
        "a.item": (None, table("\t", [("item_id:token", "title:token_seq", "class:token_seq"), *titles])),
        "log.npz": (None, saved),
        "log.parquet": (None, parquet.getvalue()),
    }


def _day(seconds: str) -> str:
    return str(np.datetime64(int(seconds), "s")).replace("T", " ")


# The second reader ----------------------------------------------------------------------------------------------------


def read_plainly(name: str, content: bytes) -> Any:
    """The rows of a file (of titles: id -> title), None where it has a mistake, or UNSURE."""
    if name.endswith(".parquet"):
        return UNSURE
    if name in TITLES:
        return _titles(name, content)
    if name.endswith(".npz"):
        with np.load(io.BytesIO(content)) as saved:
            user, item = (saved[f"{what}_ids"][saved[what]].tolist() for what in ("user", "item"))
            return list(zip(user, item, saved["time"].tolist(), strict=True))
    try:
        if name.endswith(".gz"):
            content = gzip.decompress(content)
        elif name.endswith(".xz"):
            content = lzma.decompress(content)
        text = content.decode("utf-8")
    except (OSError, EOFError, ValueError, lzma.LZMAError):
        return None
    except Exception:  # zlib.error
        return None
    if "\0" in text:
        return None
    text = text.removeprefix("\ufeff")
    if name in JSON_FIELDS:
        return _objects(name, text)
    lines = text.split("\n")
    while lines and lines[-1].strip("\r") == "":
        lines.pop()
    if name.startswith("lists") or name in ("train.txt", "test.txt"):
        if any("\r" in line.rstrip("\r") for line in lines):
            return None
        found = [line.rstrip("\r").replace("\t", " ").split(" ") for line in lines]
        found = [[field for field in fields if field] for fields in found]
        if not found or any(_is_no_list(fields, name.startswith("lists")) for fields in found):
            return None
        rows: list[Row] = [(one[0], i, None) for one in found for i in one[1:]]
        if name.startswith("lists"):
            return rows
        if not all(found):
            return UNSURE  # a blank line counts where users with items come after it
        other = [line.split() for line in BESIDE[name][1].decode().splitlines()]
        both = [rows, [(one[0], i, None) for one in other for i in one[1:]]]
        return [row for part in (both if name == "train.txt" else both[::-1]) for row in part]
    if any("\r" in line.removesuffix("\r") for line in lines):
        return UNSURE  # a carriage return within a line: a character to some, an end to others
    lines = [line.removesuffix("\r") for line in lines]
    if name.endswith(".csv") and name != "UserBehavior.csv":
        try:
            cells = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error:
            return UNSURE
        while cells and not cells[-1]:
            cells.pop()
        if text.count('"') and not all(_plainly_quoted(line) for line in lines):
            return UNSURE  # quotes within fields, or line ends within quotes
    elif name.endswith(".dat"):
        if any("\t" in line for line in lines):
            return UNSURE
        cells = [line.split("::") for line in lines]
    else:
        cells = [line.split("," if name == "UserBehavior.csv" else "\t") for line in lines]
    return _table(name, cells)


def _is_no_list(fields: list[str], needs_items: bool) -> bool:
    """Whether the fields of a line show that it is of another form: JSON, or other separators."""
    if fields and fields[0][0] in "{[":
        return True
    if len(fields) < 2 and (needs_items or any(mark in field for field in fields for mark in ",;|")):
        return True
    return any(field[-1] in ",;" for field in fields)


def _plainly_quoted(line: str) -> bool:
    return re.fullmatch(r'(?:"[^"]*"|[^",]*)(?:,(?:"[^"]*"|[^",]*))*', line) is not None


def _table(name: str, cells: list[list[str]]) -> list[Row] | str | None:
    places: dict[str, int] = {"user_id": 0, "item_id": 1, "rating": 2, "timestamp": 3}
    if name == "amazon2018.csv":
        places |= {"user_id": 1, "item_id": 0}
    if name == "ratings.csv" and cells and cells[0] == MOVIELENS:  # with quotes it is not MovieLens's
        cells, width = cells[1:], 4
    elif name.startswith(("tidy", "quoted", "a.inter", "ratings.csv")):
        if not cells:
            return None
        header = cells.pop(0)
        if max(map(len, header), default=0) > csv.field_size_limit():
            return UNSURE
        if name == "a.inter":
            kinds = [label.rpartition(":")[2] for label in header]
            header = [label.rpartition(":")[0] for label in header]
            if any(kind not in RECBOLE_TYPES for kind in kinds):
                return None
        if len(set(header)) < len(header) or not {"user_id", "item_id"} <= set(header):
            return None
        if not {"rating", "timestamp"} <= set(header):
            return UNSURE  # a label may look too much like one that is missing
        places, width = {label: header.index(label) for label in places}, len(header)
    elif name == "UserBehavior.csv":
        places, width = {"user_id": 0, "item_id": 1, "timestamp": 4}, 5
        if any(len(row) == 5 and row[3] != "pv" for row in cells):
            return UNSURE
    elif name.startswith("loc-gowalla"):
        places, width = {"user_id": 0, "item_id": 4, "timestamp": 1}, 5
    else:
        width = 4
    rows: list[Row] = []
    for row in cells:
        if len(row) != width or "" in (row[places["user_id"]], row[places["item_id"]]):
            return None
        if "rating" in places and row[places["rating"]].strip():
            stars = _number(row[places["rating"]])
            if stars is None or abs(stars) > LARGEST:
                return None
        cell = row[places["timestamp"]].strip()
        if name.startswith("loc-gowalla") and cell:
            try:
                if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", cell) is None:
                    return UNSURE
                moment = float(np.datetime64(cell[:-1], "s").astype(np.int64))
            except ValueError:
                return UNSURE  # a 60th second
        else:
            moment = _number(cell) if cell else None
            if cell and (moment is None or not math.isfinite(moment)):
                return None
        rows.append((row[places["user_id"]], row[places["item_id"]], moment))
    timed = {moment is not None for _, _, moment in rows}
    return None if not rows or len(timed) == 2 else rows


def _number(text: str) -> float | None:
    try:
        return None if "_" in text or not text.strip().isascii() else float(text)
    except ValueError:
        return None


def _titles(name: str, content: bytes) -> dict[str, str] | str | None:
    try:
        text = content.decode("latin-1" if name == "u.item" else "utf-8")
    except UnicodeDecodeError:
        if name != "movies.dat":
            return None
        text = content.decode("latin-1")
    if "\0" in text:
        return None
    text = text.removeprefix("\ufeff")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and lines[-1] == "":
        lines.pop()
    if any(
        "\r" in line or line.count('"') % 2 or '"' in line.replace('","', "").strip('"') or "\ufeff" in line
        for line in lines
    ):
        return UNSURE
    cut = {"movies.dat": "::", "u.item": "|", "movies.csv": ","}.get(name, "\t")
    if (name == "movies.dat" and "\t" in text) or content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return UNSURE
    try:
        cells = list(csv.reader(lines)) if name == "movies.csv" else [line.split(cut) for line in lines]
    except csv.Error:
        return UNSURE
    header, width = ["item_id", "title"], TITLES[name]
    if name in ("movies.csv", "items.tsv", "a.item"):
        header = cells.pop(0) if cells else []
        if max(map(len, header), default=0) > csv.field_size_limit():
            return UNSURE
        if name == "a.item":
            if any(label.rpartition(":")[2] not in RECBOLE_TYPES for label in header):
                return None
            header = [label.rpartition(":")[0] for label in header]
        names = ("movieId" if name == "movies.csv" else "item_id", "title")
        width = len(header)
        if len(set(header)) < width or not set(names) <= set(header):
            return None
        header = ["item_id" if label == names[0] else label for label in header]
    if not cells or any(len(row) <= max(map(header.index, ("item_id", "title"))) or len(row) > width for row in cells):
        return None
    if any(len(row) < width for row in cells):
        return UNSURE  # cut behind the title: what is missing is not read
    found = [(row[header.index("item_id")], row[header.index("title")]) for row in cells]
    return UNSURE if any(item == "" for item, _ in found) else dict(found)


def _objects(name: str, text: str) -> list[Row] | str | None:
    fields, rows = JSON_FIELDS[name], list[Row]()
    for line in text.split("\n"):
        if not line.strip(" \r\t"):
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        user, item, stars, at = (found.get(field) for field in fields)
        if user in (None, "") or item in (None, "") or isinstance(user, list | dict) or isinstance(item, list | dict):
            return None
        if len(re.findall(f'"(?:{"|".join(fields)})"', line)) != 4:
            return UNSURE  # a key twice, or none
        if name.startswith("yelp"):
            if not isinstance(at, str) or re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", at) is None:
                return UNSURE
            try:
                at = float(np.datetime64(at.replace(" ", "T"), "s").astype(np.int64))
            except ValueError:
                return UNSURE  # a 60th second
        if any(type(one) not in (str,) for one in (user, item)) or any(
            type(n) not in (int, float) for n in (at, stars)
        ):
            return UNSURE
        if not (abs(at) < 1e300 and abs(stars) < LARGEST) or "\\u" in line:
            return UNSURE
        rows.append((user, item, at / 1000 if name.endswith("2023.jsonl") else float(at)))
    return rows or None


# Mutations ------------------------------------------------------------------------------------------------------------

NUMBERS = [b"1e400", b"-1e400", b"9" * 400, b"nan", b"inf", b"-0", b"9223372036854775808", b"1e308", b"0x1F", b"1_000",
           b"1,5", b" 5 ", b"+5", b"5.", "٣".encode(), b"5e", b"1e-400", b"--5", b"\xc2\xa05", b""]  # fmt: skip
PIECES = [b'"', b'""', b"'", b"\0", b"\r", b"\n", b"\r\n", b"\t", b",", b";", b"::", b" ", b"\\", b"\xff",
          b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x1a", b"\x1f\x8b", b"{", b"}", b"[" * 5000, b"null", b"a" * 200_000,
          b"\n" * 1000]  # fmt: skip
ENCODINGS = ["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp1251", "utf-7", "cp037"]
SEPARATORS = [b"\t", b",", b";", b" ", b"|", b"::", b"\x1f", b"  "]


def mutate(rng: np.random.Generator, content: bytes) -> bytes:
    """The content with one to three things done to it."""
    for _ in range(int(rng.integers(1, 4))):
        content = _mutate(rng, content)
    return content


def _mutate(rng: np.random.Generator, content: bytes) -> bytes:
    size = len(content)
    place, other = sorted(int(one) for one in rng.integers(0, size + 1, 2))
    lines = content.split(b"\n")
    number = int(rng.integers(len(lines)))
    match int(rng.integers(17)):
        case 0:
            return content[:place]
        case 1:
            return content[place:]
        case 2:
            return content[:other] + content[place:]  # a piece twice
        case 3:
            return content[:place] + content[other:]
        case 4:
            return b"\n".join([*lines[:number], lines[number], *lines[number:]])
        case 5:
            return b"\n".join([lines[0], *(lines[1 + one] for one in rng.permutation(len(lines) - 1))])
        case 6:
            return b"\n".join(lines[one] for one in rng.permutation(len(lines)))
        case 7:
            try:
                text = content.decode()
                return text.encode(str(rng.choice(ENCODINGS)), "replace")
            except UnicodeDecodeError:
                return content.decode("latin-1").encode()
        case 8 | 9:
            found = list(re.finditer(rb"\d+", content))
            if not found:
                return content
            one = found[int(rng.integers(len(found)))]
            return content[: one.start()] + NUMBERS[int(rng.integers(len(NUMBERS)))] + content[one.end() :]
        case 10 | 11:
            return content[:place] + PIECES[int(rng.integers(len(PIECES)))] + content[place:]
        case 12:
            old, new = (SEPARATORS[int(one)] for one in rng.integers(len(SEPARATORS), size=2))
            return content.replace(old, new)
        case 13:
            ends = [b"\r\n", b"\r", b"\n\n", b""]
            return content.replace(b"\n", ends[int(rng.integers(len(ends)))])
        case 14:
            flipped = bytearray(content)
            for _ in range(int(rng.integers(1, 6)) if size else 0):
                flipped[int(rng.integers(size))] ^= int(rng.integers(1, 256))
            return bytes(flipped)
        case 15:
            return b"\n".join([*lines[:number], b"", *lines[number:]])
        case _:  # a line some thousand times, each time with other numbers: as many new ids
            at = [*range(0, 3000 * int(rng.integers(1, 10)), 7)]
            return b"\n".join(
                [*lines[:number], *(re.sub(rb"\d+", b"%d" % n, lines[number]) for n in at), *lines[number:]]
            )


def bombs() -> dict[str, tuple[str | None, bytes]]:
    """Small files that unpack to `BOMB` bytes, and one that unpacks to as much as is still read."""
    block = 1 << 24
    lines = b"user_id\titem_id\n" + b"a\tb\n" * (block // 4)
    fills = {
        "zeros": bytes(block),
        "ends": b"\n" * block,
        "lines": lines,
        "one line": b"a" * block,
        "quotes": b'"' * block,
    }
    found: dict[str, tuple[str | None, bytes]] = {"all that is read.tsv.gz": (None, gzip.compress(lines[: 1 << 24], 9))}
    for name, fill in fills.items():
        found[f"{name}.tsv.gz"] = None, gzip.compress(fill, 9) * (BOMB // block)
    found["lists.txt.gz"] = "lists", gzip.compress(b"a b\n" * (block // 4), 9) * (BOMB // block)
    found["zeros.txt.xz"] = "lists", lzma.compress(bytes(block)) * (BOMB // block)
    found["json.json.gz"] = "amazon-reviews", gzip.compress(b"[" * block, 9) * (BOMB // block)
    file, about = io.BytesIO(), {"descr": "<i8", "fortran_order": False, "shape": (BOMB // 8,)}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("format.npy", "w") as array:
            np.save(array, np.array("dglrec interaction log 1"))
        with archive.open("user.npy", "w", force_zip64=True) as array:
            np.lib.format.write_array_header_1_0(array, about)
            for _ in range(BOMB // block):
                array.write(bytes(block))
    found["zeros.npz"] = None, file.getvalue()
    return found


# Reading, in bounds ---------------------------------------------------------------------------------------------------


def attempt(path: Path, format: str | None) -> tuple[str, Any]:
    """("log", the log), ("error", its text), or ("traceback", ...)."""
    from dglrec import InteractionLog
    from dglrec.data import check, read_interactions
    from dglrec.data.readers import read_items
    from dglrec.errors import DataError

    other, _ = BESIDE.get(path.name, ("", b""))
    whole = path.with_name(other) if path.name == "test.txt" else path
    try:
        if path.name in TITLES:
            return "log", read_items(path)[0]
        return "log", InteractionLog.load(path) if path.suffix == ".npz" else read_interactions(whole, format=format)
    except DataError as error:
        text = str(error)
        if path.name not in text or len(text.splitlines()) > 2 or len(text.replace(str(path), "")) > 300:
            return "unclear", text
        if path.name not in TITLES and check(whole, format=format).ok:
            return "unclear", f"refused ({text}), but checked as sound"
        return "error", text
    except BaseException:  # a panic of polars is none of Exception
        return "traceback", traceback.format_exc()


def judge(name: str, content: bytes, outcome: str, value: Any, saved: bytes) -> str:
    """What a reading came to: "read", "refused", or what was wrong with it; `saved` is the file before the mutation."""
    if outcome in ("traceback", "unclear"):
        return outcome
    expected = read_plainly(name, content if name != "log.npz" else saved)
    if name == "log.npz" and content != saved and outcome == "error":
        return "refused"
    if name not in TITLES and isinstance(expected, list):
        for ids in ({row[0] for row in expected}, {row[1] for row in expected}):
            if 4 * max(map(len, ids)) * len(ids) > 1 << 27:
                expected = UNSURE  # one long id among many
    if expected == UNSURE:
        return f"{'read' if outcome == 'log' else 'refused'}, undecided"
    if outcome == "error":
        return "refused" if expected is None else "refused a sound file"
    if expected is None:
        return "read a broken file"
    if name in TITLES:
        return "read" if value == expected else "read other titles"
    log = value
    ids = zip(log.user_ids[log.user].tolist(), log.item_ids[log.item].tolist(), strict=True)
    times = [None] * len(log) if log.time is None else log.time.tolist()
    found = [(*pair, at) for pair, at in zip(ids, times, strict=True)]
    first = {user: n for n, user in reversed(list(enumerate(row[0] for row in expected)))}
    rows = sorted(expected, key=lambda row: (first[row[0]], 0.0 if row[2] is None else row[2]))
    return "read" if found == rows else "read another log"


def limit_memory() -> None:
    """Allows `ROOM` above what is mapped now, which is more than at rest: caches, and what polars keeps for later."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    mapped = pages * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, hard))


def place(folder: Path, name: str, content: bytes) -> None:
    """Writes a file, and what belongs beside it."""
    (folder / name).write_bytes(content)
    if name in BESIDE:
        other, its_content = BESIDE[name]
        (folder / other).write_bytes(its_content)


def clear(folder: Path) -> None:
    """Takes away all files but the one that says which is read."""
    for path in folder.iterdir():
        if path.name != "now":
            path.unlink()


def work(files: range, seed: int, with_bombs: bool, folder: Path) -> dict[str, Any]:
    """Reads mutants one after the other; what they came to."""
    for name, (format, content) in sound(np.random.default_rng(0)).items():  # what is imported late, threads, caches
        (folder / "now").write_text(name)
        place(folder, name, content)
        came_to = judge(name, content, *attempt(folder / name, format), content)
        assert came_to == ("read, undecided" if name.endswith(".parquet") else "read"), (name, came_to)
        clear(folder)
    resting = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts: Counter[str] = Counter()
    wrong: list[dict[str, str]] = []
    slowest = 0.0

    def one(
        label: str, name: str, format: str | None, content: bytes, known: str | None = None, saved: bytes = b""
    ) -> None:
        nonlocal slowest
        (folder / "now").write_text(label)
        place(folder, name, content)
        limit_memory()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        began = time.perf_counter()
        outcome, value = attempt(folder / name, format)
        slowest = max(slowest, time.perf_counter() - began)
        faulthandler.cancel_dump_traceback_later()
        found = (
            judge(name, content, outcome, value, saved)
            if known is None
            else {"log": "read", "error": "refused"}.get(outcome, outcome)
        )
        counts[found] += 1
        if found not in ("read", "refused", "read, undecided", "refused, undecided") or known not in (None, found):
            wrong.append(
                {
                    "file": label,
                    "name": name,
                    "came to": found,
                    "text": str(value)[-600:],
                    "content": repr(content[:300]),
                }
            )
        clear(folder)

    kinds: list[tuple[str, tuple[str | None, bytes]]] = []
    group = -1
    for number in files:
        rng = np.random.default_rng([seed, number])
        if number // 500 != group:  # other sound files
            group = number // 500
            kinds = list(sound(np.random.default_rng([seed, 1, group])).items())
        name, (format, content) = kinds[number % len(kinds)]
        one(f"{seed}:{number}", name, format, mutate(rng, content), saved=content)
    if with_bombs:
        for name, (format, content) in bombs().items():
            one(name, name, format, content, "read" if name.startswith("all") else "refused")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    about = {"peak_bytes_above_rest": 1024 * (peak - resting), "slowest_seconds": slowest}
    return {"counts": dict(counts.most_common()), "wrong": wrong, **about}


# Checkpoints ----------------------------------------------------------------------------------------------------------


def checkpoints(number: int, seed: int, folder: Path) -> dict[str, int]:
    """A run folder with one byte changed, `number` times: how many were refused, harmless, and wrong."""
    import torch

    import dglrec
    from dglrec.checkpoint import load_state
    from dglrec.errors import DglrecError

    split = dglrec.leave_one_out(dglrec.data.sample("shop", users=40, items=30, seed=1))
    model = dglrec.models.preset("sasrec", split, dim=8, inner=16, layers=1)
    dglrec.fit(model, split, epochs=1, out=folder, device="cpu", progress=False)
    paths = [folder / name for name in ("config.json", "ids.npz", "weights.safetensors", "state/latest.json")]
    paths += sorted((folder / "state").rglob("*.safetensors"))

    def state() -> dict[str, Any]:
        loaded = dglrec.load_model(folder)
        tensors, values = load_state(folder)
        own = {f"model.{name}": tensor for name, tensor in loaded.state_dict().items()}
        return {**own, **tensors, "values": values, "config": loaded.config, "log": loaded.split.digest}

    def same(one: Any, other: Any) -> bool:
        return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)

    sound_state, counts = state(), Counter({"refused": 0, "harmless": 0, "wrong": 0})
    rng = np.random.default_rng(seed)
    for n in range(number):
        path = paths[n % len(paths)]
        content = path.read_bytes()
        changed = bytearray(content)
        changed[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            found = state()
            equal = found.keys() == sound_state.keys() and all(same(found[key], sound_state[key]) for key in found)
            counts["harmless" if equal else "wrong"] += 1
        except DglrecError:
            counts["refused"] += 1
        except Exception:
            traceback.print_exc()
            counts["wrong"] += 1
        path.write_bytes(content)
    return dict(counts)


def feed(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All files, dealt out to processes with bounds of their own; what they found, added up.

    Raises:
        SystemExit: a process died; the file that it read is named.
    """
    environment = {**os.environ, "POLARS_MAX_THREADS": "2"}
    running = []
    for worker in range(args.workers):
        place = folder / str(worker)
        place.mkdir()
        words = ["--work", str(place), "--files", str(args.files), "--seed", str(args.seed)]
        words += ["--workers", str(args.workers), *["--no-bombs"] * (args.no_bombs or worker > 0)]
        command = [sys.executable, __file__, *words]
        running.append((place, subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)))
    counts: Counter[str] = Counter()
    results: dict[str, Any] = {"counts": {}, "wrong": [], "peak_bytes_above_rest": 0, "slowest_seconds": 0.0}
    for place, process in running:
        text, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"a reader ended with {process.returncode} at file {(place / 'now').read_text()}")
        found = json.loads(text)
        counts.update(found["counts"])
        results["wrong"] += found["wrong"]
        for name in ("peak_bytes_above_rest", "slowest_seconds"):
            results[name] = max(results[name], found[name])
    return results | {"counts": dict(counts.most_common())}


def main() -> int:
    """Feeds all files to the readers, breaks checkpoints, and writes `hostile.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=12_000)
    parser.add_argument("--checkpoints", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-bombs", action="store_true")
    parser.add_argument("--quick", action="store_true", help="nothing is written")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work is not None:
        numbers = range(int(args.work.name), args.files, args.workers)
        print(json.dumps(work(numbers, args.seed, not args.no_bombs, args.work)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        results = {"files": args.files, "seed": args.seed, **feed(args, Path(folder))}
        if args.checkpoints:
            results["checkpoints"] = checkpoints(args.checkpoints, args.seed, Path(folder) / "run")
    print(json.dumps(results, indent=1))
    good = not results["wrong"] and not results.get("checkpoints", {}).get("wrong")
    if good and not args.quick:
        bounds = {"room_bytes": ROOM, "bomb_bytes": BOMB, "bombs": 0 if args.no_bombs else len(bombs())}
        (HERE / "hostile.json").write_text(json.dumps({**results, **bounds}, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
