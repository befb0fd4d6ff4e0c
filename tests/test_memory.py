"""Memory: large arrays inside `reused_memory` take pages that the process has, and outside of it new ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dglrec.memory import _OWN_SETTINGS, _glibc

SIZE = 2**26  # bytes, beyond what glibc keeps by itself
SCRIPT = f"""
import ctypes, json, resource
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of the usual size, whatever the system prefers
import torch
from dglrec.memory import reused_memory

def pages_per_array(size={SIZE}):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.empty(size, dtype=torch.uint8).fill_(1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

found = {{"before": pages_per_array()}}
with reused_memory():
    pages_per_array()
    found["inside"] = pages_per_array()
    inside = held()
found["returned"] = inside - held()
found["after"] = pages_per_array({2 * SIZE})  # larger than what may be left free within the heap
print(json.dumps(found))
"""


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in _OWN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return dict(os.environ) | {"THP_MEM_ALLOC_ENABLE": "0"}


def measured(environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(_glibc() is None, reason="the C library is not glibc")
class TestReusedMemory:
    def test_no_page_is_new_inside_and_all_are_outside(self, plain: dict[str, str]) -> None:
        # Where the system happens to lay something behind the heap, glibc can neither grow nor shrink it: one in ten.
        found = max((measured(plain) for _ in range(5)), key=lambda run: run["after"])
        pages = SIZE / os.sysconf("SC_PAGESIZE")
        assert found["before"] > 0.9 * pages and found["after"] > 0.9 * 2 * pages
        assert found["inside"] < 0.01 * pages
        assert found["returned"] > 0.9 * SIZE

    def test_the_users_own_settings_stay(self, plain: dict[str, str]) -> None:
        found = measured(plain | {"MALLOC_MMAP_THRESHOLD_": "1048576"})
        assert found["inside"] > 0.9 * SIZE / os.sysconf("SC_PAGESIZE")
