"""`dglrec doctor`: it reports what is wrong, with the line that mends it, and never raises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dglrec
from dglrec import doctor
from dglrec._dgl import dgl, dgl_version
from dglrec.doctor import Check, Doctor, report


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DGLREC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def found(name: str, checks: Doctor | Iterator[Check]) -> Check:
    checks = checks.checks if isinstance(checks, Doctor) else tuple(checks)
    return next(check for check in checks if check.name == name)


def test_a_sound_machine() -> None:
    all_ = report()
    assert dglrec.__version__ in found("dglrec", all_).value
    assert sys.version.split()[0] in found("python", all_).value
    assert torch.__version__ in found("torch", all_).value
    assert (
        found("dgl", all_).value == f"{dgl_version()}, without CUDA"
        or "device_api.cuda" in dgl.list_global_func_names()
    )
    assert found("on cpu", all_) == Check("on cpu", found("on cpu", all_).value)
    assert "CSR tensors" in found("on cpu", all_).value
    assert found("data", all_).value.startswith("DGLREC_DATA is not set")
    assert found("cache", all_).value.endswith("not made yet")
    read = json.loads(json.dumps(all_.to_dict()))
    assert read["ok"] == (all_.exit_code == 0)
    assert [check["name"] for check in read["checks"]] == [check.name for check in all_.checks]


def test_text_has_each_mending_line() -> None:
    sick = Doctor((Check("a", "one"), Check("bb", "two", "do this"), Check("c", "three", "do that")))
    assert str(sick) == "a   one\nbb  two\n    mend: do this\nc   three\n    mend: do that\n2 things are wrong"
    assert sick.exit_code == 1
    assert str(Doctor((Check("a", "one"),))).endswith("all is well")


@pytest.mark.parametrize(
    ("hidden", "mend"),
    [("dgl", "pip install dgl=="), ("polars", "pip install polars"), ("packaging", "pip install packaging")],
)
def test_it_runs_where_something_is_missing(hidden: str, mend: str, tmp_path: Path) -> None:
    program = f"""
import importlib.metadata, sys
sys.modules[{hidden!r}] = None
version = importlib.metadata.version
def without(name):
    if name == {hidden!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = without
importlib.metadata.requires = lambda name: ["polars>=1.0", "packaging>=21", 'pytest>=8; extra == "test"']
from dglrec.doctor import report
doctor = report()
print(doctor)
sys.exit(doctor.exit_code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 1
    mends = [line.strip() for line in done.stdout.splitlines() if "mend: " in line]
    assert len(mends) == 1
    assert mends[0].startswith(f"mend: {mend}")
    assert "threads" in done.stdout
    assert done.stdout.endswith("1 thing is wrong\n")


def test_versions_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["numpy<1.5,>=1.0", "torch>=2.1"])
    unfit = found("unfit", doctor._libraries())
    assert unfit.value.endswith("dglrec needs numpy<1.5,>=1.0")
    assert unfit.mend == 'pip install "numpy<1.5,>=1.0"'


def test_a_probe_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the first line\nthe second")

    monkeypatch.setattr("dglrec.graphs.user_item", fails)
    all_ = report()
    assert found("propagation", all_).value == "the first line"
    assert found("propagation", all_).mend
    assert found("threads", all_)


def test_propagation_that_differs_from_message_passing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.nn.functional.embedding_bag
    monkeypatch.setattr(torch.nn.functional, "embedding_bag", lambda *a, **k: original(*a, **k) * 1.01)
    assert found("on cpu", report()).mend.startswith("pip install --force-reinstall")


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(doctor, "_CPU_QUOTA", quota)
    for text, cores in (("150000 100000", 2), ("max 100000", 8), ("", 8)):
        quota.write_text(text)
        assert doctor._usable_cores() == cores
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert found("threads", doctor._threads()) == Check("threads", "8 of PyTorch on 8 usable cores")
    quota.write_text("150000 100000")
    assert found("threads", doctor._threads()).mend == "export OMP_NUM_THREADS=2"


def test_data_folder_and_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DGLREC_DATA", str(tmp_path / "nothing"))
    assert found("data", report()).mend.startswith("unset DGLREC_DATA")
    for name in ("shop", "empty"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / "shop" / "interactions.tsv.gz").touch()
    monkeypatch.setenv("DGLREC_DATA", str(tmp_path / "data"))
    assert found("data", report()) == Check("data", f"DGLREC_DATA={tmp_path / 'data'}: shop")
    (tmp_path / "cache" / "dglrec").mkdir(parents=True)
    assert found("cache", report()).value == f"{tmp_path / 'cache' / 'dglrec'}: no data set in it"
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path / "data"))
    assert found("data", doctor._data()).mend == f"chmod u+rx '{tmp_path / 'data'}'"
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert found("cache", doctor._data()).mend.startswith("export XDG_CACHE_HOME=")


@pytest.mark.parametrize(
    ("gpu", "built_for", "variable", "value", "mend"),
    [
        (False, None, None, "no CUDA, no NVIDIA GPU here", ""),
        (False, "13.0", None, "CUDA 13.0, no NVIDIA GPU here", ""),
        (True, None, None, "no CUDA, but there is an NVIDIA GPU", "pip install --force-reinstall torch"),
        (True, "13.0", "", "CUDA 13.0, the GPU is hidden by CUDA_VISIBLE_DEVICES=''", ""),
        (
            True,
            "13.0",
            None,
            "cannot use the GPU here: The driver is too old",
            "pip install --force-reinstall torch --i",
        ),
    ],
)
def test_gpu_that_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    gpu: bool,
    built_for: str | None,
    variable: str | None,
    value: str,
    mend: str,
) -> None:
    def unavailable() -> bool:
        import warnings

        warnings.warn("The driver is too old. Please update.", stacklevel=1)
        return False

    monkeypatch.setattr(doctor, "_DEVICES", tmp_path)
    if gpu:
        (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    check = found("torch", doctor._torch())
    assert check.value.endswith(value)
    assert check.mend.startswith(mend)
    assert bool(check.mend) == bool(mend)
