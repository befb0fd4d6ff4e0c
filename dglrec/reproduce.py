"""The papers' tables beside what this package measures.

`dglrec.tables` says what a table is made of. Printed figures come from files only: `dglrec/results/TABLE.paper.json`
holds the paper's, and `dglrec/results/runs/DATA.SPLIT.ROW.SEED.json` a run's, written by `reproduce(TABLE, run=True)`
with the command that made it. Beside it are its metrics by epoch (.jsonl), their picture (.png) and the metrics of
each test query (.npz), with how the vectors of hops lie where a figure shows it. A run belongs to every table that has
its row: it is trained once.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from filelock import FileLock, Timeout

from . import planted
from .checkpoint import read_json, write_json
from .data.files import atomic_write
from .errors import DataError
from .tables import PLANS, Cell, Plan, find_data, has_nothing_to_train, make_split, parse, plan_of
from .train import Run, fit
from .views import POINTS, Result, Table

if TYPE_CHECKING:
    from .data import InterestOracle

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs")


def tables() -> list[str]:
    """Names of the tables that there are."""
    return sorted(PLANS)


def reproduce(
    table: str,
    *,
    run: bool = False,
    rows: Iterable[str] | None = None,
    data: Iterable[str] | None = None,
    splits: Iterable[str] | None = None,
    compare: str | None = None,
    seed: int = 2020,
    device: str = "auto",
    results: Path = RESULTS,
    runs: Path = RUNS,
    progress: bool | None = None,
) -> Table:
    """A table of a paper from the result files; with `run`, what is missing in them is trained first.

    Args:
        table: see `tables()`.
        run: train the chosen rows that have no result with this seed yet. A training that was stopped is resumed, and
            one that another process is running is left to it.
        rows: rows of the table, such as "mdgr" or "mdgr,m=10"; None for all.
        data: names of data sets; None for all of the table.
        splits: splits of the data; None for all of the table.
        compare: the row from which the others are subtracted, user by user; None for the row that the table is about.
        seed: of the runs to make. Rows of every seed are printed.
        device: see `fit`.
        results: folder of the result files.
        runs: folder of the run folders, `runs/DATA.SPLIT.ROW.SEED`.

    Raises:
        ConfigError: an unknown table, row, data set or split; `compare` names none of the rows, or nothing is
            subtracted in the table.
        DataError: data to train on are not found, or `results` or `runs` cannot be written, which is checked before
            the first training; or another process is still training some of the rows, after all others are done.
    """
    plan = plan_of(table)
    cells = plan.choose(rows, data, splits)
    if compare is not None:
        plan = plan.comparing(compare, cells)
    if run:
        _make_missing(plan, cells, seed, device, results / "runs", runs, progress)
    found = [Result.read(path) for cell in cells for path in result_paths(results / "runs", cell)]
    return Table(plan, read_json(RESULTS / f"{table}.paper.json")["rows"], cells, found)


def result_paths(folder: Path, cell: Cell) -> list[Path]:
    """The result files of a cell, one per seed."""
    stem = ".".join(cell) + "."
    seeds = [path.name.removeprefix(stem).removesuffix(".json") for path in folder.glob(f"{stem}*.json")]
    return [folder / f"{stem}{seed}.json" for seed in sorted(filter(str.isdigit, seeds), key=int)]


def _make_missing(
    plan: Plan, cells: Iterable[Cell], seed: int, device: str, folder: Path, runs: Path, progress: bool | None
) -> None:
    """Make the runs that have no result with this seed; one of any seed is enough where all seeds give the same."""

    def is_there(cell: Cell, path: Path) -> bool:
        return path.exists() or (has_nothing_to_train(cell.row) and bool(result_paths(folder, cell)))

    paths = [(cell, folder / f"{'.'.join(cell)}.{seed}.json") for cell in cells]
    missing = [(cell, path) for cell, path in paths if not is_there(cell, path)]
    if not missing:
        return
    for name in dict.fromkeys(cell.data for cell, _ in missing):
        find_data(name)
    _check_writable(
        folder, "results", "an installation that you may write to, such as a checkout with `pip install -e .`"
    )
    _check_writable(runs, "runs", "another working directory")
    split, made_of = None, None
    left = []
    for cell, path in missing:
        run_folder = runs / path.stem
        with _alone_in(run_folder) as alone:
            if not alone:
                left.append((cell, path))
                continue
            if is_there(cell, path):  # another process has made it since
                continue
            if split is None or made_of != cell[:2]:
                split, made_of = make_split(*cell[:2]), cell[:2]
            resume = (run_folder / "config.json").exists()
            model = plan.model(cell, split, seed)
            run = fit(model, split, out=run_folder, device=device, resume=resume, progress=progress)
            run.test()
            _write(plan, cell, run, path)
    if busy := [path.stem for cell, path in left if not is_there(cell, path)]:
        raise DataError(
            f"another process is training {', '.join(busy)} (in {runs}); wait for it, or choose other rows; "
            "the other requested rows are done"
        )


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Whether no other process trains in a run folder; until the end none can. A process that died blocks no other.

    The lock is the operating system's, on a file in the folder that stays there.
    """
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _check_writable(folder: Path, what: str, instead: str) -> None:
    """Refuse before hours of training, not after them, if their results cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataError(
            f"{what} cannot be written to {folder} ({error.strerror}), so nothing is trained; use {instead}"
        ) from None


def _write(plan: Plan, cell: Cell, run: Run, path: Path) -> None:
    """Write the result files of a run; the one by which a run is found comes last."""
    for name in ("curves.png", "metrics.jsonl"):
        if run.folder is not None and (run.folder / name).exists():
            shutil.copyfile(run.folder / name, path.with_suffix("." + name.rpartition(".")[2]))
    arrays, values = query_values(cell, run), result_of(plan, cell, run)
    if any(one.kind == "hops" and cell in one.cells() for one in PLANS.values()):
        from .lm.spread import spread

        hops = spread(run.model)
        arrays |= {POINTS + name: found.astype(np.float32) for name, found in hops.points.items()}
        values["hops"] = hops.uniformity
    with atomic_write(path.with_suffix(".npz")) as file:
        np.savez_compressed(file, **arrays)
    write_json(path, values)


def query_values(cell: Cell, run: Run) -> dict[str, Any]:
    """Metrics of each test query under the run's own protocol, with its user.

    Those on new items end in " new", and those of the full ranking beside sampled candidates in " full". They are the
    metrics of the tables that are on these data.
    """
    kept = {name for plan in PLANS.values() if cell[:2] in plan.data for name in plan.metrics}
    test = run.model.split.test
    values: dict[str, Any] = {}
    for part, queries, end in (
        ("test", test, ""),
        ("test_new", test.new_items(), " new"),
        ("test_full", test, " full"),
    ):
        if part in run.tested:
            each = run.tested[part].per_query or {}
            values["user" + end] = queries.user.astype(np.int32)
            values |= {name + end: each[name].astype(np.float32) for name in each if name in kept}
    return values


def result_of(plan: Plan, cell: Cell, run: Run) -> dict[str, Any]:
    """What a result file holds."""
    result, model = run.result, run.model
    kept = (
        *("protocol", "seed", "device", "threads", "best_epoch", "epochs", "epoch_seconds", "valid_seconds"),
        *("steps_per_epoch", "targets_per_epoch", "peak_memory_bytes", "versions", "standard_errors"),
        *("valid", "config"),
    )
    values: dict[str, Any] = {"row": cell.row, "preset": parse(cell.row)[0], "data": cell.data, "split": cell.split}
    values |= {name.replace("test", "measured"): dict(metrics) for name, metrics in run.tested.items()}
    values |= {"seconds": result["train_seconds"], "command": plan.command(*cell, seed=result["seed"])}
    if cell.data == planted.NAME and hasattr(model, "clusters"):
        oracle = cast("InterestOracle", planted.oracle_of(model.split.log))
        values["planted"] = planted.agreement(model, model.split.test, oracle)
    if "selected_on_test" in result:
        values["selected_on_test"] = json.loads(json.dumps(result["selected_on_test"]))
    return values | {name: json.loads(json.dumps(result[name])) for name in kept}
