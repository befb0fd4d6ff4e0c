"""Writing files so that a half-written one is never seen."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import DataError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` for writing bytes; it takes the name `path` only once it is complete.

    When writing fails (a full disk, an interruption), the temporary file is removed and whatever was at `path`
    before is still there.

    Raises:
        DataError: the operating system refused (a full disk, no permission, a folder that does not exist).

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "greeting.txt"
    >>> with atomic_write(target) as file:
    ...     _ = file.write(b"hello")
    >>> target.read_text()
    'hello'
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}; nothing was changed there") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # gone already when all went well
