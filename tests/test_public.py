"""The public surface: the names that examples, pages and other people's code use."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

import dglrec

NAMES = [
    *(
        "load",
        "leave_one_out",
        "time_point",
        "ratio",
        "given",
        "make_split",
        "sample",
        "InteractionLog",
        "Split",
        "Queries",
    ),
    *("data.check", "data.get", "data.list_datasets", "data.sample", "data.sample_oracle", "data.from_frame"),
    *("graphs.user_item", "graphs.sequences", "graphs.Sequences", "graphs.hops", "graphs.Hops", "graphs.Neighbours"),
    *("graphs.time_slices", "graphs.slice_boundaries", "graphs.slice_names", "graphs.slice_times", "nn.SliceEncoder"),
    *("models.preset", "models.PRESETS", "models.Model", "models.Counts", "models.LightGCN", "models.SASRec"),
    *("models.GALRec", "models.IndexedLM", "losses.info_nce"),
    *("models.MIP", "models.ComiRec", "models.SURGE"),
    *("models.SelfGNN", "models.HardGNN", "losses.hinge", "losses.pair_cross_entropy", "losses.info_nce"),
    *("models.GSAU", "models.Model.recommend", "models.Model.set_ranking"),
    *("losses.alignment", "losses.uniformity", "losses.cross_uniformity", "losses.bpr", "losses.item_cross_entropy"),
    *("fit", "Run.test", "evaluate", "Metrics", "Protocol", "recommend", "Recommendations", "reproduce"),
    *("user_bootstrap", "Interval"),
    *("save_model", "load_model", "DglrecError", "ConfigError", "DataError", "CheckpointError"),
]


def found(name: str) -> object:
    module, _, last = name.rpartition(".")
    if last[:1].isupper() and f"dglrec.{module}" in sys.modules:  # `dglrec.recommend` is a function too
        return getattr(sys.modules[f"dglrec.{module}"], last)
    value: object = dglrec
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_there_and_described(name: str) -> None:
    value = found(name)
    if callable(value):
        assert value.__doc__
    if "." not in name:
        assert name in dglrec.__all__


PACKAGES = ["dglrec", "dglrec.data", "dglrec.graphs", "dglrec.models", "dglrec.nn"]
REFERENCE = (Path(__file__).parents[1] / "docs" / "api.rst").read_text("utf-8")


@pytest.mark.parametrize("module", PACKAGES)
def test_what_a_package_lists_is_in_it(module: str) -> None:
    package = importlib.import_module(module)
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        assert hasattr(package, name), name


def test_the_reference_names_what_is_there() -> None:
    named = re.findall(r"auto(?:class|function)::\s*dglrec\.([\w.]+)", REFERENCE)
    assert len(named) > 20
    for name in named:
        assert callable(found(name)), name
    for name in re.findall(r"automodule::\s*([\w.]+)", REFERENCE):
        importlib.import_module(name)


@pytest.mark.parametrize("module", PACKAGES)
def test_the_reference_has_every_public_name(module: str) -> None:
    """By itself, or as a documented part of a module that is there as a whole."""
    package = importlib.import_module(module)
    modules = set(re.findall(r"automodule::\s*([\w.]+)", REFERENCE))
    objects = [found(name) for name in re.findall(r"(?:auto\w+|data)::\s*dglrec\.([\w.]+)$", REFERENCE, re.MULTILINE)
               if f"dglrec.{name}" not in modules]  # fmt: skip
    for name in set(package.__all__) - {"__version__"}:
        value = getattr(package, name)
        if inspect.ismodule(value):
            assert f"{value.__name__}." in REFERENCE or value.__name__ in modules, name
        elif getattr(value, "__module__", None) in modules:
            assert value.__doc__, name  # without one, Sphinx leaves it out
        else:
            assert any(value is one for one in objects), f"docs/api.rst lacks {module}.{name}"


@pytest.mark.parametrize("package", ["nn", "lm", "graphs"])
def test_the_reference_has_every_module_of_parts(package: str) -> None:
    """Modules whose functions are used on their own: as a whole, or the builder that a module is named after."""
    for path in sorted((Path(dglrec.__file__).parent / package).glob("[!_]*.py")):
        module = f"dglrec.{package}.{path.stem}"
        assert re.search(rf"auto(module|function):: {re.escape(module)}$", REFERENCE, re.MULTILINE), f"no {module}"
