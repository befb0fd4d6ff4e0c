"""Data: interaction logs, readers, splits, and samples whose right answers are known."""

from __future__ import annotations

from .check import check
from .datasets import DatasetInfo, get, list_datasets, load, paper_log
from .drift import DriftOracle
from .hops import HopOracle
from .interests import InterestOracle
from .log import InteractionLog
from .papers import PAPER_SETS, PaperSet
from .queries import Queries
from .readers import from_frame, read_interactions
from .sample import Oracle, sample, sample_oracle
from .shares import given, ratio
from .splits import Split, leave_one_out, make_split, time_point
from .windows import windows

__all__ = [
    "PAPER_SETS",
    "DatasetInfo",
    "DriftOracle",
    "HopOracle",
    "InteractionLog",
    "InterestOracle",
    "Oracle",
    "PaperSet",
    "Queries",
    "Split",
    "check",
    "from_frame",
    "get",
    "given",
    "leave_one_out",
    "list_datasets",
    "load",
    "make_split",
    "paper_log",
    "ratio",
    "read_interactions",
    "sample",
    "sample_oracle",
    "time_point",
    "windows",
]
