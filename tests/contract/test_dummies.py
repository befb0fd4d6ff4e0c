"""Two models of kinds that the package's first models are not of, under the same contract: one looks at the candidate
when it scores, one generates a list. They show what a new model has to say, and that nothing else is asked of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dglrec.batches import position_batches, prefix_batches, query_sequences
from dglrec.config import TrainConfig
from dglrec.losses import item_cross_entropy
from dglrec.models import PRESETS, Model, Preset
from dglrec.nn.initial import initialise
from dglrec.streams import seeded
from tests.contract.model_contract import GenerativeContract, ModelContract


@dataclass(frozen=True)
class DummyConfig:
    dim: int = 16
    length: int = 20
    seen: str = "mask"
    train: TrainConfig = field(default_factory=TrainConfig)


class CandidateDummy(Model):
    """The score of a candidate is an attention over the history that the candidate itself directs."""

    Config = DummyConfig

    def __init__(self, split, config=None, **fields):
        super().__init__(split, config, **fields)
        with seeded(self.train_config.seed, "init"):
            self.item = nn.Embedding(self.num_items, self.config.dim)
            self.key = nn.Embedding(self.num_items, self.config.dim)
            initialise(self, "xavier_normal")

    def batches(self, split, streams):
        c, rng = self.config, streams.numpy("prefixes")
        return prefix_batches(split.train, c.train.batch_size, c.length, rng, self.device)

    def loss(self, batch):
        return {"cross_entropy": F.cross_entropy(self._match(batch.history, None), batch.target)}

    def scores(self, queries, items=None):
        return self._match(query_sequences(queries, self.config.length, self.device), items)

    def _match(self, history, items):
        """Packed history of B queries, items (B, C) or None -> (B, M) or (B, C)."""
        sizes = history.offsets.diff()
        total = history.items.shape[0]
        row = torch.repeat_interleave(torch.arange(len(history), device=sizes.device), sizes, output_size=total)
        values, keys = self.item(history.items), self.key(history.items)  # (T, d) each
        candidates = self.item.weight.expand(len(history), -1, -1) if items is None else self.item(items)  # (B, C, d)
        attention = (candidates[row] @ keys.unsqueeze(2)).squeeze(2)  # (T, C)
        match = (candidates[row] @ values.unsqueeze(2)).squeeze(2)  # (T, C)
        weight = attention.exp()
        empty = weight.new_zeros(len(history), weight.shape[1])
        return empty.index_add(0, row, weight * match) / empty.index_add(0, row, weight)


class GenerativeDummy(Model):
    """Generates the items that follow the last one; it has no score for an item that it did not come upon."""

    Config = DummyConfig
    beam = 12

    def __init__(self, split, config=None, **fields):
        super().__init__(split, config, **fields)
        with seeded(self.train_config.seed, "init"):
            self.item = nn.Embedding(self.num_items, self.config.dim)
            self.after = nn.Embedding(self.num_items, self.config.dim)
            initialise(self, "xavier_normal")

    def batches(self, split, streams):
        c = self.config
        return position_batches(split.train, c.train.batch_size, c.length, 1, streams.numpy("windows"), self.device)

    def loss(self, batch):
        return {
            "next_token": item_cross_entropy(self.item(batch.history.items[batch.row]), self.after.weight, batch.target)
        }

    def top(self, queries, k):
        last = torch.as_tensor(queries.items[queries.offsets[1:] - 1], device=self.device)
        best = (self.item(last) @ self.after.weight.T).topk(min(k, self.beam), dim=1)
        ids, rare = best.indices, best.values < best.values[:, :1] - 50  # a list may end early
        return ids.masked_fill(rare, -1), best.values


@pytest.fixture(autouse=True, scope="module")
def presets():
    """Both are presets while this file runs."""
    PRESETS["dummy-candidate"] = Preset(CandidateDummy, {}, "here")
    PRESETS["dummy-generative"] = Preset(GenerativeDummy, {}, "here")
    yield
    del PRESETS["dummy-candidate"], PRESETS["dummy-generative"]


class TestCandidateDummy(ModelContract):
    preset = "dummy-candidate"
    known_fields = {"dim": 8, "length": 10, "train": {"lr": 2e-2, "batch_size": 256}}
    known = {"communities": 0.85}


class TestGenerativeDummy(GenerativeContract):
    preset = "dummy-generative"
    train = {"batch_size": 64, "lr": 5e-3, "monitor": "ndcg@10"}
    known = {"grammar": 0.9}
