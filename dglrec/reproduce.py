"""The papers' tables beside what this package measures.

Printed figures come from `dglrec/results/*.json` only: `TABLE.paper.json` holds the paper's, and
`TABLE.DATA.PRESET.SEED.json` a run's, written by `reproduce(TABLE, run=True)` together with the command that made it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint import read_json, write_json
from .data import leave_one_out, load
from .errors import ConfigError, closest
from .models import PRESETS, preset
from .protocol import Protocol
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
        """A block for every protocol, as results under different protocols share no column."""
        lines = [f"{self.table}: {self.title}"]
        for data in dict.fromkeys(row["data"] for row in [*self.rows, *self.paper]):
            runs = [row for row in self.rows if row["data"] == data]
            if not runs:
                names = sorted({row["preset"] for row in self.paper if row["data"] == data} & PRESETS.keys())
                lines += [
                    "",
                    f"{data}: not run yet (dglrec reproduce {self.table} --run --data {data}; rows {', '.join(names)})",
                ]
            for block in by_protocol(runs):
                lines += self._block(block, "measured", paper=True)
                if block[0]["protocol"]["seen"] == "keep":
                    lines += self._block(block, "measured_masked", paper=False)
        return "\n".join(lines)

    def _block(self, rows: Sequence[dict[str, Any]], which: str, paper: bool) -> list[str]:
        protocol = Protocol.from_dict(rows[0]["protocol"])
        seen = "masked" if which == "measured_masked" or protocol.seen == "mask" else "kept"
        lines = [
            "",
            f"{protocol.data}: {protocol.split}; {protocol.queries:,} test queries; "
            f"seen items {seen}; {protocol.candidates} ranking",
        ]
        lines.append(
            f"{'row':12} {'seed':>5} {'':9}"
            + "".join(f"{name:>11}" for name in self.metrics)
            + "   epoch   hours  device"
        )
        printed = set()
        for row in rows:
            if paper and row["paper"] and row["preset"] not in printed:
                printed.add(row["preset"])
                lines.append(
                    f"{row['preset']:12} {'':5} {'paper':9}"
                    + "".join(f"{row['paper'][name]:11.4f}" for name in self.metrics)
                )
            values = "".join(f"{row[which][name]:11.4f}" for name in self.metrics)
            best = "-" if row["best_epoch"] is None else row["best_epoch"]
            tail = f"{best:>8} {row['seconds'] / 3600:7.2f}  {row['device']}, {row['threads']} threads"
            lines.append(f"{row['preset']:12} {row['seed']:>5} {'measured':9}{values}{tail}")
        return lines


def by_protocol(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows in groups that may share a column, see `Protocol.same_column`."""
    groups: list[tuple[Protocol, list[dict[str, Any]]]] = []
    for row in rows:
        protocol = Protocol.from_dict(row["protocol"])
        for first, group in groups:
            if first.same_column(protocol):
                group.append(row)
                break
        else:
            groups.append((protocol, [row]))
    return [group for _, group in groups]


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
        ConfigError: an unknown table, row or data set. DataError: data to train on is not found.
    """
    if table not in tables():
        raise ConfigError(f"unknown table {table!r}; {closest(table, tables())}")
    paper = read_json(RESULTS / f"{table}.paper.json")
    known = [row for row in paper["rows"] if row["preset"] in PRESETS]
    wanted_rows = _choose(rows, {row["preset"] for row in known}, "row", table)
    wanted_data = _choose(data, {row["data"] for row in known}, "data", table)
    if run:
        for row in known:
            path = results / f"{table}.{row['data']}.{row['preset']}.{seed}.json"
            if row["preset"] in wanted_rows and row["data"] in wanted_data and not path.exists():
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
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result_row(table, row, run))
    for name in ("curves.png", "metrics.jsonl"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, path.with_suffix("." + name.rpartition(".")[2]))


def result_row(table: str, row: dict[str, Any], run: Run) -> dict[str, Any]:
    """What a result file holds."""
    result = run.result
    kept: tuple[str, ...] = (
        "protocol",
        "seed",
        "device",
        "threads",
        "best_epoch",
        "epochs",
        "epoch_seconds",
        "valid_seconds",
    )
    kept += (
        "steps_per_epoch",
        "targets_per_epoch",
        "peak_memory_bytes",
        "versions",
        "standard_errors",
        "valid",
        "config",
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
