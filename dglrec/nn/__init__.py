"""Encoders and layers, each called as `encoder(graph, x, ...)`."""

from __future__ import annotations

from .propagation import Adjacency, LightGCNEncoder, message_passing
from .transformer import CausalTransformer

__all__ = ["Adjacency", "CausalTransformer", "LightGCNEncoder", "message_passing"]
