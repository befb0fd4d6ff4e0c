"""Bytes of files: opened, unpacked within bounds, and decoded."""

from __future__ import annotations

import gzip
import lzma
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError

# What a packed file may unpack to: this many times its own size, or this many bytes if that is more. Tables pack to
# about a fifth; what packs to less than a hundredth was made to fill the memory.
MOST_PACKED = 100
_ALWAYS_UNPACKED = 1 << 24

MARK = b"\xef\xbb\xbf"  # what Excel puts before UTF-8
_OTHER_MARKS = {"UTF-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "UTF-16": (b"\xff\xfe", b"\xfe\xff")}


class BloatError(DataError):
    """A packed file that unpacks to what no table is."""


def most_unpacked(packed: int) -> int:
    """Bytes that a packed file of `packed` bytes may unpack to."""
    return max(_ALWAYS_UNPACKED, MOST_PACKED * packed)


def is_packed(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.name.endswith((".gz", ".xz"))


def open_bytes(path: Path) -> Any:
    """The file's bytes as a stream, decompressed where the name ends in .gz or .xz.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        if path.name.endswith(".xz"):
            return lzma.open(path, "rb")
        return gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb")
    except OSError as error:
        raise _unreadable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """All bytes of a file, as `chunks` gives them; those of a plain one are in memory once."""
    if is_packed(path):
        return b"".join(chunks(path))
    with open_bytes(path) as stream:
        try:
            whole: bytes = stream.read()
        except OSError as error:
            raise _unreadable(path, error) from error
    return whole


def chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes in blocks, decompressed.

    Raises:
        DataError: it is damaged or cut off; the message names the last line.
        BloatError: it unpacks to more than a table would.
    """
    line = 1  # at the end of what was read
    unpacked = 0
    with open_bytes(path) as stream:
        packed = is_packed(path)
        most = most_unpacked(path.stat().st_size) if packed else math.inf
        while True:
            try:
                block = stream.read1(1 << 20) if packed else stream.read(1 << 24)
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                raise _unreadable(path, error, line) from error
            if not block:
                return
            line += block.count(b"\n")
            unpacked += len(block)
            if unpacked > most:
                raise BloatError(
                    f"{path} unpacks to more than {MOST_PACKED} times its size, in line {line}, which no table "
                    "does; if it is one, unpack it first"
                )
            yield block


def _unreadable(path: Path, error: Exception, line: int = 1) -> DataError:
    """An error of the operating system or of a decompressor in plain words."""
    if isinstance(error, EOFError):
        return DataError(f"{path} is cut off in line {line}: the compressed file has no end; fetch it again")
    if isinstance(error, gzip.BadGzipFile):
        return DataError(f"{path} is damaged or not a gzip file, in line {line} ({error}); fetch it again")
    if isinstance(error, FileNotFoundError):
        return DataError(f"no file {path}")
    if isinstance(error, OSError):
        return DataError(f"cannot read {path}: {error.strerror or error}")
    return DataError(f"{path} is damaged in line {line} ({error}); fetch it again")


def check_bloat(path: Path) -> None:
    """Unpacks a packed file once; damage is left to those who read it, as the lines before may be worth a look.

    Raises:
        BloatError: it unpacks to more than a table would.
    """
    if is_packed(path):
        try:
            for _ in chunks(path):
                pass
        except BloatError:
            raise
        except DataError:
            return


def text_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Lines as text with their ends; bytes that are not UTF-8 become surrogates, which `undecodable` finds."""
    rest = None
    for block in chunks(path):
        block = unmarked(path, block) if rest is None else rest + block
        *lines, rest = block.split(b"\n")
        yield from (line.decode(encoding, "surrogateescape") + "\n" for line in lines)
    if rest:
        yield rest.decode(encoding, "surrogateescape")


def unmarked(path: Path, data: bytes) -> bytes:
    """The first bytes of a text file, or all of them, without Excel's mark.

    Raises:
        DataError: they are no text in an encoding of single bytes or UTF-8.
    """
    for name, marks in _OTHER_MARKS.items():
        if data.startswith(marks):
            raise DataError(f"{path} is encoded as {name}, in line 1; save it with encoding UTF-8")
    if data.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed; give it a name that ends in .gz")
    if b"\0" in data[:4096]:
        raise DataError(
            f"{path} holds zero bytes, in line {data[: data.index(0)].count(10) + 1}; expected text in UTF-8"
        )
    return data.removeprefix(MARK)
