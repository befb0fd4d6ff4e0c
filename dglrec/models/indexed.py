"""SID, CID and P5: a language model that generates the name of the next item by tokens (Hua et al., SIGIR-AP 2023).

A T5 reads the names of a history's items and learns to generate that of the next one. Beam search in the trie of all
names looks for it, so that the result is always an item. The names come from `dglrec.lm.indexing`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TrainConfig, check_limits
from ..data.flat import packed
from ..data.queries import Queries
from ..data.splits import Split
from ..errors import CheckpointError, ConfigError
from ..lm.backbone import Backbone, beam_states, in_order, padded_parts
from ..lm.decoding import Trie, beam_search
from ..lm.hop_prompts import Asked, HopPrompts, Packed, history_of
from ..lm.indexing import Names, check_names, cid, p5, sid
from ..lm.prompts import Prompter, texts
from ..streams import Streams, seeded
from .prompted import PromptConfig, PromptModel, t5_training


@dataclass(frozen=True)
class IndexedConfig(PromptConfig):
    """How items are named, and the T5 that generates the names: as small as GAL-Rec's, see `PromptConfig`.

    Attributes:
        scheme: numbers in the order of "sid", paths through the clusters of "cid", or the shuffled numbers of "p5".
        clusters, largest: N and M of "cid".
        beam: number of names that beam search keeps, and thus of items that are ranked.
        whole_words: add to each token of the prompt a vector of its part, so that the tokens of a name are known to
            belong together, as in P5 and the public code of the others.
    """

    scheme: Literal["sid", "cid", "p5"] = "sid"
    clusters: int = 20
    largest: int = 500
    beam: int = 20
    whole_words: bool = True
    train: TrainConfig = field(default_factory=lambda: t5_training(weight_decay=1e-2))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, clusters=">=2", largest=">=1", beam=">=1")


class IndexedLM(PromptModel):
    """A generative model: `top` lists the `beam` items whose names are the most likely ones."""

    Config = IndexedConfig
    config: IndexedConfig
    said: Tensor
    names_digest: Tensor

    def __init__(self, split: Split, config: IndexedConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        self.beam = min(c.beam, self.num_items)
        names = self._names(split)
        tokens = {token: number for number, token in enumerate(dict.fromkeys(part for name in names for part in name))}
        numbers = [[tokens[part] for part in name] for name in names]
        with seeded(c.train.seed, "init"):
            self.backbone = Backbone(c.backbone, texts(), c.dim, c.layers, c.heads, c.inner, c.dropout)
            self.name = nn.Embedding(len(tokens) + 1, self.backbone.dim)  # the last one ends a name
            self.part = None
            if c.whole_words:  # of the words, nobody's name, the words before the items, these, the question, the end
                self.part = nn.Embedding(c.max_length + 5, self.backbone.dim)
                nn.init.normal_(self.part.weight, std=0.1)  # small beside the tokens' own vectors
        self.trie = Trie(numbers, len(tokens))
        ended = [[*name, len(tokens)] + [-1] * (self.trie.depth - 1 - len(name)) for name in numbers]
        self.register_buffer("said", torch.tensor(ended), persistent=False)  # (M, depth)
        if c.scheme == "cid":
            self._remember(names)
        words = self.backbone.words.num_embeddings
        offsets, values = packed(numbers)
        self._prompter = Prompter(
            self.backbone.tokenize,
            packed([]),
            (offsets, values + words),
            budget=c.budget,
            end=self.backbone.end,
        )
        self._prompter("user", np.array([-1]), question=True)  # refuses a budget that is too small, before any training

    def _remember(self, names: Names) -> None:
        """Clusters are made anew when a run is loaded; a digest of the names says whether they are those of the run."""
        by_id = np.argsort(self.split.log.item_ids, kind="stable")
        digest = hashlib.sha256("\n".join(" ".join(names[item]) for item in by_id).encode()).digest()
        self.register_buffer("names_digest", torch.tensor(list(digest), dtype=torch.uint8))
        self.register_load_state_dict_pre_hook(_check_names_digest)  # type: ignore[no-untyped-call]

    def _names(self, split: Split) -> Names:
        c = self.config
        if c.scheme == "cid":
            names = cid(split.train, c.clusters, c.largest)
        else:
            names = sid(split.train) if c.scheme == "sid" else p5(split.train, c.train.seed)
        check_names(names)
        return names

    def batches(self, split: Split, streams: Streams) -> Iterator[HopPrompts]:
        """`train.batch_size` targets per step."""
        yield from map(self._prompts, self.questions(split, streams))

    def _prompts(self, asked: Asked) -> HopPrompts:
        nobody = np.full(len(asked.user), -1)
        made = self.written("user", nobody, [asked.history], question=True)
        prompts = {"ask": Packed.of(made.offsets, made.tokens, self.device)}
        if self.part is not None:
            prompts["part"] = replace(prompts["ask"], values=torch.as_tensor(made.parts, device=self.device))
        return HopPrompts.of(prompts, asked, self.device)

    def loss(self, batch: HopPrompts) -> dict[str, Tensor]:
        """The negative log-likelihood of the next item's name and its end (GAL-Rec, Eq. 1), as a mean over targets."""
        total = self.name.weight.new_zeros(())
        for rows, states, mask in self._read(batch):
            wanted = self.said[batch.target[rows]]  # (b, depth)
            logits = self._speak(states, mask, wanted[:, :-1].clamp(min=0))
            total = total + F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="sum")
        return {"next_item": total / len(batch.target)}

    def _read(self, batch: HopPrompts, widen: int = 1) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The prompts in some parts: their numbers (b,), encoder states (b, L, d) and mask (b, L)."""
        ask, words = batch.prompts["ask"], self.backbone.words.num_embeddings
        is_word = (ask.values < words)[:, None]
        named = self.name((ask.values - words).clamp(min=0))
        vectors = torch.where(is_word, self.backbone.words(ask.values.clamp(max=words - 1)), named)
        if self.part is not None:
            vectors = vectors + self.part(batch.prompts["part"].values)
        yield from padded_parts(self.backbone.encode(self.backbone.encoder, vectors, ask.lengths), ask.lengths, widen)

    def _speak(self, states: Tensor, mask: Tensor, said: Tensor) -> Tensor:
        """Logits (b, t + 1, size + 1) of each next token after the tokens so far (b, t)."""
        vectors = torch.cat([self.backbone.start(len(said)), self.name(said)], 1)
        return self._logits(self.backbone.decode(states, mask, vectors))

    def _logits(self, states: Tensor) -> Tensor:
        """Decoder states (..., d) -> logits of the next token (..., size + 1)."""
        return states @ self.name.weight.T * self.backbone.dim**-0.5

    def scores(self, queries: Queries, items: Tensor | None = None) -> Tensor:
        """Not available: the model does not score all items.

        Raises:
            ConfigError: always; it says what to call instead.
        """
        raise ConfigError(
            f"{self.preset} generates the names of its {self.beam} most likely items and does not score all items: use "
            f"top(queries, k) with k up to {self.beam} (beam=), or recommend(), or evaluate()"
        )

    def top(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """The k most likely items of each query, among the `beam` names kept: ids (B, k), log-probabilities.

        Raises:
            ConfigError: k is more than `beam`.
        """
        assert self.beam is not None
        if k > self.beam:
            raise ConfigError(f"k={k} is more than the beam of {self.beam}; take a smaller k, or widen the beam")
        asked = self._prompts(history_of(queries, self.config.max_length))
        items: list[Tensor] = []
        scores: list[Tensor] = []
        order: list[Tensor] = []
        for rows, states, mask in self._read(asked, widen=self.beam):

            def step(said: Tensor, states: Tensor = states, mask: Tensor = mask) -> Tensor:
                begin = self.backbone.begin.expand(*said.shape[:2], 1, -1)
                last = beam_states(self.backbone.decoder, torch.cat([begin, self.name(said)], 2), states, mask)
                return self._logits(last).log_softmax(2)

            found = beam_search(step, self.trie, len(rows), self.beam)
            for kept, part in zip((items, scores, order), (*found, rows), strict=True):
                kept.append(part[:, :k] if part.ndim == 2 else part)
        return in_order(items, order), in_order(scores, order)


def _check_names_digest(model: nn.Module, weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Weights that learned other names would rank wrong items; scipy may have clustered otherwise."""
    saved = weights.get(f"{prefix}names_digest")
    if saved is not None and not torch.equal(saved.cpu(), model.get_buffer("names_digest").cpu()):
        raise CheckpointError(
            "these weights were trained with other item names than this installation makes from the same log; load "
            "them with the versions of numpy and scipy that the run's result.json lists, or train again"
        )
