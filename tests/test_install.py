"""What installing and importing promise: silence, a light import, and tested versions of all that is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import dglrec

PACKAGE = Path(dglrec.__file__).parent

# PyTorch and DGL alone: dglrec's own door to DGL, without the package around it.
BASE = f"import runpy, torch; runpy.run_path({str(PACKAGE / '_dgl.py')!r})"
FULL = "import dglrec"
LAZY = {
    "matplotlib",
    "networkx",
    "pandas",
    "polars",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "tqdm",
    "transformers",
}


def run(program: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A new process with an empty home, as on a fresh machine."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DGL", "XDG", "MPL"))}
    paths = [str(PACKAGE.parent), environment.get("PYTHONPATH", "")]
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, reversed(paths)))}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)


def import_seconds(program: str, home: Path) -> float:
    timed = f"import time; start = time.perf_counter(); {program}; print(time.perf_counter() - start)"
    return float(run(timed, home).stdout)


def loaded(program: str, home: Path) -> set[str]:
    return set(json.loads(run(f"{program}\nimport json, sys; print(json.dumps(list(sys.modules)))", home).stdout))


def test_import_is_silent_and_writes_nothing(tmp_path: Path) -> None:
    done = run(FULL + "; dglrec.graphs.user_item(user=[0], item=[0], num_users=1, num_items=1)", tmp_path)
    assert done.stdout == ""
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_import_loads_no_library_that_is_not_needed_yet(tmp_path: Path) -> None:
    more = loaded(FULL, tmp_path) - loaded(BASE, tmp_path)
    assert "dglrec.models" in more
    assert not LAZY & more  # DGL itself brings some of them


def test_import_takes_at_most_half_as_long_again_as_torch_and_dgl(tmp_path: Path) -> None:
    base, full = [], []
    for _ in range(8):  # whatever else the machine does only adds: the fastest of each is nearest to the truth
        base.append(import_seconds(BASE, tmp_path))
        full.append(import_seconds(FULL, tmp_path))
        if len(base) >= 2 and min(full) <= 1.5 * min(base):
            return
    pytest.fail(f"import dglrec takes {min(full):.2f} s, torch and DGL alone {min(base):.2f} s")


def test_the_constraints_fit_what_setup_asks_for() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    constraints = PACKAGE.parent / "constraints.txt"
    try:
        asked = [requirements.Requirement(line) for line in metadata.requires("dglrec") or ()]
    except metadata.PackageNotFoundError:
        pytest.skip("dglrec is not installed")
    lines = [line for line in constraints.read_text().splitlines() if line and not line.startswith("#")]
    pins = [requirements.Requirement(line) for line in lines]
    for python in ("3.10", "3.11", "3.12"):
        environment = {"python_version": python, "extra": "test"}
        versions = {
            pin.name: next(iter(pin.specifier)).version
            for pin in pins
            if pin.marker is None or pin.marker.evaluate(environment)
        }
        for requirement in asked:
            if requirement.marker is None or requirement.marker.evaluate(environment):
                assert requirement.specifier.contains(versions[requirement.name]), (python, requirement)


def test_language_models_are_asked_for_with_all_that_they_need() -> None:
    """Each has a version that was tested with the PyTorch that stands there, so that pip takes no other one."""
    setup = (PACKAGE.parent / "setup.py").read_text()
    pinned = {line.partition("==")[0] for line in (PACKAGE.parent / "constraints.txt").read_text().splitlines()}
    extra = setup.partition('"lm": [')[2].partition("]")[0]
    for name in ("transformers", "tokenizers", "sentence-transformers"):
        assert f'"{name}>=' in extra
        assert name in pinned
    assert "torch" in pinned


def test_one_pin_a_package_and_python() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    lines = (PACKAGE.parent / "constraints.txt").read_text().splitlines()
    pins = [requirements.Requirement(line) for line in lines if line and not line.startswith("#")]
    for python in ("3.10", "3.11", "3.12"):
        names = [pin.name for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": python})]
        assert len(names) == len(set(names))
