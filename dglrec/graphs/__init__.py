"""Public graph builders: from a log or plain arrays to DGL heterographs, with nothing of the training code in them."""

from __future__ import annotations

from .user_item import Sequences, as_sequences, sequences, user_item

__all__ = ["Sequences", "as_sequences", "sequences", "user_item"]
