"""Downloads from a server that is slow, breaks off and lies: the right file, or an error and nothing half-finished."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dglrec import cli
from dglrec.data import datasets, download, get, load
from dglrec.data.datasets import REGISTRY, Source
from dglrec.data.download import Interrupted
from dglrec.errors import DataError

CONTENT = "".join(f"u{n % 50},i{n % 71},{1 + n % 5},{n}\n" for n in range(20_000)).encode()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Site(http.server.ThreadingHTTPServer):
    """A server of one file; tests set how it behaves, and see what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, '"one"'
        self.ranges = True  # whether it knows Range
        self.each = len(CONTENT)  # bytes that a connection brings before it ends
        self.pause_s, self.block = 0.0, 1 << 16
        self.length: int | None = -1  # what Content-Length says: -1 the truth, None nothing
        self.shift = 0  # by how much an answer to Range begins too late
        self.more = 0  # by how much the file is longer, as an answer to Range has it
        self.status: list[int] = []  # codes of the next answers, instead of the file
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site, wanted = self.server, self.headers.get("Range")
        site.asked.append(wanted)
        if site.status:
            self.send_error(site.status.pop(0))
            return
        begin, same = 0, self.headers.get("If-Range") == site.etag
        if wanted and site.ranges and same:
            begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if begin >= len(site.content):
                self.send_error(416)
                return
        self.send_response(206 if begin else 200)
        if begin:
            begin += site.shift
            size = len(site.content)
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size + site.more}")
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.length is not None:
            self.send_header("Content-Length", str(len(site.content) - begin if site.length < 0 else site.length))
        self.end_headers()
        end = min(begin + site.each, len(site.content))
        try:
            for start in range(begin, end, site.block):
                self.wfile.write(site.content[start : min(start + site.block, end)])
                self.wfile.flush()
                time.sleep(site.pause_s)
        except OSError:
            pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache; a data set "shop" is registered, whose file the site has."""
    monkeypatch.setenv("DGLREC_DATA", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(REGISTRY, "shop", Source(site.url, "amazon-ratings", "http://page", "be kind", DIGEST))
    return tmp_path / "dglrec"


def test_a_connection_that_breaks_off_is_taken_up_again(site: Site, cache: Path) -> None:
    site.each = 50_000
    get("shop")
    assert len(load("shop")) == 20_000
    assert len(site.asked) == -(-len(CONTENT) // 50_000)
    assert site.asked[0] is None and all(site.asked[1:])
    assert os.listdir(cache) == ["shop"]
    assert sorted(os.listdir(cache / "shop")) == ["interactions.tsv.gz", "source.json"]


def test_a_server_without_ranges_has_to_send_all_of_it_at_once(site: Site, cache: Path) -> None:
    site.ranges, site.each = False, 50_000
    with pytest.raises(Interrupted, match=r"broke off after 50,000 of .* they are kept: run it again to go on"):
        get("shop")
    site.each = len(CONTENT)
    get("shop")
    assert load("shop").num_users == 50


def test_it_waits_longer_from_try_to_try(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(download, "PAUSE_S", 0.5)
    monkeypatch.setattr(download.time, "sleep", waited.append)
    site.ranges, site.each = False, 50_000
    with pytest.raises(Interrupted):
        get("shop")
    assert [pause for pause in waited if pause] == [0.5, 0.5, 1.0, 2.0, 4.0]  # the first connection brought something


@pytest.mark.parametrize("etag", ["", 'W/"one"'])
def test_a_file_whose_version_is_not_known_to_the_byte_is_begun_anew(site: Site, cache: Path, etag: str) -> None:
    site.etag, site.each = etag, 50_000
    with pytest.raises(Interrupted, match="broke off after 50,000 of"):
        get("shop")
    assert len(site.asked) > 1 and not any(site.asked)  # all of it each time, never a range


def test_the_part_of_a_file_from_another_address_is_begun_anew(tmp_path: Path) -> None:
    known = download._Version("http://one", '"one"', 7)
    known.save(tmp_path / "part")
    assert download._Version.load(tmp_path / "part", "http://one") == known
    assert download._Version.load(tmp_path / "part", "http://two") == download._Version("http://two")


def test_what_has_arrived_is_gone_on_with_in_the_next_call(site: Site, cache: Path) -> None:
    site.each = 70_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "TRIES", 1)
        patch.setattr(download, "_connect", once(download._connect, 2))
        with pytest.raises(Interrupted):
            get("shop")
    assert not (cache / "shop").exists()
    assert [info.name for info in datasets.list_datasets() if info.place == "cache"] == []
    assert (cache / ".shop.part" / "original").stat().st_size == 140_000
    get("shop")
    assert site.asked[2] == "bytes=140000-"
    assert os.listdir(cache) == ["shop"]


def once(connect, times: int):
    """Connects so often, and breaks without a byte from then on."""
    left = [times]

    def limited(*arguments) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise download._Broken("pulled the plug")
        connect(*arguments)

    return limited


def test_a_file_that_changed_meanwhile_is_begun_anew(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.each, site.content, site.etag = 70_000, b"x,y,1,1\n" * 30_000, '"old"'
    with monkeypatch.context() as patch:
        patch.setattr(download, "TRIES", 1)
        patch.setattr(download, "_connect", once(download._connect, 1))
        with pytest.raises(Interrupted):
            get("shop")
    site.each, site.content, site.etag = len(CONTENT), CONTENT, '"new"'
    get("shop")
    assert load("shop").num_users == 50


def test_another_part_than_asked_for_is_not_taken(site: Site, cache: Path) -> None:
    site.each, site.shift = 50_000, 10
    with pytest.raises(Interrupted, match="they are kept"):
        get("shop")
    site.shift, site.each = 0, len(CONTENT)
    get("shop")
    assert load("shop").num_users == 50


def test_a_part_of_a_file_of_another_size_is_not_taken(site: Site, cache: Path) -> None:
    site.each, site.more = 50_000, 1
    with pytest.raises(Interrupted):
        get("shop")
    assert site.asked[:4] == [None, "bytes=50000-", None, "bytes=50000-"]  # begun anew each time
    site.more, site.each = 0, len(CONTENT)
    get("shop")
    assert load("shop").num_users == 50


def test_a_file_that_has_become_shorter_is_begun_anew(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.content, site.each = 2 * CONTENT, len(CONTENT) + 10
    with monkeypatch.context() as patch:
        patch.setattr(download, "TRIES", 1)
        patch.setattr(download, "_connect", once(download._connect, 1))
        with pytest.raises(Interrupted):
            get("shop")
    site.content = CONTENT  # with the same ETag, which is a lie
    get("shop")
    assert site.asked == [None, f"bytes={len(CONTENT) + 10}-", None]
    assert load("shop").num_users == 50


def test_what_has_arrived_is_kept_where_the_server_is_gone(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.each = 70_000
    answers, urlopen = iter([True]), download.urllib.request.urlopen

    def first_alone(*arguments: object, **fields: object):
        if next(answers, False):
            return urlopen(*arguments, **fields)  # type: ignore[arg-type]
        raise download.urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))

    with monkeypatch.context() as patch:
        patch.setattr(download.urllib.request, "urlopen", first_alone)
        with pytest.raises(Interrupted, match=r"after 70,000 of .* bytes \(.*Connection refused\); they are kept"):
            get("shop")
    get("shop")
    assert site.asked[1] == "bytes=70000-" and load("shop").num_users == 50


def test_errors_of_the_server_are_waited_for(site: Site, cache: Path) -> None:
    site.status = [503, 500, 429]
    get("shop")
    assert len(site.asked) == 4


def test_a_slow_server_is_waited_for_and_a_dead_one_is_not(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.block, site.pause_s = 1 << 15, 0.02
    get("shop")
    assert load("shop").num_users == 50
    monkeypatch.setitem(REGISTRY, "other", REGISTRY["shop"])
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(download, "TRIES", 1)
    monkeypatch.setattr(download, "SLOWEST", 10_000)
    connect = download._connect
    for block, pause_s in ((10, 0.02), (1 << 14, 2.0)):  # it crawls; it stops
        site.block, site.pause_s = block, pause_s
        monkeypatch.setattr(download, "_connect", once(connect, 1))
        with pytest.raises(Interrupted, match="broke off"):
            get("other")
    with pytest.raises(download._Broken, match=r"bytes per second"):
        site.block, site.pause_s = 10, 0.02
        connect(site.url, cache / "crawls", None)
    with pytest.raises(download._Broken, match=r"timed out"):
        site.block, site.pause_s = 1 << 14, 2.0
        connect(site.url, cache / "stops", None)


@pytest.mark.parametrize(
    ("length", "etag", "message"),
    [
        (100, '"one"', "expected"),  # says less than it has: the digest tells
        (10**9, "", "broke off"),  # says more than it has
        (10**18, '"one"', "make room there"),
    ],
)
def test_a_length_that_is_a_lie(length: int, etag: str, message: str, site: Site, cache: Path) -> None:
    site.length, site.etag = length, etag
    with pytest.raises(DataError, match=message):
        get("shop")
    assert not (cache / "shop").exists()
    assert os.listdir(cache) == ([".shop.part"] if "broke" in message else [])
    site.length = None  # a server that says no length at all is fine
    get("shop")
    assert os.listdir(cache) == ["shop"]


def test_a_file_without_end_is_stopped(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.length = None
    monkeypatch.setattr(download, "MOST_BYTES", 100_000)
    with pytest.raises(DataError, match="does not end after 100,000 bytes"):
        get("shop")
    assert os.listdir(cache) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-1] + b"?", "it was changed or cut off"),
        (b"<!DOCTYPE html><html>log in", "it is a web page"),
        (b"", "expected"),
    ],
)
def test_content_that_is_a_lie(content: bytes, message: str, site: Site, cache: Path) -> None:
    site.content = content
    with pytest.raises(DataError, match=message):
        get("shop")
    assert os.listdir(cache) == []


def test_an_unknown_digest_is_said_and_what_came_is_recorded(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY, "shop", Source(site.url, "amazon-ratings", "", "be kind"))
    assert "its SHA-256 is unknown" in REGISTRY["shop"].about("shop")
    about = json.loads((get("shop") / "source.json").read_text())
    assert (about["sha256"], about["checked"], about["bytes"]) == (DIGEST, None, len(CONTENT))
    site.content = b"<html>log in</html>"
    monkeypatch.setitem(REGISTRY, "other", REGISTRY["shop"])
    with pytest.raises(DataError, match=r"not in the expected form .*web page"):
        get("other")
    assert os.listdir(cache) == ["shop"]


KILLED = """
import sys
from dglrec.data import datasets
datasets.REGISTRY["shop"] = datasets.Source(sys.argv[1], "amazon-ratings", "", "", sys.argv[2])
datasets.get("shop")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a signal")
def test_a_process_that_is_killed_leaves_no_data_set_and_is_gone_on_with(site: Site, cache: Path) -> None:
    site.block, site.pause_s = 4096, 0.05
    process = subprocess.Popen([sys.executable, "-c", KILLED, site.url, DIGEST])
    part = cache / ".shop.part" / "original"
    while not (part.exists() and part.stat().st_size > 20_000):
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(Interrupted, match="another process is fetching"):
        get("shop")
    process.send_signal(signal.SIGKILL)
    process.wait()
    size = part.stat().st_size
    assert not (cache / "shop").exists()
    site.pause_s = 0.0
    get("shop")
    assert site.asked[-1] == f"bytes={size}-"
    assert load("shop").num_users == 50


DIES = "import os\n" + KILLED.replace("datasets.get(", "datasets._write_tables = lambda *_: os._exit(9)\ndatasets.get(")


def test_a_process_that_dies_while_reading_does_not_fetch_twice(site: Site, cache: Path) -> None:
    for length in (-1, None):  # a server that says how much it sends, and one that does not
        site.length, site.asked = length, []
        assert subprocess.run([sys.executable, "-c", DIES, site.url, DIGEST]).returncode == 9
        assert not (cache / "shop").exists() and len(site.asked) == 1
        get("shop")
        assert len(site.asked) == 1 and os.listdir(cache) == ["shop"]
        shutil.rmtree(cache / "shop")


def test_a_second_process_waits_until_the_tables_are_written_too(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would write to the same tables, and the first one would install what is half-written."""
    write, seen = datasets._write_tables, []

    def written(*arguments: object) -> None:
        with pytest.raises(Interrupted, match="another process is fetching"):
            get("shop")
        seen.append(sorted(os.listdir(cache)))
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(datasets, "_write_tables", written)
    get("shop")
    assert seen == [[".shop.part"]] and os.listdir(cache) == ["shop"]
    assert len(load("shop")) == 20_000


def test_what_another_process_has_fetched_meanwhile_is_taken(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = get("shop", folder=cache / "elsewhere")
    asked, lock = len(site.asked), datasets.locked

    def late(path: Path):
        shutil.move(ready, cache / "shop")  # between the first look and the lock
        return lock(path)

    monkeypatch.setattr(datasets, "locked", late)
    assert get("shop") == cache / "shop" and len(site.asked) == asked
    assert sorted(os.listdir(cache)) == ["elsewhere", "shop"]


def test_a_folder_of_that_name_is_taken_or_refused_before_anything_is_fetched(site: Site, cache: Path) -> None:
    (cache / "shop").mkdir(parents=True)
    (cache / "shop" / "notes").write_text("mine")
    with pytest.raises(DataError, match=r"shop holds files, and no interactions among them; move it away first"):
        get("shop")
    (cache / "shop" / "u.data").write_text("1\t2\t3\t4\n")  # an original that `load` knows
    assert not datasets.is_here("other") and datasets.is_here("shop")
    assert get("shop") == cache / "shop" and len(load("shop")) == 1
    assert site.asked == [] and os.listdir(cache) == ["shop"]


# Terms ----------------------------------------------------------------------------------------------------------------


def test_terms_are_shown_first(
    site: Site, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["data", "get", "shop"]) == 2
    error = capsys.readouterr().err
    assert "terms: be kind" in error and "http://page" in error and "add --yes" in error
    assert site.asked == []
    answers = iter(["no\n", "y\n"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: next(answers), raising=False)
    assert cli.main(["data", "get", "shop"]) == 2
    assert site.asked == [] and "not fetched" in capsys.readouterr().err
    assert cli.main(["data", "get", "shop"]) == 0
    assert cli.main(["data", "get", "shop", "--json"]) == 0  # it is here: nothing to accept
    assert len(site.asked) == 1


def test_yes_accepts_the_terms(site: Site, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "get", "shop", "--yes", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"name": "shop", "path": str(cache / "shop")}
    assert "terms: be kind" in printed.err


def test_load_says_what_it_fetches(site: Site, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(load("shop")) == 20_000
    assert "terms: be kind" in capsys.readouterr().err
