"""Graph-based and sequential recommendation on DGL.

log = dglrec.load("amazon-beauty")                 # what happened: who touched what, when
split = dglrec.leave_one_out(log)                  # training events, and held-out queries
model = dglrec.models.preset("gsau-rec", split)    # a system
run = dglrec.fit(model, split)                     # trained; the epoch is chosen on validation
print(dglrec.evaluate(model, split.test))          # metrics under a protocol that prints itself
model.recommend(user="A1YJEY40YUW4SE", k=10)
"""

from __future__ import annotations

from . import data, graphs, losses, models, nn
from .checkpoint import load as load_model
from .checkpoint import save as save_model
from .data import (
    InteractionLog,
    Queries,
    Split,
    given,
    leave_one_out,
    load,
    make_split,
    ratio,
    sample,
    time_point,
    windows,
)
from .errors import CheckpointError, ConfigError, DataError, DglrecError
from .evaluate import Metrics, evaluate
from .intervals import Interval, user_bootstrap
from .protocol import Protocol
from .recommend import Recommendations, recommend
from .reproduce import reproduce
from .train import Run, fit
from .version import __version__

__all__ = [
    "CheckpointError", "ConfigError", "DataError", "DglrecError", "InteractionLog", "Interval", "Metrics", "Protocol",
    "Queries", "Recommendations", "Run", "Split", "__version__", "data", "evaluate", "fit", "given", "graphs",
    "leave_one_out", "load", "load_model", "losses", "make_split", "models", "nn", "ratio", "recommend", "reproduce",
    "sample", "save_model", "time_point", "user_bootstrap", "windows",
]  # fmt: skip
