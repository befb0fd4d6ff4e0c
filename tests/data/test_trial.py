"""Parquet files that end the process that reads them end another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from dglrec.data import read_interactions, readers, trial
from dglrec.data.readers import parquet
from dglrec.errors import DataError

FRAME = pl.DataFrame({"user_id": list("abca"), "item_id": list("xyxz"), "timestamp": [1, 2, 3, 4]})


def write(path: Path, changed: int | None = None) -> Path:
    """A small Parquet file, with one bit of one byte changed."""
    FRAME.write_parquet(path, compression="uncompressed", statistics=False)
    content = bytearray(path.read_bytes())
    if changed is not None:
        content[changed] ^= 1
    path.write_bytes(content)
    return path


# Reads one file after the other, without care, and names each before.
READ_ALL = """
import sys, polars
for path in sys.argv[1:]:
    print(path, flush=True)
    try:
        polars.read_parquet(path)
    except BaseException:
        pass
"""


def test_a_changed_byte_ends_no_session(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Among the first bytes is one with which polars asks for 2 ** 61 bytes, and ends its process."""
    paths = [write(tmp_path / f"{place}.parquet", place) for place in range(20, 80)]
    done = subprocess.run([sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True)
    if done.returncode == 0:
        pytest.skip("this polars survives them all")
    path = Path(done.stdout.splitlines()[-1])
    with pytest.raises(
        DataError, match=r"parquet is damaged or not a parquet file \(.*(allocation|ends a process)"
    ) as error:
        read_interactions(path)
    assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr().err == ""  # what the child says is kept from the terminal


def test_what_the_child_says_and_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "log[1]*.parquet")  # a name, no pattern
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('code of the folder ran')")
    (tmp_path / "polars.py").write_text("raise SystemExit('code of the folder ran')")
    monkeypatch.chdir(tmp_path)  # what stands in the working directory is not imported
    asked = {"names": ["user_id", "item_id", "rating"], "most_rows": 4, "most_bytes": 0}
    assert trial.mistake(path, **asked) == ""
    assert len(read_interactions(path)) == 4
    path.write_bytes(b"PAR1, or not")
    assert "PAR1" in trial.mistake(path, **asked) or "parquet" in trial.mistake(path, **asked)


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.parquet"
    rows = pl.select(user_id=pl.int_range(8_000_000)).with_columns(item_id="user_id", rating="user_id")
    rows.write_parquet(path)
    names = ["user_id", "item_id", "rating"]
    if sys.platform == "linux":
        monkeypatch.setattr(trial, "_ROOM", 1 << 27)
        assert trial.mistake(path, names, most_rows=1 << 24, most_bytes=0) != ""  # 192 MB of numbers
        assert trial.mistake(path, names, most_rows=1 << 22, most_bytes=0) == ""  # nothing was read
        assert trial.mistake(path, names, most_rows=1 << 24, most_bytes=1 << 31) == ""
    monkeypatch.setattr(trial, "_LEAST_S", 1e-3)
    monkeypatch.setattr(trial, "_BYTES_A_SECOND", 1 << 60)
    assert trial.mistake(path, names, most_rows=1 << 24, most_bytes=0).startswith("no end of it after")
    monkeypatch.setattr(sys, "executable", None)
    assert trial.mistake(path, names, most_rows=1 << 24, most_bytes=0) == ""


def test_every_column_that_is_read_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a file of items may have too."""
    tried: list[str] = []

    def note(path: Path, names: list[str], **bounds: int) -> str:
        tried.extend(names)
        return ""

    monkeypatch.setattr(parquet, "mistake", note)
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": ["x"], "title": ["a mug"], "brand": ["Zoe"]}).write_parquet(path)
    assert readers.read_items(path) == ({"x": "a mug"}, {"x": "a mug. Zoe"})
    assert {"item_id", "title", *readers.ITEM_TEXTS} <= set(tried)
