"""What the tables of the papers are made of: their rows, data and columns. A new table is one more `Plan` here.

A row is written as a preset and the fields in which it differs from it: `mdgr`, or `mdgr,m=10`. A field that has its
usual value is left out, so that `mdgr,m=5` is `mdgr`, and one run serves all tables that need it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

from . import planted
from .config import replace
from .data import Split, given, leave_one_out, load, time_point, windows
from .data.datasets import find_table
from .data.windows import Assignment
from .errors import ConfigError, closest
from .models import PRESETS, Model, Preset

HOPS = "sample-hops"
SYSTEMS = {**PRESETS, "oracle": Preset(planted.Oracle, {}, "a model that knows how the sample was drawn")}


class Cell(NamedTuple):
    """What is run once for each seed: a row on a data set under a split."""

    data: str
    split: str
    row: str


@dataclass(frozen=True)
class Plan:
    """A table or a figure of a paper.

    Attributes:
        name: such as "mdgr-table2"; the paper's own figures are in `results/NAME.paper.json`.
        title: the paper, and the table in it.
        metrics: the columns.
        data: data sets with their splits, see `make_split`.
        rows: such as "mdgr" or "mdgr,m=10".
        references: rows that are there on samples alone.
        fields: what is set in every row, beside the row's own fields.
        fields_on: by data set and names of presets, what is set there as well.
        over: what the rows run over: "systems" (a table), fields such as ("m",) (a curve per system), "epochs", or
            "hops" (how the vectors of each hop lie).
        compare: the row that the others are compared with.
        partners: row -> the row that it is compared with instead; then rows without a partner are compared with none.
        compared_in: metrics in which they are compared; () for the first of `metrics`.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    data: tuple[tuple[str, str], ...]
    rows: tuple[str, ...]
    compare: str
    references: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    fields_on: Mapping[str, Mapping[tuple[str, ...], Mapping[str, Any]]] = field(default_factory=dict)
    over: Literal["systems", "epochs", "hops"] | tuple[str, ...] = "systems"
    partners: Mapping[str, str] = field(default_factory=dict)
    compared_in: tuple[str, ...] = ()

    def cells(self) -> list[Cell]:
        """All that the table is made of."""
        rows = list(dict.fromkeys(map(canonical, self.rows)))
        return [
            Cell(data, split, row)
            for data, split in self.data
            for row in (*rows, *(self.references if data in planted.SAMPLES else ()))
        ]

    def choose(
        self, rows: Iterable[str] | None, data: Iterable[str] | None, splits: Iterable[str] | None
    ) -> list[Cell]:
        """The selected cells; None selects all. A row may have another `train.epochs` than here.

        Raises:
            ConfigError: a name, or a combination of names, that the table does not have.
        """
        cells, row_names = self.cells(), None if rows is None else [canonical(row) for row in rows]
        known_rows = {cell.row for cell in cells}
        for row in [row for row in dict.fromkeys(row_names or ()) if row not in known_rows]:
            like = {cell._replace(row=row) for cell in cells if _but_epochs(cell.row) == _but_epochs(row)}
            cells += [] if has_nothing_to_train(row) else sorted(like)
        chosen = cells
        asked = {"row": row_names, "data": data, "split": splits}
        for what, names in asked.items():
            if names is not None:
                wanted, known = set(names), {getattr(cell, what) for cell in cells}
                for name in sorted(wanted - known):
                    raise ConfigError(f"table {self.name} has no {what} {name!r}; {closest(name, known)}")
                chosen = [cell for cell in chosen if getattr(cell, what) in wanted]
        if not chosen:
            raise ConfigError(f"table {self.name} has no such row on these data; print it to see what it has")
        return chosen

    def comparing(self, row: str, cells: Iterable[Cell]) -> Plan:
        """The same table, with the others compared with another row of the chosen cells.

        Raises:
            ConfigError: no such row among the cells, or a figure, which compares nothing.
        """
        row, rows = canonical(row), {cell.row for cell in cells}
        if self.kind != "systems":
            raise ConfigError(f"{self.name} is a figure; only the rows of tables are compared with one of them")
        if row not in rows:
            raise ConfigError(f"the chosen rows of {self.name} have no {row!r} to compare with; {closest(row, rows)}")
        return dataclasses.replace(self, compare=row, partners={})

    def check_drawn(self) -> None:
        """Make sure that it is a figure.

        Raises:
            ConfigError: it is a table.
        """
        if self.kind == "systems":
            raise ConfigError(f"{self.name} is a table; only figures can be drawn")

    def partner(self, row: str) -> str | None:
        """The row from which this one is subtracted; None where it is compared with no other."""
        if self.partners:
            return self.partners.get(row)
        return self.compare if row != self.compare else None

    @property
    def difference_columns(self) -> dict[str, str]:
        """Metric -> the name of its column of differences."""
        minuend = "the named row" if self.partners else self.compare
        return {metric: f"{minuend} minus this, {metric}" for metric in self.compared_in or self.metrics[:1]}

    @property
    def kind(self) -> Literal["systems", "fields", "epochs", "hops"]:
        """What is shown: a table of systems, curves over fields or over epochs, or how vectors lie."""
        return "fields" if isinstance(self.over, tuple) else self.over

    @property
    def fields_over(self) -> tuple[str, ...]:
        """The fields that the rows run over, each while the others stay as in the row that is compared with."""
        return self.over if isinstance(self.over, tuple) else ()

    @property
    def name_columns(self) -> list[str]:
        """Names of the columns in which a row is named."""
        return ["system", *self.fields_over]

    def names_of(self, row: str) -> list[str]:
        """Their cells: the row's name, or its system and its values of the fields that the rows run over.

        >>> PLANS["mdgr-figure4"].names_of("mdgr-residual"), PLANS["mdgr-figure4"].names_of("mdgr,m=10")
        (['mdgr-residual', '5'], ['mdgr', '10'])
        """
        if self.kind != "fields":
            return [row]
        preset, fields = parse(row)
        others = [f"{name}={value}" for name, value in fields.items() if name not in self.fields_over]
        config = self.config(row)
        return [",".join([preset, *others]), *(str(getattr(config, name)) for name in self.fields_over)]

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
        changes = dict(self.fields)
        for presets, more in self.fields_on.get(data, {}).items():
            changes |= more if preset in presets else {}
        return replace(SYSTEMS[preset].config, changes | fields)

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
    """The one name of a row: the fields that differ from its preset, in the order of the config, in one spelling.

    >>> canonical("mdgr,m=5"), canonical("mdgr,m=10"), canonical("mip,k=5,heads=4")
    ('mdgr', 'mdgr,m=10', 'mip,heads=4')
    >>> canonical("mdgr,train.lr=1e-4,bounded=True,k=08,m=+7")
    'mdgr,m=7,bounded=true,train.lr=0.0001'
    """
    preset, fields = parse(row)
    usual = SYSTEMS[preset].config
    before, after = _flat(usual), _flat(replace(usual, fields))
    return ",".join([preset, *(f"{name}={text}" for name, text in after.items() if text != before[name])])


def _but_epochs(row: str) -> str:
    """A row's name without its number of epochs."""
    preset, fields = parse(row)
    return canonical(
        ",".join([preset, *(f"{name}={value}" for name, value in fields.items() if name != "train.epochs")])
    )


def has_nothing_to_train(row: str) -> bool:
    """Whether a row gives the same results with every seed: models that count, and the oracle."""
    return SYSTEMS[parse(row)[0]].config.train.epochs == 0


def clusters(row: str) -> bool:
    """Whether a row is a model whose clusters can be compared with planted ones, see `planted.agreement`."""
    return hasattr(SYSTEMS[parse(row)[0]].model, "clusters")


def _flat(config: Any, where: str = "") -> dict[str, str]:
    """Every field of a config, those of `train` as "train.lr", as `replace` reads it: "none", "true", "0.0001"."""
    found: dict[str, str] = {}
    for name in (one.name for one in dataclasses.fields(config)):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            found |= _flat(value, f"{where}{name}.")
        else:
            found[where + name] = str(value).lower() if value is None or isinstance(value, bool) else str(value)
    return found


def find_data(data: str) -> None:
    """Make sure that a data set of a table is here; one that can be fetched is fetched.

    Raises:
        DataError: it is not.
    """
    if data not in planted.SAMPLES:
        find_table(data)


def make_split(data: str, split: str) -> Split:
    """A data set under a split, the same in every table.

    Args:
        data: a name that `load` knows, or one of `planted.SAMPLES`.
        split: "leave-one-out" ranks all items, "leave-one-out-999" the same targets among 1 + 999, "time-point-999"
            the first event of each user after a cut-off (all three 5-core); "given" as the data come, with a tenth of
            training for validation, "given-all" without; or what `windows` calls `by`: "window", "user" or "time".
    """
    if split == "leave-one-out":
        return leave_one_out(planted.sample_log(data) if data in planted.SAMPLES else load(data, k_core=5))
    if split == "leave-one-out-999":
        return leave_one_out(load(data, k_core=5), negatives=999)
    if split == "time-point-999":
        return time_point(load(data, k_core=5), targets="next", negatives=999)
    if split in ("given", "given-all"):
        return given(load(data), valid=0.0 if split == "given-all" else None)
    by = cast(Assignment, split)
    if data == planted.NAME:
        return windows(planted.sample_log(data), by=by, seed=1)
    # A tenth of the 765 and 526 windows would be too few to tell systems apart. Split by time, test windows cost
    # the training windows that reach into their period, so the shares are smaller.
    valid, test = (0.1, 0.15) if by == "time" else (0.15, 0.25)
    return windows(load(data).one_pass_core(), by=by, valid=valid, test=test, seed=1)


_GSAU = "Cao et al., Graph-Sequential Alignment and Uniformity, WWW 2025 Companion"
_MDGR = "Xiao et al., Learning Multi-interest Embedding with Dynamic Graph Cluster for Sequential Recommendation"
_HARDGNN = "Lin et al., Self-Supervised Sequential Recommendation with Hard Negative Graph Contrastive Learning"
_ALL = tuple(SYSTEMS)
_GALREC = "Guan et al., Enhancing Collaborative Semantics of Language Model-Driven Recommendations"
_WINDOWS: dict[str, Any] = {"seen": "keep", "train.epochs": 100, "train.patience": 10, "train.monitor": "auc_pooled"}
# An epoch of the 765 and 526 windows has 4 steps where the paper's have hundreds, so that its 10 epochs of patience
# would end a training before it has begun.
_FEW_WINDOWS = {"train.epochs": 500, "train.patience": 50}
_WINDOWS_ON = {
    # SURGE first learns for 50 epochs what is popular, which says less than nothing about new users.
    "foursquare-nyc": {_ALL: _FEW_WINDOWS, ("surge",): {"train.patience": 150}},
    "ml-latest-small": {_ALL: _FEW_WINDOWS},
}
_ON_SAMPLE = ((planted.NAME, "user"),)

_LEAVE_ONE_OUT = tuple((data, "leave-one-out") for data in ("amazon-beauty", "amazon-sports", "amazon-toys"))
_GALREC_ROWS = ("galrec-sasrec", "galrec-lightgcn", "galrec-text")
_FOR_LANGUAGE = tuple((data, "leave-one-out") for data in ("amazon-beauty", "amazon-toys", "yelp-2019"))
_WITH_HOPS = ((HOPS, "leave-one-out"), *_FOR_LANGUAGE)
_HOPS_AND_TOYS = ((HOPS, "leave-one-out"), ("amazon-toys", "leave-one-out"))
_SCRATCH = "here a small T5 trained from scratch"
_LANGUAGE_MODELS = (*_GALREC_ROWS, "iid", "p5", "sid", "cid")
_SHORT_TRAINING = {"train.weight_decay": 1e-3, "train.lr": 3e-3, "train.epochs": 12, "epoch_targets": 2**14}
_GALREC_ON: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {
    # The public code of SID, CID and P5 decays by 1e-2. One value for all language models, so that they differ in names
    # alone; the rate is that of the sample "hops"; and a training has 12 epochs of a part of the targets, drawn anew
    # each time: between .9 (yelp-2019) and 1.8 passes (amazon-toys), as 20 whole passes take too long.
    **{data: {_LANGUAGE_MODELS: _SHORT_TRAINING} for data, _ in _FOR_LANGUAGE},
    # No user of the sample repeats an item. Three times the preset's rate was better on validation of another draw,
    # with the contrasts and without (docs/choices.json).
    HOPS: {_ALL: {"seen": "mask"}, ("galrec-lightgcn",): {"train.lr": 3e-3, "train.epochs": 10}},
}
_GAINS = ("recall@10", "ndcg@10")  # a gain counts as shown where its interval excludes 0
_HITS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")  # with one target per query, HR is recall
_CHECK_INS_AND_FILMS = tuple(
    (data, split) for data in ("foursquare-nyc", "ml-latest-small") for split in ("window", "user", "time")
)

_SELFGNN_DATA = ("ml-latest-small", "foursquare-nyc", "yelp-2019", "amazon-beauty")
_SMALL_999 = tuple((data, "leave-one-out-999") for data in _SELFGNN_DATA[:2])
_SAMPLED: dict[str, Any] = {"seen": "mask", "train.monitor": "ndcg@10", "train.peek_at_test": True}
_GRID_EPOCHS = 25  # the paper's, per cell of its grid
# With one target per user and epoch, validation can stagnate for more than ten epochs and rise again.
_PATIENT = {"train.patience": 30}
# 610 and 1,083 users with one target each: in the batches of 512 of the public code, whose epoch of 10,000 users has 20
# steps, an epoch would have 2 or 3.
_FEW_USERS = {"train.batch_size": 64} | _PATIENT
_ONE_TARGET = ("selfgnn", "selfgnn-code", "hardgnn", "hardgnn-code")  # those of the papers
_SLICED = (*_ONE_TARGET, "selfgnn-prefixes", "selfgnn-inductive", "selfgnn-causal")
# Steps of the public code: 150 epochs of 10,000 users, 512 per step. Below they are divided by the steps of an epoch.
_CODE_STEPS = 3000
_SELFGNN_ON: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {
    "ml-latest-small": {_SLICED: {"by": "equal_counts"}, _ONE_TARGET: _FEW_USERS},
    # Most targets are in their history: where all items are ranked, masking the seen ones would reveal the targets.
    "foursquare-nyc": {_ALL: {"seen": "keep"}, _ONE_TARGET: _FEW_USERS},
    "yelp-2019": {
        _SLICED: {"slices": 12},  # of one year
        _ONE_TARGET: {"train.epochs": _CODE_STEPS // 60},
        _ONE_TARGET[1:]: _PATIENT,  # SelfGNN itself reached its last epoch without this
    },
    # The last of five equal lengths of time would have 84 % of the pairs.
    "amazon-beauty": {_SLICED: {"by": "equal_counts"}, _ONE_TARGET: {"train.epochs": _CODE_STEPS // 44} | _PATIENT},
}

# One slice -> as many as spans, where it is known which slices are informative. One slice: none ends before a target.
_SIX_OF_ONE = {
    "selfgnn,slices=1": "selfgnn",
    "selfgnn-prefixes,slices=1": "selfgnn-prefixes",
    "selfgnn-inductive,slices=1,past=false": "selfgnn-inductive",
    "selfgnn-causal,slices=1,past=false": "selfgnn-causal",
    "selfgnn,slices=1,instance=none": "selfgnn,instance=none",
    "selfgnn,slices=1,norm=symmetric,instance=none": "selfgnn,norm=symmetric,instance=none",
    "selfgnn-prefixes,slices=1,instance=none": "selfgnn-prefixes,instance=none",
    "selfgnn-inductive,slices=1,past=false,instance=none": "selfgnn-inductive,instance=none",
}

_LIGHTGCN: dict[str, Any] = {"layers": 3, "norm": "squared", "l2": 1e-4, "train.batch_size": 16384, "train.lr": 8e-3}

_PLANS = (
    Plan(
        "gsau-table1",
        f"{_GSAU}, Table 1: overall performance",
        metrics=("recall@10", "recall@50", "ndcg@10", "ndcg@50"),
        data=_LEAVE_ONE_OUT,
        rows=(
            *("lightgcn", "directau", "graphau", "sasrec", "bert4rec", "sasrec-u", "bert4rec-u", "gsau", "gsau-rec"),
            "sasrec-cosine",  # beyond the paper
        ),
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
        over=("gamma",),
        compare="gsau-rec",
    ),
    Plan(
        "sasrec-cosine",
        "SASRec on cosines: one change at a time, on validation (beyond the papers)",
        metrics=("ndcg@10", "recall@10"),
        data=_LEAVE_ONE_OUT[:1],
        rows=(
            "sasrec,seen=mask",
            *(f"sasrec-cosine,temperature={temperature}" for temperature in (0.05, 0.07, 0.1)),
        ),
        over="epochs",
        compare="sasrec-cosine",
    ),
    Plan(
        "gowalla-lightgcn",
        "He et al., LightGCN, SIGIR 2020: Gowalla with its given split, three layers, as the public PyTorch code",
        metrics=("recall@20", "ndcg@20"),
        data=(("gowalla-lightgcn", "given"), ("gowalla-lightgcn", "given-all")),
        rows=("popularity", "lightgcn", "lightgcn-softmax", "lightgcn-softmax,train.epochs=52"),
        fields={"train.monitor": "recall@20"},
        fields_on={
            # The settings of the public code, except its steps of 2,048 pairs: a step propagates over the whole graph,
            # however many pairs it has.
            "gowalla-lightgcn": {("lightgcn",): _LIGHTGCN},
        },
        compare="lightgcn",
    ),
    Plan(
        "lightgcn-softmax",
        "LightGCN with a sampled softmax: its temperature and its rate, on validation (beyond the papers)",
        metrics=("recall@20", "ndcg@20"),
        data=(("gowalla-lightgcn", "given"),),
        rows=(
            *(f"lightgcn-softmax,temperature={value},train.epochs=6" for value in (0.05, 0.07, 0.1, 0.15, 0.2)),
            "lightgcn-softmax",
            "lightgcn-softmax,train.schedule=linear,train.epochs=20",
            "lightgcn-softmax,train.lr=0.003,train.epochs=20",
            "lightgcn-softmax,train.batch_size=4096,train.epochs=20",
        ),
        fields={"train.monitor": "recall@20"},
        over="epochs",
        compare="lightgcn-softmax,train.epochs=6",
    ),
    Plan(
        "mdgr-table2",
        f"{_MDGR}, Table 2: overall performance",
        metrics=("auc_pooled", "recall@50"),
        data=(*_ON_SAMPLE, *_CHECK_INS_AND_FILMS),
        rows=(
            "popularity",
            "recency",
            "transitions",
            "sasrec",
            "comirec-sa",
            "comirec-sa,loss=softmax",
            "comirec-dr",
            "comirec-dr,loss=softmax",
            "surge",
            "mip",
            "mip,k=8",
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
        rows=(
            *("mdgr-w", "mdgr-dgc", "mdgr-pt", "mdgr-p", "mdgr-t", "mdgr"),
            *("mdgr,residual=true", "mdgr,bounded=true", "mdgr,dropout=0.3", "mdgr-residual"),  # remedies
            "mdgr-residual,gamma=0.1,rank=pairs",
        ),
        fields=_WINDOWS,
        compare="mdgr",
    ),
    Plan(
        "mdgr-figure3",
        f"{_MDGR}, Figure 3: number of clusters k",
        metrics=("auc_pooled", "recall@50"),
        data=_ON_SAMPLE,
        rows=tuple(f"{preset},k={k}" for preset in ("mdgr", "mdgr-residual") for k in (1, 5, 8, 10)),
        fields=_WINDOWS,
        over=("k",),
        compare="mdgr",
    ),
    Plan(
        "mdgr-figure4",
        f"{_MDGR}, Figure 4: number of rounds m",
        metrics=("auc_pooled", "recall@50"),
        data=_ON_SAMPLE,
        rows=tuple(f"{preset},m={m}" for preset in ("mdgr", "mdgr-residual") for m in (1, 5, 10, 15)),
        fields=_WINDOWS,
        over=("m",),
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
    Plan(
        "hardgnn-table1",
        f"{_HARDGNN}, Table 1: overall performance",
        metrics=("ndcg@10", "recall@10", "ndcg@20", "recall@20"),
        data=tuple(
            (data, split)
            for split in ("leave-one-out-999", "time-point-999")
            for data in _SELFGNN_DATA
            if (data, split) != ("ml-latest-small", "time-point-999")  # 29 of its users have a query there
        ),
        rows=(
            *("popularity", "recency", "transitions", "lightgcn", "sasrec", "gsau-rec"),
            *("selfgnn", "hardgnn", "selfgnn-code", "hardgnn-code"),
            *("selfgnn-prefixes", "selfgnn-inductive", "selfgnn-causal"),
            *("selfgnn,beta=0", "selfgnn,interval=mean", "selfgnn,instance=none", "selfgnn,slices=1"),
        ),
        fields=_SAMPLED,
        fields_on=_SELFGNN_ON,
        compare="selfgnn",
    ),
    Plan(
        "hardgnn-table2",
        f"{_HARDGNN}, Table 2: items of a history that are read",
        metrics=("ndcg@10", "recall@10"),
        data=_SMALL_999,
        rows=("hardgnn", "hardgnn,max_length=50"),
        fields=_SAMPLED,
        fields_on=_SELFGNN_ON,
        compare="hardgnn",
    ),
    Plan(
        "hardgnn-figure2",
        f"{_HARDGNN}, Figure 2: number of hard negatives K and weight lambda of the contrast",
        metrics=("ndcg@10", "recall@10"),
        data=_SMALL_999,
        # Without mined items there is no contrast, and without its weight they do nothing: one row for both.
        rows=tuple(
            f"hardgnn,k={k},lam={lam},train.epochs={_GRID_EPOCHS}"
            for lam in (0, 0.01, 0.1, 0.2)
            for k in ((3, 5, 7) if lam else (0,))
        ),
        fields=_SAMPLED,
        fields_on=_SELFGNN_ON,
        over=("k",),
        compare=f"hardgnn,train.epochs={_GRID_EPOCHS}",
    ),
    Plan(
        "hardgnn-parts",
        "HardGNN's public code, part by part: cells, mined items among the negatives, contrast (beyond the paper)",
        metrics=("ndcg@10", "recall@10"),
        data=_SMALL_999,
        rows=(
            "selfgnn-code",
            "hardgnn-code,k=0,lam=0",  # a cell of their own for users and for items, and no more
            "hardgnn-code,lam=0",
            "hardgnn-code,hard_in_rec=false",
            "hardgnn-code",
            "hardgnn",
            "hardgnn,hard_in_rec=true",
        ),
        fields=_SAMPLED,
        fields_on=_SELFGNN_ON,
        compare="selfgnn-code",
    ),
    Plan(
        "selfgnn-remedies",
        "SelfGNN: one change at a time, on validation (beyond the paper)",
        metrics=("ndcg@10", "recall@10"),
        data=_SMALL_999,
        rows=(
            *("selfgnn", "selfgnn,beta=0", "selfgnn,reg=1e-4", "selfgnn,norm=symmetric"),
            *("selfgnn,loss=bce", "selfgnn,pool=mean", "selfgnn,dropout=0.1", "selfgnn,train.lr=3e-3"),
            *("selfgnn,interval=mean", "selfgnn,instance=none"),
            *("selfgnn-prefixes", "selfgnn-inductive"),
            *("selfgnn,loss=softmax", "selfgnn,norm=symmetric,pool=mean", "selfgnn-code"),
            "selfgnn,instance=causal,targets=prefixes,train.batch_size=1024",  # more targets alone, at a bearable cost
            "selfgnn-prefixes,instance=causal,loss=softmax",
            "selfgnn-inductive,instance=causal",
            "selfgnn-inductive,instance=causal,loss=softmax,train.batch_size=1024,train.lr=2e-3",
            "selfgnn-causal",
        ),
        fields=_SAMPLED,
        fields_on=_SELFGNN_ON,
        over="epochs",
        compare="selfgnn",
    ),
    Plan(
        "selfgnn-slices",
        "SelfGNN: what time slices tell, where the truth is known (beyond the paper)",
        metrics=("ndcg@10", "recall@10"),
        data=(("sample-drift", "leave-one-out"),),
        rows=(
            *("transitions", "sasrec", "selfgnn-inductive,past=false"),
            *(row for one, six in _SIX_OF_ONE.items() for row in (six, one)),
        ),
        references=("oracle", "oracle,sees=state"),
        fields={"seen": "mask", "train.monitor": "ndcg@10"},
        # As many slices as spans. The rest makes trainings short.
        fields_on={
            "sample-drift": {
                _SLICED: {"slices": 6, "dim": 32, "negatives": 10, "train.lr": 3e-3, "train.patience": 5},
                _ONE_TARGET: _FEW_USERS,
            }
        },
        compare="selfgnn-inductive",
        partners=_SIX_OF_ONE
        | dict.fromkeys(("transitions", "sasrec", "selfgnn-inductive,past=false"), "selfgnn-inductive"),
    ),
    Plan(
        "galrec-table1",
        f"{_GALREC}, Table I: overall performance ({_SCRATCH})",
        metrics=_HITS,
        data=_FOR_LANGUAGE,
        rows=("lightgcn", "sasrec", "p5", "sid", "cid", "iid", *_GALREC_ROWS),
        fields_on=_GALREC_ON,
        compare="galrec-lightgcn",
        compared_in=_GAINS,
    ),
    Plan(
        "galrec-table3",
        f"{_GALREC}, Table III: with and without graph-aware learning ({_SCRATCH})",
        metrics=_HITS,
        data=_FOR_LANGUAGE,
        rows=tuple(f"{row}{end}" for row in _GALREC_ROWS for end in (",gal=false", "")),
        compare="galrec-lightgcn",
        fields_on=_GALREC_ON,
        partners={f"{row},gal=false": row for row in _GALREC_ROWS},
        compared_in=_GAINS,
    ),
    Plan(
        "galrec-table4",
        f"{_GALREC}, Table IV: each loss removed ({_SCRATCH})",
        metrics=_HITS,
        data=_WITH_HOPS,
        rows=(
            "galrec-lightgcn,gal=false",
            *(f"galrec-lightgcn,lambda{number}=0" for number in (1, 2, 3)),
            "galrec-lightgcn,hide=own,lambda1=0.1,lambda2=0.1,lambda3=0.1",  # what the defaults were chosen against
            "galrec-lightgcn",
        ),
        references=("oracle",),
        fields_on=_GALREC_ON,
        compare="galrec-lightgcn",
        compared_in=_GAINS,
    ),
    Plan(
        "galrec-table5",
        f"{_GALREC}, Table V: hops ({_SCRATCH})",
        metrics=_HITS,
        data=_WITH_HOPS,
        rows=("galrec-lightgcn,hops=1", "galrec-lightgcn", "galrec-lightgcn,hops=3"),
        references=("oracle",),
        fields_on=_GALREC_ON,
        compare="galrec-lightgcn",
        compared_in=_GAINS,
    ),
    Plan(
        "galrec-figure4",
        f"{_GALREC}, Figure 4: how the vectors of each hop lie ({_SCRATCH})",
        metrics=_HITS,
        data=_HOPS_AND_TOYS,
        rows=("galrec-lightgcn,gal=false", "galrec-lightgcn"),
        over="hops",
        fields_on=_GALREC_ON,
        compare="galrec-lightgcn",
    ),
    Plan(
        "galrec-figure5",
        f"{_GALREC}, Figure 5: temperature, queue and second-order neighbours ({_SCRATCH})",
        metrics=("recall@10", "ndcg@10"),
        data=_HOPS_AND_TOYS,
        rows=(
            *(f"galrec-lightgcn,temperature={value}" for value in (0.05, 0.1, 0.15, 0.2)),  # the range of its search
            *(f"galrec-lightgcn,queue={value}" for value in (128, 256, 512, 1024)),
            # 16 for each of 20 items would be cut by the budget of a prompt.
            *(f"galrec-lightgcn,fanout={value}" for value in (1, 2, 4, 8)),
        ),
        over=("temperature", "queue", "fanout"),
        fields_on=_GALREC_ON,
        compare="galrec-lightgcn",
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
