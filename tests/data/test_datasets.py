"""load: names, folders, paths and frames; get: a download is checked, converted, and there complete or not at all."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import itertools
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dglrec.data import InteractionLog, datasets, get, list_datasets, load, sample
from dglrec.data.datasets import REGISTRY, Source, find_table, table_digest
from dglrec.data.forms import FORMATS
from dglrec.errors import DataError

TABLE = "user_id\titem_id\ttimestamp\n" + "".join(f"u{n % 3}\ti{n % 4}\t{n}\n" for n in range(12))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An empty folder for DGLREC_DATA, and the cache (which does not exist yet)."""
    given = tmp_path / "given"
    given.mkdir()
    monkeypatch.setenv("DGLREC_DATA", str(given))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return given, tmp_path / "home" / "dglrec"


def put(folder: Path, name: str, text: str = TABLE, file: str = "interactions.tsv") -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / file).write_text(text)
    return folder / name


# load -----------------------------------------------------------------------------------------------------------------


def test_a_name_is_looked_up_in_the_given_folder_then_in_the_cache(places: tuple[Path, Path]) -> None:
    given, cache = places
    put(cache, "shop", TABLE.replace("u0", "cached"))
    assert "cached" in load("shop").user_ids
    put(given, "shop")
    log = load("shop")
    assert (log.name, log.user_ids.tolist(), log.titles) == ("shop", ["u0", "u1", "u2"], None)


def test_titles_lie_beside_the_interactions(places: tuple[Path, Path], tmp_path: Path) -> None:
    folder = put(places[0], "shop")
    put(places[0], "shop", "item_id,title\ni1,Tea\nunknown,Oats\n", "items.csv")
    for source in ("shop", folder, folder / "interactions.tsv", str(folder) + "/"):
        log = load(source)
        assert log.titles is not None
        assert log.titles[log.item_index("i1")] == "Tea"
        assert log.name == "shop"
    assert load("shop").texts is None
    put(places[0], "shop", "item_id,title,brand\ni1,Tea,Leaf\ni0,,Pot\n", "items.csv")
    other = tmp_path / "clicks.tsv"
    other.write_text(TABLE)
    for log in (load("shop"), load(pd.read_csv(other, sep="\t"), items=folder / "items.csv")):
        assert log.texts is not None
        assert log.texts[log.item_index(["i0", "i1"])].tolist() == ["Pot", "Tea. Leaf"]
    assert load(other).titles is None
    assert load(other, items=folder / "items.csv", name="mine").titles is not None
    assert load(pd.read_csv(other, sep="\t"), items=folder / "items.csv", name="mine").name == "mine"


def test_load_passes_on_filter_order_and_saved_logs(places: tuple[Path, Path], tmp_path: Path) -> None:
    put(places[0], "shop")
    log = load("shop", k_core=3)
    assert log.filters == ("3-core",)
    assert load("shop", order="file").time is None
    log.save(tmp_path / "log.npz")
    assert load(tmp_path / "log.npz").digest() == log.digest() == load(log).digest()
    assert load(str(tmp_path / "log.npz"), order="file").time is None
    with pytest.raises(DataError, match="order is 'rows'"):
        load("shop", order="rows")  # type: ignore[arg-type]


def test_load_draws_samples() -> None:
    assert load("sample").digest() == sample("shop").digest()
    assert load("sample:grammar").name == "sample-grammar"
    with pytest.raises(DataError, match="unknown kind of sample 'gramar'; did you mean 'grammar'"):
        load("sample:gramar")


def test_what_is_not_found_is_explained(places: tuple[Path, Path], tmp_path: Path) -> None:
    given, cache = places
    put(given, "bookshop")
    with pytest.raises(DataError, match=rf"no data set 'bokshop' in {given} or {cache}; did you mean 'bookshop'\?"):
        load("bokshop")
    with pytest.raises(DataError, match="did you mean 'amazon-beauty'"):
        load("amazon_beauty")
    with pytest.raises(DataError, match="no file or folder bookshop"):
        load("./bookshop")
    for file in ("clicks.csv", "clicks.jsonl", "clicks.zip"):
        with pytest.raises(DataError, match=f"no file or folder {file}"):
            load(file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no interactions; expected one of interactions\.tsv\.gz"):
        load(tmp_path / "empty")
    with pytest.raises(DataError, match="cannot load int; expected a name, a path"):
        load(7)
    with pytest.raises(DataError, match="no data set ''"):
        load("")


def test_list_names_what_is_here_what_can_be_fetched_and_the_samples(places: tuple[Path, Path]) -> None:
    given, cache = places
    put(given, "bookshop")
    put(cache, "ml-1m")
    put(cache, ".half.part")
    (given / "notes").mkdir()
    infos = {info.name: info for info in list_datasets()}
    assert {"bookshop", "sample:shop", *REGISTRY} <= set(infos)
    assert not {"notes", ".half.part"} & set(infos)
    assert (infos["bookshop"].place, infos["bookshop"].path) == ("DGLREC_DATA", given / "bookshop")
    assert (infos["ml-1m"].place, infos["ml-1m"].path) == ("cache", cache / "ml-1m")
    assert infos["ml-1m"].terms.startswith("research use")
    assert infos["ml-20m"].place == "download"
    assert infos["selfgnn-gowalla"].place == "original"
    assert "loc-gowalla_totalCheckins.txt.gz" in infos["selfgnn-gowalla"].terms


# get ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served over HTTP, and its address."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


RATINGS = [(user, item, 1 + (user + item) % 5, 1000 - 10 * user + item) for user in range(1, 6) for item in range(1, 8)]


def archive(files: dict[str, str], encoding: str = "utf-8") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in files.items():
            file.writestr(name, text.encode(encoding))
    return buffer.getvalue()


def originals() -> dict[str, bytes]:
    """Files in the forms of the sources, all with the same ratings; movie 3 has no genre."""
    genres = [f"{number}" if number != 3 else "" for number in range(1, 8)]
    names = {"1": "Comedy|Drama"}
    rows = [[str(value) for value in row] for row in RATINGS]
    return {
        "movielens-csv": archive(
            {
                "ml/links.csv": "movieId,imdbId\n",
                "ml/ratings.csv": "userId,movieId,rating,timestamp\n" + "".join(",".join(row) + "\n" for row in rows),
                "ml/movies.csv": "movieId,title,genres\n"
                + "".join(
                    f'{n},"Film {n}, The Café",{names.get(g, "Drama") if g else "(no genres listed)"}\n'
                    for n, g in enumerate(genres, 1)
                ),
            }
        ),
        "movielens-1m": archive(
            {
                "ml-1m/ratings.dat": "".join("::".join(row) + "\n" for row in rows),
                "ml-1m/movies.dat": "".join(
                    f"{n}::Film {n}, The Café::{names.get(g, 'Drama') if g else ''}\n" for n, g in enumerate(genres, 1)
                ),
            },
            "latin-1",
        ),
        "movielens-100k": archive(
            {
                "ml-100k/u.data": "".join("\t".join(row) + "\n" for row in rows),
                "ml-100k/u.genre": "unknown|0\nComedy|1\nDrama|2\n\n",
                "ml-100k/u.item": "".join(
                    f"{n}|Film {n}, The Café|01-Jan-1995||http://x|0|{int(n == 1)}|{int(n != 3)}{'|0' * 16}\n"
                    for n in range(1, 8)
                ),
            },
            "latin-1",
        ),
        "amazon-ratings": "".join(",".join(row) + "\n" for row in rows).encode(),
        "gowalla": gzip.compress(
            "".join(
                f"{user}\t{np.datetime64(int(at), 's')}Z\t1.5\t2.5\t{item}\n" for user, item, _, at in rows
            ).encode()
        ),
    }


@pytest.mark.parametrize("format", originals())
def test_get_fetches_checks_and_converts(
    format: str, places: tuple[Path, Path], site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = site
    content = originals()[format]
    file = "original.gz" if format == "gowalla" else "original"
    (folder / file).write_bytes(content)
    source = Source(f"{url}/{file}", format, "https://example.org", "as you like", hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(REGISTRY, "films", source)
    steps: list[tuple[int, int | None]] = []
    path = get("films", progress=lambda done, size: steps.append((done, size)))
    assert steps[-1] == (len(content), len(content))
    assert path == places[1] / "films"
    expected = {"interactions.tsv.gz", "source.json"} | ({"items.tsv.gz"} if "movielens" in format else set())
    assert set(os.listdir(path)) == expected
    assert os.listdir(places[1]) == ["films"]

    log = load("films")
    users, items, ratings, times = zip(*RATINGS, strict=True)
    same = InteractionLog.from_arrays(users, items, times, None if format == "gowalla" else ratings)
    assert log.digest() == same.digest()
    assert table_digest(log) == table_digest(same)
    about = json.loads((path / "source.json").read_text())
    assert (about["sha256"], about["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (about["table_sha256"], about["checked"]) == (table_digest(same), "sha256")
    if "movielens" in format:
        assert log.titles is not None
        assert log.titles[0] == "Film 1, The Café"
        import polars as pl

        table = pl.read_csv(path / "items.tsv.gz", separator="\t", infer_schema=False)
        assert table["categories"].fill_null("").to_list()[:3] == ["Comedy | Drama", "Drama", ""]

    (folder / file).unlink()
    assert get("films") == path  # it is there: nothing is fetched


def test_a_name_that_is_not_here_is_fetched_by_load(
    places: tuple[Path, Path], site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = site
    (folder / "r.csv").write_bytes(originals()["amazon-ratings"])
    users, items, ratings, times = zip(*RATINGS, strict=True)
    digest = table_digest(InteractionLog.from_arrays(users, items, times, ratings).k_core(5))
    monkeypatch.setitem(
        REGISTRY, "shop", Source(f"{url}/r.csv", "amazon-ratings", "", "", table_sha256=digest, k_core=5)
    )
    with pytest.raises(DataError, match="no data set 'shop'"):
        find_table("shop", download=False)
    assert len(load("shop")) == len(RATINGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "expected 000000000000"),
        ({"table_sha256": "0" * 64, "sha256": None}, "the source has changed since"),
        ({"url": "{}/missing"}, r"cannot fetch .*/missing \(.*404"),
        ({"url": "http://127.0.0.1:9/closed"}, r"cannot fetch http://127.0.0.1:9/closed \(.*refused"),
        ({"format": "movielens-csv"}, "not in the expected form"),
    ],
)
def test_a_failed_fetch_leaves_nothing(
    change: dict[str, object],
    message: str,
    places: tuple[Path, Path],
    site: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, url = site
    content = originals()["amazon-ratings"]
    (folder / "r.csv").write_bytes(content)
    fields: dict[str, object] = {"url": "{}/r.csv", "sha256": hashlib.sha256(content).hexdigest()} | change
    fields["url"] = str(fields["url"]).format(url)
    arguments = {"format": "amazon-ratings", "page": "", "terms": ""} | fields
    monkeypatch.setitem(REGISTRY, "shop", Source(**arguments))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message) as error:
        get("shop")
    assert len(str(error.value).splitlines()) <= 2
    assert os.listdir(places[1]) == []


def bombs() -> dict[str, tuple[str, bytes, str]]:
    """Small originals that are not what they should be: file -> (format, content, what is said)."""
    zeros, ratings = bytes(1 << 25), {"ml/ratings.csv": "userId,movieId,rating,timestamp\n1,2,3,4\n1,2,x,4\n"}
    packed, locked = io.BytesIO(), io.BytesIO(archive(ratings))
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("ml/ratings.csv", zeros)
    locked.getbuffer()[6] |= 1  # it says that it is encrypted, here and in the list at its end
    locked.getbuffer()[locked.getvalue().index(b"PK\x01\x02") + 8] |= 1
    return {
        "zeros.gz": ("gowalla", gzip.compress(zeros), "original.gz unpacks to more than 100 times its size"),
        "cut.gz": ("gowalla", originals()["gowalla"][:-9], "original.gz is cut off"),
        "zeros.zip": ("movielens-csv", packed.getvalue(), "ratings.csv would unpack to 33,554,432 bytes"),
        "locked.zip": ("movielens-csv", locked.getvalue(), "encrypted"),
        "other.zip": ("movielens-1m", archive({"a": "b"}), "no ratings.dat in the archive"),
        "no.zip": ("movielens-1m", b"PK", "not a zip file"),
        "wrong.zip": ("movielens-csv", archive(ratings | {"movies.csv": ""}), "ratings.csv line 3: rating is 'x'"),
        "short.csv": ("amazon-ratings", b"a,b,3,4\na,b,3\n", "original.csv line 2: the number of fields is 3"),
        "timeless.csv": ("amazon-ratings", b"a,b,3,\n", "there are no times"),
    }


@pytest.mark.parametrize("file", bombs())
def test_an_original_that_is_a_lie_is_refused_in_bounds(
    file: str, places: tuple[Path, Path], site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    format, content, message = bombs()[file]
    (site[0] / file).write_bytes(content)
    monkeypatch.setitem(REGISTRY, "films", Source(f"{site[1]}/{file}", format, "", ""))
    with pytest.raises(DataError, match=f"{file} is not in the expected form .*{message}"):
        get("films")
    assert os.listdir(places[1]) == []


FULL_DISK = """
import resource, signal, sys
from dglrec.data import datasets
from dglrec.errors import DataError
datasets.REGISTRY["shop"] = datasets.Source(sys.argv[1], "amazon-ratings", "", "", sha256="0" * 64)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # no file may grow beyond this
try:
    datasets.get("shop")
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk_leaves_nothing(places: tuple[Path, Path], site: tuple[Path, str]) -> None:
    (site[0] / "r.csv").write_bytes(b"1,2,3,4\n" * 50_000)
    command = [sys.executable, "-c", FULL_DISK, f"{site[1]}/r.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {places[1] / 'shop'}: File too large; nothing was changed there\n"
    assert os.listdir(places[1]) == []


def test_get_knows_its_names() -> None:
    with pytest.raises(DataError, match="data set 'ml-1' cannot be fetched; did you mean 'ml-1m'"):
        get("ml-1")


def test_the_registry_is_complete() -> None:
    for name, source in REGISTRY.items():
        assert source.format in FORMATS, name
        assert source.url.startswith("https://"), name
        assert source.terms, name
        digests = [digest for digest in (source.sha256, source.table_sha256) if digest is not None]
        assert ("unknown" in source.about(name)) is not bool(digests)
        assert all(len(digest) == 64 and int(digest, 16) for digest in digests), name


def test_the_table_digest_sees_the_order_of_ties_and_no_other() -> None:
    rng = np.random.default_rng(0)
    users, items, times = rng.integers(0, 9, (3, 100))
    one = InteractionLog.from_arrays(users, items, times)
    grouped = np.argsort(items, kind="stable")  # another order of the lines, users and items numbered otherwise
    same_ties = np.lexsort((np.arange(100), times))  # lines of one time stay in their order
    assert InteractionLog.from_arrays(users[same_ties], items[same_ties], times[same_ties]).digest() != one.digest()
    for order, same in ((same_ties, True), (grouped, False)):
        other = InteractionLog.from_arrays(users[order], items[order], times[order])
        assert (table_digest(other) == table_digest(one)) is same
        assert np.array_equal(last_items(other), last_items(one)) is same
    moved = InteractionLog.from_arrays(users, items, times + (np.arange(100) == 0))
    assert table_digest(moved) != table_digest(one)


def last_items(log: InteractionLog) -> list[str]:
    """The last item of each user, users sorted by id."""
    last = log.item_ids[log.item[log.offsets[1:] - 1]]
    return [str(last[user]) for user in np.argsort(log.user_ids)]


def test_ties_of_a_download_are_in_the_order_of_the_items_whatever_the_order_of_its_lines(tmp_path: Path) -> None:
    lines = ["ann,tea,5.0,100", "ann,jam,4.0,100", "bob,tea,1.0,300", "ann,egg,3.0,50", "bob,jam,2.0,200"]
    path = tmp_path / "ratings.csv"
    digests = set()
    for order in itertools.permutations(lines):
        path.write_text("\n".join(order) + "\n")
        log, items = datasets._read_original("shop", Source("", "amazon-ratings", "", ""), path)
        assert items is None
        assert log.item_ids[log.item[log.user == log.user_index("ann")]].tolist() == ["egg", "jam", "tea"]
        digests.add(table_digest(log))
    assert len(digests) == 1


def test_a_file_in_the_working_directory_needs_no_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Beauty.txt").write_text("1 2 3\n")
    assert len(load("Beauty.txt", format="lists")) == 2
    with pytest.raises(DataError, match=r"Beauty.txt is not a table that can be read; .* or a format such as 'lists'"):
        load("Beauty.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_file_on_disk_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zeros.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zeros.csv"):  # reading either would not end
        with pytest.raises(DataError, match=f"{name} is neither a file nor a folder"):
            load(tmp_path / name)
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(DataError, match=r"no file or folder .*loop.csv \(.*symbolic links"):
        load(tmp_path / "loop.csv")
    for name in ("a" * 300 + ".csv", "a\0b.csv"):
        with pytest.raises(DataError, match="no file or folder"):
            load(tmp_path / name)


def test_a_dot_is_the_working_directory_and_no_name(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    given, _ = places
    folder = put(given.parent, "shop")
    (given / "interactions.tsv").write_text(TABLE + "u9\ti9\t99\n")
    (folder / "deeper").mkdir()
    for place, name in ((folder, "."), (folder / "deeper", "..")):
        monkeypatch.chdir(place)
        assert len(load(name)) == 12


@pytest.mark.parametrize("source", ["sample", "sample:grammar", "selfgnn-yelp", "log.npz", "log"])
@pytest.mark.parametrize("argument", [{"columns": {"user_id": "who"}}, {"items": "titles.csv"}, {"format": "yelp"}])
def test_arguments_that_a_source_does_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, argument: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    log = InteractionLog.from_arrays(["a"] * 4, ["p", "q", "r", "s"], time=[1, 2, 3, 4])
    log.save("log.npz")
    with pytest.raises(DataError, match=rf"^{next(iter(argument))} is .*, and .* takes none; leave it out$"):
        load(log if source == "log" else source, **argument)


def test_a_frame_takes_no_format() -> None:
    frame = pd.DataFrame({"user_id": ["a"], "item_id": ["p"], "timestamp": [1]})
    with pytest.raises(DataError, match="format is 'yelp', and a frame takes none"):
        load(frame, format="yelp")
