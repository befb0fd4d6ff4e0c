"""Public graph builders: from a log or plain arrays to DGL heterographs, with nothing of the training code in them."""

from __future__ import annotations

from . import clustering
from .hops import Hop, Hops, Neighbours, hops
from .interests import Interests, dense_interests, interests, sparsify, weighted_cosine
from .time_slices import slice_boundaries, slice_names, slice_times, time_slices
from .transitions import transitions
from .user_item import Sequences, as_sequences, sequences, user_item

__all__ = [
    "Hop",
    "Hops",
    "Interests",
    "Neighbours",
    "Sequences",
    "as_sequences",
    "clustering",
    "dense_interests",
    "hops",
    "interests",
    "sequences",
    "slice_boundaries",
    "slice_names",
    "slice_times",
    "sparsify",
    "time_slices",
    "transitions",
    "user_item",
    "weighted_cosine",
]
