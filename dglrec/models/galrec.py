"""GAL-Rec: a language model that reads multi-hop neighbourhoods, and learns to aggregate as a graph network does.

Users and items are tokens whose vectors are mapped from external embeddings. A T5 reads a user's neighbourhood and
predicts the next item; contrastive losses also pull together its encodings of a node alone, with its neighbours and
with theirs. `docs/galrec.md` goes through the paper equation by equation. IID, one learned token per item, is a preset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..config import check_limits
from ..data.flat import Ints, packed
from ..data.queries import Queries
from ..data.splits import Split
from ..errors import ConfigError
from ..graphs import Neighbours, user_item
from ..lm.backbone import Backbone
from ..lm.contrasts import ContrastConfig, Contrasts
from ..lm.embeddings import TFIDF, check_encoder, from_texts, item_texts, standardised
from ..lm.hop_prompts import Asked, HopPrompts, Packed, around_items, around_users, history_of, targets_of
from ..lm.node_tokens import NodeTokens
from ..lm.prompts import MAX_HOPS, Prompter, texts
from ..losses import item_cross_entropy
from ..streams import Streams, seeded
from .prompted import PromptConfig, PromptModel
from .sources import from_model


@dataclass(frozen=True)
class GALRecConfig(ContrastConfig, PromptConfig):
    """GAL-Rec with a small T5 trained from scratch; docs/galrec.md has the choices that the paper leaves open.

    The fields that related models share are described in `PromptConfig`, those of Eq. 5 to 17 in `ContrastConfig`.

    Attributes:
        embeddings: what the tokens' vectors are mapped from (Eq. 2 and 3): a trained "lightgcn" or "sasrec", the items'
            "text", or nothing, so that they are "learned" (IID).
        source: folder of a trained run of that model; "" trains it for `source_epochs` when training begins.
        source_dim, source_epochs: width d1 of the external embeddings, and epochs if they are trained here.
        text_encoder: of titles, brands, categories: "tfidf", or the name or folder of a sentence-transformers model.
        hops: how far the recommendation prompt and the farthest contrast reach.
        fanout: neighbours of each node of hop 1 at hop 2, and of those at hop 3.
        order: the most "recent" neighbours, or "uniform" draws: new ones at each step, always the same for ranking.
        cutoffs: use only edges older than the target; else all training edges except the target's own.
        titles: maximum number of tokens of an item's title (of its other texts if it has none) before its own token in
            a prompt; 0 for none.
        asker: how the user whose next item is predicted is embedded: the mean of the "history" alone, which works for
            any user, or the user's own "row", as in the paper; that row knows the training targets.
        gal: graph-aware learning, Eq. 5 to 17.
        pool: E is the "mean" of the encoder's states, or the state of the "node".
    """

    embeddings: Literal["lightgcn", "sasrec", "text", "learned"] = "lightgcn"
    source: str = ""
    source_dim: int = 64
    source_epochs: int = 30
    text_encoder: str = "tfidf"
    hops: int = 2
    fanout: int = 8
    order: Literal["recent", "uniform"] = "recent"
    cutoffs: bool = True
    titles: int = 0
    asker: Literal["history", "row"] = "history"
    gal: bool = True
    pool: Literal["mean", "node"] = "mean"

    def __post_init__(self) -> None:
        PromptConfig.__post_init__(self)  # each part checks its own fields only
        ContrastConfig.__post_init__(self)
        check_limits(self, source_dim=">=1", source_epochs=">=0", hops=f">=1 <={MAX_HOPS}", fanout=">=1", titles=">=0")
        if self.source and self.embeddings not in ("lightgcn", "sasrec"):
            raise ConfigError(
                f"source is {self.source!r}, but embeddings={self.embeddings!r} are not taken from a run; leave one out"
            )
        if self.text_encoder != TFIDF and self.embeddings != "text":
            raise ConfigError(
                f"text_encoder is {self.text_encoder!r}, but embeddings={self.embeddings!r} read no texts; set "
                "embeddings='text', or leave text_encoder out"
            )


class GALRec(PromptModel):
    """T5 over prompts; the score of an item is the decoder's first state times the item's token vector, as in T5.

    Shapes: items (M, d); queries -> vectors (B, 1, d).
    """

    Config = GALRecConfig
    config: GALRecConfig
    known_users: Tensor
    known_items: Tensor

    def __init__(self, split: Split, config: GALRecConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        learned = c.embeddings == "learned"
        titles = item_texts(split.log, brief=True) if c.titles else []
        if c.embeddings == "text":  # missing texts or encoders are reported before any work
            item_texts(split.log)
            check_encoder(c.text_encoder)
        with seeded(c.train.seed, "init"):
            self.backbone = Backbone(c.backbone, [*texts(), *titles], c.dim, c.layers, c.heads, c.inner, c.dropout)
            dim = self.backbone.dim
            named = c.gal or c.hops > 1 or c.asker == "row"
            self.tokens = NodeTokens(self.num_users, self.num_items, dim, None if learned else c.source_dim, named)
            width = 0 if learned else c.source_dim  # until training begins, the embeddings are random
            self.register_buffer("known_users", torch.randn(self.num_users, width))
            self.register_buffer("known_items", torch.randn(self.num_items, width))
        self.contrasts = Contrasts(c, self._fast, dim, split.train) if c.gal else None
        self._neighbours = Neighbours(user_item(split.train))
        item = self.backbone.words.num_embeddings  # tokens: words, then items, users, and the asker
        user, asker = item + self.num_items, item + self.num_items + self.num_users
        spoken = [self.backbone.tokenize(title)[: c.titles] for title in titles] or [[]] * self.num_items
        self._prompter = Prompter(
            self.backbone.tokenize,
            (np.arange(self.num_users + 1), np.arange(user, asker)),
            packed([[*title, item + number] for number, title in enumerate(spoken)]),
            budget=c.budget,
            end=self.backbone.end,
            asker=asker,
        )
        self._prompter("user", np.array([-1]), question=True)  # refuses a budget that is too small, before any training
        self._prompter("item", np.arange(self.num_items if c.gal else 0))

    @property
    def _fast(self) -> nn.ModuleDict:
        """f_q of Eq. 14: the part that reads prompts and is learned by gradient; `contrasts.slow` is f_m."""
        return nn.ModuleDict({"words": self.backbone.words, "tokens": self.tokens, "encoder": self.backbone.encoder})

    def batches(self, split: Split, streams: Streams) -> Iterator[HopPrompts]:
        """`train.batch_size` targets per step, each with the prompts of its user and its item."""
        for step, asked in enumerate(self.questions(split, streams)):
            yield self.prompts(asked, contrast=self.config.gal, seed=streams.torch_seed("neighbours", step))

    def before_training(self) -> None:
        """The external embeddings of users and items."""
        c, split = self.config, self.split
        if c.embeddings == "learned":
            return
        if c.embeddings == "text":
            users, items = from_texts(split.log, split.train, c.text_encoder, c.source_dim)  # Eq. 2
        else:
            how = (c.source, c.source_dim, c.source_epochs, c.train.seed, self.device)
            users, items = from_model(c.embeddings, split, *how)  # Eq. 3
        self.known_users.copy_(standardised(users, torch.as_tensor(np.unique(split.train.user))))
        self.known_items.copy_(standardised(items, torch.as_tensor(np.unique(split.train.item))))

    def prompts(self, asked: Asked, contrast: bool = True, seed: int = 0) -> HopPrompts:
        """The recommendation prompts of the questions and, if wanted, the prompts of the contrasts.

        Args:
            asked: B questions.
            contrast: whether the contrasts' prompts are wanted.
            seed: of the draw of neighbours with `order="uniform"`.
        """
        c, make, count = self.config, self.packed, len(asked.user)
        before = asked.time if c.cutoffs and self._neighbours.has_times else None
        fanouts = [c.fanout] * (c.hops - 1)
        users = around_users(self._neighbours, asked, fanouts, before, c.order, seed)
        asker = np.full(count, -1) if c.asker == "history" else asked.user
        found = {"ask": make("user", asker, users, question=True)}
        if contrast:
            items = around_items(self._neighbours, asked, [c.max_length, *fanouts], before, c.order, seed)
            for name, hops in (("0", 0), ("1", 1), ("far", c.hops)):
                found[f"user {name}"] = make("user", asker, users[:hops])
                found[f"item {name}"] = make("item", asked.target, items[:hops])
        return HopPrompts.of(found, asked, self.device)

    def loss(self, batch: HopPrompts) -> dict[str, Tensor]:
        """Eq. 18: the next item (Eq. 1, over the item tokens only), and the three contrasts with their weights."""
        terms = {"next_item": item_cross_entropy(self._answers(batch), self.item_vectors(), batch.target)}  # Eq. 1
        if self.contrasts is None:
            return terms

        def encode(reader: nn.ModuleDict, names: list[str]) -> dict[str, Tensor]:
            return self._encode(reader, batch, names)

        return terms | self.contrasts(self._fast, encode, batch.user, batch.target)  # Eq. 18

    def _answers(self, batch: HopPrompts) -> Tensor:
        """(B, d): the decoder's first state after each recommendation prompt, scaled as before T5's token table."""
        ask = batch.prompts["ask"]
        states = self.backbone.answers(self._vectors(self._fast, ask, batch.history), ask.lengths)
        return states * self.backbone.dim**-0.5

    def _encode(self, reader: nn.ModuleDict, batch: HopPrompts, names: list[str]) -> dict[str, Tensor]:
        """E of the prompts of these names, (B, d) each."""
        if not names:
            return {}
        joined, history = Packed.joined([batch.prompts[name] for name in names]), batch.history.repeated(len(names))
        vectors = self._vectors(reader, joined, history)
        node = None
        if self.config.pool == "node":  # its token is the first that is not a word
            node = joined.first_from(self.backbone.words.num_embeddings)
        pooled = self.backbone.pooled(reader["encoder"], vectors, joined.lengths, node)
        return dict(zip(names, pooled.chunk(len(names)), strict=True))

    def _vectors(self, reader: Any, prompts: Packed, history: Packed) -> Tensor:
        vectors: Tensor = reader["tokens"](reader["words"], prompts, history, self.known_users, self.known_items)
        return vectors

    def after_batch(self, stepped: bool) -> None:
        """The queues take the momentum encoder's outputs (Eq. 16), and it follows the other encoder (Eq. 17)."""
        if self.contrasts is not None:
            self.contrasts.after_batch(self._fast, stepped)

    @torch.no_grad()
    def hop_vectors(self, rows: Ints) -> dict[str, Tensor]:
        """E of hops 0, 1 and the farthest, for the users and items of training events `rows` (n,): (n, d) each."""
        batch = self.prompts(targets_of(self.split.train, rows, self.config.max_length))
        return self._encode(self._fast, batch, [name for name in batch.prompts if name != "ask"])

    def query_vectors(self, queries: Queries) -> Tensor:
        """The decoder's state for the next item, in one decoder step per user."""
        asked = history_of(queries, self.config.max_length)
        return self._answers(self.prompts(asked, contrast=False)).unsqueeze(1)

    def item_vectors(self) -> Tensor:
        """The items' token vectors."""
        return self.tokens.items(self.known_items)
