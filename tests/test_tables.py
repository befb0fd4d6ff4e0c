"""The declarations of tables, and the names of their rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

import dglrec
from dglrec.errors import ConfigError
from dglrec.reproduce import RESULTS, reproduce
from dglrec.tables import PLANS, canonical, has_nothing_to_train, make_split, parse


def test_the_figures_of_a_paper_are_read_for_what_they_are() -> None:
    """MDGR's Figure 3 is over clusters, its Figure 4 over rounds; both have the model, printed and mended, once."""
    for name, field, values in (("mdgr-figure3", "k", [1, 5, 8, 10]), ("mdgr-figure4", "m", [1, 5, 10, 15])):
        plan = PLANS[name]
        rows = [cell.row for cell in plan.cells()]
        assert plan.over == (field,)
        assert [getattr(plan.config(row), field) for row in rows] == 2 * values
        assert rows.count("mdgr") == rows.count("mdgr-residual") == 1
        expected = [[system, str(value)] for system in ("mdgr", "mdgr-residual") for value in values]
        assert [plan.names_of(row) for row in rows] == expected


def test_the_figures_of_galrec_have_the_rows_of_its_tables() -> None:
    """Figure 4 is with and without the contrasts; Figure 5 changes one field at a time, and has the usual row once."""
    pair = [cell.row for cell in PLANS["galrec-table3"].cells() if "lightgcn" in cell.row and "toys" in cell.data]
    assert [cell.row for cell in PLANS["galrec-figure4"].cells() if "toys" in cell.data] == pair
    plan = PLANS["galrec-figure5"]
    rows = [cell.row for cell in plan.cells() if "toys" in cell.data]
    assert (len(rows), rows.count("galrec-lightgcn")) == (10, 1)
    assert plan.names_of("galrec-lightgcn,queue=128") == ["galrec-lightgcn", "0.1", "128", "8"]
    for row in rows:
        assert (
            sum(one != usual for one, usual in zip(plan.names_of(row), plan.names_of(plan.compare), strict=True)) <= 1
        )


def test_graph_aware_learning_is_compared_with_itself_left_out() -> None:
    """Each kind of embeddings in Table III with its own, and all ablations in the metric that a gain is told in."""
    plan = PLANS["galrec-table3"]
    rows = [cell.row for cell in plan.cells() if cell.data == "amazon-toys"]
    assert [plan.partner(row) for row in rows] == [
        *("galrec-sasrec", None, "galrec-lightgcn", None, "galrec-text", None)
    ]
    for name in ("galrec-table3", "galrec-table4", "galrec-table5"):
        assert "ndcg@10" in PLANS[name].difference_columns
    assert PLANS["galrec-table4"].partner("galrec-lightgcn,gal=false") == "galrec-lightgcn"
    for plan in PLANS.values():
        assert {*plan.partners, *plan.partners.values()} <= {cell.row for cell in plan.cells()}
        assert set(plan.difference_columns) <= set(plan.metrics)


def test_language_models_are_compared_on_equal_terms() -> None:
    """All on one T5, with the same training, whatever their presets have."""
    plan = PLANS["galrec-table1"]
    shared = ("backbone", "dim", "layers", "heads", "inner", "dropout", "max_length", "budget", "epoch_targets", "seen")
    for data, _ in plan.data:
        rows = [cell.row for cell in plan.cells() if cell.data == data and cell.row not in ("lightgcn", "sasrec")]
        configs = [plan.config(row, data) for row in rows]
        assert len({config.train for config in configs}) == 1
        assert len({tuple(getattr(config, name) for name in shared) for config in configs}) == 1
    assert (configs[0].train.weight_decay, plan.config("sid").train.weight_decay) == (1e-3, 1e-2)


def test_a_row_has_one_name() -> None:
    assert canonical("mdgr,m=5,k=10") == canonical("mdgr,k=10") == "mdgr,k=10"
    assert canonical("mdgr,train.lr=1e-3") == "mdgr"
    assert canonical("mdgr-t,times=false") == "mdgr-t"  # the preset's own field
    assert canonical("mdgr-t,times=true") == "mdgr-t,times=true"
    assert canonical("oracle,sees=history") == "oracle"
    assert canonical("mdgr,residual=1,m=010") == canonical("mdgr,m=10,residual=True") == "mdgr,m=10,residual=true"
    assert canonical("mdgr,k=08,gamma=.50,train.lr=0.001,train.clip=0") == "mdgr"
    assert canonical("mdgr,train.lr=1e-4") == canonical("mdgr,train.lr=0.00010") == "mdgr,train.lr=0.0001"
    assert canonical("sasrec,train.lr=1e-4,dim=8") == canonical("sasrec,dim=8,train.lr=1e-4")


def test_a_name_of_a_row_is_read_as_its_config() -> None:
    """A canonical name is its own, and means what the row meant."""
    plan = PLANS["mdgr-table3"]
    for row in ("mdgr,train.precision=bfloat16,dropout=1e-5", "mip,limit=1e9", "surge,train.patience=0,keep=1"):
        assert canonical(canonical(row)) == canonical(row)
        assert plan.config(canonical(row)) == plan.config(row)
    assert {result.values["row"] for result in reproduce("mdgr-table2").results} == {
        canonical(result.values["row"]) for result in reproduce("mdgr-table2").results
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("mdgx", "did you mean 'mdgr'"),
        ("mdgr,m", "has 'm'; expected PRESET,FIELD=VALUE"),
        ("mdgr,hop=3", "unknown field 'hop'"),
        ("mdgr,m=many", "field 'm' is 'many'"),
    ],
)
def test_rows_that_are_none_are_errors(row: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        canonical(row)


def test_rows_without_training_are_known() -> None:
    assert [row for row in ("popularity", "oracle,sees=state", "mdgr", "sasrec") if has_nothing_to_train(row)] == [
        "popularity",
        "oracle,sees=state",
    ]


def test_a_run_means_the_same_in_every_table() -> None:
    """One run serves all tables that ask for it, so they must ask for the same."""
    asked: dict[tuple[str, ...], object] = {}
    for plan in PLANS.values():
        for cell in plan.cells():
            config = plan.config(cell.row, cell.data)
            assert asked.setdefault(tuple(cell), config) == config, (plan.name, cell)


@pytest.mark.parametrize("table", PLANS)
def test_every_table_has_the_figures_of_its_paper(table: str) -> None:
    plan = PLANS[table]
    rows = json.loads((RESULTS / f"{table}.paper.json").read_text("utf-8"))["rows"]
    assert rows or plan.over != "systems" or "beyond the paper" in plan.title  # printed curves have no points
    assert plan.compare in {cell.row for cell in plan.cells()}
    for row in rows:
        assert set(row) >= {"preset", "name", "data", "paper"}
        if plan.over == "systems":
            assert set(row["paper"]) == set(plan.metrics)
            assert all(0 < value < 1 for value in row["paper"].values())
        else:
            assert not set(row["paper"]) & set(plan.metrics)
    for cell in plan.cells():
        assert parse(cell.row)[0] == cell.row.partition(",")[0]
        assert "." not in cell.data + cell.split  # file names are DATA.SPLIT.ROW.SEED


def test_splits_with_sampled_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among 1 + 999 the targets and the training are those of the full ranking."""
    users, items, length = 900, 1100, 8
    item = (np.arange(users) * items // users)[:, None] + np.arange(length)  # 6 or 7 users an item
    time = np.tile(np.arange(float(length)), users) + np.repeat(np.arange(users) % 5, length)
    log = dglrec.InteractionLog.from_arrays(np.repeat(np.arange(users), length), (item % items).ravel(), time)
    monkeypatch.setattr("dglrec.tables.load", lambda name, k_core: dglrec.load(log, name=name, k_core=k_core))
    full, sampled = make_split("small", "leave-one-out"), make_split("small", "leave-one-out-999")
    assert sampled.train.digest() == full.train.digest() and sampled.log.filters == ("5-core",)
    np.testing.assert_array_equal(sampled.test.targets, full.test.targets)
    by_time = make_split("small", "time-point-999")
    assert by_time.kind == "time" and len(by_time.test.targets) == len(by_time.test)
    for split in (sampled, by_time):
        assert split.test.candidate_offsets is not None and set(np.diff(split.test.candidate_offsets)) == {1000}
        split.verify()
