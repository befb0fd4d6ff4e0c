"""InteractionLog: the sort, the vocabulary, k-core, the digest, and files that are whole or not there."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dglrec.data import InteractionLog
from dglrec.data.files import atomic_write
from dglrec.errors import DataError


def rows_of(log: InteractionLog) -> list[tuple[str, str, float]]:
    """The rows with their ids: [(user, item, time)]."""
    time = np.zeros(len(log)) if log.time is None else log.time
    return list(zip(log.user_ids[log.user].tolist(), log.item_ids[log.item].tolist(), time.tolist(), strict=True))


@pytest.fixture
def log() -> InteractionLog:
    return InteractionLog.from_arrays(
        ["bob", "ann", "bob", "ann", "bob"],
        ["tea", "tea", "jam", "oat", "oat"],
        time=[30.0, 5.0, 10.0, 5.0, 10.0],
        rating=[5, np.nan, 3, 4, 1],
        titles={"tea": "Tea, green", "oat": "Oats ü"},
        texts={"tea": "Tea, green. Drinks", "jam": "Spreads", "oat": "Oats ü"},
        name="kitchen",
    )


def test_rows_are_sorted_by_user_time_and_file_order(log: InteractionLog) -> None:
    assert log.user_ids.tolist() == ["bob", "ann"]  # order of first appearance
    assert log.item_ids.tolist() == ["tea", "jam", "oat"]
    assert rows_of(log) == [
        ("bob", "jam", 10.0),
        ("bob", "oat", 10.0),  # tied with the row before: file order
        ("bob", "tea", 30.0),
        ("ann", "tea", 5.0),
        ("ann", "oat", 5.0),
    ]
    assert log.rating is not None
    np.testing.assert_array_equal(log.rating, np.array([3, 1, 5, np.nan, 4], dtype=np.float32))
    assert log.titles is not None
    assert log.titles.tolist() == ["Tea, green", "", "Oats ü"]
    assert log.offsets.tolist() == [0, 3, 5]
    assert log.position.tolist() == [0, 1, 2, 0, 1]
    assert (log.user.dtype, log.item.dtype, log.time.dtype, log.rating.dtype) == (
        np.int64,
        np.int64,
        np.float64,
        np.float32,
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=40))
def test_the_sort_is_the_stable_sort_of_python(events: list[tuple[int, int, int]]) -> None:
    users, items, times = zip(*events, strict=True)
    log = InteractionLog.from_arrays(users, items, time=times)
    first = {user: number for number, user in reversed(list(enumerate(users)))}
    expected = sorted(events, key=lambda event: (first[event[0]], event[2]))
    assert rows_of(log) == [(str(user), str(item), float(time)) for user, item, time in expected]


def test_without_times_rows_stay_in_file_order() -> None:
    log = InteractionLog.from_arrays([2, 1, 2, 1], [9, 8, 7, 6])
    assert log.time is None
    assert rows_of(log) == [("2", "9", 0), ("2", "7", 0), ("1", "8", 0), ("1", "6", 0)]


def test_indices_with_a_vocabulary_keep_users_and_items_without_rows() -> None:
    log = InteractionLog.from_arrays([2, 0], [1, 1], user_ids=["a", "b", "c"], item_ids=["x", "y"], titles=["X", None])
    assert (log.num_users, log.num_items, log.offsets.tolist()) == (3, 2, [0, 1, 1, 2])
    assert log.titles is not None
    assert log.titles.tolist() == ["X", ""]


def test_datetimes_become_seconds() -> None:
    log = InteractionLog.from_arrays(["a"], ["x"], time=np.array(["2020-01-01T00:00:01.5"], dtype="datetime64[ms]"))
    assert log.time is not None
    assert log.time.tolist() == [1577836801.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": [], "item": []}, "no interactions"),
        ({"user": ["a"], "item": ["x", "y"]}, "'item' has 2 rows"),
        ({"user": ["a"], "item": ["x"], "time": [1, 2]}, "'time' has 2 rows"),
        ({"user": ["a", "a"], "item": ["x", "y"], "time": [1, np.nan]}, "time of row 1 is nan"),
        ({"user": ["a", "a"], "item": ["x", "y"], "time": [np.inf, 1]}, "time of row 0 is inf"),
        ({"user": ["a"], "item": ["x"], "time": np.array(["NaT"], dtype="datetime64[s]")}, "time of row 0 is nan"),
        ({"user": ["a"], "item": ["x"], "time": ["soon"]}, "'time' holds something else than numbers"),
        ({"user": ["a", ""], "item": ["x", "y"]}, "row 1 has an empty user id"),
        ({"user": ["a", "b"], "item": np.array(["x", None], dtype=object)}, "row 1 has no item id"),
        ({"user": [1.0], "item": ["x"]}, "'user' holds float64"),
        ({"user": [[1]], "item": ["x"]}, "2 dimensions"),
        ({"user": [0], "item": ["x"], "user_ids": ["a", "a"]}, "holds an id twice"),
        ({"user": [3], "item": ["x"], "user_ids": ["a"]}, "user indices run from 3 to 3; expected 0 to 0"),
        ({"user": ["a"], "item": ["x"], "user_ids": ["a"]}, "expected integer indices"),
        ({"user": ["a"], "item": ["x"], "titles": ["X", "Y"]}, "2 titles for 1 items"),
        ({"user": ["a"], "item": ["x"], "texts": ["X", "Y"]}, "2 texts for 1 items"),
    ],
)
def test_bad_columns_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        InteractionLog.from_arrays(**arguments)  # type: ignore[arg-type]


def test_the_constructor_refuses_rows_out_of_order(log: InteractionLog) -> None:
    with pytest.raises(DataError, match="not sorted"):
        InteractionLog(log.user[::-1], log.item, log.time, None, log.user_ids, log.item_ids)


def test_select_keeps_vocabulary_and_order(log: InteractionLog) -> None:
    for rows in (np.array([False, True, False, True, True]), [4, 1, 3]):
        part = log.select(rows)
        assert rows_of(part) == [("bob", "oat", 10.0), ("ann", "tea", 5.0), ("ann", "oat", 5.0)]
        assert (part.num_users, part.num_items, part.name) == (2, 3, "kitchen")
    for wrong in ([5], [-1], [1, 1], [True]):
        with pytest.raises(DataError):
            log.select(wrong)


def slow_k_core(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        kept = [(user, item) for user, item in pairs if users[user] >= k and items[item] >= k]
        if len(kept) == len(pairs):
            return kept
        pairs = kept


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60), st.integers(1, 4)
)  # repeats occur, and count
def test_k_core_equals_removing_one_round_at_a_time(pairs: list[tuple[int, int]], k: int) -> None:
    log = InteractionLog.from_arrays([user for user, _ in pairs], [item for _, item in pairs])
    expected = slow_k_core(pairs, k)
    if not expected:
        with pytest.raises(DataError, match=f"the {k}-core of 'log' is empty"):
            log.k_core(k)
        return
    core = log.k_core(k)
    assert sorted((int(user), int(item)) for user, item, _ in rows_of(core)) == sorted(expected)
    assert np.bincount(core.user, minlength=core.num_users).min() >= k
    assert np.bincount(core.item, minlength=core.num_items).min() >= k
    assert core.filters == (f"{k}-core",)


def test_one_pass_core_counts_items_once() -> None:
    """b has two events, and loses one of them with item z: it goes, and x is left below its number."""
    pairs = [("a", "x"), ("a", "y"), ("a", "y"), ("b", "x"), ("b", "z"), ("c", "z")]
    users, items = zip(*pairs, strict=True)
    log = InteractionLog.from_arrays(users, items, time=range(6), titles={"x": "X", "y": "Y", "z": "Z"})
    once = log.one_pass_core(2, 2)
    assert once.user_ids.tolist() == ["a"]
    assert once.item_ids[once.item].tolist() == ["x", "y", "y"]  # x has one event now, and stays
    assert once.titles is not None and once.titles.tolist() == ["X", "Y"]
    assert once.filters == ("one-pass core (2 a user, 2 an item)",)
    assert len(log.k_core(2)) == 2
    assert log.one_pass_core(1, 1).digest() == log.digest()
    with pytest.raises(DataError, match="takes 0 and 2 events; expected at least 1"):
        log.one_pass_core(0, 2)
    with pytest.raises(DataError, match="no user of 'log' has 9 events"):
        log.one_pass_core(9, 1)


def test_k_core_needs_a_chain_of_rounds_and_carries_titles() -> None:
    # z has one row; without it c has one; without c, y has one; ...: only a and b with x and w are left
    users = ["a", "a", "b", "b", "c", "c", "d", "d"]
    items = ["x", "w", "x", "w", "y", "z", "y", "v"]
    said = {"x": "X", "w": "W", "v": "V"}
    log = InteractionLog.from_arrays(users, items, titles=said, texts=said)
    core = log.k_core(2)
    assert core.user_ids.tolist() == ["a", "b"]
    assert core.titles is not None
    assert core.titles.tolist() == ["X", "W"]
    assert core.texts is not None and core.texts.tolist() == ["X", "W"]
    assert core.k_core(1).filters == ("2-core", "1-core")
    with pytest.raises(DataError, match="k_core is 0"):
        log.k_core(0)


def test_ids_are_found_and_typos_name_the_closest(log: InteractionLog) -> None:
    assert log.user_index("ann") == 1
    assert log.item_index(["oat", "tea"]).tolist() == [2, 0]
    assert log.item_index(log.item_ids).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"unknown user 'anne'; did you mean 'ann'\?"):
        log.user_index("anne")
    with pytest.raises(DataError, match="unknown item 'zebra'; known ids look like 'tea'"):
        log.item_index(["tea", "zebra"])


def test_a_typo_is_explained_fast_in_a_large_vocabulary() -> None:
    numbers = np.arange(200_000)
    log = InteractionLog.from_arrays(numbers, numbers, user_ids=[f"U{n:07}" for n in numbers], item_ids=numbers)
    with pytest.raises(DataError, match="did you mean 'U00"):
        log.user_index("U001234x")


def test_the_digest_knows_rows_order_and_ids_and_nothing_else(log: InteractionLog) -> None:
    def make(**changes: object) -> str:
        columns = {"user": ["a", "a", "b"], "item": ["x", "y", "x"], "time": [1, 1, 2], "rating": [1, np.nan, 2]}
        return InteractionLog.from_arrays(**(columns | changes)).digest()  # type: ignore[arg-type]

    digest = make()
    assert digest == make(name="other", titles={"x": "X"}, texts={"x": "X"})
    changed = [
        make(item=["y", "x", "x"]),  # a tie in another order
        make(time=[1, 1, 3]),
        make(time=None),
        make(rating=[1, 1, 2]),
        make(rating=None),
        make(user=["a", "a", "c"]),
    ]
    assert len({digest, *changed}) == 1 + len(changed)
    # Pinned: runs that were saved with this digest must be found again by a later version.
    assert digest == "474f6bf762578735440cd1aba681c7c02eef1a74b1dbd685c1f49951d525b9c0"


def test_save_and_load_are_inverse(log: InteractionLog, tmp_path: Path) -> None:
    for version in (log, log.k_core(1), InteractionLog.from_arrays(["a"], ["x"])):
        version.save(tmp_path / "log.npz")
        back = InteractionLog.load(tmp_path / "log.npz")
        assert back.digest() == version.digest()
        assert (back.name, back.filters) == (version.name, version.filters)
        assert (back.time is None, back.rating is None) == (version.time is None, version.rating is None)
        for saved, own in ((back.titles, version.titles), (back.texts, version.texts)):
            assert (saved is None) == (own is None)
            assert saved is None or saved.tolist() == own.tolist()
    assert os.listdir(tmp_path) == ["log.npz"]


def test_load_refuses_what_save_did_not_write(log: InteractionLog, tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    with pytest.raises(DataError, match="no file"):
        InteractionLog.load(path)
    for content in (b"", b"hello", pickle.dumps(log.user)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged or not a saved log"):
            InteractionLog.load(path)
    np.savez(path, user=log.user)
    with pytest.raises(DataError, match="not a log"):
        InteractionLog.load(path)
    np.savez(path, evil=np.array([log], dtype=object))  # a pickle inside, which is never opened
    with pytest.raises(DataError, match="not a log"):
        InteractionLog.load(path)


def test_load_unpacks_no_bombs(log: InteractionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.npz"
    many = InteractionLog.from_arrays(["a"] * 100_000, ["x"] * 100_000)
    many.save(path)
    assert InteractionLog.load(path).digest() == many.digest()
    monkeypatch.setattr("dglrec.data.log._ALWAYS_UNPACKED", 1 << 20)
    with pytest.raises(DataError, match=r"unpacks from [\d,]+ bytes to 1,\d+,\d+, which no log does"):
        InteractionLog.load(path)
    log.save(path)
    assert InteractionLog.load(path).digest() == log.digest()


def test_a_changed_byte_is_noticed(log: InteractionLog, tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    log.save(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(bytes(broken))
        try:
            back = InteractionLog.load(path)
        except DataError as error:  # either outcome is right; a wrong log, or another exception, is not
            message = str(error)
        else:  # a byte that zip does not read, such as a date
            message = f"{path}"
            assert back.digest() == log.digest()
            assert (back.name, back.filters) == (log.name, log.filters)
        assert str(path) in message
        assert "\n" not in message
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError):
            InteractionLog.load(path)


def test_a_changed_array_is_noticed_even_where_zip_is_fine(log: InteractionLog, tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    log.save(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays["item"] = arrays["item"][::-1]
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="was changed after it was saved"):
        InteractionLog.load(path)
    del arrays["item"]
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="not a complete log"):
        InteractionLog.load(path)


FULL_DISK = """
import resource, signal, sys
from dglrec.data import InteractionLog
from dglrec.errors import DataError
log = InteractionLog.from_arrays(range(20_000), range(20_000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # no file may grow beyond this
try:
    log.save(sys.argv[1])
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(log: InteractionLog, tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    log.save(path)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {path}: File too large; nothing was changed there\n"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["log.npz"]


def test_a_folder_that_does_not_exist(log: InteractionLog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file or directory; nothing was changed"):
        log.save(tmp_path / "missing" / "log.npz")


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_reading_a_saved_log_needs_no_polars(log: InteractionLog, tmp_path: Path) -> None:
    log.save(tmp_path / "log.npz")
    code = (
        "import sys; sys.modules['polars'] = None\n"
        f"from dglrec.data import load, leave_one_out; log = load({str(tmp_path / 'log.npz')!r})\n"
        "print(len(log))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5"]
