"""HardGNN: self-supervised sequential recommendation with hard negative graph contrastive learning (Lin et al.).

It is SelfGNN with hard negatives: for each user, the K items that are nearest to the user's vector and not in the
user's training history are mined, and a contrastive loss pushes the user away from them. `docs/hardgnn.md` goes
through what is added to SelfGNN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import check_limits
from ..data.flat import Ints
from ..data.splits import Split
from ..errors import ConfigError
from ..evaluate import eval_mode
from ..graphs import Sequences
from ..losses import info_nce
from ..slice_batches import Sliced
from ..streams import Streams
from .selfgnn import SelfGNN, SelfGNNConfig

BLOCK_BYTES = {"cpu": 1 << 27, "cuda": 1 << 31}  # of the histories and cosines of users mined at once
SHARED = 50  # negatives of the public code, the same ones for the whole batch


@dataclass(frozen=True)
class HardGNNConfig(SelfGNNConfig):
    """SelfGNN's fields, and what the paper adds.

    Attributes:
        k: hard negatives of a user, K; with 0 there are none, and with contrast="own" no contrastive loss either.
        lam: weight of the contrastive loss, lambda of Eq. 13; with k=0 and lam=0 the model is exactly SelfGNN.
        tau: temperature of Eq. 12; the paper gives none. The public code is run with .1 on Amazon and Gowalla, with its
            default of 1 on MovieLens.
        contrast: the negatives of Eq. 12 are the user's "own" mined ones (paper), or 50 drawn from those of the whole
            "batch", mined or not, the same for every user (code).
        hard_in_rec: whether the mined items also replace the first K unseen items of L_rec (code), or are used in
            Eq. 12 alone (paper). With loss="softmax" they are or are not among its candidates.
        anchor: the user's vector of Eq. 11 and 12: the "instance"-level one (code; the paper says that attention over
            the recent items makes it), or that of the last time "slice".
        refresh: steps between minings; 0 mines once, at the beginning of an epoch (in effect as the code, with its 20
            steps per epoch).
    """

    k: int = 3
    lam: float = 0.1
    tau: float = 0.1
    contrast: Literal["own", "batch"] = "own"
    hard_in_rec: bool = False
    anchor: Literal["instance", "slice"] = "instance"
    refresh: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, k=">=0", lam=">=0", tau=">0", refresh=">=0")
        if self.anchor == "instance" and self.instance == "none" and (self.k or self.lam):
            raise ConfigError("anchor='instance' needs the instance level, which is off; take anchor='slice'")


class HardGNN(SelfGNN):
    """SelfGNN with K mined items per user, which it learns to distinguish from the target.

    Raises:
        ConfigError: items are mined, and some user has fewer than K items outside of the history.
    """

    Config = HardGNNConfig
    config: HardGNNConfig

    def __init__(self, split: Split, config: HardGNNConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        self._history = split.train.pair_keys  # mining leaves out these events only
        if self.mines:
            self._check_k()

    @property
    def mines(self) -> bool:
        """Whether anything in training reads mined items."""
        c = self.config
        return c.k > 0 and (c.hard_in_rec or (c.lam > 0 and c.contrast == "own"))

    def _check_k(self) -> None:
        most = int(np.bincount(self._history // self.num_items, minlength=1).max(initial=0))
        if self.config.k > self.num_items - most:
            raise ConfigError(
                f"k is {self.config.k}, but a user has {most} of the {self.num_items} items in the training history; "
                f"expected at most {self.num_items - most}"
            )

    def batches(self, split: Split, streams: Streams) -> Iterator[Sliced]:
        """SelfGNN's batches, each with the items last mined for its users, by the weights at that time."""
        c, hard = self.config, None
        for step, batch in enumerate(super().batches(split, streams)):
            if self.mines:
                if hard is None or (c.refresh and step % c.refresh == 0):
                    hard = self.mine()
                batch = self._with_hard(batch, hard[batch.user])
            if c.lam and c.contrast == "batch":
                chosen = streams.numpy("contrast", step).permutation(len(batch.row))[:SHARED]
                batch = replace(batch, shared=batch.negative[torch.as_tensor(chosen, device=self.device)])
            yield batch

    def _with_hard(self, batch: Sliced, hard: Tensor) -> Sliced:
        """The batch with its mined items (B, K); those that it does not have yet come after its other items."""
        distinct, place = torch.unique(hard, return_inverse=True)  # (n,) ascending, (B, K)
        known = torch.searchsorted(batch.items, distinct).clamp(max=len(batch.items) - 1)  # items ascend
        new = batch.items[known] != distinct
        place = torch.where(new, len(batch.items) - 1 + new.cumsum(0), known)[place]  # (B, K), of the batch's items
        items, negative = torch.cat([batch.items, distinct[new]]), batch.negative
        aside = 0 if self.config.hard_in_rec else len(items) - len(batch.items)
        if self.config.hard_in_rec:  # in the first K places of each row; rows ascend
            slot = torch.arange(len(batch.row), device=hard.device) - torch.searchsorted(batch.row, batch.row)
            mined = place[batch.row, slot.clamp(max=self.config.k - 1)]
            negative = torch.where(slot < self.config.k, mined, negative)
        return replace(batch, items=items, hard=place, negative=negative, aside=aside)

    @torch.no_grad()
    def mine(self) -> Tensor:
        """(U, K): the items nearest to each user by cosine that are not in the training history, nearest first.

        Exact: in blocks of users, on the model's device, each user against all items. Histories are those of training.
        """
        c, train = self.config, self.split.train
        self._check_k()
        with eval_mode(self):
            users = self.num_users if c.anchor == "slice" else 0
            rows = (torch.arange(users, device=self.device), torch.arange(self.num_items, device=self.device))
            short = self.encoder(self.adjacency, (self.user, self.item), rows)
            items, last = self.fuse(short[1], 1), short[0][-1]
            offsets, item = (torch.as_tensor(part, device=self.device) for part in (train.offsets, train.item))
            sizes, histories = np.minimum(np.diff(train.offsets), c.max_length), Sequences(offsets, item)
            unit, found = F.normalize(items), []
            for first, stop in self._blocks(sizes):
                if c.anchor == "slice":
                    anchor = last[first:stop]
                else:
                    own = sizes[first:stop]
                    starts = offsets[first + 1 : stop + 1] - torch.as_tensor(own, device=self.device)
                    anchor = self.instance(histories.windows(starts, own), items)  # (b, d)
                near = F.normalize(anchor) @ unit.T  # Eq. 11, (b, M)
                low, high = np.searchsorted(self._history, [first * self.num_items, stop * self.num_items])
                seen = torch.as_tensor(self._history[low:high] - first * self.num_items, device=self.device)
                near.view(-1)[seen] = -torch.inf
                found.append(near.topk(c.k, 1).indices)
            return torch.cat(found)

    def _blocks(self, sizes: Ints) -> list[tuple[int, int]]:
        """Users in blocks of about `BLOCK_BYTES` bytes, at least one user each; `sizes` (U,) items are read."""
        numbers = self.num_items + (8 * self.config.dim * sizes if self.config.anchor == "instance" else 0 * sizes)
        before = (np.cumsum(numbers) - numbers) * self.item.element_size()  # (U,) bytes of the users before
        block = before // BLOCK_BYTES.get(self.device.type, BLOCK_BYTES["cpu"])
        cuts = [*np.flatnonzero(np.diff(block, prepend=-1)).tolist(), len(sizes)]
        return list(pairwise(cuts))

    def loss(self, batch: Sliced) -> dict[str, Tensor]:
        """SelfGNN's terms, and lambda times the contrastive loss."""  # Eq. 13
        c, encoded = self.config, self.encode(batch)
        terms = self.terms(batch, encoded)
        anchor = encoded.instance if c.anchor == "instance" else encoded.user_slices[-1]  # (B, d)
        target = encoded.item[batch.target]  # (B, d)
        if batch.shared is not None:  # each pair counts, so that users with many pairs weigh more
            contrast = info_nce(anchor[batch.row], target[batch.row], encoded.item[batch.shared], c.tau)
            terms["info_nce"] = c.lam * contrast
        elif c.lam and batch.hard is not None:
            terms["info_nce"] = c.lam * info_nce(anchor, target, encoded.item[batch.hard], c.tau)  # Eq. 12
        return terms
