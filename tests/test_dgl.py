"""The door to DGL: what it does with a complete, an incomplete and a missing DGL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dglrec import _dgl
from dglrec._dgl import dgl

# Runs the door on the packages in the folder given by PYTHONPATH; the last line is what came of it.
DOOR = f"""
import runpy
try:
    door = runpy.run_path({_dgl.__file__!r})
    print(door["dgl_version"](), door["graphbolt_state"](), sep="|")
    print(door["dgl"].graphbolt.ItemSet)
except (ImportError, AttributeError) as error:
    print(type(error).__name__, error, sep="|")
"""


def run_door(folder: Path, before: str = "", **environment: str) -> list[str]:
    """The lines that the door prints in a new process with an empty home."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DGL")}
    done = subprocess.run(
        [sys.executable, "-c", before + DOOR],
        env=clean | {"HOME": str(home), "PYTHONPATH": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert list(home.iterdir()) == []
    return done.stdout.splitlines()


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with a stand-in for PyTorch 9.1.0 and for a DGL 2 with a complete GraphBolt."""
    (tmp_path / "torch.py").write_text('__version__ = "9.1.0+cpu"\n')
    bolt = tmp_path / "dgl" / "graphbolt"
    bolt.mkdir(parents=True)
    (tmp_path / "dgl" / "__init__.py").write_text(
        "import os, sys, warnings\n"
        '__version__ = "2.1.0"\n'
        'if "DGLBACKEND" not in os.environ: print("Setting the default backend")\n'
        'warnings.warn("something nobody can mend")\n'
        "from . import inner\n"
    )
    (tmp_path / "dgl" / "inner.py").write_text("from . import graphbolt as gb\n")
    (bolt / "__init__.py").write_text('ItemSet = "the real one"\n')
    (bolt / "libgraphbolt_pytorch_9.0.1.so").touch()
    (bolt / "libgraphbolt_pytorch_9.1.0.so").touch()
    return tmp_path


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the stand-in has Linux's file names")


@linux
def test_a_complete_dgl_is_left_untouched(stand_in: Path) -> None:
    assert run_door(stand_in) == ["2.1.0|complete", "the real one"]


@linux
def test_a_missing_binary_is_replaced_by_a_placeholder_that_says_so(stand_in: Path) -> None:
    (stand_in / "dgl/graphbolt/libgraphbolt_pytorch_9.1.0.so").unlink()
    (stand_in / "dgl/graphbolt/__init__.py").write_text('raise FileNotFoundError("no binary")\n')
    state, asked = run_door(stand_in)
    assert state == (
        "2.1.0|missing: this DGL has no libgraphbolt_pytorch_9.1.0.so; it comes with GraphBolt for torch 9.0.1"
    )
    assert asked.startswith(
        "AttributeError|dgl.graphbolt.ItemSet is missing, as GraphBolt cannot load: this DGL has no"
    )


@linux
@pytest.mark.parametrize(
    ("needs", "line"),
    [("torchdata.datapipes", 'pip install "torchdata<0.10"'), ("pydantic_x", "pip install pydantic_x")],
)
def test_graphbolt_that_lacks_a_library_is_replaced(stand_in: Path, needs: str, line: str) -> None:
    (stand_in / "torchdata").mkdir()  # as torchdata 0.11 is: without datapipes
    (stand_in / "torchdata/__init__.py").touch()
    (stand_in / "dgl/graphbolt/__init__.py").write_text(f"import {needs}\n")
    state, _ = run_door(stand_in)
    assert state == f"2.1.0|missing: it needs {needs}: {line}"


@linux
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import pandas_x.core", "DGL needs pandas_x, which is not installed: pip install pandas_x"),
        ("import setuptools.extern_x", "DGL needs setuptools.extern_x, which is not installed: pip install packaging"),
        ("import torchdata_x", "DGL needs torchdata_x, which is not installed: pip install torchdata_x"),
    ],
)
def test_what_dgl_lacks_is_named_with_the_line_that_mends_it(stand_in: Path, code: str, message: str) -> None:
    (stand_in / "setuptools.py").touch()
    (stand_in / "dgl/inner.py").write_text(code + "\n")
    assert run_door(stand_in) == [f"DGLUnavailable|{message}"]


def test_a_damaged_dgl_is_named(stand_in: Path) -> None:
    (stand_in / "dgl/inner.py").write_text('raise OSError("libdgl.so: undefined symbol: x\\nmore")\n')
    (line,) = run_door(stand_in)
    assert line.startswith(
        f"DGLUnavailable|DGL in {stand_in / 'dgl'} cannot be imported (libdgl.so: undefined symbol: x): "
    )
    assert "pip install --force-reinstall --no-deps dgl==" in line


def test_missing_dgl_and_missing_torch_are_named(stand_in: Path) -> None:
    (line,) = run_door(stand_in, before="import sys; sys.modules['dgl'] = None")
    assert line.startswith("DGLUnavailable|dglrec needs DGL, which is not installed: pip install dgl==")
    (line,) = run_door(stand_in, before="import sys; sys.modules['torch'] = None")
    assert line == "DGLUnavailable|dglrec needs PyTorch, and torch is not installed: pip install torch"


def test_another_backend_is_refused(stand_in: Path) -> None:
    (line,) = run_door(stand_in, DGLBACKEND="mxnet")
    assert line == "DGLUnavailable|DGLBACKEND is 'mxnet', dglrec works on PyTorch only: export DGLBACKEND=pytorch"


def test_a_dgl_that_is_imported_already_is_taken_as_it_is(stand_in: Path) -> None:
    assert run_door(
        stand_in,
        before="import os; os.environ['DGLBACKEND'] = 'pytorch'\n"
        "import warnings; warnings.simplefilter('ignore'); import dgl; dgl.__version__ = 'theirs'",
    )[0] == ("theirs|complete")


def test_state_of_the_dgl_that_is_installed() -> None:
    assert _dgl.dgl_version() == dgl.__version__
    assert _dgl.dgl_has_cuda() == ("device_api.cuda" in dgl.list_global_func_names())
    major = int(_dgl.dgl_version().split(".")[0])
    state = _dgl.graphbolt_state()
    assert (state == "none") == (major == 1)
    if state.startswith("missing"):
        assert f"{torch.__version__.split('+')[0]}" in state
        with pytest.raises(AttributeError, match=r"dgl\.graphbolt\.ItemSet is missing"):
            _ = dgl.graphbolt.ItemSet
        assert not hasattr(dgl.graphbolt, "__file__")


def test_the_core_of_the_dgl_that_is_installed_works(tmp_path: Path) -> None:
    user, item = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    graph = dgl.heterograph({("user", "interacts", "item"): (user, item)}, {"user": 3, "item": 2})
    graph.nodes["user"].data["h"] = torch.tensor([[1.0], [2.0], [4.0]])
    graph.update_all(dgl.function.copy_u("h", "m"), dgl.function.sum("m", "h"), etype="interacts")
    assert graph.nodes["item"].data["h"].tolist() == [[1.0], [3.0]]
    weights = dgl.nn.functional.edge_softmax(graph, torch.zeros(3, 1))
    assert weights.flatten().tolist() == [1.0, 0.5, 0.5]
    assert dgl.sampling.sample_neighbors(graph, {"item": [1]}, 1).num_edges() == 1
    dgl.save_graphs(str(tmp_path / "graph.bin"), [graph])
    (loaded,), _ = dgl.load_graphs(str(tmp_path / "graph.bin"))
    assert loaded.canonical_etypes == graph.canonical_etypes
    assert torch.equal(torch.stack(loaded.edges()), torch.stack(graph.edges()))
