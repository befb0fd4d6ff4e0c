"""Encoders and layers, each called as `encoder(graph, x, ...)`."""

from __future__ import annotations

from .cloze import ClozeEncoder
from .intervals import InstanceEncoder, IntervalFusion, Reliability
from .propagation import Adjacency, LightGCNEncoder, message_passing
from .slices import SliceAdjacency, SliceEncoder, slice_message_passing
from .transformer import BidirectionalTransformer, CausalTransformer

__all__ = [
    "Adjacency",
    "BidirectionalTransformer",
    "CausalTransformer",
    "ClozeEncoder",
    "InstanceEncoder",
    "IntervalFusion",
    "LightGCNEncoder",
    "Reliability",
    "SliceAdjacency",
    "SliceEncoder",
    "message_passing",
    "slice_message_passing",
]
