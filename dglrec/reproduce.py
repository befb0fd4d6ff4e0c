"""The papers' tables beside what this package measures.

Printed figures come from `dglrec/results/*.json` only: `TABLE.paper.json` holds the paper's, and
`TABLE.DATA.PRESET.SEED.json` a run's, written by `reproduce(TABLE, run=True)` together with the command that made it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint import read_json, write_json
from .data import leave_one_out, load
from .errors import ConfigError, DataError, closest
from .models import PRESETS, preset
from .protocol import Protocol
from .text import aligned
from .train import Run, fit

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs")
K_CORE = 5  # every table so far is on the 5-core of its data


@dataclass(frozen=True)
class Table:
    """A table of a paper: its own figures, and one row a run of ours.

    Attributes:
        table: the name, such as "gsau-table1".
        title: the paper and the table in it.
        metrics: the columns.
        paper: {"preset", "name", "data", "paper": metric -> value}, one a row of the paper.
        rows: {"preset", "data", "protocol", "paper", "measured", "measured_masked", "seed", "device", "seconds",
            "command", ...}, one a run.
    """

    table: str
    title: str
    metrics: list[str]
    paper: list[dict[str, Any]]
    rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"table": self.table, "title": self.title, "rows": self.rows}

    def __str__(self) -> str:
        lines = [f"{self.table}: {self.title}"]
        for block in self.blocks():
            lines += ["", f"{block.data}, {block.protocol}:", aligned(block.header, block.rows)]
        for data in dict.fromkeys(row["data"] for row in self.paper):
            if not any(row["data"] == data for row in self.rows):
                names = sorted({row["preset"] for row in self.paper if row["data"] == data} & PRESETS.keys())
                command = f"dglrec reproduce {self.table} --run --data {data}"
                lines += ["", f"{data}: not run yet ({command}; rows {', '.join(names)})"]
        return "\n".join(lines)

    def blocks(self) -> list[Block]:
        """The runs beside the paper's figures, a block for each protocol: others share no column.

        A run of a model that keeps seen items stands in two blocks: the paper's, and one with seen items masked.
        """
        groups: list[tuple[Protocol, list[dict[str, Any]]]] = []
        for row in self.rows:
            own = Protocol.from_dict(row["protocol"])
            for protocol in [own] if own.seen == "mask" else [own, dataclasses.replace(own, seen="mask")]:
                same = next((group for first, group in groups if first.same_column(protocol)), None)
                if same is None:
                    groups.append((protocol, same := []))
                same.append(row)
        order = list(dict.fromkeys(row["data"] for row in self.rows))
        groups.sort(key=lambda group: (order.index(group[0].data), group[0].seen))
        return [self._block(protocol, rows) for protocol, rows in groups]

    def _block(self, protocol: Protocol, rows: Sequence[dict[str, Any]]) -> Block:
        cells = []
        for name in dict.fromkeys(row["preset"] for row in rows):
            runs = [row for row in rows if row["preset"] == name]
            own = runs[0]["protocol"]["seen"] == protocol.seen  # the paper's protocol, so its figures belong here
            if own and runs[0]["paper"]:
                cells.append(
                    [name, "paper", *(f"{runs[0]['paper'][metric]:.4f}" for metric in self.metrics), *[""] * 3]
                )
            which = "measured" if own else "measured_masked"
            values = [_mean([run[which][metric] for run in runs]) for metric in self.metrics]
            seeds = " ".join(str(run["seed"]) for run in runs)
            hours = f"{statistics.fmean(run['seconds'] for run in runs) / 3600:.2f}"
            devices = ", ".join(dict.fromkeys(f"{run['device']}, {_threads(run['threads'])}" for run in runs))
            cells.append([name, "here", *values, seeds, hours, devices])
        return Block(
            protocol.data, _in_words(protocol), ["system", "", *self.metrics, "seeds", "hours", "device"], cells
        )


@dataclass(frozen=True)
class Block:
    """A part of a table under one protocol, as text.

    Attributes:
        data: name of the data set.
        protocol: how was measured, in words.
        header: names of the columns.
        rows: cells; a row of the paper, or the mean over the seeds of a preset.
    """

    data: str
    protocol: str
    header: list[str]
    rows: list[list[str]]


def _in_words(protocol: Protocol) -> str:
    """A protocol's filter, split, queries, seen items and candidates in a line."""
    split = protocol.split.partition("(")[0].replace("_", "-")
    ties = ["ties in random order"] if protocol.tie_rule == "random" else []
    seen = "seen items masked" if protocol.seen == "mask" else "seen items kept in the ranking"
    candidates = [] if protocol.candidates == "full" else [f"{protocol.candidates} candidates"]
    return ", ".join([*protocol.filters, split, *ties, f"{protocol.queries:,} test queries", seen, *candidates])


def _mean(values: Sequence[float]) -> str:
    """The mean over seeds, with the standard deviation where there are three of them or more."""
    spread = f" ±{statistics.stdev(values):.4f}" if len(values) > 2 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def _threads(number: int) -> str:
    return f"{number} thread" if number == 1 else f"{number} threads"


def tables() -> list[str]:
    """Names of the tables that there are."""
    return sorted(path.name.removesuffix(".paper.json") for path in RESULTS.glob("*.paper.json"))


def reproduce(
    table: str,
    *,
    run: bool = False,
    rows: Iterable[str] | None = None,
    data: Iterable[str] | None = None,
    seed: int = 2020,
    device: str = "auto",
    results: Path = RESULTS,
    runs: Path = RUNS,
    progress: bool | None = None,
) -> Table:
    """A table of a paper from the result files; with `run`, what is missing in them is trained first.

    Args:
        table: see `tables()`.
        run: train the chosen rows that have no result with this seed yet. A training that was stopped is resumed.
        rows: presets; None for all rows of the table that this package has.
        data: names of data sets; None for all of the table.
        seed: of the runs to make. Rows of every seed are printed.
        device: see `fit`.
        results: folder of the result files.
        runs: folder of the run folders, `runs/TABLE/DATA-PRESET-SEED`.

    Raises:
        ConfigError: an unknown table, row or data set.
        DataError: data to train on are not found, or `results` cannot be written, which is found out before training.
    """
    if table not in tables():
        raise ConfigError(f"unknown table {table!r}; {closest(table, tables())}")
    paper = read_json(RESULTS / f"{table}.paper.json")
    known = [row for row in paper["rows"] if row["preset"] in PRESETS]
    wanted_rows = _choose(rows, {row["preset"] for row in known}, "row", table)
    wanted_data = _choose(data, {row["data"] for row in known}, "data", table)
    if run:
        wanted = [row for row in known if row["preset"] in wanted_rows and row["data"] in wanted_data]
        paths = [results / f"{table}.{row['data']}.{row['preset']}.{seed}.json" for row in wanted]
        missing = [(row, path) for row, path in zip(wanted, paths, strict=True) if not path.exists()]
        if missing:
            _check_writable(results)
        for row, path in missing:
            _make(table, row, seed, device, path, runs, progress)
    found = [
        read_json(path) for path in sorted(results.glob(f"{table}.*.json")) if not path.name.endswith(".paper.json")
    ]
    order = {(row["data"], row["preset"]): number for number, row in enumerate(paper["rows"])}
    chosen = [row for row in found if row["preset"] in wanted_rows and row["data"] in wanted_data]
    chosen.sort(key=lambda row: (order.get((row["data"], row["preset"]), len(order)), row["seed"]))
    rest = [row for row in paper["rows"] if row["data"] in wanted_data]
    return Table(table, paper["title"], paper["metrics"], rest, chosen)


def _choose(names: Iterable[str] | None, known: set[str], what: str, table: str) -> set[str]:
    if names is None:
        return known
    for name in names:
        if name not in known:
            raise ConfigError(f"table {table} has no {what} {name!r}; {closest(name, known)}")
    return set(names)


def _check_writable(folder: Path) -> None:
    """Say before hours of training, not after them, that their result could not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataError(
            f"results cannot be written to {folder} ({error.strerror}), so nothing is trained; use an installation "
            "that you may write to, such as a checkout with `pip install -e .`"
        ) from None


def _make(
    table: str, row: dict[str, Any], seed: int, device: str, path: Path, runs: Path, progress: bool | None
) -> None:
    """Train a row (or take up its training), read its test set once, and write its result file."""
    split = leave_one_out(load(row["data"], k_core=K_CORE))
    model = preset(row["preset"], split, **{"train.seed": seed})
    folder = runs / table / f"{row['data']}-{row['preset']}-{seed}"
    started = (folder / "config.json").exists()
    run = fit(model, split, out=folder, device=device, resume=started, progress=progress)
    run.test()
    write_json(path, result_row(table, row, run))
    for name in ("curves.png", "metrics.jsonl"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, path.with_suffix("." + name.rpartition(".")[2]))


def result_row(table: str, row: dict[str, Any], run: Run) -> dict[str, Any]:
    """What a result file holds."""
    result = run.result
    kept = (
        *("protocol", "seed", "device", "threads", "best_epoch", "epochs", "epoch_seconds", "valid_seconds"),
        *("steps_per_epoch", "targets_per_epoch", "peak_memory_bytes", "versions", "standard_errors"),
        *("valid", "config"),
    )
    return {
        "table": table,
        "preset": row["preset"],
        "data": row["data"],
        "paper": row["paper"],
        "measured": result["test"],
        "measured_masked": result["test_masked"],
        "seconds": result["train_seconds"],
        "command": f"dglrec reproduce {table} --run --row {row['preset']} --data {row['data']} --seed {result['seed']}",
    } | {name: json.loads(json.dumps(result[name])) for name in kept}
