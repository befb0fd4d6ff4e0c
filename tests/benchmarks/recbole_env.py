"""An environment of its own for RecBole 1.2.1, which does not install beside a current numpy.

    python tests/benchmarks/recbole_env.py FOLDER

makes a virtual environment in FOLDER (or finds the one that it made before) and prints the path of its Python.

RecBole is installed without its dependencies: three of its pins stand in the way (ray <= 2.6.3 has no wheel for current
Python, colorlog == 4.7.2 and colorama == 0.4.4 are old), and ray, plotly, thop and tabulate are not imported by what is
measured (the data set, the data loaders, the two models, the trainer). No line of RecBole is changed. What it needs:

* numpy < 2: its configuration assigns `np.float_` and its evaluator uses `np.float`.
* scipy 1.12: LightGCN fills its adjacency with `dok_matrix._update`, which later versions do not have.
* pandas < 3: its data set fills columns in place.
* the PyTorch that the calling Python runs, so that both sides run the same kernels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

RECBOLE = "recbole==1.2.1"
NEEDS = [
    "numpy<2",
    "scipy==1.12.*",
    "pandas<3",
    "scikit-learn",
    "pyyaml",
    "tqdm",
    "colorlog",
    "colorama",
    "texttable",
    "psutil",
    "tensorboard",
]


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make(folder: Path) -> Path:
    """Make the environment in `folder`, or find the one that was made there before, and return its Python.

    Raises:
        RuntimeError: pip failed; the message is the end of what pip said.
    """
    if sys.version_info >= (3, 13):
        raise RuntimeError("numpy < 2 has no wheel for Python 3.13; run this with Python 3.10 to 3.12")
    torch = "torch==" + version("torch").partition("+")[0]
    recipe = {"python": sys.version, "packages": [torch, *NEEDS, RECBOLE]}
    stamp = folder / "dglrec-benchmark.json"
    python = python_of(folder)
    if stamp.is_file() and json.loads(stamp.read_text()) == recipe:
        return python
    venv.create(folder, with_pip=True, clear=True)
    for arguments in ([torch, *NEEDS], ["--no-deps", RECBOLE]):
        done = subprocess.run(
            [python, "-m", "pip", "install", "--disable-pip-version-check", "-q", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            said = "\n".join(done.stdout.splitlines()[-15:])
            raise RuntimeError(f"pip install {' '.join(arguments)} failed:\n{said}")
    stamp.write_text(json.dumps(recipe))
    return python


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/benchmarks/recbole_env.py FOLDER")
    print(make(Path(sys.argv[1])))
