"""Broken files and bombs: a short run of `tests/benchmarks/hostile.py`, and all of it where DGLREC_SLOW is set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on memory")


def run(*words: object) -> dict:
    command = [sys.executable, str(BENCHMARKS / "hostile.py"), "--quick", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    results = json.loads(done.stdout)
    assert results["wrong"] == [], results["wrong"][:3]
    assert done.returncode == 0
    return results


def test_broken_files_are_refused_or_read_rightly() -> None:
    results = run("--files", 275, "--checkpoints", 0, "--seed", 2, "--no-bombs")
    counts = results["counts"]
    assert sum(counts.values()) == 275
    assert counts["read"] > 20 and counts["refused"] > 100
    assert sum(number for name, number in counts.items() if "undecided" in name) < 50


@pytest.mark.slow
def test_many_broken_files_bombs_and_checkpoints() -> None:
    results = run("--files", 12_000, "--checkpoints", 1_000, "--seed", 3, "--workers", 2)
    assert results["peak_bytes_above_rest"] < 1 << 30
    assert results["checkpoints"]["wrong"] == 0


def test_the_figures_that_are_kept_are_good() -> None:
    kept = json.loads((BENCHMARKS / "hostile.json").read_text())
    assert kept["files"] >= 10_000 and kept["wrong"] == [] and kept["bombs"] >= 8
    assert kept["peak_bytes_above_rest"] < kept["room_bytes"] == 1 << 30
    assert sum(kept["checkpoints"].values()) >= 1_000 and kept["checkpoints"]["wrong"] == 0
