"""Public graph builders: from a log or plain arrays to DGL heterographs, with nothing of the training code in them."""

from __future__ import annotations

from . import clustering
from .interests import Interests, dense_interests, interests, sparsify, weighted_cosine
from .user_item import Sequences, as_sequences, sequences, user_item

__all__ = [
    "Interests",
    "Sequences",
    "as_sequences",
    "clustering",
    "dense_interests",
    "interests",
    "sequences",
    "sparsify",
    "user_item",
    "weighted_cosine",
]
