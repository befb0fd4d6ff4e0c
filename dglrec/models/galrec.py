"""GAL-Rec: a language model that reads multi-hop neighbourhoods, and learns to aggregate as a graph network does.

Users and items are tokens whose vectors are mapped from external embeddings. A T5 reads a user's neighbourhood and
names the next item; beside that, contrastive losses pull together what it makes of a node alone, of its neighbours and
of theirs. `docs/galrec.md` goes through the paper equation by equation. IID, a learned token an item, is a preset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..config import TrainConfig, check_limits
from ..data.log import Ints
from ..data.splits import Queries, Split
from ..errors import ConfigError
from ..graphs import Neighbours, user_item
from ..lm.backbone import Backbone
from ..lm.embeddings import TFIDF, check_encoder, from_model, from_texts, item_texts, standardised
from ..lm.hop_prompts import (
    Asked,
    CutShare,
    HopPrompts,
    Packed,
    around_items,
    around_users,
    asked_batches,
    history_of,
    offsets_of,
    targets_of,
)
from ..lm.prompts import MAX_HOPS, Neighbour, Prompter, texts
from ..losses import info_nce, item_cross_entropy
from ..nn.momentum import Queue, follow, momentum_copy
from ..streams import Streams, seeded
from .base import Model

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
class GALRecConfig:
    """GAL-Rec with a small T5 trained from scratch; what the paper leaves open is as docs/galrec.md says.

    Attributes:
        embeddings: what the tokens' vectors are mapped from (Eq. 2 and 3): a trained "lightgcn" or "sasrec", the items'
            "text", or nothing, so that they are "learned" (IID).
        source: folder of a trained run of that model; "" trains it for `source_epochs` when training begins.
        source_dim, source_epochs: width d1 of the external embeddings, and epochs of a training here.
        text_encoder: of titles, brands, categories: "tfidf", or the name or folder of a sentence-transformers model.
        backbone: "tiny", or the name or folder of a T5.
        dim, layers, heads, inner, dropout: of "tiny"; a pre-trained T5 has its own.
        hops: how far the recommendation prompt and the farthest contrast reach.
        max_length: items of a history, and users of an item, that a prompt names at hop 1; the newest.
        fanout: neighbours of each of them at hop 2, and of those at hop 3.
        order: whether the newest neighbours are taken, or a draw: a new one each step, and always the same to rank.
        cutoffs: walk only edges from before the moment of the target; else all of training but the target's own.
        titles: tokens of an item's title (of its other texts where it has none), at most, that stand before its own
            token in a prompt; 0 for none.
        budget: most tokens of a prompt.
        asker: how the user whose next item is asked for is embedded: the mean of the "history" alone, which works for
            anybody, or the user's own "row", as the paper has it; that row knows the training targets.
        gal: graph-aware learning, Eq. 5 to 17.
        lambda1, lambda2, lambda3: weights of its losses in Eq. 18; 0 leaves one out.
        learner: which end of Eq. 5 and 6 has the gradient: the "near" one, hop 0, as the queue of Eq. 14 asks for, or
            the "far" one, set against hop 0 of others, as the two equations are printed.
        temperature, queue, momentum: of Eq. 5 to 12, Eq. 14 and Eq. 17.
        hide: what in a queue is no negative: the key's "own" node, or also all that training has "linked" to the query,
            as the other takers of the item that Eq. 8 and 11 ask with.
        key_dropout: whether the momentum encoder drops out in training, as the other does.
        pool: E is the "mean" of the encoder's states, or the state of the "node".
        epoch_targets: targets of an epoch, drawn anew each time; 0 for all.
        seen: whether evaluation keeps or masks the items of the history.
    """

    embeddings: Literal["lightgcn", "sasrec", "text", "learned"] = "lightgcn"
    source: str = ""
    source_dim: int = 64
    source_epochs: int = 30
    text_encoder: str = "tfidf"
    backbone: str = "tiny"
    dim: int = 64
    layers: int = 2
    heads: int = 4
    inner: int = 128
    dropout: float = 0.1
    hops: int = 2
    max_length: int = 20
    fanout: int = 8
    order: Literal["recent", "uniform"] = "recent"
    cutoffs: bool = True
    titles: int = 0
    budget: int = 256
    asker: Literal["history", "row"] = "history"
    gal: bool = True
    lambda1: float = 0.3
    lambda2: float = 0.3
    lambda3: float = 0.3
    learner: Literal["near", "far"] = "near"
    temperature: float = 0.1
    queue: int = 512
    momentum: float = 0.99
    hide: Literal["own", "linked"] = "linked"
    key_dropout: bool = True
    pool: Literal["mean", "node"] = "mean"
    epoch_targets: int = 0
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            optimizer="adamw",
            batch_size=64,
            weight_decay=1e-3,
            schedule="linear",
            warmup_share=0.05,
            clip=1.0,
            epochs=20,
            patience=5,
        )
    )

    def __post_init__(self) -> None:
        check_limits(self, source_dim=">=1", source_epochs=">=0", dim=">=1", layers=">=1", heads=">=1", inner=">=1")
        check_limits(self, hops=f">=1 <={MAX_HOPS}", max_length=">=1", fanout=">=1", budget=">=1", queue=">=1")
        check_limits(self, lambda1=">=0", lambda2=">=0", lambda3=">=0", temperature=">0", momentum=">=0 <=1")
        check_limits(self, dropout=">=0 <1", epoch_targets=">=0", titles=">=0")
        if self.source and self.embeddings not in ("lightgcn", "sasrec"):
            raise ConfigError(
                f"source is {self.source!r}, but embeddings={self.embeddings!r} are taken from no run; leave one out"
            )
        if self.text_encoder != TFIDF and self.embeddings != "text":
            raise ConfigError(
                f"text_encoder is {self.text_encoder!r}, but embeddings={self.embeddings!r} read no texts; set "
                "embeddings='text', or leave text_encoder out"
            )


class NodeTokens(nn.Module):
    """Vectors of items and users, and of prompts (Eq. 3 and 4): g_theta of external embeddings, or learned tables."""

    def __init__(self, num_users: int, num_items: int, dim: int, source_dim: int | None, named: bool = True) -> None:
        super().__init__()
        self.num_users, self.num_items, self.named = num_users, num_items, named  # whether prompts name users
        self.mapping = None if source_dim is None else nn.Linear(source_dim, dim)
        if source_dim is None:
            self.item = nn.Embedding(num_items, dim)
            self.user = nn.Embedding(num_users if named else 0, dim)

    def items(self, known: Tensor, rows: Tensor | None = None) -> Tensor:
        """e_i of some items or all, (n, d), from the external embeddings h (M, d1)."""
        if self.mapping is not None:
            return self.mapping(known if rows is None else known[rows])
        return self.item.weight if rows is None else self.item(rows)

    def users(self, known: Tensor, rows: Tensor) -> Tensor:
        """e_u, (n, d), likewise."""
        return self.user(rows) if self.mapping is None else self.mapping(known[rows])

    def forward(self, words: nn.Embedding, packed: Packed, history: Packed, users: Tensor, items: Tensor) -> Tensor:
        """The vectors (T, d) of B prompts' tokens, Eq. 4; the asker's token is the mean of the history's items.

        Args:
            words: the language model's own tokens.
            packed: the prompts, T tokens.
            history: (B,) lists of items.
            users, items: external embeddings, (U, d1) and (M, d1).
        """
        token, count = packed.values, words.num_embeddings
        item, user = token - count, token - count - self.num_items
        asker = nn.functional.embedding_bag(
            history.values, self.items(items), history.offsets, mode="mean", include_last_offset=True
        )[packed.rows]  # (T, d)
        vectors = asker
        if self.named:
            named = self.users(users, user.clamp(0, self.num_users - 1))
            vectors = torch.where((user < self.num_users)[:, None], named, asker)
        vectors = torch.where((user < 0)[:, None], self.items(items, item.clamp(0, self.num_items - 1)), vectors)
        return torch.where((item < 0)[:, None], words(token.clamp(max=count - 1)), vectors)  # Eq. 4


class GALRec(Model):
    """T5 over prompts; the score of an item is the decoder's first state times the item's token vector, as T5 has it.

    Shapes: items (M, d); queries -> vectors (B, 1, d).
    """

    Config = GALRecConfig
    config: GALRecConfig
    known_users: Tensor
    known_items: Tensor
    taken: Tensor  # user * M + item of the training pairs, ascending

    def __init__(self, split: Split, config: GALRecConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        learned = c.embeddings == "learned"
        titles = item_texts(split.log, brief=True) if c.titles else []
        if c.embeddings == "text":  # what `before_training` could not read is said before any work
            item_texts(split.log)
            check_encoder(c.text_encoder)
        with seeded(c.train.seed, "init"):
            self.backbone = Backbone(c.backbone, [*texts(), *titles], c.dim, c.layers, c.heads, c.inner, c.dropout)
            dim = self.backbone.dim
            named = c.gal or c.hops > 1 or c.asker == "row"
            self.tokens = NodeTokens(self.num_users, self.num_items, dim, None if learned else c.source_dim, named)
            width = 0 if learned else c.source_dim  # until training begins, the embeddings are a draw
            self.register_buffer("known_users", torch.randn(self.num_users, width))
            self.register_buffer("known_items", torch.randn(self.num_items, width))
        self.slow: nn.ModuleDict | None = None
        self.queues: nn.ModuleDict | None = None
        if c.gal:
            self.slow = momentum_copy(self._fast)
            self.queues = nn.ModuleDict({name: Queue(c.queue, dim) for name in KEYS})
            pairs = np.unique(split.train.user * self.num_items + split.train.item)
            self.register_buffer("taken", torch.as_tensor(pairs), persistent=False)
        self._said: dict[str, tuple[Tensor, Tensor]] = {}  # keys of the last batch, to be put into the queues
        self._neighbours = Neighbours(user_item(split.train))
        item = self.backbone.words.num_embeddings  # tokens: words, then items, users, and the asker
        user, asker = item + self.num_items, item + self.num_items + self.num_users
        spoken = [self.backbone.tokenize(title)[: c.titles] for title in titles] or [[]] * self.num_items
        self._prompter = Prompter(
            self.backbone.tokenize,
            (np.arange(self.num_users + 1), np.arange(user, asker)),
            offsets_of([[*title, item + number] for number, title in enumerate(spoken)]),
            budget=c.budget,
            end=self.backbone.end,
            asker=asker,
        )
        self._cut = CutShare()
        self._prompter("user", np.array([-1]), question=True)  # refuses a budget that is too small, before any training
        self._prompter("item", np.arange(self.num_items if c.gal else 0))

    @property
    def _fast(self) -> nn.ModuleDict:
        """f_q of Eq. 14: what reads prompts, and is learned by gradient; `slow` is f_m."""
        return nn.ModuleDict({"words": self.backbone.words, "tokens": self.tokens, "encoder": self.backbone.encoder})

    @property
    def pairs(self) -> tuple[tuple[str, str, int], ...]:
        """Query, key and loss of the contrasts; see `learner`."""
        if self.config.learner == "near":
            return PAIRS
        return tuple((key, query, one) if one == 1 else (query, key, one) for query, key, one in PAIRS)

    @property
    def targets_per_epoch(self) -> int:
        """Every training position that has a past, or as many as `epoch_targets` says."""
        return min(super().targets_per_epoch, self.config.epoch_targets or len(self.split.train))

    def batches(self, split: Split, streams: Streams) -> Iterator[HopPrompts]:
        """`train.batch_size` targets a step, each with the prompts of its user and its item."""
        c, rng = self.config, streams.numpy("prompts")
        questions = asked_batches(split.train, self.targets_per_epoch, c.train.batch_size, c.max_length, rng)
        for step, asked in enumerate(questions):
            yield self.prompts(asked, contrast=c.gal, seed=streams.torch_seed("neighbours", step))

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
        """The recommendation prompts of what is asked, and, where they are wanted, those of the contrasts.

        Args:
            asked: B questions.
            contrast: whether the contrasts' prompts are wanted.
            seed: of the neighbours where `order="uniform"` draws them.
        """
        c, make, count = self.config, self._packed, len(asked.user)
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
        history = Packed.of(users[0].offsets, users[0].nodes, self.device)
        target, user = (torch.as_tensor(part, device=self.device) for part in (asked.target, asked.user))
        return HopPrompts(found, history, target, user)

    def _packed(self, type: str, nodes: Ints, hops: Sequence[Neighbour], question: bool = False) -> Packed:
        made = self._prompter(type, nodes, hops, question)
        if self.training:
            self._cut.add(made, hops)
        return Packed.of(made.offsets, made.tokens, self.device)

    def loss(self, batch: HopPrompts) -> dict[str, Tensor]:
        """Eq. 18: the next item (Eq. 1, over the item tokens alone), and the three contrasts with their weights."""
        terms = {"next_item": item_cross_entropy(self._answers(batch), self.item_vectors(), batch.target)}  # Eq. 1
        return terms | (self._contrasts(batch) if self.queues is not None else {})  # Eq. 18

    def _answers(self, batch: HopPrompts) -> Tensor:
        """(B, d): the decoder's first state after each recommendation prompt, scaled as before T5's token table."""
        ask = batch.prompts["ask"]
        states = self.backbone.answers(self._vectors(self._fast, ask, batch.history), ask.lengths)
        return states * self.backbone.dim**-0.5

    def _contrasts(self, batch: HopPrompts) -> dict[str, Tensor]:
        """Eq. 5 to 14; each encoder runs once over all the prompts that its vectors are wanted of."""
        assert self.slow is not None
        assert self.queues is not None
        c = self.config
        weights = {1: c.lambda1, 2: c.lambda2, 3: c.lambda3}
        pairs = [pair for pair in self.pairs if weights[pair[2]] > 0]
        asked, keys = dict.fromkeys(query for query, _, _ in pairs), dict.fromkeys(key for _, key, _ in pairs)
        queries = self._encode(self._fast, batch, list(asked))  # Eq. 14
        self.slow.train(self.training and c.key_dropout)
        with torch.no_grad():
            said = self._encode(self.slow, batch, list(keys))
        ids = {name: batch.user if name.startswith("user") else batch.target for name in (*asked, *keys)}
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

    def _encode(self, reader: nn.ModuleDict, batch: HopPrompts, names: list[str]) -> dict[str, Tensor]:
        """E of the prompts of these names, (B, d) each."""
        if not names:
            return {}
        joined, history = Packed.joined([batch.prompts[name] for name in names]), batch.history.repeated(len(names))
        vectors = self._vectors(reader, joined, history)
        node = self._own_tokens(joined) if self.config.pool == "node" else None
        pooled = self.backbone.pooled(reader["encoder"], vectors, joined.lengths, node)
        return dict(zip(names, pooled.chunk(len(names)), strict=True))

    def _own_tokens(self, prompts: Packed) -> Tensor:
        """(B,) where the token of the node that each prompt is about stands: it is the first that is no word."""
        places = torch.arange(len(prompts.values), device=prompts.values.device)
        places = places.masked_fill(prompts.values < self.backbone.words.num_embeddings, len(places))
        first = prompts.offsets.new_full((len(prompts.lengths),), len(places))
        return first.scatter_reduce(0, prompts.rows, places, "amin")

    def _vectors(self, reader: Any, prompts: Packed, history: Packed) -> Tensor:
        vectors: Tensor = reader["tokens"](reader["words"], prompts, history, self.known_users, self.known_items)
        return vectors

    def after_batch(self, stepped: bool) -> None:
        """The queues take what the momentum encoder said (Eq. 16), and it follows the other (Eq. 17)."""
        if self.queues is None or self.slow is None:
            return
        for name, (vectors, ids) in self._said.items():
            queue: Any = self.queues[name]
            queue.put(vectors, ids)  # Eq. 16
        self._said = {}
        if stepped:
            follow(self.slow, self._fast, self.config.momentum)  # Eq. 17

    def epoch_figures(self) -> dict[str, float]:
        """Tokens that were encoded, in all prompts, the share of padding, and that of entries which the budget cut."""
        return self.backbone.figures() | self._cut.figures()

    @torch.no_grad()
    def hop_vectors(self, rows: Ints) -> dict[str, Tensor]:
        """E of hop 0, hop 1 and the farthest, of the users and items of training events `rows` (n,): (n, d) each."""
        batch = self.prompts(targets_of(self.split.train, rows, self.config.max_length))
        return self._encode(self._fast, batch, [name for name in batch.prompts if name != "ask"])

    def query_vectors(self, queries: Queries) -> Tensor:
        """What is to be named next, in one decoder step a user."""
        asked = history_of(queries, self.config.max_length)
        return self._answers(self.prompts(asked, contrast=False)).unsqueeze(1)

    def item_vectors(self) -> Tensor:
        """The items' token vectors."""
        return self.tokens.items(self.known_items)
