"""Initial weights."""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module, how: str) -> None:
    """Initial weights of all embeddings and linear layers, biases at 0.

    Args:
        how: "xavier_normal", "xavier_uniform" (over a whole table, as RecBole does), or "normal" with deviation .02.
    """
    for part in module.modules():
        if isinstance(part, nn.Embedding | nn.Linear):
            if how == "normal":
                nn.init.normal_(part.weight, std=0.02)
            else:
                {"xavier_normal": nn.init.xavier_normal_, "xavier_uniform": nn.init.xavier_uniform_}[how](part.weight)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
