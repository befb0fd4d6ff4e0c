"""The contract itself: models with one planted fault each, and the test that finds it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor

from dglrec.batches import Prefixes, prefix_batches, query_sequences
from dglrec.data.queries import Queries
from dglrec.models import PRESETS, Preset, SASRec
from tests.contract.model_contract import EPOCHS, ModelContract, draw_nothing, fit


class SoundContract(ModelContract):
    preset = "planted"
    fields = {"dim": 8, "inner": 16, "layers": 1, "targets": "prefixes", "dropout": 0.1, "attention_dropout": 0.1}
    known = {"grammar": 0.9}


class KeepsALossGraph(SASRec):
    """Adds up its losses, so that the second pass goes through the graph of the first."""

    total: Tensor | float = 0.0

    def loss(self, batch):
        terms = super().loss(batch)
        self.total = self.total + terms["cross_entropy"]
        return {"cross_entropy": self.total}


class AddsGradients(SASRec):
    """Goes backward by itself, so that a pass finds gradients that are there already."""

    def loss(self, batch):
        super().loss(batch)["cross_entropy"].backward()
        return super().loss(batch)


class LeavesATensorOnTheCpu(SASRec):
    """Holds an index that `.to(device)` does not know."""

    def __init__(self, *args, **fields):
        super().__init__(*args, **fields)
        self.identity = torch.arange(self.num_items)

    def loss(self, batch):
        return super().loss(Prefixes(batch.history, self.identity[batch.target], batch.user))


class MakesATensorOnTheCpu(SASRec):
    def loss(self, batch):
        terms = super().loss(batch)
        return {"cross_entropy": terms["cross_entropy"] + 0 * self.item(torch.zeros(3, dtype=torch.int64)).sum()}


class DrawsFromNowhere(SASRec):
    """Draws its batches from a generator without a seed."""

    def batches(self, split, streams):
        c = self.config
        return prefix_batches(split.train, c.train.batch_size, c.max_length, np.random.default_rng(), self.device)


class IgnoresTheSeed(SASRec):
    def batches(self, split, streams):
        c, rng = self.config, np.random.default_rng([5, streams.epoch])
        return prefix_batches(split.train, c.train.batch_size, c.max_length, rng, self.device)

    def loss(self, batch):
        torch.manual_seed(0)
        return super().loss(batch)


class ReadsTheWholeLog(SASRec):
    """Learns from the held-out items as well."""

    def batches(self, split, streams):
        c, rng = self.config, streams.numpy("batches")
        return prefix_batches(split.log, c.train.batch_size, c.max_length, rng, self.device)


class ReadsValidation(SASRec):
    """Starts from weights that validation has touched."""

    def __init__(self, split, *args, **fields):
        super().__init__(split, *args, **fields)
        with torch.no_grad():
            self.item.weight[split.valid.targets[0]] += 1e-3


class DropsTheLastBatch(SASRec):
    def batches(self, split, streams):
        batches = list(super().batches(split, streams))
        return iter(batches[:-1])


class RepeatsAnOrder(SASRec):
    def batches(self, split, streams):
        return super().batches(split, type(streams)(streams.seed, 0))


class ReadsTheTarget(SASRec):
    def scores(self, queries, items=None):
        scores = super().scores(queries, items)
        if len(queries.targets) == len(queries):
            scores[torch.arange(len(queries)), torch.as_tensor(queries.targets)] += 1e-3
        return scores


class ScoresByPlace(SASRec):
    """A query's scores depend on the queries beside it."""

    def query_vectors(self, queries):
        return super().query_vectors(queries) + torch.linspace(0, 1, len(queries))[:, None, None]


class ScoresByUser(SASRec):
    """A user's number is taken for a feature; -1 falls out of the table."""

    def query_vectors(self, queries):
        numbers = torch.zeros(self.num_users).index_put((torch.as_tensor(queries.user),), torch.tensor(1.0))
        return super().query_vectors(queries) + numbers[torch.as_tensor(queries.user)][:, None, None] * torch.as_tensor(
            np.sqrt(queries.user), dtype=torch.float32
        ).view(-1, 1, 1)


class PadsItsScores(SASRec):
    """A column more than there are items, as with a padding row."""

    def scores(self, queries, items=None):
        scores = super().scores(queries, items)
        return scores if items is not None else torch.cat([scores.new_zeros(len(scores), 1), scores], 1)


class ScoresCandidatesOtherwise(SASRec):
    def scores(self, queries, items=None):
        return super().scores(queries, None if items is None else items.roll(1, 1))


class KeepsAnswers(SASRec):
    """Remembers the item vectors for good."""

    kept = None

    def item_vectors(self):
        if self.kept is None:
            self.kept = super().item_vectors().clone()
        return self.kept


class DropsOutWhenAsked(SASRec):
    def query_vectors(self, queries):
        return torch.nn.functional.dropout(super().query_vectors(queries), 0.5, training=True)


class SavesTooLittle(SASRec):
    """A part of what it scores by is not in its weights."""

    def __init__(self, *args, **fields):
        super().__init__(*args, **fields)
        self.shift = torch.randn(self.num_items, generator=torch.Generator().manual_seed(id(self) % 2**31))

    def scores(self, queries, items=None):
        shift = self.shift if items is None else self.shift[items]
        return super().scores(queries, items) + shift


class NamesATermLoss(SASRec):
    def loss(self, batch):
        return {"loss": super().loss(batch)["cross_entropy"]}


class LearnsNothing(SASRec):
    def loss(self, batch):
        return {"cross_entropy": super().loss(batch)["cross_entropy"] * 0 + self.item.weight.square().sum() * 1e-9}


class ReadsOnlyTheUserForHistories(SASRec):
    """Cannot do without a user."""

    def query_vectors(self, queries):
        if (queries.user < 0).any():
            history = Queries.from_histories([[0]] * len(queries))
            return self.encoder(query_sequences(history, 5, self.device), self.item.weight, last=True).unsqueeze(1)
        return super().query_vectors(queries)


FOUND_BY = {
    KeepsALossGraph: ["test_gradients_are_those_of_a_fresh_graph"],
    AddsGradients: ["test_gradients_are_those_of_a_fresh_graph"],
    LeavesATensorOnTheCpu: ["test_a_step_on_the_meta_device"],
    MakesATensorOnTheCpu: ["test_a_step_on_the_meta_device"],
    DrawsFromNowhere: ["test_same_seed_same_weights", "test_stopped_and_resumed_it_is_the_same"],
    IgnoresTheSeed: ["test_another_seed_other_weights"],
    ReadsTheWholeLog: ["test_held_out_items_change_nothing", "test_every_target_once_an_epoch"],
    ReadsValidation: ["test_held_out_items_change_nothing"],
    DropsTheLastBatch: ["test_every_target_once_an_epoch"],
    RepeatsAnOrder: ["test_every_target_once_an_epoch"],
    ReadsTheTarget: ["test_targets_are_not_read"],
    ScoresByPlace: ["test_permuting_queries_permutes_answers"],
    ScoresByUser: ["test_users_in_another_order"],
    PadsItsScores: ["test_scores_are_finite_and_have_a_row_a_query", "test_scores_of_given_items"],
    ScoresCandidatesOtherwise: ["test_scores_of_given_items", "test_candidates_of_a_query_are_ranked"],
    KeepsAnswers: ["test_answers_follow_the_weights", "test_validation_is_of_the_epoch_s_own_weights"],
    DropsOutWhenAsked: ["test_answers_repeat"],
    SavesTooLittle: ["test_saved_and_loaded_it_answers_the_same"],
    NamesATermLoss: ["test_each_term_is_finite_and_named"],
    LearnsNothing: ["test_it_learns_what_it_is_made_for"],
    ReadsOnlyTheUserForHistories: ["test_a_history_without_its_user"],
}


class Fixtures:
    """The contract's fixtures for the model that is planted, made when they are asked for."""

    def __init__(self, split, tmp_path_factory):
        self.split, self.folders = split, tmp_path_factory

    @property
    def tmp_path(self):
        return self.folders.mktemp("planted")

    @cached_property
    def model(self):
        return SoundContract.make(self.split).eval()

    @cached_property
    def trained(self):
        return fit(SoundContract.make(self.split), self.split, epochs=EPOCHS, out=self.tmp_path / "run")

    def run(self, name):
        test = getattr(SoundContract(), name)
        arguments = test.__code__.co_varnames[1 : test.__code__.co_argcount]
        test(**{argument: getattr(self, argument) for argument in arguments})


@pytest.fixture
def fixtures(split, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("dglrec.curves.save_curves", draw_nothing)
    return Fixtures(split, tmp_path_factory)


def test_a_sound_model_passes(fixtures, monkeypatch):
    monkeypatch.setitem(PRESETS, "planted", Preset(SASRec, {}, "here"))
    for name in {name for names in FOUND_BY.values() for name in names} - {"test_it_learns_what_it_is_made_for"}:
        fixtures.run(name)


@pytest.mark.parametrize(
    ("model", "name"), [(m, n) for m, names in FOUND_BY.items() for n in names], ids=lambda x: getattr(x, "__name__", x)
)
def test_a_planted_fault_is_found(model, name, fixtures, monkeypatch):
    monkeypatch.setitem(PRESETS, "planted", Preset(model, {}, "here"))
    with pytest.raises((AssertionError, RuntimeError)):
        fixtures.run(name)
