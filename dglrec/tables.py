"""What the tables of the papers are made of: their rows, data and columns. A new table is one more `Plan` here.

A row is written as a preset and the fields in which it differs from it: `mdgr`, or `mdgr,m=10`. A field that has its
usual value is left out, so that `mdgr,m=5` is `mdgr`, and one run serves all tables that ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

from . import planted
from .config import replace
from .data import Split, leave_one_out, load, windows
from .data.windows import Assignment
from .errors import ConfigError, closest
from .models import PRESETS, Model, Preset

SYSTEMS = {**PRESETS, "oracle": Preset(planted.Oracle, {}, "one who knows how the sample was drawn")}


class Cell(NamedTuple):
    """What is run once for each seed: a row on a data set under a split."""

    data: str
    split: str
    row: str


@dataclass(frozen=True)
class Plan:
    """A table or a figure of a paper.

    Attributes:
        name: such as "mdgr-table2"; the paper's own figures stand in `results/NAME.paper.json`.
        title: the paper, and the table in it.
        metrics: the columns.
        data: data sets with their splits, see `make_split`.
        rows: such as "mdgr" or "mdgr,m=10".
        references: rows that are there on the sample alone.
        fields: what is set in every row, beside the row's own fields.
        fields_on: by data set, what is set there as well.
        over: what the rows run over: "systems" (a table), a field such as "m" (a curve), or "epochs".
        compare: the row that the others are compared with.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    data: tuple[tuple[str, str], ...]
    rows: tuple[str, ...]
    compare: str
    references: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    fields_on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    over: str = "systems"

    def cells(self) -> list[Cell]:
        """All that the table is made of."""
        rows = list(dict.fromkeys(map(canonical, self.rows)))
        return [
            Cell(data, split, row)
            for data, split in self.data
            for row in (*rows, *(self.references if data == planted.NAME else ()))
        ]

    def choose(
        self, rows: Iterable[str] | None, data: Iterable[str] | None, splits: Iterable[str] | None
    ) -> list[Cell]:
        """Those of the cells that are asked for; None asks for all.

        Raises:
            ConfigError: a name that the table has not, or names that do not meet.
        """
        chosen = cells = self.cells()
        asked = {"row": None if rows is None else map(canonical, rows), "data": data, "split": splits}
        for what, names in asked.items():
            if names is not None:
                wanted, known = set(names), {getattr(cell, what) for cell in cells}
                for name in sorted(wanted - known):
                    raise ConfigError(f"table {self.name} has no {what} {name!r}; {closest(name, known)}")
                chosen = [cell for cell in chosen if getattr(cell, what) in wanted]
        if not chosen:
            raise ConfigError(f"table {self.name} has no such row on these data; print it to see what it has")
        return chosen

    @property
    def kind(self) -> Literal["systems", "field", "epochs"]:
        """What is shown: a table of systems, a curve over a field, or curves over epochs."""
        if self.over == "systems" or self.over == "epochs":
            return self.over  # type: ignore[return-value]
        return "field"

    def name_of(self, row: str) -> str:
        """How a row is called in its line: by its value of the field that the rows run over, or by its name."""
        return str(getattr(self.config(row), self.over)) if self.kind == "field" else row

    def command(self, data: str, split: str, row: str | None = None, seed: int | None = None) -> str:
        """The command line that makes a run, or all rows of a data set."""
        options = {"row": row, "data": data, "split": split, "seed": seed}
        if len({split for _, split in self.data}) == 1:
            del options["split"]
        words = [f"--{name} {value}" for name, value in options.items() if value is not None]
        return " ".join([f"dglrec reproduce {self.name} --run", *words])

    def config(self, row: str, data: str = "") -> Any:
        """The config of a row, on a data set."""
        preset, fields = parse(row)
        return replace(_usual(preset), {**self.fields, **self.fields_on.get(data, {}), **fields})

    def model(self, cell: Cell, split: Split, seed: int) -> Model:
        """An untrained model of a cell."""
        preset, _ = parse(cell.row)
        model = SYSTEMS[preset].model(split, replace(self.config(cell.row, cell.data), {"train.seed": seed}))
        model.preset = preset
        return model


def parse(row: str) -> tuple[str, dict[str, str]]:
    """The preset of a row, and its fields.

    Raises:
        ConfigError: no such preset, or text that is no FIELD=VALUE.

    >>> parse("mdgr,m=10,train.lr=1e-4")
    ('mdgr', {'m': '10', 'train.lr': '1e-4'})
    """
    preset, *changes = row.split(",")
    if preset not in SYSTEMS:
        raise ConfigError(f"unknown preset {preset!r}; {closest(preset, SYSTEMS)}")
    pairs = [change.partition("=") for change in changes]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise ConfigError(f"row {row!r} has {name + equals + value!r}; expected PRESET,FIELD=VALUE,...")
    return preset, {name: value for name, _, value in pairs}


def canonical(row: str) -> str:
    """The row without fields that have the preset's usual value.

    >>> canonical("mdgr,m=5"), canonical("mdgr,m=10"), canonical("mip,k=5,heads=4")
    ('mdgr', 'mdgr,m=10', 'mip,heads=4')
    """
    preset, fields = parse(row)
    usual = _usual(preset)
    own = [f"{name}={value}" for name, value in fields.items() if replace(usual, {name: value}) != usual]
    return ",".join([preset, *own])


def has_nothing_to_train(row: str) -> bool:
    """Whether a row gives the same results with every seed: models that count, and the oracle."""
    usual = _usual(parse(row)[0])
    return usual.train.epochs == 0


def _usual(preset: str) -> Any:
    found = SYSTEMS[preset]
    return replace(found.model.Config(), found.fields)


def make_split(data: str, split: str) -> Split:
    """A data set under a split, the same in every table.

    Args:
        data: a name that `load` knows, or "sample-interests".
        split: "leave-one-out" (5-core), or what `windows` calls `by`: "window", "user" or "time".
    """
    if split == "leave-one-out":
        return leave_one_out(load(data, k_core=5))
    by = cast(Assignment, split)
    if data == planted.NAME:
        return windows(planted.sample_log(), by=by, seed=1)
    # A tenth of the 765 and 526 windows would be too few to tell systems apart. Split by time, test windows are paid
    # for with training windows that reach into their period, so it takes less.
    valid, test = (0.1, 0.15) if by == "time" else (0.15, 0.25)
    return windows(load(data).one_pass_core(), by=by, valid=valid, test=test, seed=1)


_GSAU = "Cao et al., Graph-Sequential Alignment and Uniformity, WWW 2025 Companion"
_MDGR = "Xiao et al., Learning Multi-interest Embedding with Dynamic Graph Cluster for Sequential Recommendation"
_WINDOWS: dict[str, Any] = {"seen": "keep", "train.epochs": 100, "train.patience": 10, "train.monitor": "auc_pooled"}
# An epoch of the 765 and 526 windows has 4 steps where the paper's have hundreds, so that its 10 epochs of patience
# would end a training before it has begun.
_FEW_WINDOWS = {"train.epochs": 500, "train.patience": 50}
_WINDOWS_ON = {"foursquare-nyc": _FEW_WINDOWS, "ml-latest-small": _FEW_WINDOWS}
_ON_SAMPLE = ((planted.NAME, "user"),)

_LEAVE_ONE_OUT = tuple((data, "leave-one-out") for data in ("amazon-beauty", "amazon-sports", "amazon-toys"))
_CHECK_INS_AND_FILMS = tuple(
    (data, split) for data in ("foursquare-nyc", "ml-latest-small") for split in ("window", "user", "time")
)

_PLANS = (
    Plan(
        "gsau-table1",
        f"{_GSAU}, Table 1: overall performance",
        metrics=("recall@10", "recall@50", "ndcg@10", "ndcg@50"),
        data=_LEAVE_ONE_OUT,
        rows=("lightgcn", "directau", "graphau", "sasrec", "bert4rec", "sasrec-u", "bert4rec-u", "gsau", "gsau-rec"),
        compare="gsau-rec",
    ),
    Plan(
        "gsau-table2",
        f"{_GSAU}, Table 2: what the parts contribute",
        metrics=("recall@10", "recall@50", "ndcg@10", "ndcg@50"),
        data=_LEAVE_ONE_OUT[:1],
        rows=("sasrec-u", "directau", "gsau", "gsau-rec,ui_uniformity=false", "gsau-rec-bert4rec", "gsau-rec"),
        compare="gsau-rec",
    ),
    Plan(
        "gsau-figure2",
        f"{_GSAU}, Figure 2: weight of uniformity gamma",
        metrics=("recall@10", "recall@50", "ndcg@10", "ndcg@50"),
        data=_LEAVE_ONE_OUT[:1],
        rows=tuple(f"gsau-rec,gamma={gamma}" for gamma in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)),
        over="gamma",
        compare="gsau-rec",
    ),
    Plan(
        "mdgr-table2",
        f"{_MDGR}, Table 2: overall performance",
        metrics=("auc_pooled", "recall@50"),
        data=(*_ON_SAMPLE, (planted.NAME, "time"), *_CHECK_INS_AND_FILMS),
        rows=(
            "popularity",
            "recency",
            "transitions",
            "sasrec",
            "comirec-sa",
            "comirec-dr",
            "surge",
            "mip",
            "mip,bounded=true",
            "mdgr",
            "mdgr-residual",
        ),
        references=("oracle", "oracle,sees=state"),
        fields=_WINDOWS,
        fields_on=_WINDOWS_ON,
        compare="mdgr",
    ),
    Plan(
        "mdgr-table3",
        f"{_MDGR}, Table 3: what the parts contribute",
        metrics=("auc_pooled", "recall@50"),
        data=_ON_SAMPLE,
        rows=("mdgr-w", "mdgr-dgc", "mdgr-pt", "mdgr-p", "mdgr-t", "mdgr", "mdgr-residual", "mdgr,residual=true"),
        fields=_WINDOWS,
        compare="mdgr",
    ),
    Plan(
        "mdgr-figure3",
        f"{_MDGR}, Figure 3: number of clusters k",
        metrics=("auc_pooled", "recall@50"),
        data=_ON_SAMPLE,
        rows=("mdgr,k=1", "mdgr,k=5", "mdgr,k=8", "mdgr,k=10"),
        fields=_WINDOWS,
        over="k",
        compare="mdgr",
    ),
    Plan(
        "mdgr-figure4",
        f"{_MDGR}, Figure 4: number of rounds m",
        metrics=("auc_pooled", "recall@50"),
        data=_ON_SAMPLE,
        rows=("mdgr,m=1", "mdgr,m=5", "mdgr,m=10", "mdgr,m=15"),
        fields=_WINDOWS,
        over="m",
        compare="mdgr",
    ),
    Plan(
        "mdgr-figure5",
        f"{_MDGR}, Figure 5: validation by epoch",
        metrics=("auc_pooled",),
        data=_ON_SAMPLE,
        rows=("comirec-sa", "comirec-dr", "surge", "mip", "mdgr", "mdgr-residual"),
        fields=_WINDOWS,
        over="epochs",
        compare="mdgr",
    ),
)
PLANS = {plan.name: plan for plan in _PLANS}


def plan_of(table: str) -> Plan:
    """The plan of a table.

    Raises:
        ConfigError: no such table; the closest name is given.
    """
    if table not in PLANS:
        raise ConfigError(f"unknown table {table!r}; {closest(table, PLANS)}")
    return PLANS[table]
