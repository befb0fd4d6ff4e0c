"""check: figures of a known log, problems with their lines, and no file that it falls over."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from dglrec.data import InteractionLog, load, sample
from dglrec.data.check import check, statistics

DAY = 86_400
GOOD = [  # ann has 4 events, the last two on one day; bob 3; cid 1
    ("ann", "a", 1, 10 * DAY),
    ("ann", "b", "", 11 * DAY),
    ("ann", "a", 5, 13 * DAY),
    ("ann", "c", 3, 13 * DAY),
    ("bob", "a", 2, 10 * DAY),
    ("bob", "b", 2, 20 * DAY),
    ("bob", "c", 2, 30 * DAY),
    ("cid", "a", 4, 1000 * DAY),
]


def write(path: Path, rows: list[tuple[object, ...]], header: str = "user_id\titem_id\trating\ttimestamp") -> Path:
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


def test_the_figures_of_a_known_log(tmp_path: Path) -> None:
    write(tmp_path / "interactions.tsv", GOOD)
    write(tmp_path / "items.tsv", [("a", "Tea"), ("b", "")], "item_id\ttitle")
    report = check(tmp_path)
    assert report.ok
    assert report.path == str(tmp_path / "interactions.tsv")
    figures = report.statistics
    assert figures["size"] == {"interactions": 8, "users": 3, "items": 3, "density": 7 / 9}
    assert figures["history"] == {"min": 1, "median": 3, "mean": 8 / 3, "p90": 3.8, "max": 4, "users_below_3": 1}
    assert figures["items"]["max"] == 4
    assert figures["times"] == {"first": 10 * DAY, "last": 1000 * DAY, "days": 990, "granularity": "days"}
    assert figures["ties"] == {"events": 1, "share": 1 / 8}
    assert figures["repeats"] == {"events": 1, "share": 1 / 8}
    one = figures["leave_one_out"]
    assert (one["users"], one["tie_decided_targets_test"], one["tie_decided_targets_test_share"]) == (2, 1, 0.5)
    assert figures["core"] == {"interactions": 0, "users": 0, "items": 0, "k": 5, "already": False}
    assert figures["titles"] == {"items_with_title": 1}
    assert figures["ratings"] == {"given": 7, "min": 1, "mean": 19 / 7, "max": 5}
    text = str(report)
    assert "8 of 3 users and 3 items (density 77.778%)" in text
    assert "a tie decides 1 test targets (50.0%) and 1 validation targets (50.0%)" in text
    assert "in whole days" in text
    assert "Nothing is wrong." in text
    assert "for 50% of the users the last two events share a time" in text
    assert "1 users have fewer than 3 events" in text
    assert json.loads(json.dumps(report.to_dict()))["statistics"]["size"]["users"] == 3


@pytest.mark.parametrize(
    ("times", "granularity"),
    [
        ([0, 3 * DAY], "days"),
        ([9 * 3600 + 7, 9 * 3600 + 7 + DAY], "days"),  # days of another time zone
        ([3600, 3 * 3600], "hours"),
        ([60, 180], "minutes"),
        ([1, 3], "seconds"),
        ([1, 1.5], "fractions of a second"),
        ([5, 5], "one moment"),
    ],
)
def test_granularity(times: list[float], granularity: str) -> None:
    frame = pl.DataFrame({"user_id": ["a", "a"], "item_id": ["x", "y"], "timestamp": times}, strict=False)
    assert statistics(load(frame))["times"]["granularity"] == granularity


def test_every_wrong_line_is_named(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = list(GOOD)
    rows[2] = ("ann", "a", "five", 13 * DAY)
    rows[4] = ("bob", "", 2, "soon")
    rows[6] = ("bob", "c")
    report = check(write(tmp_path / "log.tsv", rows))
    assert not report.ok
    assert report.statistics == {}
    assert [(problem.line, problem.text.partition(";")[0]) for problem in report.problems] == [
        (4, "rating is 'five'"),
        (6, "item_id is empty"),
        (6, "timestamp is 'soon'"),
        (8, "the number of fields is 2, and in the header 4"),
    ]
    assert "Wrong (4):\n  line 4: rating is 'five'; expected a number, or nothing\n" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["problems"][0]["line"] == 4


def test_many_problems_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    report = check(write(tmp_path / "log.tsv", [("a", "x", "", "soon")] * 500))
    assert (report.num_problems, len(report.problems)) == (500, 20)
    assert str(report).endswith("... and 480 more")


def test_repeated_lines_are_named(tmp_path: Path) -> None:
    report = check(write(tmp_path / "log.tsv", [*GOOD, GOOD[0], GOOD[1]]))
    assert "2 lines repeat user, item and time of an earlier line, the first of them line 10" in str(report)


def test_a_view_and_a_purchase_at_one_moment_are_two_events(tmp_path: Path) -> None:
    """Of Taobao's lines views are read, and only those can repeat each other."""
    path = tmp_path / "UserBehavior.csv"
    path.write_text("u,i,c,pv,7\nu,i,c,buy,7\nu,i,c,pv,9\n")
    assert "lines repeat" not in str(check(path))
    path.write_text("u,i,c,pv,7\nu,i,c,buy,7\nu,i,c,pv,9\nu,i,c,pv,9\n")
    assert "1 lines repeat user, item and time of an earlier line, the first of them line 4" in str(check(path))


def test_repeated_rows_without_lines_are_counted(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "x", "x"]}).write_parquet(tmp_path / "log.parquet")
    assert "1 rows repeat an earlier one" in str(check(tmp_path / "log.parquet"))


def test_lines_that_only_polars_reads_are_no_duplicates(tmp_path: Path) -> None:
    """A carriage return at the end of a number is space to polars; Python's `csv` takes it for an error."""
    path = tmp_path / "log.tsv"
    path.write_bytes(b"user_id\titem_id\trating\na\tx\t1\nb\ty\t\r1\na\tx\t2\n")
    report = check(path)
    assert report.ok and "1 lines repeat user, item and time of an earlier line, the first of them line 4" in str(
        report
    )


def test_a_wrong_header_has_a_line(tmp_path: Path) -> None:
    (tmp_path / "mac.csv").write_bytes(b"user_id,item_id\ra,x\r")
    (problem,) = check(tmp_path / "mac.csv").problems
    assert problem.line == 1 and problem.text.startswith("a carriage return within the line")


def test_ratings_may_be_absent_from_a_saved_log(tmp_path: Path) -> None:
    InteractionLog.from_arrays(["a"], ["x"], rating=[float("nan")]).save(tmp_path / "log.npz")
    report = check(tmp_path / "log.npz")
    assert report.statistics["ratings"] == {"given": 0, "min": None, "mean": None, "max": None}
    assert "ratings       none" in str(report)


def test_columns_of_a_saved_log_are_refused(tmp_path: Path) -> None:
    """As `load` refuses them: they would be ignored."""
    InteractionLog.from_arrays(["a"], ["x"]).save(tmp_path / "log.npz")
    (problem,) = check(tmp_path / "log.npz", columns={"user_id": "who"}).problems
    assert "columns is {'user_id': 'who'}, and a saved log takes none" in problem.text


def test_what_is_said_of_a_small_log(tmp_path: Path) -> None:
    """The 5-core is not advised where it is empty, and events are whole."""
    rows = [(user, f"i{n}", 1, n) for user, events in (("a", 3), ("b", 4)) for n in range(events)]
    text = str(check(write(tmp_path / "log.tsv", rows)))
    assert "3 to 4 events a user, median 3.5, mean 3.5, 90 % have at most 3\n" in text
    assert "5-core        empty\n" in text and "the 5-core that the papers use is empty here" in text
    assert "k_core=5" not in text


def test_notes_on_times(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    write(path, [("a", "x", "", 1_400_000_000_000), ("a", "y", "", 1_400_000_000_001)])
    assert "look like milliseconds" in str(check(path))
    for zeros, unit in (("000000", "microseconds"), ("000000000", "nanoseconds")):
        write(path, [("a", "x", "", f"1400000000{zeros}"), ("a", "y", "", f"1400000001{zeros}")])
        assert f"look like {unit}; seconds are expected (divide by 1,{zeros[:3]},000" in str(check(path))
    write(path, [("a", "x", "", 60), ("a", "y", "", 120)])
    assert "seem to be relative" in str(check(path))
    write(path, [("a", "x", "", ""), ("a", "y", "", ""), ("a", "z", "", "")])
    report = check(path)
    assert "there are no times" in str(report)
    assert report.statistics["leave_one_out"]["users"] == 1
    assert "tie_decided_targets_test" not in report.statistics["leave_one_out"]


@pytest.mark.parametrize(
    "name", ["nothing.tsv", "log.txt", "empty.tsv", "cut.tsv.gz", "no.npz", "no.parquet", "folder"]
)
def test_what_cannot_be_read_is_reported(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "cut.tsv.gz":
        path.write_bytes(gzip.compress(b"user_id\titem_id\n" + b"a\tx\n" * 1000)[:-20])
    elif name != "nothing.tsv":
        path.write_bytes(b"" if name == "empty.tsv" else b"user_id item_id")
    report = check(path)
    assert (report.ok, report.num_problems) == (False, 1)
    assert name in report.problems[0].text
    assert len(str(report).splitlines()) == 3
    json.loads(json.dumps(report.to_dict()))


def test_bad_titles_do_not_hide_the_figures(tmp_path: Path) -> None:
    write(tmp_path / "interactions.tsv", GOOD)
    write(tmp_path / "items.tsv", [("a", "Tea", "x")], "item_id\ttitle")
    report = check(tmp_path)
    assert not report.ok
    assert "items.tsv line 2" in report.problems[0].text
    assert report.statistics["size"]["users"] == 3


def test_other_formats_and_columns(tmp_path: Path) -> None:
    log = sample("shop", users=50, items=40)
    log.save(tmp_path / "log.npz")
    assert check(tmp_path / "log.npz").statistics == statistics(log)
    pl.DataFrame({"uid": ["a", "a"], "item_id": ["x", "y"]}).write_parquet(tmp_path / "log.parquet")
    assert not check(tmp_path / "log.parquet").ok
    assert check(tmp_path / "log.parquet", columns={"user_id": "uid"}).ok


def test_half_of_a_character_is_the_only_problem(tmp_path: Path) -> None:
    path = tmp_path / "reviews_a.json"
    path.write_text('{"reviewerID": "\\ud800", "asin": "b", "overall": 5, "unixReviewTime": 3}\n')
    report = check(path)
    assert [(line, text[-41:]) for line, text in report.problems] == [(1, "half a pair of \\u escapes is no character")]


@pytest.mark.filterwarnings("error")
def test_huge_times_overflow_nothing(tmp_path: Path) -> None:
    rows = [("a", "x", 1, -1e308), ("a", "y", 1, 1e308), ("a", "z", 1, 1e308)]
    report = check(write(tmp_path / "log.tsv", rows))
    assert report.ok and report.statistics["ties"]["events"] == 1
    assert "-1e+308 s to 1e+308 s (2.31e+303 days)" in str(report)
