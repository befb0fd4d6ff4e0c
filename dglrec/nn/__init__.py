"""Encoders and layers, each called as `encoder(graph, x, ...)`."""

from __future__ import annotations

from .intervals import InstanceEncoder, IntervalFusion, Reliability
from .propagation import Adjacency, LightGCNEncoder, message_passing
from .slices import SliceAdjacency, SliceEncoder, slice_message_passing
from .transformer import CausalTransformer

__all__ = [
    "Adjacency",
    "CausalTransformer",
    "InstanceEncoder",
    "IntervalFusion",
    "LightGCNEncoder",
    "Reliability",
    "SliceAdjacency",
    "SliceEncoder",
    "message_passing",
    "slice_message_passing",
]
