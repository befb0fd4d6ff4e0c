"""Data: interaction logs, readers, splits, and samples whose right answers are known."""

from __future__ import annotations

from .datasets import load
from .log import InteractionLog
from .splits import Queries, Split, leave_one_out, make_split, time_point

__all__ = ["InteractionLog", "Queries", "Split", "leave_one_out", "load", "make_split", "time_point"]
