"""GAL-Rec's graph-aware learning: the encoding of a node shall be like those of its neighbours (Eq. 5 to 17).

Six pairs of a query and a key are pulled together. Queries come from the encoder that learns, keys from a momentum copy
of it, and the negatives of a query are the keys of earlier batches, which are kept in queues. The caller encodes the
prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from ..config import check_limits
from ..data.log import InteractionLog
from ..losses import info_nce
from ..nn.momentum import Queue, follow, momentum_copy

# An encoder's outputs for the prompts of these names: E, (B, d) each.
Encode: TypeAlias = Callable[[nn.ModuleDict, list[str]], dict[str, Tensor]]

KEYS = ("user 0", "item 0", "user far", "item far")  # what is in the four queues
# Query, key, and the loss that the pair belongs to; the reading of Eq. 5 to 12 that docs/galrec.md argues for.
PAIRS = (
    ("user 0", "user far", 1),  # Eq. 5
    ("item 0", "item far", 1),  # Eq. 6
    ("item 1", "user far", 2),  # Eq. 8
    ("user 1", "item far", 2),  # Eq. 9
    ("item 1", "user 0", 3),  # Eq. 11
    ("user 1", "item 0", 3),  # Eq. 12
)


@dataclass(frozen=True)
class ContrastConfig:
    """The contrasts' part of a config.

    Attributes:
        lambda1, lambda2, lambda3: weights of the losses in Eq. 18; 0 leaves one out.
        learner: which end of Eq. 5 and 6 has the gradient: the "near" one, hop 0, as the queue of Eq. 14 requires, or
            the "far" one, contrasted with hop 0 of others, as the two equations are printed.
        temperature, queue, momentum: of Eq. 5 to 12, Eq. 14 and Eq. 17.
        hide: what in a queue is not a negative: the key's "own" node, or also all nodes "linked" to the query in
            training, such as the other users of the item that is the query in Eq. 8 and 11.
        key_dropout: whether the momentum encoder has dropout in training, as the other has.
    """

    lambda1: float = 0.3
    lambda2: float = 0.3
    lambda3: float = 0.3
    learner: Literal["near", "far"] = "near"
    temperature: float = 0.1
    queue: int = 512
    momentum: float = 0.99
    hide: Literal["own", "linked"] = "linked"
    key_dropout: bool = True

    def __post_init__(self) -> None:
        check_limits(self, lambda1=">=0", lambda2=">=0", lambda3=">=0")
        check_limits(self, temperature=">0", queue=">=1", momentum=">=0 <=1")

    @property
    def pairs(self) -> tuple[tuple[str, str, int], ...]:
        """Query, key and loss of the contrasts; see `learner`."""
        if self.learner == "near":
            return PAIRS
        return tuple((key, query, one) if one == 1 else (query, key, one) for query, key, one in PAIRS)


class Contrasts(nn.Module):
    """The three losses, with the momentum copy and the queues that they need.

    Args:
        config: weights and settings.
        fast: the encoder that learns, f_q of Eq. 14. The caller keeps it, and passes it at each call.
        dim: width d of its outputs.
        train: the training log, for the linked nodes.

    Attributes:
        slow: f_m of Eq. 14, the momentum copy.
        queues: of `KEYS`, its outputs in earlier batches.
    """

    taken: Tensor  # user * M + item of the training pairs, ascending

    def __init__(self, config: ContrastConfig, fast: nn.ModuleDict, dim: int, train: InteractionLog) -> None:
        super().__init__()
        self.config = config
        self.num_items = train.num_items
        self.slow = momentum_copy(fast)
        self.queues = nn.ModuleDict({name: Queue(config.queue, dim) for name in KEYS})
        self.register_buffer("taken", torch.as_tensor(train.pair_keys), persistent=False)
        self._said: dict[str, tuple[Tensor, Tensor]] = {}  # keys of the last batch, to be put into the queues

    def forward(self, fast: nn.ModuleDict, encode: Encode, user: Tensor, item: Tensor) -> dict[str, Tensor]:
        """The losses of Eq. 7, 10 and 13 with their weights: "gal_1", "gal_2", "gal_3".

        Args:
            fast: the encoder that learns.
            encode: gives an encoder's outputs for the batch's prompts; called once per encoder, with all its names.
            user, item: (B,) the users and items of the batch's prompts.
        """
        c = self.config
        weights = {1: c.lambda1, 2: c.lambda2, 3: c.lambda3}
        pairs = [pair for pair in c.pairs if weights[pair[2]] > 0]
        asked, keys = dict.fromkeys(query for query, _, _ in pairs), dict.fromkeys(key for _, key, _ in pairs)
        queries = encode(fast, list(asked))  # Eq. 14
        self.slow.train(self.training and c.key_dropout)
        with torch.no_grad():
            said = encode(self.slow, list(keys))
        ids = {name: user if name.startswith("user") else item for name in (*asked, *keys)}
        self._said = {name: (said[name], ids[name]) for name in keys}
        terms: dict[str, Tensor] = {}
        for query, key, number in pairs:
            queue: Any = self.queues[key]
            hidden = queue.hidden(ids[key])
            if c.hide == "linked":
                hidden = hidden | self._linked(query, ids[query][:, None], key, queue.ids)
            one = info_nce(queries[query], said[key], queue.vectors, c.temperature, hidden)  # Eq. 15
            terms[f"gal_{number}"] = terms.get(f"gal_{number}", 0.0) + weights[number] * one  # Eq. 7, Eq. 10, Eq. 13
        return terms

    def _linked(self, query: str, own: Tensor, key: str, others: Tensor) -> Tensor:
        """(B, size) whether training links nodes `own` (B, 1) and nodes `others` (size,); never two of one side."""
        if query[:4] == key[:4]:
            return torch.zeros_like(own == others)
        user, item = (own, others) if query.startswith("user") else (others, own)
        pair = user * self.num_items + item
        return self.taken[torch.searchsorted(self.taken, pair).clamp(max=len(self.taken) - 1)] == pair

    def after_batch(self, fast: nn.ModuleDict, stepped: bool) -> None:
        """The queues take the momentum copy's outputs for the last batch, and if `stepped`, it follows `fast`."""
        for name, (vectors, ids) in self._said.items():
            queue: Any = self.queues[name]
            queue.put(vectors, ids)  # Eq. 16
        self._said = {}
        if stepped:
            follow(self.slow, fast, self.config.momentum)  # Eq. 17
