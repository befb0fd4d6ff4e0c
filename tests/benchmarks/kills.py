"""Runs that are killed at random moments and resumed: the same weights, to the bit.

    python tests/benchmarks/kills.py [--presets sasrec lightgcn gsau-rec] [--kills 20] [--seed 1]

`dglrec train` runs once undisturbed. Then it is begun again and again, killed by `kill -9` at a moment drawn
uniformly from its training and the writing of its files, and gone on with by `dglrec train --resume` (a run without a
config.json, which says that there is none, is begun anew). Weights, and all rows of `metrics.jsonl` but their
seconds, have to be those of the undisturbed run.

The counts go to `kills.json` beside this file, which keeps those of other presets.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe

HERE = Path(__file__).resolve().parent
EPOCHS = {"sasrec": 8, "lightgcn": 64, "gsau-rec": 8}  # so that training takes longer than writing the last files
SMALL = {
    "sasrec": {"dim": 32, "inner": 64, "train.batch_size": 256},
    "lightgcn": {"dim": 32, "train.batch_size": 1024, "train.patience": 64},
    "gsau-rec": {"dim": 32, "inner": 64, "train.batch_size": 256},
}


def train(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    """Begins `dglrec train`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dglrec", "train", *words, "--device", "cpu"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=folder.parent
    )


def finished(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process that has to end well."""
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(error.decode())


def until_begun(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits until the run's folder is there."""
    while not folder.exists() and process.poll() is None:
        time.sleep(0.002)


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """What has to be alike."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    plain = [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]
    return (folder / "weights.safetensors").read_bytes(), plain


def measure(preset: str, kills: int, seed: int) -> dict[str, Any]:
    """Kills and resumes a preset."""
    rng = random.Random(f"{preset} {seed}")
    fields = [word for name, value in SMALL.get(preset, {}).items() for word in ("--set", f"{name}={value}")]
    begin = [preset, "--data", "sample:shop", "--epochs", str(EPOCHS.get(preset, 8)), *fields]
    same = anew = 0
    epochs: list[int] = []  # that were finished when the run was killed
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        process = train(whole, [*begin, "--out", str(whole)])
        until_begun(process, whole)
        began = time.monotonic()
        finished(process)
        lasted, expected = time.monotonic() - began, outcome(whole)
        folder = Path(place) / "killed"
        while len(epochs) < kills:
            shutil.rmtree(folder, ignore_errors=True)
            process = train(folder, [*begin, "--out", str(folder)])
            until_begun(process, folder)
            began = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, lasted))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if process.returncode == 0:  # it was faster this time
                lasted = min(lasted, time.monotonic() - began)
                continue
            latest = folder / "state" / "latest.json"
            epochs.append(json.loads(latest.read_text())["epoch"] + 1 if latest.exists() else 0)
            if (folder / "config.json").exists():
                finished(train(folder, ["--resume", str(folder)]))
            else:
                anew += 1
                finished(train(folder, [*begin, "--out", str(folder)]))
            same += outcome(folder) == expected
            print(
                f"{preset}: killed after {epochs[-1]} epochs, {same} of {len(epochs)} the same to the bit", flush=True
            )
    about = {"killed_after_epochs": epochs, "begun_anew": anew, "seconds_undisturbed": lasted, "seed": seed}
    return {"kills": kills, "same_to_the_bit": same, "epochs": len(expected[1]), **about}


def main() -> int:
    """Measures, and writes `kills.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=list(SMALL))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="nothing is written")
    args = parser.parse_args()
    path = HERE / "kills.json"
    kept = json.loads(path.read_text()) if path.exists() else {"presets": {}}
    found = {preset: measure(preset, args.kills, args.seed) for preset in args.presets}
    if not args.quick:
        about = {"machine": describe(), "presets": kept["presets"] | found}
        path.write_text(json.dumps(about, indent=1) + "\n")
    return 0 if all(one["same_to_the_bit"] == one["kills"] for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
