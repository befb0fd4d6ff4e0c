"""The one door to DGL: every other module says ``from dglrec._dgl import dgl``.

DGL is imported here so that it starts silently on a fresh home, and so that DGL 2 works on a PyTorch for which it ships
no GraphBolt binary. (GraphBolt is its data loading; the graph core, the samplers and message passing do without.) There
an empty placeholder replaces ``dgl.graphbolt`` and says what is missing when it is used. A DGL that is
complete, and one that the caller has imported already, is left as it is. Where DGL cannot be imported at all, the first
use of ``dgl`` raises an ImportError that ends with the line that mends it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
import types
import warnings
from pathlib import Path
from typing import Any

# The pip name of a module that DGL imports. GraphBolt is written with torchdata.datapipes, which 0.10 dropped; DGL's
# fallback for `packaging` is a copy that setuptools no longer has.
_PIP_NAMES = {"torchdata": '"torchdata<0.10"', "setuptools": "packaging", "yaml": "pyyaml"}


def _dgl_line() -> str:
    """The pip line that installs a DGL for the running Python: 1.1.3 has wheels up to 3.11, 2.1.0 up to 3.12."""
    version = "1.1.3" if sys.version_info < (3, 12) else "2.1.0"
    return f"pip install dgl=={version} packaging pandas"


def _pip_line(module: str) -> str:
    """The pip line that brings a module which was not found.

    >>> _pip_line("torchdata.datapipes")
    'pip install "torchdata<0.10"'
    """
    name = module.partition(".")[0]
    return f"pip install {_PIP_NAMES.get(name, name)}"


def _missing_binary(package: Path, torch_version: str) -> str:
    """Which GraphBolt binary a DGL lacks for a PyTorch; "" if it has it, or has no GraphBolt (DGL 1).

    Args:
        package: the folder of the package ``dgl``, which need not be imported.
        torch_version: the running PyTorch, such as "2.13.0+cpu".
    """
    folder = package / "graphbolt"
    if not folder.is_dir():
        return ""
    form = "libgraphbolt_pytorch_{}.so"
    if sys.platform.startswith("win"):
        form = "graphbolt_pytorch_{}.dll"
    elif sys.platform.startswith("darwin"):
        form = "libgraphbolt_pytorch_{}.dylib"
    name = form.format(torch_version.split("+", maxsplit=1)[0])
    library = os.environ.get("DGL_LIBRARY_PATH")  # where DGL looks first
    if (folder / name).is_file() or (library and (Path(library) / "graphbolt" / name).is_file()):
        return ""
    prefix, suffix = form.split("{}")
    found = sorted(file.name[len(prefix) : -len(suffix)] for file in folder.glob(form.format("*")))
    return f"this DGL has no {name}; it comes with GraphBolt for torch {', '.join(found) or '(none)'}"


class _MissingGraphBolt(types.ModuleType):
    """Replaces ``dgl.graphbolt`` where that cannot load; using any public name of it says why."""

    def __init__(self, reason: str) -> None:
        super().__init__("dgl.graphbolt", f"A placeholder made by dglrec, as GraphBolt cannot load: {reason}.")
        self.reason = reason
        self.__path__: list[str] = []  # a package without submodules
        self.__spec__ = importlib.machinery.ModuleSpec("dgl.graphbolt", None, is_package=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"dgl.graphbolt.{name} is missing, as GraphBolt cannot load: {self.reason} (dglrec works without it)"
        )


class DGLUnavailable(ImportError):
    """DGL cannot be imported; `mend` is the line that changes that, and ends the message."""

    def __init__(self, reason: str, mend: str, module: str = "dgl") -> None:
        super().__init__(f"{reason}: {mend}", name=module)
        self.mend = mend


def _set_backend() -> None:
    """Chooses PyTorch before DGL does: without a choice DGL prints to standard output and writes ~/.dgl."""
    chosen = os.environ.get("DGLBACKEND", "")
    if chosen.lower() not in ("", "pytorch"):
        raise DGLUnavailable(f"DGLBACKEND is {chosen!r}, dglrec works on PyTorch only", "export DGLBACKEND=pytorch")
    os.environ["DGLBACKEND"] = "pytorch"


def _import_dgl() -> Any:
    """Imports DGL as the module docstring says.

    Raises:
        DGLUnavailable: PyTorch, DGL or something that DGL needs is missing.
    """
    if loaded := sys.modules.get("dgl"):
        return loaded
    try:
        import torch
    except ModuleNotFoundError as error:
        name = error.name or "torch"
        raise DGLUnavailable(f"dglrec needs PyTorch, and {name} is not installed", _pip_line(name), name) from None
    _set_backend()
    spec = importlib.util.find_spec("dgl")  # finds the package, imports nothing
    if spec is None or spec.origin is None:
        raise DGLUnavailable("dglrec needs DGL, which is not installed", _dgl_line())
    package = Path(spec.origin).parent
    try:
        if missing := _missing_binary(package, torch.__version__):
            return _import_without_graphbolt(missing)
        try:
            return _quiet_import()
        except ImportError as error:
            frames = traceback.extract_tb(error.__traceback__)
            if not any(Path(frame.filename).is_relative_to(package / "graphbolt") for frame in frames):
                raise
            reason = f"it needs {error.name}: {_pip_line(error.name)}" if error.name else str(error)
        return _import_without_graphbolt(reason)
    except ModuleNotFoundError as error:
        name = error.name or "dgl"
        raise DGLUnavailable(f"DGL needs {name}, which is not installed", _pip_line(name), name) from None
    except Exception as error:  # a binary of another platform, a damaged installation
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        line = _dgl_line().replace("install", "install --force-reinstall --no-deps", 1)
        raise DGLUnavailable(f"DGL in {package} cannot be imported ({reason})", line) from error


def _quiet_import() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DGL's own, such as invalid escapes: nothing that a caller can mend
        return importlib.import_module("dgl")


def _import_without_graphbolt(reason: str) -> Any:
    placeholder = sys.modules["dgl.graphbolt"] = _MissingGraphBolt(reason)
    try:
        module = _quiet_import()
    except BaseException:
        sys.modules.pop("dgl.graphbolt", None)
        raise
    module.graphbolt = placeholder
    return module


class _MissingDGL:
    """Replaces DGL where it cannot be imported, so that `import dglrec` works; any use says what mends it."""

    def __init__(self, error: DGLUnavailable) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # what Python itself looks up, such as __wrapped__
            raise AttributeError(name)
        raise self.error.with_traceback(None)


def _dgl_or_placeholder() -> Any:
    try:
        return _import_dgl()
    except DGLUnavailable as error:
        return _MissingDGL(error)


dgl: Any = _dgl_or_placeholder()


def dgl_version() -> str:
    """The version of the imported DGL, such as "1.1.3"."""
    return str(dgl.__version__)


def dgl_has_cuda() -> bool:
    """Whether this DGL was built with CUDA, on whatever machine it runs."""
    return "device_api.cuda" in dgl.list_global_func_names()


def graphbolt_state() -> str:
    """One line on GraphBolt, which dglrec does not use: "none" (DGL 1), "complete", or "missing: " and the reason."""
    module = sys.modules.get("dgl.graphbolt")
    if module is None:
        return "none"
    return f"missing: {module.reason}" if isinstance(module, _MissingGraphBolt) else "complete"
