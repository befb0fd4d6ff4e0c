"""Bad input through the command line: a line or two on standard error, exit code 2, and nothing half-written stays."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dglrec
from dglrec import DglrecError
from dglrec.cli import main

HEADER = "user_id\titem_id\trating\ttimestamp\n"
TINY = ("--set", "dim=16", "--set", "inner=16", "--epochs", "1", "--device", "cpu")

Refuse = Callable[..., str]


def rows(users: int = 40, items: int = 30) -> list[str]:
    rng = np.random.default_rng(0)
    return [
        f"u{user}\ti{item}\t{rng.integers(1, 6)}\t{86_400 * (30 * user + position)}\n"
        for user in range(users)
        for position, item in enumerate(rng.permutation(items)[: rng.integers(4, 10)])
    ]


ROWS = rows()
GOOD = HEADER + "".join(ROWS)


def wrong_row(row: str) -> bytes:
    """The good table with line 4 replaced."""
    return (HEADER + "".join([*ROWS[:2], row + "\n", *ROWS[3:]])).encode()


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DGLREC_DATA", raising=False)


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a command that has to fail -> what it says."""

    def run(*words: object) -> str:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        said = [line for line in err.splitlines() if line.startswith("dglrec: ")]
        assert len(said) == 1
        assert err.endswith(said[0] + "\n")  # it is the last thing said
        assert len(said[0]) <= 420  # two lines of a wide terminal
        assert "Traceback" not in err
        return said[0]

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run folder of each of two presets; for reading, tests that damage one copy it."""
    base = tmp_path_factory.mktemp("runs")
    (base / "good.tsv").write_text(GOOD)
    for preset in ("gsau-rec", "sasrec"):
        words = ["train", preset, "--data", str(base / "good.tsv"), "--out", str(base / preset), *TINY]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(words) == 0
    return {preset: base / preset for preset in ("gsau-rec", "sasrec")}


@pytest.fixture
def run(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A run folder of GSAU (rec) of the test's own."""
    return Path(shutil.copytree(runs["gsau-rec"], tmp_path / "run"))


def process(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, which finds this dglrec."""
    paths = (str(Path(dglrec.__file__).parents[1]), os.environ.get("PYTHONPATH"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)


def leftovers(folder: Path) -> list[str]:
    """Temporary files, and run folders without a config."""
    found = [str(path) for path in folder.rglob("*.part")]
    return found + [str(path) for path in folder.glob("runs/*") if not (path / "config.json").exists()]


# Data

BAD_TABLES = {
    "a missing column": (GOOD.replace("item_id", "thing", 1).encode(), ["no column 'item_id'", "user_id thing"]),
    "another name of a column": (GOOD.replace("item_id", "asin", 1).encode(), ["no column 'item_id', but 'asin'"]),
    "text in a number": (wrong_row("u0\ti3\t5\tyesterday"), ["line 4", "timestamp is 'yesterday'", "number"]),
    "text in a rating": (wrong_row("u0\ti3\tgood\t5"), ["line 4", "rating is 'good'"]),
    "an empty file": (b"", ["is empty", "user_id item_id rating timestamp"]),
    "a header alone": (HEADER.encode(), ["a header and no rows"]),
    "a row that is too short": (wrong_row("u0\ti3"), ["line 4", "2"]),
    "a row that is too long": (wrong_row("u0\ti3\t5\t5\t5"), ["line 4", "5"]),
    "another encoding": (wrong_row("Jürgen\ti3\t5\t5").decode().encode("latin-1"), ["line 4", "not UTF-8"]),
    "another encoding of it all": (GOOD.encode("utf-16"), ["UTF-16", "UTF-8"]),
    "a time that is NaN": (wrong_row("u0\ti3\t5\tnan"), ["line 4", "timestamp is 'nan'", "finite"]),
    "an infinite time": (wrong_row("u0\ti3\t5\tinf"), ["line 4", "timestamp is 'inf'", "finite"]),
    "a missing time": (wrong_row("u0\ti3\t5\t"), ["line 4", "timestamp is empty"]),
    "an empty id": (wrong_row("u0\t\t5\t5"), ["line 4", "item_id is empty"]),
    "bytes of something else": (bytes(range(256)) * 8, ["zero bytes"]),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table(refuse: Refuse, tmp_path: Path, name: str) -> None:
    content, says = BAD_TABLES[name]
    (tmp_path / "bad.tsv").write_bytes(content)
    message = refuse("train", "popularity", "--data", "bad.tsv")
    assert "bad.tsv" in message
    assert [part for part in says if part not in message] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tsv"]


@pytest.mark.parametrize("name", BAD_TABLES)
def test_check_reports_a_bad_table(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.tsv").write_bytes(BAD_TABLES[name][0])
    assert main(["data", "check", "bad.tsv", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["num_problems"] >= 1


@pytest.mark.parametrize("length", [0, 5, 40, 300])
def test_a_cut_off_gzip(refuse: Refuse, tmp_path: Path, length: int) -> None:
    whole = gzip.compress(GOOD.encode())
    assert length < len(whole)
    (tmp_path / "bad.tsv.gz").write_bytes(whole[:length])
    message = refuse("train", "popularity", "--data", "bad.tsv.gz")
    assert "bad.tsv.gz is " in message


def test_a_changed_byte_in_a_gzip(refuse: Refuse, tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(GOOD.encode()))
    whole[len(whole) // 2] ^= 1
    (tmp_path / "bad.tsv.gz").write_bytes(whole)
    assert "bad.tsv.gz" in refuse("train", "popularity", "--data", "bad.tsv.gz")


@pytest.mark.parametrize(
    ("name", "content"), [("bad.parquet", b"PAR1, or not"), ("bad.npz", b"PK\x03\x04"), ("bad.txt", b"x")]
)
def test_a_file_of_another_kind(refuse: Refuse, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in refuse("train", "popularity", "--data", f"./{name}")


def test_too_few_events(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "short.tsv").write_text(HEADER + "u1\ti1\t1\t1\nu1\ti2\t1\t2\n")
    assert "no user of 'short' has three events" in refuse("train", "popularity", "--data", "short.tsv")
    assert "5-core of 'short' is empty" in refuse("train", "popularity", "--data", "short.tsv", "--k-core", 5)


def test_a_file_that_may_not_be_read(refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.tsv").write_text(GOOD)
    plain = open

    def denied(file: Any, *args: Any, **options: Any) -> Any:
        if str(file).endswith("good.tsv"):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return plain(file, *args, **options)

    monkeypatch.setattr("builtins.open", denied)
    assert refuse("train", "popularity", "--data", "good.tsv").endswith("good.tsv: Permission denied")


# Names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("gsau-rce", "--data", "good.tsv"), "unknown preset 'gsau-rce'; did you mean 'gsau-rec'?"),
        (
            ("gsau", "--data", "good.tsv", "--set", "gama=1"),
            "unknown field 'gama' of GSAUConfig; did you mean 'gamma'?",
        ),
        (("gsau", "--data", "good.tsv", "--set", "train.lrr=1"), "unknown field 'lrr'"),
        (("gsau", "--data", "good.tsv", "--set", "data.ordr=file"), "did you mean 'order'?"),
        (("gsau", "--data", "good.tsv", "--set", "data.columns.user=uid"), "unknown field 'user'"),
        (("gsau", "--data", "good.tsv", "--set", "split.valid_share=.2"), "unknown field 'valid_share'"),
        (("gsau", "--data", "good.tsv", "--set", "gamma=much"), "field 'gamma' is 'much'; expected float"),
        (("gsau", "--data", "good.tsv", "--set", "seen=hide"), "field 'seen' is 'hide'; known: keep, mask"),
        (("gsau", "--data", "good.tsv", "--set", "train.batch_size=0"), "train.batch_size is 0; expected at least 1"),
        (("gsau", "--data", "good.tsv", "--epochs", "-1"), "train.epochs is -1; expected at least 0"),
        (("gsau", "--data", "amazon-beuty"), "no data set 'amazon-beuty'"),
        (("gsau", "--data", "amazon-beuty"), "did you mean 'amazon-beauty'?"),
        (("gsau", "--data", "sample:gramar"), "did you mean 'grammar'?"),
        (("gsau", "--data", "no/such/file.tsv"), "no file or folder no/such/file.tsv"),
    ],
)
def test_a_typo(refuse: Refuse, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    (tmp_path / "good.tsv").write_text(GOOD)
    assert says in refuse("train", *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.tsv"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--user", "u1x"), "unknown user 'u1x'; did you mean"),
        (("--history", "i1", "i3x"), "unknown item 'i3x'; did you mean"),
        (("--user", "u1", "--k", "0"), "k is 0; expected at least 1"),
    ],
)
def test_an_unknown_user_or_item(refuse: Refuse, runs: dict[str, Path], words: tuple[str, ...], says: str) -> None:
    assert says in refuse("recommend", runs["gsau-rec"], *words, "--device", "cpu")


def test_a_cut_of_zero(refuse: Refuse, runs: dict[str, Path]) -> None:
    assert "k is [0, 10]" in refuse("evaluate", runs["gsau-rec"], "--k", 0, 10, "--device", "cpu")


# Run folders


def test_no_run(refuse: Refuse, tmp_path: Path) -> None:
    assert "config.json does not exist" in refuse("evaluate", "nowhere")
    assert "config.json does not exist" in refuse("train", "--resume", "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_run_folder(refuse: Refuse, run: Path) -> None:
    for words in (("evaluate", run / "config.json"), ("train", "--resume", run / "config.json")):
        said = refuse(*words)
        assert "config.json does not exist; expected a folder that `dglrec train --out` wrote" in said
        assert "damaged" not in said


def test_a_run_that_may_not_be_read(refuse: Refuse, run: Path) -> None:
    (run / "config.json").unlink()
    (run / "config.json").mkdir()  # what root cannot read either
    assert refuse("evaluate", run, "--device", "cpu").endswith("config.json cannot be read: Is a directory")


def test_a_checkpoint_of_another_model(refuse: Refuse, run: Path, runs: dict[str, Path]) -> None:
    shutil.copy(runs["sasrec"] / "weights.safetensors", run)
    assert "weights.safetensors is of another model" in refuse("evaluate", run, "--device", "cpu")
    shutil.copy(runs["sasrec"] / "config.json", run)  # now the state is of another model
    assert "is of another model" in refuse("train", "--resume", run, "--epochs", 2, "--device", "cpu")


def test_a_log_of_another_run(refuse: Refuse, run: Path) -> None:
    dglrec.data.sample("grammar", users=40, items=30).save(run / "ids.npz")
    assert "ids.npz is not the log that the run was trained on" in refuse("evaluate", run, "--device", "cpu")


READ = ("config.json", "ids.npz", "weights.safetensors")


def changed(path: Path, place: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", READ)
def test_a_changed_byte(refuse: Refuse, run: Path, name: str) -> None:
    changed(run / name, 100)
    for words in (("evaluate", run), ("recommend", run, "--user", "u1"), ("train", "--resume", run)):
        if name != "weights.safetensors" or words[0] != "train":  # which does not read them
            assert name in refuse(*words, "--device", "cpu")


@pytest.mark.parametrize("name", READ)
def test_a_changed_byte_anywhere(run: Path, name: str) -> None:
    size = (run / name).stat().st_size
    for place in {*range(0, size, size // 60), 13, 19, size - 1}:  # 13: the date in a zip file, which nothing reads
        changed(run / name, place)
        with pytest.raises(DglrecError, match=name):
            dglrec.load_model(run)
        changed(run / name, place)
    dglrec.load_model(run)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("length", [0, 100, 700])
def test_a_cut_off_file(refuse: Refuse, run: Path, name: str, length: int) -> None:
    (run / name).write_bytes((run / name).read_bytes()[:length])
    assert name in refuse("evaluate", run, "--device", "cpu")


@pytest.mark.parametrize("name", READ)
def test_a_missing_file(refuse: Refuse, run: Path, name: str) -> None:
    (run / name).unlink()
    assert name in refuse("evaluate", run, "--device", "cpu")


def test_a_state_that_changed(refuse: Refuse, run: Path) -> None:
    words = ("train", "--resume", run, "--epochs", 2, "--device", "cpu")
    shard, latest = next((run / "state").rglob("*.safetensors")), run / "state" / "latest.json"
    text = latest.read_text()
    keys = [text.index(f'"{key}"') + 1 for key in ("epoch", "rows", "best", "steps", "folder", "shards")]
    for path, places in ((shard, [3, 40, shard.stat().st_size // 2, -1]), (latest, [0, 12, *keys])):
        for place in places:
            changed(path, place)
            assert path.name in refuse(*words)
            changed(path, place)
    latest.write_text(text.replace('"steps": ', '"steps": 1'))
    assert "latest.json has changed" in refuse(*words)
    latest.write_text(text[: len(text) // 2])
    assert "latest.json" in refuse(*words)
    latest.write_text(text)
    assert main([str(word) for word in words]) == 0


def test_values_in_a_config_that_changed(refuse: Refuse, run: Path) -> None:
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"dim": 16', '"dim": 32'))
    assert "config.json has changed" in refuse("evaluate", run, "--device", "cpu")
    (run / "config.json").write_text("[]")
    assert "config.json holds list; expected a JSON object" in refuse("evaluate", run, "--device", "cpu")


# A disk that is full


@contextlib.contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> Any:
    """`after` files can still be written."""
    left, sync = [after], os.fsync

    def fsync(handle: int) -> None:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.mark.parametrize("after", range(10))
def test_a_full_disk(refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Whichever file is the first that finds no room: what stands there is whole, and the run can be resumed."""
    (tmp_path / "good.tsv").write_text(GOOD)
    with full_disk(monkeypatch, after):
        message = refuse("train", "gsau-rec", "--data", "good.tsv", "--out", "runs/full", *TINY)
    assert "No space left on device" in message
    assert leftovers(tmp_path) == []
    for path in (tmp_path / "runs").rglob("*.json"):
        json.loads(path.read_text())
    if after < 2:  # not even a config
        assert not (tmp_path / "runs" / "full").exists()
        return
    assert main(["train", "--resume", "runs/full", "--device", "cpu"]) == 0
    assert main(["evaluate", "runs/full", "--device", "cpu"]) == 0


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
from dglrec.cli import main
sys.exit(main({words!r}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on the size of a file")
@pytest.mark.parametrize("size", [2_000, 20_000])
def test_writing_that_the_system_refuses(tmp_path: Path, size: int) -> None:
    """As a full disk, but by the operating system: no file may grow beyond `size` bytes."""
    (tmp_path / "good.tsv").write_text(GOOD)
    words = ["train", "gsau-rec", "--data", "good.tsv", "--out", "runs/limited", *TINY]
    done = process("-c", LIMITED.format(size=size, words=words))
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("dglrec: cannot write runs/limited/")
    assert "File too large" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) <= 2
    assert leftovers(tmp_path) == []


def test_an_out_that_is_a_file(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "good.tsv").write_text(GOOD)
    message = refuse("train", "popularity", "--data", "good.tsv", "--out", "good.tsv")
    assert "good.tsv" in message
    assert (tmp_path / "good.tsv").read_text() == GOOD


def test_as_a_process(tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_bytes(BAD_TABLES["text in a number"][0])
    done = process("-m", "dglrec", "train", "gsau-rec", "--data", "bad.tsv", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("dglrec: bad.tsv line 4: timestamp is 'yesterday'")
