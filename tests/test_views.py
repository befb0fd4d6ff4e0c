"""Tables as text, on results whose figures are known."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dglrec.curves import save_densities
from dglrec.errors import ConfigError, DataError
from dglrec.intervals import user_bootstrap
from dglrec.protocol import Protocol
from dglrec.tables import Plan
from dglrec.text import aligned
from dglrec.views import Result, Table

PLAN = Plan("any", "a title", ("recall@10",), (("shop", "leave-one-out"),), ("lightgcn", "sasrec"), compare="sasrec")
PAPER = [{"preset": name, "name": name, "data": "shop", "paper": {"recall@10": 0.5}} for name in ("lightgcn", "sasrec")]


def result(row: str, seen: str, seed: int, value: float, **more: Any) -> Result:
    protocol = Protocol("shop", ("5-core",), "leave_one_out(ties='file')", part="test", seen=seen, queries=1000)
    values = {
        "row": row,
        "preset": row.partition(",")[0],
        "data": "shop",
        "split": "leave-one-out",
        "protocol": protocol.to_dict(),
        "measured": {"recall@10": value},
        "measured_masked": {"recall@10": value + 0.1 if seen == "keep" else value},
        "valid": {"recall@10": value + 0.2},
        "seed": seed,
        "device": "a machine",
        "threads": seed,
        "seconds": 1800.0,
        "best_epoch": 7 + seed,  # from 0; tables count from 1
        "epochs": 20,
        "epoch_seconds": 2.5,
    }
    return Result({**values, **more})


def table(*results: Result, **changes: Any) -> Table:
    plan = dataclasses.replace(PLAN, **changes)
    return Table(plan, PAPER, plan.cells(), list(results))


def test_a_split_without_validation_says_so() -> None:
    results = [result("lightgcn", "mask", 1, 0.25), result("lightgcn", "mask", 1, 0.3)]
    for one, valid in zip(results, (0.1, 0.0), strict=True):
        one.values["protocol"] |= {"split": f"given(valid={valid}, seed=1)", "split_digest": str(valid)}
    assert [block.protocol.split(", ")[1] for block in table(*results).blocks()] == [
        "given",
        "given without validation",
    ]


def test_results_of_different_protocols_stand_apart() -> None:
    """Kept and masked results are different blocks, the paper's figures stand in that of the paper's protocol."""
    results = [result("lightgcn", "mask", 1, 0.25), result("sasrec", "keep", 1, 0.3), result("sasrec", "keep", 2, 0.4)]
    found = table(*results)
    kept, masked = found.blocks()
    assert (kept.data, kept.protocol) == (
        "shop",
        "5-core, leave-one-out, 1,000 test queries, seen items kept in the ranking",
    )
    assert masked.protocol.endswith("seen items masked")
    assert kept.header == masked.header == ["system", "", "recall@10", "seeds", "hours", "device"]
    assert kept.rows == [
        ["sasrec", "paper", "0.5000", "", "", ""],
        ["sasrec", "here", "0.3500", "1 2", "0.50", "a machine, 1 thread, a machine, 2 threads"],
    ]
    assert [line[:3] for line in masked.rows] == [
        ["lightgcn", "paper", "0.5000"],
        ["lightgcn", "here", "0.2500"],
        ["sasrec", "here", "0.4500"],
    ]
    for block in (kept, masked):  # the text is these cells, and docs/make_tables.py prints them too
        assert aligned(block.header, block.rows) in str(found)
    elsewhere = result("sasrec", "keep", 3, 0.2)
    elsewhere.values["protocol"]["split_digest"] = "another"
    assert len(table(*results, elsewhere).blocks()) == 4


def test_masking_that_changes_nothing_has_no_block_of_its_own() -> None:
    one = result("sasrec", "keep", 1, 0.3)
    one.values["measured_masked"] = one.values["measured"]
    assert len(table(one).blocks()) == 1


def test_the_mean_over_three_seeds_has_a_spread() -> None:
    results = [result("sasrec", "mask", seed, 0.1 * seed) for seed in (1, 2, 3)]
    assert table(*results).blocks()[0].rows[1][2] == "0.2000 ±0.1000"


def test_where_queries_are_kept_there_are_intervals_and_differences() -> None:
    """Means over the seeds of each query, drawn by user; the difference is paired."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(40), 3).astype(np.int32)
    hard = rng.normal(0.5, 0.2, size=120)
    base = [hard + rng.normal(0, 0.01, 120) for _ in range(2)]
    other = hard - 0.05 + rng.normal(0, 0.01, 120)

    def kept(row: str, seed: int, each: Any) -> Result:
        one = result(row, "mask", seed, float(each.mean()))
        return Result(one.values, {"recall@10": each.astype(np.float32), "user": users})

    found = table(kept("lightgcn", 1, other), kept("sasrec", 1, base[0]), kept("sasrec", 2, base[1]))
    (block,) = found.blocks()
    assert block.header[2:4] == ["recall@10", "sasrec minus this, recall@10"]
    rows = {line[0]: line for line in block.rows if line[1] == "here"}
    mean, low, high = user_bootstrap(np.mean(base, axis=0), users)
    assert rows["sasrec"][2:4] == [f"{mean:.4f} [{low:.4f}, {high:.4f}]", ""]
    mean, low, high = user_bootstrap(base[0] - other, users)  # the seed that both have, not the mean of the two
    assert rows["lightgcn"][3] == f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
    assert high - low < 0.02  # the interval of either alone is .07 wide
    assert block.notes[-1].endswith("; a difference is over those that both rows have")

    asked = kept("lightgcn", 1, other)
    asked.per_query["user"] = users[::-1]  # other queries: nothing to be paired
    (block,) = table(asked, kept("sasrec", 1, base[0])).blocks()
    assert "sasrec minus this, recall@10" not in block.header
    (block,) = table(kept("lightgcn", 3, other), kept("sasrec", 1, base[0])).blocks()
    assert "sasrec minus this, recall@10" not in block.header  # no seed in common
    counted = kept("popularity", 3, other)  # draws nothing, so that any seed's partner is its own
    (block,) = table(counted, kept("sasrec", 1, base[0]), rows=("popularity", "sasrec")).blocks()
    assert {line[0]: line[-4] for line in block.rows}["popularity"] == f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"

    elsewhere = Result(kept("sasrec", 1, base[0]).values)  # without them there is nothing to be paired
    (block,) = table(kept("lightgcn", 1, other), elsewhere).blocks()
    assert "sasrec minus this, recall@10" not in block.header


def test_a_row_may_have_a_partner_of_its_own_and_several_metrics_differences() -> None:
    """Where partners are named, other rows are compared with none, and --compare takes their place."""
    users = np.arange(40, dtype=np.int32)
    rng = np.random.default_rng(0)

    def kept(row: str) -> Result:
        each = {name: rng.normal(0.5, 0.2, 40) for name in ("recall@10", "ndcg@10")}
        values = result(row, "mask", 1, 0.5).values
        values["measured"] = values["measured_masked"] = {name: float(one.mean()) for name, one in each.items()}
        return Result(values, each | {"user": users})

    rows = ("gsau,dim=8", "gsau", "mdgr,m=1", "mdgr", "sasrec")
    runs = [kept(row) for row in rows]
    partners = {"gsau,dim=8": "gsau", "mdgr,m=1": "mdgr", "lightgcn": "sasrec"}
    changes: dict[str, Any] = {"metrics": ("recall@10", "ndcg@10"), "rows": (*rows, "lightgcn"), "partners": partners}
    changes["compared_in"] = ("ndcg@10",)
    found = table(*runs, **changes)
    (block,) = found.blocks()
    at = block.header.index("the named row minus this, ndcg@10")
    assert not any("minus" in name for place, name in enumerate(block.header) if place != at)
    shown = {line[0]: line[at] for line in block.rows if line[1] == "here"}
    assert {row for row, text in shown.items() if text} == {"gsau,dim=8", "mdgr,m=1"}
    mean, low, high = user_bootstrap(runs[3].per_query["ndcg@10"] - runs[2].per_query["ndcg@10"], users)
    assert shown["mdgr,m=1"] == f"mdgr: {mean:+.4f} [{low:+.4f}, {high:+.4f}]"
    turned = Table(found.plan.comparing("sasrec", found.cells), [], found.cells, found.results)
    (block,) = turned.blocks()
    at = block.header.index("sasrec minus this, ndcg@10")
    assert [line[0] for line in block.rows if not line[at]] == ["sasrec"]


def test_items_that_are_new_to_their_user_have_a_block_of_their_own() -> None:
    """Half of 2 targets a query are old: 1 is left beside 50 negatives, and a cut at 10 has chance 10 / 51."""
    protocol = Protocol("shop", split="windows(by='user')", kind="user", part="test", seen="keep", candidates="2+50")
    protocol = dataclasses.replace(protocol, queries=40, counts={"targets": 80, "repeat_targets": 40})
    users = np.arange(40, dtype=np.int32)

    def one(row: str, value: float) -> Result:
        new = {"recall@10": value / 2, "auc": 0.875}
        each = {"recall@10": np.full(40, value), "user": users}
        each |= {"recall@10 new": np.full(40, value / 2), "user new": users}
        values = result(row, "keep", 1, value, protocol=protocol.to_dict(), measured_new=new).values
        return Result(values | {"measured_masked": values["measured"]}, each)

    kept, new = table(one("lightgcn", 0.25), one("sasrec", 0.5), rows=("lightgcn", "sasrec", "gsau")).blocks()
    assert kept.protocol == "windows by user, 40 test queries, seen items kept in the ranking, 2+50 candidates"
    assert new.protocol == (
        "windows by user, only targets that are new to their user, 40 test queries with 1.0 targets each, "
        "50 negatives; by chance recall@10 about 0.20, auc 0.50"
    )
    assert kept.header[:3] == ["system", "", "recall@10"]
    assert new.header[:4] == ["system", "recall@10", "auc", "sasrec minus this, recall@10"]
    assert new.rows[0][:4] == ["lightgcn", "0.1250 [0.1250, 0.1250]", "0.8750", "+0.1250 [+0.1250, +0.1250]"]
    assert kept.notes == new.notes == ["Not run yet (dglrec reproduce any --run --data shop): gsau"]


def test_the_full_ranking_stands_apart_from_sampled_candidates() -> None:
    protocol = Protocol("shop", split="leave_one_out(negatives=99)", part="test", candidates="1+99", queries=40)
    users = np.arange(40, dtype=np.int32)

    def one(row: str, value: float) -> Result:
        full = {"recall@10": value / 5}
        each = {"recall@10": np.full(40, value), "user": users}
        each |= {"recall@10 full": np.full(40, value / 5), "user full": users}
        peeked = {"epoch": 3, "metrics": {"recall@10": value + 0.125}}
        more = {"measured_full": full, "selected_on_test": peeked}
        return Result(result(row, "mask", 1, value, protocol=protocol.to_dict(), **more).values, each)

    sampled, full = table(one("lightgcn", 0.25), one("sasrec", 0.5)).blocks()
    assert sampled.protocol == "leave-one-out, 40 test queries, seen items masked, 1+99 candidates"
    assert full.protocol == "leave-one-out, 40 test queries, seen items masked"
    lines = [next(row for row in block.rows if "here" in row and row[0] == "lightgcn") for block in (sampled, full)]
    assert [line[2:4] for line in lines] == [
        ["0.2500 [0.2500, 0.2500]", "+0.2500 [+0.2500, +0.2500]"],
        ["0.0500 [0.0500, 0.0500]", "+0.0500 [+0.0500, +0.0500]"],
    ]
    assert not any("paper" in row for row in full.rows)
    assert sampled.header[4] == "recall@10, if the epoch were chosen on test"
    assert lines[0][4] == "0.3750"
    assert not any("chosen on test" in column for column in full.header)


def test_rows_and_seeds_that_are_not_there_are_named() -> None:
    """A row that masks seen items is not missing where they are kept; what counts has one seed and needs no other."""
    rows = ("popularity", "lightgcn", "sasrec", "gsau")
    results = [result("popularity", "keep", 1, 0.1)]
    results += [result("lightgcn", "mask", seed, 0.2) for seed in (1, 2)] + [result("sasrec", "keep", 2, 0.3)]
    kept, masked = table(*results, rows=rows).blocks()
    assert kept.notes == ["Not run yet (dglrec reproduce any --run --data shop): gsau"]
    seeds = "Seeds are not the same: 2 (1 2) of lightgcn; 1 (2) of sasrec"
    assert masked.notes == [*kept.notes, seeds]
    assert all(note in str(masked) for note in masked.notes)
    kept, masked = table(*results[1:], rows=rows[1:2] + rows[2:3]).blocks()
    assert kept.notes == []


def test_a_curve_has_a_line_for_each_value_of_its_field() -> None:
    rows = ("mdgr,m=1", "mdgr,m=5", "mdgr-w,m=1")
    results = [result("mdgr,m=1", "mask", 1, 0.25), result("mdgr", "mask", 1, 0.5), result("mdgr", "mask", 2, 0.5)]
    results.append(result("mdgr-w,m=1", "mask", 1, 0.25))
    (block,) = table(*results, rows=rows, over=("m",), compare="mdgr").blocks()
    assert block.header[:2] == ["system", "m"]
    assert block.header[-4:] == ["best epoch", "seconds per epoch", "seeds", "device"]
    assert [line[:2] for line in block.rows] == [["mdgr", "1"], ["mdgr", "5"], ["mdgr-w", "1"]]
    assert block.rows[1][-4:-1] == ["9 10", "2.5", "1 2"]


def test_a_figure_over_epochs_shows_validation() -> None:
    (block,) = table(result("sasrec", "mask", 1, 0.25), over="epochs").blocks()
    assert block.header[0] == "system"
    assert "valid recall@10" in block.header
    assert block.rows[-1][-5:-1] == ["9", "20", "2.5", "1"]
    assert "0.4500" in block.rows[-1]


def test_the_paper_on_other_data_stands_apart() -> None:
    """And not at all where only a part of the table is asked for."""
    found = dataclasses.replace(table(), paper=[{**PAPER[0], "data": "books", "name": "LightGCN"}])
    (block,) = found.blocks()
    assert (block.data, block.header) == ("books", ["system", "books: recall@10"])
    assert block.rows == [["LightGCN", "0.5000"]]
    assert "shop, leave-one-out: not run yet (dglrec reproduce any --run --data shop; rows lightgcn, sasrec)" in str(
        found
    )
    assert dataclasses.replace(found, cells=found.cells[:1]).blocks() == []


@pytest.mark.parametrize(("printed", "expected"), [({"recall@10": 0.5}, {"recall@10": 0.5}), (None, None)])
def test_rows_have_the_papers_figures_of_the_same_data(printed: Any, expected: Any) -> None:
    found = table(result("sasrec", "mask", 1, 0.25))
    if printed is None:
        found = dataclasses.replace(found, paper=[])
    (row,) = found.to_dict()["rows"]
    assert row["paper"] == expected
    assert row["measured"] == {"recall@10": 0.25}


def test_agreement_with_planted_interests_has_a_block_of_its_own() -> None:
    agreement = {"final": 0.5, "first": 0.25, "true": 0.75, "histories_where_true_is_1": 3}
    exact = {"final_where_true_is_1": 0.875, "first_where_true_is_1": 0.625}
    results = [result("sasrec", "mask", seed, 0.25, planted=agreement | exact) for seed in (1, 2)]
    results.append(result("lightgcn", "mask", 1, 0.25, planted=agreement))
    _, block = table(*results, rows=("lightgcn", "sasrec", "mdgr-t", "gsau")).blocks()
    assert "planted interests" in block.protocol
    assert block.notes[0] == "Not run yet (dglrec reproduce any --run --data shop): mdgr-t"  # the one that clusters
    assert block.header == [
        *("system", "final", "first", "true", "final where true is 1", "first where true is 1"),
        *("histories where true is 1", "seeds"),
    ]
    assert block.rows == [
        ["sasrec", "0.5000", "0.2500", "0.7500", "0.8750", "0.6250", "3 3", "1 2"],
        ["lightgcn", "0.5000", "0.2500", "0.7500", "", "", "3", "1"],
    ]


def test_pictures_count_epochs_from_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves, drawn = importlib.import_module("dglrec.curves"), []
    monkeypatch.setattr(curves, "_save", lambda figure, *_: drawn.append(figure))
    curves.save_epochs("ndcg@10", {"sasrec": [([0.1, 0.2], 1)]}, tmp_path / "a.png", "")
    rows = [{"epoch": n, "loss": 1.0, "ndcg@10": 0.1} for n in (0, 1)]
    curves.save_curves(rows, "ndcg@10", 1, tmp_path / "b.png", "")
    lines = [list(line.get_xdata()) for figure in drawn for axes in figure.axes for line in axes.lines]
    assert [line for line in lines if line] == [[1, 2], [2], [1, 2], [1, 2], [2, 2]]


def test_figures_are_drawn_and_tables_are_not(tmp_path: Path) -> None:
    values = result("sasrec", "mask", 1, 0.25, best_epoch=1).values
    by_epoch = [{"epoch": n, "recall@10": 0.1 * n} for n in range(3)]
    drawn = {
        "fields": table(
            result("mdgr", "mask", 1, 0.25), result("mdgr,m=1", "mask", 1, 0.5), over=("m",), compare="mdgr"
        ),
        "epochs": table(Result(values, by_epoch=by_epoch), over="epochs"),
        "hops": table(Result(values, points={"user 0": np.eye(2), "user far": np.zeros((20, 2))}), over="hops"),
    }
    for name, found in drawn.items():
        found.save_figure(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="any is a table; only figures can be drawn"):
        table(Result(values)).save_figure(tmp_path / "table.png")
    with pytest.raises(DataError, match="nothing of any is measured yet"):
        table(over=("m",)).save_figure(tmp_path / "none.png")
    with pytest.raises(DataError, match="nothing of any is measured yet"):  # a run that another table asked for
        table(Result(values), over="hops").save_figure(tmp_path / "none.png")
    elsewhere = Result({**values, "data": "books"}, by_epoch=by_epoch)
    with pytest.raises(ConfigError, match=r"results on shop under leave-one-out, books under .*: --data shop"):
        table(Result(values, by_epoch=by_epoch), elsewhere, over="epochs").save_figure(tmp_path / "none.png")


def test_densities_are_drawn_to_one_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of a tenth of the size fill a tenth of their part, equal ones are a spot, and both have their angles."""
    drawn: list[Any] = []
    monkeypatch.setattr("dglrec.curves._save", lambda figure, *_: drawn.append(figure))
    turn = np.linspace(-np.pi, np.pi, 400, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    hops = {"wide": circle, "narrow": 0.1 * circle, "one": np.zeros((400, 2))}
    save_densities({"a": hops}, tmp_path / "none.png", "")
    densities, angles = drawn[0].axes[:3], drawn[0].axes[3:]
    pictures = [axes.images[0].get_array() for axes in densities]
    assert len({axes.images[0].get_extent()[1] for axes in densities}) == 1
    reach = densities[0].images[0].get_extent()[1]
    assert 1.0 < reach < 1.3
    across = np.abs(np.linspace(-reach, reach, 96))
    spread = [float((across * picture.sum(axis=0)).sum() / picture.sum()) for picture in pictures]
    assert spread[0] == pytest.approx(2 / np.pi, rel=0.05)
    assert 0 < spread[2] < spread[1] < 0.2 * spread[0]
    heights = [axes.collections[0].get_paths()[0].vertices[:, 1].max() for axes in angles]
    assert heights[:2] == pytest.approx([1.0, 1.0], abs=0.1)
    assert heights[2] > 10


def test_every_system_of_a_figure_has_its_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("dglrec.curves.save_fields", lambda points, *_: drawn.append(points["m"]))
    rows = {"mdgr,m=1": 0.25, "mdgr": 0.5, "mdgr-w": 0.75}
    found = [result(row, "mask", 1, value) for row, value in rows.items()]
    table(*found, rows=tuple(rows), over=("m",), compare="mdgr").save_figure(tmp_path / "figure.png")
    (points,) = drawn
    means = {system: {m: one["recall@10"][0] for m, one in curve.items()} for system, curve in points.items()}
    assert means == {"mdgr": {1: 0.25, 5: 0.5}, "mdgr-w": {5: 0.75}}


def test_a_figure_over_several_fields_changes_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row that all are compared with is a point of each curve; a row with two changes is of none."""
    drawn: list[Any] = []
    monkeypatch.setattr("dglrec.curves.save_fields", lambda points, *_: drawn.append(points))
    rows = {"mdgr": 0.5, "mdgr,m=1": 0.25, "mdgr,k=10": 0.75, "mdgr,k=10,m=1": 0.1}
    results = [result(row, "mask", 1, value) for row, value in rows.items()]
    found = table(*results, rows=tuple(rows), over=("k", "m"), compare="mdgr")
    (block,) = found.blocks()
    assert block.header[:3] == ["system", "k", "m"]
    assert [line[:3] for line in block.rows] == [
        ["mdgr", k, m] for k, m in (("8", "5"), ("8", "1"), ("10", "5"), ("10", "1"))
    ]
    found.save_figure(tmp_path / "figure.png")
    curves = {name: {x: one["recall@10"][0] for x, one in points["mdgr"].items()} for name, points in drawn[0].items()}
    assert curves == {"k": {8: 0.5, 10: 0.75}, "m": {5: 0.5, 1: 0.25}}


def test_how_evenly_hops_lie_has_a_block_of_its_own() -> None:
    results = [result("sasrec", "mask", seed, 0.25, hops={"user 0": -seed, "user far": -0.5}) for seed in (1, 2)]
    results.append(result("lightgcn", "mask", 1, 0.25))
    first, block = table(*results, over="hops").blocks()
    assert first.header[-3:] == ["seeds", "hours", "device"]
    assert block.header == ["system", "user 0", "user far", "seeds"]
    assert block.rows == [["sasrec", "-1.5000", "-0.5000", "1 2"]]
    assert len(table(*results).blocks()) == 1  # in the tables that have the same rows there is none
