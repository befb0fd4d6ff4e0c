"""What dglrec runs on: versions, devices, threads and data, and for each thing that is wrong the line that mends it.

Nothing here raises because something is missing: that is what it reports. What may be missing is imported by the checks
that need it.
"""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_DEVICES = Path("/dev")  # holds nvidia0, nvidia1, ... where a process may use a GPU
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "200000 100000": what a container may use, here two cores; "max ...": all


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was looked at, such as "threads".
        value: what was found, in words.
        mend: the line that mends it, to be typed in a shell; "" where nothing is wrong.
    """

    name: str
    value: str
    mend: str = ""


@dataclass(frozen=True)
class Doctor:
    """All checks; prints itself.

    >>> print(Doctor((Check("python", "3.11.7"), Check("dgl", "not installed", mend="pip install dgl"))))
    python  3.11.7
    dgl     not installed
            mend: pip install dgl
    1 thing is wrong
    """

    checks: tuple[Check, ...]

    @property
    def wrong(self) -> tuple[Check, ...]:
        """The checks that found something wrong."""
        return tuple(check for check in self.checks if check.mend)

    @property
    def exit_code(self) -> int:
        """0 if nothing is wrong, else 1."""
        return int(bool(self.wrong))

    def __str__(self) -> str:
        width = 2 + max((len(check.name) for check in self.checks), default=0)
        lines = []
        for check in self.checks:
            lines.append(f"{check.name:<{width}}{check.value}")
            if check.mend:
                lines.append(f"{'':<{width}}mend: {check.mend}")
        count = len(self.wrong)
        lines.append("all is well" if not count else "1 thing is wrong" if count == 1 else f"{count} things are wrong")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values: {"ok": bool, "checks": [{"name", "value", "mend"}, ...]}."""
        return {"ok": not self.wrong, "checks": [asdict(check) for check in self.checks]}


def report() -> Doctor:
    """Looks at everything, and names each mending line once, where its cause was found."""
    checks: list[Check] = []
    for probe in (_python, _libraries, _torch, _dgl, _propagation, _clustering, _threads, _data):
        for check in _guarded(probe):
            known = check.mend in {earlier.mend for earlier in checks}
            checks.append(Check(check.name, check.value) if known else check)
    return Doctor(tuple(checks))


def _guarded(probe: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A probe's checks; if it fails, a check that says how."""
    try:
        yield from probe()
    except Exception as error:  # whatever it is, the other probes go on
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        mend = "pip install -c constraints.txt -e ."  # in dglrec's folder: the versions that were tested together
        if isinstance(error, ModuleNotFoundError) and error.name:
            mend = f"pip install {error.name.partition('.')[0]}"
        mend = getattr(error, "mend", mend)
        yield Check(probe.__name__.strip("_").replace("_", " "), reason.removesuffix(f": {mend}"), mend)


def _python() -> Iterator[Check]:
    from .version import __version__

    yield Check("dglrec", f"{__version__} in {Path(__file__).parent}")
    yield Check("python", f"{sys.version.split()[0]} on {sys.platform}, {sys.executable}")


def _libraries() -> Iterator[Check]:
    """Versions of what dglrec requires, and which of them are missing or too old."""
    try:
        asked = [line for line in metadata.requires("dglrec") or () if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        yield Check(
            "libraries", "dglrec is used without being installed: the versions of its libraries are not checked"
        )
        return
    found = {line: _version(_name(line)) for line in asked}
    yield Check("libraries", ", ".join(version for version in found.values() if version))
    missing = [line for line in asked if not found[line] and not line.startswith(("torch", "dgl"))]  # reported below
    if missing:
        names = " ".join(_name(line) for line in missing)
        yield Check("missing", ", ".join(missing), f"pip install {names}")
    else:
        from packaging.requirements import Requirement

        for line in filter(found.get, asked):
            if not Requirement(line).specifier.contains(found[line].partition(" ")[2], prereleases=True):
                yield Check("unfit", f"{found[line]}, dglrec needs {line}", f'pip install "{line}"')


def _name(requirement: str) -> str:
    """The distribution that a requirement names: "numpy" of "numpy>=1.24"."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _version(name: str) -> str:
    """The name and the installed version of a distribution, "" if it is not installed."""
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return ""


def _torch() -> Iterator[Check]:
    import torch

    with warnings.catch_warnings(record=True) as said:  # PyTorch warns of a driver that is too old
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if available:
        yield Check("torch", f"{torch.__version__}, {cuda}, {torch.cuda.get_device_name()}")
    elif not any(_DEVICES.glob("nvidia[0-9]*")):
        yield Check("torch", f"{torch.__version__}, {cuda}, no NVIDIA GPU here")
    elif torch.version.cuda is None:
        mend = "pip install --force-reinstall torch"
        yield Check("torch", f"{torch.__version__}, {cuda}, but there is an NVIDIA GPU", mend)
    elif hidden is not None:
        yield Check("torch", f"{torch.__version__}, {cuda}, the GPU is hidden by CUDA_VISIBLE_DEVICES={hidden!r}")
    else:
        reason = str(said[0].message).partition(".")[0] if said else "it does not start"
        mend = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126"
        yield Check("torch", f"{torch.__version__}, {cuda}, which cannot use the GPU here: {reason}", mend)


def _dgl() -> Iterator[Check]:
    from ._dgl import dgl_has_cuda, dgl_version, graphbolt_state

    yield Check("dgl", f"{dgl_version()}, {'with' if dgl_has_cuda() else 'without'} CUDA")
    state = graphbolt_state()
    yield Check("graphbolt", state if state == "complete" else f"{state} (dglrec works without it)")


def _propagation() -> Iterator[Check]:
    """Runs the path that models run against DGL's message passing, on a graph of three users and two items."""
    import torch

    from .graphs import user_item
    from .nn.propagation import Adjacency, LightGCNEncoder, message_passing

    graph = user_item(user=[0, 0, 1, 2], item=[0, 1, 1, 0], num_users=3, num_items=2, unique=True)
    users, items = torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(0, 1, 8).view(2, 4)
    expected = torch.cat(message_passing(graph, (users, items)))
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        rows = LightGCNEncoder()(Adjacency(graph).to(device), (users.to(device), items.to(device)))
        gap = float((torch.cat(rows).cpu() - expected).abs().max())
        path = f"CSR tensors taken from the DGL graph once, {gap:.0e} from DGL's message passing on the CPU"
        yield Check(f"on {device}", path, "" if gap <= 1e-5 else "pip install --force-reinstall --no-deps torch dgl")


def _usable_cores() -> int:
    """The cores that this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def _clustering() -> Iterator[Check]:
    """How Ward's clustering is computed on a CPU; neither way is wrong."""
    from .graphs.clustering import compiled_ward

    if compiled_ward() is None:
        yield Check("clustering", "Ward in rounds of PyTorch; with numba (pip install numba) it is compiled on a CPU")
    else:
        yield Check("clustering", f"Ward compiled by numba {metadata.version('numba')}")


def _threads() -> Iterator[Check]:
    import torch

    threads, cores = torch.get_num_threads(), _usable_cores()
    value = f"{threads} of PyTorch on {cores} usable cores"
    yield Check("threads", value, f"export OMP_NUM_THREADS={cores}" if threads > cores else "")


def _data() -> Iterator[Check]:
    """The folder of DGLREC_DATA and the user's cache, and the data sets in them."""
    from .data.datasets import list_datasets
    from .data.places import cache_folder

    given = os.environ.get("DGLREC_DATA")
    if given and Path(given).is_dir() and not os.access(given, os.R_OK | os.X_OK):
        yield Check("data", f"DGLREC_DATA={given} may not be read", f"chmod u+rx '{given}'")
        return
    names: dict[str, list[str]] = {}
    for data_set in list_datasets():
        names.setdefault(data_set.place, []).append(data_set.name)
    if not given:
        yield Check("data", "DGLREC_DATA is not set: data sets are looked for in the cache, then downloaded")
    elif Path(given).is_dir():
        yield Check("data", f"DGLREC_DATA={given}: {', '.join(names.get('DGLREC_DATA', ['no data set in it']))}")
    else:
        mend = "unset DGLREC_DATA  # or make it the folder that holds your data sets"
        yield Check("data", f"DGLREC_DATA={given} is not a folder", mend)

    folder = cache_folder()
    value = f"{folder}: {', '.join(names.get('cache', ['no data set in it'])) if folder.is_dir() else 'not made yet'}"
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    writable = os.access(nearest, os.W_OK | os.X_OK)
    mend = "" if writable else "export XDG_CACHE_HOME=/a/folder/that/you/may/write"
    yield Check("cache", value if writable else f"{value}, may not be written", mend)
