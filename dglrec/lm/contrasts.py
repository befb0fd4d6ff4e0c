"""GAL-Rec's graph-aware learning: what is said of a node is to be like what is said of its neighbours (Eq. 5 to 17).

Six pairs of a query and a key are pulled together. Queries come from the encoder that learns, keys from a momentum copy
of it, and what a query is told from are the keys of earlier batches, which wait in queues. How prompts are encoded is
the caller's matter.
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

# What an encoder makes of the prompts of these names: E, (B, d) each.
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
        learner: which end of Eq. 5 and 6 has the gradient: the "near" one, hop 0, as the queue of Eq. 14 asks for, or
            the "far" one, set against hop 0 of others, as the two equations are printed.
        temperature, queue, momentum: of Eq. 5 to 12, Eq. 14 and Eq. 17.
        hide: what in a queue is no negative: the key's "own" node, or also all that training has "linked" to the query,
            as the other takers of the item that Eq. 8 and 11 ask with.
        key_dropout: whether the momentum encoder drops out in training, as the other does.
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
        fast: the encoder that learns, f_q of Eq. 14. It stays the caller's, who hands it over at each call.
        dim: width d of what it says.
        train: the training log, which says who took what.

    Attributes:
        slow: f_m of Eq. 14, the momentum copy.
        queues: of `KEYS`, what it said in earlier batches.
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
            encode: what an encoder makes of the batch's prompts; each encoder is asked once, for all that it is to say.
            user, item: (B,) whom and what the batch's prompts are about.
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
        """(B, size) whether training joins nodes `own` (B, 1) to nodes `others` (size,); two of one side never are."""
        if query[:4] == key[:4]:
            return torch.zeros_like(own == others)
        user, item = (own, others) if query.startswith("user") else (others, own)
        pair = user * self.num_items + item
        return self.taken[torch.searchsorted(self.taken, pair).clamp(max=len(self.taken) - 1)] == pair

    def after_batch(self, fast: nn.ModuleDict, stepped: bool) -> None:
        """The queues take what the momentum copy said of the last batch, and where `stepped`, it follows `fast`."""
        for name, (vectors, ids) in self._said.items():
            queue: Any = self.queues[name]
            queue.put(vectors, ids)  # Eq. 16
        self._said = {}
        if stepped:
            follow(self.slow, fast, self.config.momentum)  # Eq. 17
