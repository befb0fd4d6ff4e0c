"""The declarations of tables, and the names of their rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import dglrec
from dglrec.config import replace
from dglrec.errors import ConfigError
from dglrec.reproduce import RESULTS, reproduce
from dglrec.tables import _PLANS, PLANS, canonical, has_nothing_to_train, make_split, parse


def test_a_name_is_that_of_one_table():
    assert [plan.name for plan in _PLANS] == list(PLANS)


def test_a_row_has_the_fields_that_it_names() -> None:
    """The name of a row leaves out a preset's own values; on no data may the table have others in their place."""
    for plan in _PLANS:
        data = {cell.data for cell in plan.cells()}
        for row in plan.rows:
            named = parse(row)[1]
            for place in data if named else ():
                config = plan.config(canonical(row), place)
                assert replace(config, named) == config, (plan.name, row, place)


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


def test_a_row_is_the_same_run_in_each_of_its_tables() -> None:
    """Its result lies in one file, whatever table it was run for."""
    found: dict[tuple[str, str, str], tuple[str, Any]] = {}
    for name, plan in PLANS.items():
        for cell in plan.cells():
            place = (cell.data, cell.split, cell.row)
            table, config = found.setdefault(place, (name, plan.config(cell.row, cell.data)))
            assert plan.config(cell.row, cell.data) == config, f"{place} in {table} and {name}"


def test_a_row_may_have_another_number_of_epochs() -> None:
    """As the rows on all of the training log need, where no epoch is selected."""
    plan = PLANS["gowalla-lightgcn"]
    cells = plan.choose(["lightgcn,train.epochs=7"], None, ["given-all"])
    assert cells == [("gowalla-lightgcn", "given-all", "lightgcn,train.epochs=7")]
    assert plan.config(cells[0].row, cells[0].data) == dglrec.config.replace(
        plan.config("lightgcn", cells[0].data), {"train.epochs": 7}
    )
    hard = "hardgnn,train.epochs=2,k=5"  # the table has 25
    assert {
        cell.row for cell in PLANS["hardgnn-figure2"].choose([hard, "hardgnn,k=5,train.epochs=25"], None, None)
    } == {
        canonical(hard),
        canonical("hardgnn,k=5,train.epochs=25"),
    }
    others = [f"hardgnn,k={k},train.epochs={epochs}" for k in (3, 7, 5) for epochs in (2, 9, 4)]  # in the order given
    assert [cell.row for cell in PLANS["hardgnn-figure2"].choose(others, ["ml-latest-small"], None)] == [
        canonical(row) for row in others
    ]
    for row in ("lightgcn,dim=8,train.epochs=7", "sasrec,train.epochs=7", "popularity,train.epochs=7"):
        with pytest.raises(ConfigError, match=f"has no row '{row}'"):
            plan.choose([row], None, None)


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


# What GSAU's authors ran: preset -> gamma, graph, sequence encoder, cross-entropy, whether known items are masked.
# `SASRec (u)` and `BERT4Rec (u)` have cross-entropy, as Table 2 of the paper has them; its README leaves the flag out.
GSAU_ROWS = {
    "gsau-rec": (0.1, True, "sasrec", True, False),
    "gsau": (0.1, True, "sasrec", False, False),
    "gsau-rec-bert4rec": (0.1, True, "bert4rec", True, False),
    "sasrec-u": (0.05, False, "sasrec", True, False),
    "bert4rec-u": (0.05, False, "bert4rec", True, False),
    "directau": (0.5, True, None, False, True),
    "graphau": (0.5, True, None, False, True),
    "lightgcn": (None, True, None, False, True),
    "sasrec": (None, False, "sasrec", True, False),
    "bert4rec": (None, False, "bert4rec", True, False),
}


def test_the_rows_of_gsau_are_those_that_its_authors_ran() -> None:
    from dglrec.models import GSAU, PRESETS

    for name, (gamma, graph, encoder, cross_entropy, masked) in GSAU_ROWS.items():
        preset, config = PRESETS[name], PRESETS[name].config
        assert (config.seen == "mask") is masked, name
        assert getattr(config, "gamma", None) == gamma, name
        train = config.train
        assert (config.dim, train.lr, train.batch_size, train.weight_decay) == (64, 1e-3, 512, 0), name
        assert (train.epochs, train.patience, train.monitor, train.seed) == (300, 10, "ndcg@20", 2020), name
        if preset.model is GSAU:
            found = (config.graph, config.encoder if config.sequential else None, config.rec)
            assert found == (graph, encoder, cross_entropy), name
            assert config.ui_uniformity and (config.graph_layers, config.combine) == (2, "mean"), name
            assert (config.negatives, config.rank, config.init) == ("derangement", "dot", "xavier_normal"), name
        if encoder is not None:
            sizes = (config.layers, config.heads, config.inner, config.max_length)
            rates = (config.dropout, config.attention_dropout)
            assert (sizes, rates) == ((2, 2, 256, 50), (0.2, 0.2) if encoder == "bert4rec" else (0.5, 0.5)), name
            assert encoder == "sasrec" or config.mask_ratio == 0.2, name
        elif preset.model is not GSAU:
            assert config.layers == 2, name
    assert (PRESETS["bert4rec"].config.last_share, PRESETS["graphau"].config.form) == (0.5, "gsau")
    lightgcn, original = PRESETS["lightgcn"].config, PRESETS["graphau-original"].config
    assert (lightgcn.l2, lightgcn.norm, lightgcn.combine) == (1e-5, "frobenius", "mean")
    assert (original.dim, original.gamma, original.decay, original.layers) == (32, 0.4, 1.4, 2)
    assert (original.form, original.train.lr, original.train.batch_size) == ("original", 0.1, 2048)


def test_figure_2_of_gsau_has_the_paper_s_weights_of_uniformity() -> None:
    plan = PLANS["gsau-figure2"]
    configs = [plan.config(cell.row, cell.data) for cell in plan.cells()]
    assert [config.gamma for config in configs] == [0.05, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert all(config.rec and config.graph and config.sequential for config in configs)
