"""dglrec against RecBole 1.2.1: seconds an epoch of equal work and of full ranking, in one run on one machine.

    DGLREC_DATA=FOLDER python tests/benchmarks/speed.py [--env FOLDER] [--steps 20] [--full] [--quick]

It makes an environment for RecBole (`recbole_env.py`), writes RecBole's data files from the tidy data, times each
system in a process of its own, RecBole's and ours in turn, and writes `speed.json` beside this file. The work is that
of Amazon Beauty, 5-core: 131,413 targets, 153,776 edges, 64 dimensions, batches of 512. An epoch of RecBole's SASRec
takes minutes, so that by default some of its steps are timed (after one warm-up step) and their median is multiplied by
the steps of an epoch; `--full` times whole epochs. LightGCN's epoch and its evaluation are always whole.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
import recbole_env

HERE = Path(__file__).resolve().parent
DATA = "amazon-beauty"
TARGETS, EDGES = 131_413, 153_776

# Measured once, on two cores of another machine: seconds an epoch of the code of GSAU's authors (a fork of RecBole that
# no package index has) and of RecBole's SASRec, lowest and highest. Their ratio carries the authors' epoch over to the
# machine of this run.
AUTHORS_SECONDS = (470.0, 577.0)
SASREC_SECONDS_THERE = (420.0, 463.0)

# name -> (slow system, fast system, figure, times faster that is asked for)
RATIOS = {
    "sasrec epoch": ("recbole-sasrec", "dglrec-sasrec", "epoch_seconds", 15.0),
    "lightgcn epoch": ("recbole-lightgcn", "dglrec-lightgcn", "epoch_seconds", 5.0),
    "lightgcn evaluation, all users": ("recbole-lightgcn-evaluation", "dglrec-lightgcn-evaluation", "seconds", 20.0),
    "lightgcn evaluation, RecBole set to 256 users a block": (
        "recbole-lightgcn-evaluation-256",
        "dglrec-lightgcn-evaluation",
        "seconds",
        None,
    ),
    "gsau-rec epoch, against the same step made of RecBole's parts": (
        "recbole-gsau-stand-in",
        "dglrec-gsau-rec",
        "epoch_seconds",
        None,
    ),
    "gsau-rec epoch, against the authors' code (estimated)": (
        "authors-gsau-rec",
        "dglrec-gsau-rec",
        "epoch_seconds",
        12.0,
    ),
}


def write_atomic(folder: Path) -> None:
    """RecBole's atomic file of the data set, from the tidy table in the folder of DGLREC_DATA."""
    source = Path(os.environ.get("DGLREC_DATA", "")) / DATA / "interactions.tsv.gz"
    if "DGLREC_DATA" not in os.environ or not source.is_file():
        sys.exit(f"set DGLREC_DATA to a folder that holds {DATA}/interactions.tsv.gz")
    (folder / DATA).mkdir()
    with gzip.open(source, "rt", encoding="utf-8") as rows, open(folder / DATA / f"{DATA}.inter", "w") as out:
        names = next(rows).rstrip("\n").split("\t")
        user, item, time = (names.index(name) for name in ("user_id", "item_id", "timestamp"))
        out.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for row in rows:
            cells = row.rstrip("\n").split("\t")
            out.write(f"{cells[user]}\t{cells[item]}\t{cells[time]}\n")


def run(name: str, command: list[str | Path], folder: Path, threads: int) -> dict[str, Any]:
    """One worker's JSON. Its messages go to standard error; a worker that fails ends the run."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    out = folder / f"{name}.json"
    count = {variable: str(threads) for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    here = {"PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))}
    command = [*command, "--threads", str(threads), "--out", out]
    done = subprocess.run(command, env={**os.environ, **here, **count}, stdout=sys.stderr)
    if done.returncode:
        sys.exit(f"{name} failed with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(out.read_text())
    for key, expected in (("targets", TARGETS if "lightgcn" not in name else EDGES), ("edges", EDGES)):
        if name.startswith("recbole") and result.get(key, expected) != expected:
            sys.exit(f"{name} worked on {result[key]} {key}; expected {expected}")
    return result


def measure(python: Path, folder: Path, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All systems, RecBole's and ours in turn."""
    data_path = ["--data-path", folder]
    steps = "0" if args.full else str(args.steps)
    lightgcn_steps, users, epochs = ("3", "300", "1") if args.quick else ("0", "0", str(args.epochs))

    def recbole(task: str, *arguments: str | Path) -> list[str | Path]:
        return [python, "-E", HERE / "recbole_worker.py", task, *data_path, *arguments]

    def dglrec(task: str, preset: str, *arguments: str | Path) -> list[str | Path]:
        return [sys.executable, HERE / "dglrec_worker.py", task, preset, "--data", DATA, "--users", users, *arguments]

    commands = {
        "recbole-sasrec": recbole("sasrec", "--steps", steps),
        "dglrec-sasrec": dglrec("train", "sasrec", "--epochs", epochs),
        "recbole-lightgcn": recbole("lightgcn", "--steps", lightgcn_steps),
        "dglrec-lightgcn": dglrec("train", "lightgcn", "--epochs", epochs),
        "recbole-lightgcn-evaluation": recbole("evaluate", "--users", users),
        "recbole-lightgcn-evaluation-256": recbole("evaluate", "--users", users, "--users-per-block", "256"),
        "dglrec-lightgcn-evaluation": dglrec("evaluate", "lightgcn"),
        "recbole-gsau-stand-in": recbole("gsau", "--steps", steps),
        "dglrec-gsau-rec": dglrec("train", "gsau-rec", "--epochs", epochs),
    }
    return {name: run(name, command, folder, args.threads) for name, command in commands.items()}


def authors(sasrec_seconds: float) -> dict[str, Any]:
    """The authors' epoch on this machine, from RecBole's SASRec here and the ratio of the two elsewhere."""
    ratio = sum(AUTHORS_SECONDS) / sum(SASREC_SECONDS_THERE)
    return {
        "epoch_seconds": sasrec_seconds * ratio,
        "epoch_is": "carried over, see README.md",
        "ratio_there": ratio,
        "seconds_there": {"authors": AUTHORS_SECONDS, "recbole-sasrec": SASREC_SECONDS_THERE},
    }


def ratios(systems: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """How many times faster, with what was asked for; evaluation of fewer users than all is scaled to all."""

    def figure(name: str, key: str) -> float:
        system = systems[name]
        scale = system["users_in_all"] / system["users"] if "users" in system else 1.0
        return float(system[key]) * scale

    table = {}
    for name, (slow, fast, key, target) in RATIOS.items():
        seconds = figure(slow, key), figure(fast, key)
        table[name] = {
            "slow": slow,
            "fast": fast,
            "slow_seconds": seconds[0],
            "fast_seconds": seconds[1],
            "times_faster": seconds[0] / seconds[1],
            "asked_for": target,
        }
    return table


def report(result: dict[str, Any]) -> str:
    """The result as text."""
    here = result["machine"]
    lines = [f"{here['processor']}, {here['cores']} cores, {result['threads']} threads", ""]
    lines.append(f"{'system':<34}{'seconds':>10}  {'of':<42}{'load':>6}{'GB':>6}")
    for name, system in result["systems"].items():
        evaluated = "users" in system
        seconds = system["seconds"] if evaluated else system["epoch_seconds"]
        of = f"ranking {system['users']:,} users" if evaluated else f"an epoch ({system['epoch_is']})"
        load = system.get("load_average_before", [float("nan")])[0]
        memory = system.get("peak_memory_bytes", float("nan")) / 2**30
        lines.append(f"{name:<34}{seconds:>10.2f}  {of:<42}{load:>6.1f}{memory:>6.2f}")
        if system.get("steps_timed", 0) and "median step" in system["epoch_is"]:
            low, high = system["step_seconds_min"], system["step_seconds_max"]
            step, count = system["step_seconds_median"], system["steps_timed"]
            lines.append(f"{'':<46}{step:.3f} s a step ({low:.3f} to {high:.3f}, {count} steps)")
    if "ratios" not in result:
        return "\n".join(lines)
    lines += ["", f"{'times faster':<66}{'measured':>10}{'asked for':>12}"]
    for name, row in result["ratios"].items():
        asked = "" if row["asked_for"] is None else f"{row['asked_for']:.0f}"
        lines.append(f"{name:<66}{row['times_faster']:>10.1f}{asked:>12}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, help="folder of RecBole's environment, kept; else a temporary one")
    parser.add_argument("--steps", type=int, default=20, help="steps of RecBole's SASRec to time, after one warm-up")
    parser.add_argument("--full", action="store_true", help="whole epochs instead")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of dglrec to time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="see whether it runs: 3 steps each, nothing written")
    parser.add_argument("--out", type=Path, default=HERE / "speed.json")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.full = 3, False
    given = [f"--steps {args.steps}"] if not args.full else ["--full"]
    given += [f"--epochs {args.epochs}", f"--threads {args.threads}"]
    result: dict[str, Any] = {
        "command": " ".join(["python tests/benchmarks/speed.py", *given]),
        "machine": machine.describe(),
        "threads": args.threads,
        "data": {"name": DATA, "targets": TARGETS, "edges": EDGES, "dimensions": 64, "batch_size": 512},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_atomic(folder)
        try:
            python = recbole_env.make(args.env or folder / "env")
        except RuntimeError as error:
            sys.exit(str(error))
        systems = measure(python, folder, args)
    systems["authors-gsau-rec"] = authors(systems["recbole-sasrec"]["epoch_seconds"])
    result["versions"] = {
        "recbole": systems["recbole-sasrec"]["versions"],
        "dglrec": systems["dglrec-sasrec"]["versions"],
    }
    for system in systems.values():
        system.pop("versions", None)
    result["systems"] = systems
    if args.quick:  # parts of the work, not the same parts: no ratios
        print(report(result) + "\n\n(quick: all of it runs; nothing was written, and these figures mean nothing)")
    else:
        result["ratios"] = ratios(systems)
        print(report(result))
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten to {args.out.name}")


if __name__ == "__main__":
    main()
