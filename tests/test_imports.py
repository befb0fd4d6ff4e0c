"""The modules of the package form layers: no module imports, at once or later, one that needs it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

import dglrec

ROOT = Path(dglrec.__file__).parent


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """The package's modules that a file imports anywhere, in functions and for types too."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            target = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                found = f"{target}.{alias.name}"
                if found in known or target in known:
                    yield found if found in known else target


def test_no_module_imports_one_that_needs_it() -> None:
    paths = {module_of(path): path for path in ROOT.rglob("*.py")}
    graph = nx.DiGraph((name, other) for name, path in paths.items() for other in imported(path, set(paths)))
    assert graph.has_edge("dglrec.checkpoint", "dglrec.base") and graph.has_edge("dglrec.train", "dglrec.curves")
    assert [sorted(circle) for circle in nx.strongly_connected_components(graph) if len(circle) > 1] == []
