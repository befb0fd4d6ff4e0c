"""Fetching one file over HTTP: what has arrived is kept and continued, and nothing is used unchecked.

A file in transit is `PATH`, and `PATH.json` beside it says which version of which address it is, and how many bytes
it has in all. It is continued by a Range request that holds for the same version alone (`If-Range`); a server that
has another version, or does not know Range, sends all of it, and the file begins anew. A file that is whole is not
requested again, so that a caller that dies while reading it need not fetch it twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import DataError, first_line

TIMEOUT_S = 30.0  # without a byte
SLOWEST = 1_000  # bytes per second, over a window of TIMEOUT_S: a slower connection counts as broken
TRIES = 5  # connections in a row that bring nothing new
PAUSE_S = 0.5  # before the second of them; twice as long before each further one
MOST_BYTES = 1 << 34  # most bytes from a server that does not announce their number
_BLOCK_BYTES = 1 << 16

Progress = Callable[[int, "int | None"], object]


class Interrupted(DataError):
    """A download broke off; what has arrived is kept, and the next call goes on from there."""


class _Broken(Exception):
    """One connection ended early; another one may do better."""


def download(url: str, path: Path, progress: Progress | None = None) -> str:
    """Fetches a file, going on where an earlier call broke off; its hex SHA-256.

    A connection that breaks, stalls or ends early is taken up again, until `TRIES` of them in a row bring nothing.

    Args:
        url: the file.
        path: where its bytes go; complete when this returns, part of it when this raises `Interrupted`.
        progress: called with bytes so far and bytes in all (None: unknown).

    The caller removes `path` and the files beside it after use; until then the next call finds the file whole.

    Raises:
        Interrupted: too many connections broke.
        DataError: the server refuses, does not exist, or sends more than the disk holds; `path` is of no use.
    """
    with locked(path):
        if _size(path) == _Version.load(path, url).size:
            return _sha256(path)
        tries, reason, most = 0, "", _size(path)
        while tries < TRIES:
            try:
                _connect(url, path, progress)
                return _sha256(path)
            except _Broken as error:  # noqa: PERF203 - a connection costs more than a try
                reason = str(error)
                tries = 0 if _size(path) > most else tries + 1  # a server may start over again and again
                most = max(most, _size(path))
                if tries < TRIES:
                    time.sleep(PAUSE_S * 2 ** max(tries - 1, 0))
        total = _Version.load(path, url).size
        of = f" of {total:,}" if total else ""
        raise Interrupted(
            f"{url} broke off after {_size(path):,}{of} bytes ({reason}); they are kept: run it again to go on"
        )


@dataclass
class _Version:
    """Which version of a file the bytes at hand are of.

    Attributes:
        url: its address.
        validator: the server's ETag, or else the date of its last change; "" where it names neither.
        size: bytes in all, or None.
    """

    url: str
    validator: str = ""
    size: int | None = None

    @classmethod
    def load(cls, path: Path, url: str) -> _Version:
        """The version of the part at `path`; an empty one where there is none, or it is of another address."""
        try:
            found = cls(**json.loads(path.with_name(f"{path.name}.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return cls(url)
        return found if found.url == url else cls(url)

    def save(self, path: Path) -> None:
        path.with_name(f"{path.name}.json").write_text(json.dumps(vars(self)), "utf-8")


def _connect(url: str, path: Path, progress: Progress | None) -> None:
    """One connection: writes what arrives to `path`, at its end if the server continues the same version."""
    known, done = _Version.load(path, url), _size(path)
    headers = {"User-Agent": "dglrec", "Accept-Encoding": "identity"}
    if done and known.validator:
        headers |= {"Range": f"bytes={done}-", "If-Range": known.validator}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # there is nothing after what we have, so that it is another version
            _forget(path)
            raise _Broken("the file changed") from None
        if error.code >= 500 or error.code == 429:
            raise _Broken(f"HTTP {error.code}") from None
        raise DataError(f"cannot fetch {url} (HTTP {error.code} {error.reason}); see data/README.md") from None
    except (OSError, http.client.HTTPException) as error:
        if done:
            raise _Broken(_reason(error)) from None
        raise DataError(
            f"cannot fetch {url} ({_reason(error)}); is there a connection? See also data/README.md"
        ) from None
    with response:
        begin, size = _place(response)
        if begin != done or (begin and known.size is not None and size != known.size):
            if begin:
                _forget(path)
                raise _Broken("the server sent another part than was requested")
            done = 0
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        version = _Version(url, "" if validator.startswith("W/") else validator, size)
        most = MOST_BYTES if size is None else size - done
        if most > (free := shutil.disk_usage(path.parent).free) and size is not None:
            raise DataError(f"{url} has {size:,} bytes and the disk of {path.parent} {free:,} left; make room there")
        with open(path, "ab" if done else "wb") as file:
            version.save(path)
            for block in _blocks(response):
                done += len(block)
                if size is None and done > most:
                    raise DataError(f"{url} does not end after {most:,} bytes; it is not the file that it should be")
                file.write(block)
                if progress is not None:
                    progress(done, size)
    if size is not None and done < size:
        raise _Broken("the connection ended early")
    _Version(url, version.validator, done).save(path)  # it is whole


def _place(response: Any) -> tuple[int, int | None]:
    """Where in the file an answer begins, and the bytes of the whole file where the server says so."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if found is None:
            return -1, None
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length") or ""
    return 0, int(length) if length.isdigit() else None


def _blocks(response: Any) -> Iterator[bytes]:
    """What arrives, as it arrives; a connection that stalls or crawls is broken."""
    began, arrived = time.monotonic(), 0
    while True:
        try:
            block = response.read1(_BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(_reason(error)) from None
        if not block:
            return
        yield block
        arrived += len(block)
        passed = time.monotonic() - began
        if passed > TIMEOUT_S:
            if arrived < SLOWEST * passed:
                raise _Broken(f"{arrived / passed:.0f} bytes per second")
            began, arrived = time.monotonic(), 0


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[bytes] | None]:
    """Keeps a second process from writing to the same file or folder, where the system has such locks.

    Raises:
        Interrupted: another process has the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield None
        return
    with open(path.with_name(f"{path.name}.lock"), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Interrupted(f"another process is fetching {path}; wait until it is done") from None
        yield file


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.json").unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return first_line(reason if isinstance(reason, BaseException) else error) or os.strerror(0)
