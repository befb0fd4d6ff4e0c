"""Reads a Parquet file in a separate process first, so that a crash there does not end the session.

One changed byte in a Parquet file can make polars request exabytes; it then ends the whole process, and no `except`
sees that. Such a byte may be in any page, packed and encoded in a dozen ways: nothing short of decoding finds it. So
`mistake` decodes the columns in a child, with bounds on memory and time: .3 s for Python and polars to start, and for
big files a tenth of the time that reading them takes.

This file is also what the child runs, by its path, without the rest of the package.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOM = 1 << 30  # bytes that a small file may take
_LEAST_S, _BYTES_A_SECOND = 60, 1 << 20


def mistake(path: Path, names: Sequence[str], most_rows: int, most_bytes: int) -> str:
    """Why a process that read the columns `names` of a Parquet file failed or ended; "" where all went well.

    Args:
        path: the file.
        names: the columns; those that the file lacks are left out.
        most_rows: rows above which no column is read.
        most_bytes: memory that reading may take, if that is more than 1 GiB (on Linux; elsewhere there is no bound).
    """
    if not sys.executable:  # Python within another program
        return ""
    words = [os.pathsep.join(sys.path), path, max(_ROOM, most_bytes), most_rows, *names]
    environment = {"POLARS_MAX_THREADS": str(min(os.cpu_count() or 1, 4)), **os.environ}
    seconds = _LEAST_S + path.stat().st_size / _BYTES_A_SECOND
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__, *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"no end of it after {seconds:.0f} s"
    if done.returncode in (0, 1, 2):  # 1 and 2: Python or polars did not start, and nothing was tried
        return done.stdout.decode("utf-8", "replace")
    said = done.stderr.decode("utf-8", "replace").splitlines()
    return next((line for line in said if "allocation" in line), f"reading it ends a process with {done.returncode}")


def _try(path: str, room: int, most_rows: int, names: Sequence[str]) -> None:
    """What the child does: reads as `dglrec.data.readers` does, and prints what polars says against it."""
    import polars as pl

    if sys.platform == "linux":
        import resource

        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        bound = mapped + room if hard == resource.RLIM_INFINITY else min(mapped + room, hard)
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # memory is not written to the disk when it ends
    try:
        lazy = pl.scan_parquet(path, glob=False)
        known = [name for name in lazy.collect_schema().names() if name in names]
        if lazy.select(pl.len()).collect().item() <= most_rows:
            lazy.select(known).collect()
    except BaseException as error:  # a panic of polars is not an Exception
        sys.stdout.buffer.write((str(error) or type(error).__name__).encode("utf-8", "replace"))


if __name__ == "__main__":
    sys.path[:] = sys.argv[1].split(os.pathsep)
    _try(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
