"""GAL-Rec and its relatives: the contract, and what the paper's equations say."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dglrec
from dglrec.errors import CheckpointError, ConfigError, DataError
from dglrec.lm import backbone
from dglrec.lm.contrasts import KEYS
from dglrec.lm.embeddings import from_texts, item_texts
from dglrec.lm.hop_prompts import history_of
from dglrec.lm.indexing import cid
from dglrec.models import indexed
from dglrec.models.prompted import PromptConfig
from dglrec.streams import Streams
from tests.contract.model_contract import (
    GenerativeContract,
    ModelContract,
    assert_same_bits,
    fit,
    plain_epoch,
    weights_of,
)

pytest.importorskip("transformers")

TINY = {"dim": 16, "layers": 1, "heads": 2, "inner": 32, "max_length": 10}
# Query, key and loss of each contrast, as docs/galrec.md argues from the paper; where the "far" end learns, Eq. 5 and
# 6 are turned round.
NEAR = [("user 0", "user far", 1), ("item 0", "item far", 1)]
FAR = [("user far", "user 0", 1), ("item far", "item 0", 1)]
OTHERS = [
    ("item 1", "user far", 2),
    ("user 1", "item far", 2),
    ("item 1", "user 0", 3),
    ("user 1", "item 0", 3),
]
SMALL = {**TINY, "source_dim": 16, "source_epochs": 2, "fanout": 4, "queue": 64}


class TestGALRec(ModelContract):
    preset = "galrec-lightgcn"
    fields = SMALL
    known = {"communities": 0.6}
    known_fields = {"source_epochs": 10, "gal": False, "train": {"lr": 5e-3, "batch_size": 128}}
    known_epochs = 2

    def test_the_loss_falls(self, trained):
        """That of the next item; the contrasts become harder as the queues fill."""
        assert trained.rows[-1]["next_item"] < trained.rows[0]["next_item"]


class TestIID(ModelContract):
    preset = "iid"
    fields = TINY
    known = {"grammar": 0.6}
    known_fields = {"train": {"lr": 1e-2, "batch_size": 64}}
    known_epochs = 4


class TestP5(GenerativeContract):
    preset = "p5"
    fields = TINY
    known = {"grammar": 0.5}
    known_fields = {"train": {"lr": 1e-2, "batch_size": 64}}
    known_epochs = 6
    meta = False  # the library's decoder looks at the values of its mask


def make(split, **fields):
    return dglrec.models.preset("galrec-lightgcn", split, **{**SMALL, "source_epochs": 0, "dropout": 0.0, **fields})


def first_batch(model, split):
    return next(iter(model.batches(split, Streams(0))))


@pytest.mark.parametrize("hide", ["own", "linked"])
@pytest.mark.parametrize("learner", ["near", "far"])
def test_the_terms_are_those_of_the_equations(split, learner, hide):
    """Each loss, written out from the prompts' encodings, one pair at a time.

    With hide="linked" an item has no negatives among those who took it, and a user none among what the user took.
    """
    weights = {"lambda1": 0.3, "lambda2": 0.2, "lambda3": 0.5}
    model = make(split, **weights, temperature=0.2, learner=learner, hide=hide, train={"batch_size": 32}).train()
    pairs = (NEAR if learner == "near" else FAR) + OTHERS
    batches = model.batches(split, Streams(0))
    with torch.no_grad():  # as far apart as after many steps, so that it shows who says what
        for own in model.contrasts.slow.parameters():
            own.mul_(1.5)
    for _ in range(2):  # fills the queues
        model.loss(next(batches))
        model.after_batch(False)
    batch = next(batches)
    terms = model.loss(batch)
    with torch.no_grad():
        names = ("user 0", "item 0", "user 1", "item 1", "user far", "item far")
        fast = model._encode(model._fast, batch, list(names))
        slow = model._encode(model.contrasts.slow, batch, list(names))
    ids = {"user": batch.user, "item": batch.target}
    wanted, linked = {1: 0.0, 2: 0.0, 3: 0.0}, 0
    took = set(zip(split.train.user.tolist(), split.train.item.tolist(), strict=True))

    def met(asks, own, answers, other):
        return hide == "linked" and asks != answers and ((own, other) if asks == "user" else (other, own)) in took

    for query, key, number in pairs:
        queue, (asks, answers) = model.contrasts.queues[key], (name.split()[0] for name in (query, key))
        own = ids[answers]
        for row in range(len(own)):
            known = torch.tensor([met(asks, int(ids[asks][row]), answers, int(node)) for node in queue.ids])
            linked += int(known.sum())
            negatives = queue.vectors[(queue.ids >= 0) & (queue.ids != own[row]) & ~known]
            scores = F.cosine_similarity(fast[query][row], torch.cat([slow[key][row : row + 1], negatives])) / 0.2
            wanted[number] = wanted[number] - scores.log_softmax(0)[0] / len(own)
    assert (linked > 0) == (hide == "linked")
    for number, weight in ((1, 0.3), (2, 0.2), (3, 0.5)):
        assert terms[f"gal_{number}"].item() == pytest.approx(weight * float(wanted[number]), rel=1e-4)
    nll = F.cross_entropy(model._answers(batch) @ model.item_vectors().T, batch.target)
    assert terms["next_item"].item() == pytest.approx(nll.item(), rel=1e-4)


def test_who_is_linked_is_known_of_every_pair(split):
    took = torch.zeros(split.log.num_users, split.log.num_items, dtype=torch.bool)
    took[split.train.user, split.train.item] = True
    users, items = torch.arange(len(took)), torch.arange(took.shape[1])
    linked = make(split).contrasts._linked
    assert torch.equal(linked("user 1", users[:, None], "item 0", items), took)
    assert torch.equal(linked("item 1", items[:, None], "user 0", users), took.T)
    assert not linked("user 0", users[:, None], "user far", users).any()


def test_neighbours_learn_from_the_first_contrast_where_the_far_end_has_the_gradient(split):
    """Hop 0 names no neighbour: with the gradient there, Eq. 5 and 6 teach the tokens of users nothing."""
    for learner in ("near", "far"):
        model = make(split, embeddings="learned", learner=learner, train={"batch_size": 32}).train()
        batches = model.batches(split, Streams(0))
        model.loss(next(batches))
        model.after_batch(False)
        model.loss(next(batches))["gal_1"].backward()
        assert bool(model.tokens.user.weight.grad.any()) == (learner == "far")


def test_queues_hold_what_the_slow_encoder_said_and_it_follows(split):
    model = make(split, momentum=0.9, train={"batch_size": 24}).train()
    batch = first_batch(model, split)
    model.loss(batch)
    assert all((queue.ids == -1).all() for queue in model.contrasts.queues.values())
    before = {name: p.clone() for name, p in model.contrasts.slow.named_parameters()}
    with torch.no_grad():
        said = model._encode(model.contrasts.slow, batch, list(KEYS))
        model.backbone.words.weight.add_(1.0)
    model.after_batch(False)
    assert all(torch.equal(p, before[name]) for name, p in model.contrasts.slow.named_parameters())
    for name, queue in model.contrasts.queues.items():
        ids = batch.user if name.startswith("user") else batch.target
        assert torch.equal(queue.ids[:24], ids)
        torch.testing.assert_close(queue.vectors[:24], said[name])
    model.after_batch(True)
    now = dict(model.contrasts.slow.named_parameters())
    moved = 0.9 * before["words.weight"] + 0.1 * model.backbone.words.weight
    torch.testing.assert_close(now["words.weight"], moved)


@pytest.mark.parametrize("preset", ["galrec-lightgcn", "iid", "sid"])
def test_mixed_precision_computes_the_same(split, preset):
    """To the places that it has; weights, queues and the momentum copy stay in single precision."""
    fields = SMALL if preset.startswith("gal") else TINY
    runs = []
    for precision in ("float32", "bfloat16"):
        train = {"precision": precision, "lr": 1e-2, "batch_size": 64}
        model = dglrec.models.preset(preset, split, **{**fields, "dropout": 0.0, "epoch_targets": 256, "train": train})
        runs.append(fit(model, split, epochs=2))
    exact, rough = (run.rows[-1] for run in runs)
    names = [name for name in exact if name == "next_item" or name.startswith("gal_")]
    assert len(names) == (4 if preset.startswith("gal") else 1)
    for name in names:
        assert rough[name] == pytest.approx(exact[name], rel=0.03), name
        assert rough[name] != exact[name], name
    kept = [*runs[1].model.parameters(), *runs[1].model.buffers()]
    assert all(one.dtype == torch.float32 for one in kept if one.is_floating_point())


def test_accumulated_batches_are_one_step_and_each_of_them_fills_the_queues(split):
    """Six batches are two steps; the momentum encoder follows at these."""
    fields = {"dropout": 0.1, "epoch_targets": 6 * 8, "queue": 6 * 8, "momentum": 0.5}
    models = []
    for _ in range(2):
        train = {"batch_size": 8, "accumulate": 3, "lr": 1e-2, "schedule": "constant", "warmup_share": 0.0}
        models.append(make(split, **fields, train=train))
    followed = []
    words = models[0].contrasts.slow.words
    words.register_forward_pre_hook(lambda words, _: followed.append(words.weight.detach().clone()))
    run = fit(models[0], split, epochs=1)
    assert plain_epoch(models[1], split) == run.rows[0]["steps"] == 6
    assert_same_bits(weights_of(run.model), weights_of(models[1]))
    assert all((queue.ids >= 0).all() for queue in run.model.contrasts.queues.values())
    new = [not torch.equal(*pair) for pair in itertools.pairwise(followed)]
    assert new == [False, False, True, False, False]


@pytest.mark.parametrize(("batches", "steps"), [(6, 2), (7, 3)])
def test_the_momentum_encoder_follows_every_step(split, monkeypatch, batches, steps):
    """That of the batches that are left at the end of an epoch, too, whose keys are in the queues once."""
    followed = []
    monkeypatch.setattr("dglrec.lm.contrasts.follow", lambda *_: followed.append(1))
    model = make(split, epoch_targets=batches * 8, queue=100, train={"batch_size": 8, "accumulate": 3})
    run = fit(model, split, epochs=1)
    assert len(followed) == steps
    assert {int((queue.ids >= 0).sum()) for queue in run.model.contrasts.queues.values()} == {batches * 8}


def test_keys_may_be_said_without_dropout(split):
    """Then they are those of evaluation, and the queries still drop out."""
    for key_dropout in (True, False):
        model = make(split, dropout=0.5, key_dropout=key_dropout, train={"batch_size": 24}).train()
        batch = first_batch(model, split)
        model.loss(batch)
        with torch.no_grad():
            wanted = model.eval()._encode(model.contrasts.slow, batch, list(KEYS))
        for name in KEYS:
            assert torch.allclose(model.contrasts._said[name][0], wanted[name], atol=1e-5) == (not key_dropout)
        assert model.train().contrasts.slow.training
        model.eval().loss(batch)  # nothing drops out in evaluation
        torch.testing.assert_close(model.contrasts._said[KEYS[0]][0], wanted[KEYS[0]])


def test_losses_can_be_turned_off(split):
    for number in (1, 2, 3):
        model = make(split, **{f"lambda{number}": 0.0}).train()
        assert set(model.loss(first_batch(model, split))) == {"next_item"} | {
            f"gal_{n}" for n in (1, 2, 3) if n != number
        }
    assert set(make(split, gal=False).loss(first_batch(make(split, gal=False), split))) == {"next_item"}


def test_prompts_grow_with_the_hops(split):
    lengths = []
    for hops in (1, 2, 3):
        model = make(split, hops=hops)
        lengths.append(float(first_batch(model, split).prompts["ask"].lengths.mean()))
    assert lengths[0] < lengths[1] < lengths[2]


def nodes_of(model, prompts, row):
    """The nodes that a prompt names, in order: -1 the asker, items from 0, users from M."""
    words, asker = model.backbone.words.num_embeddings, model.num_items + model.num_users
    tokens = prompts.values[prompts.rows == row] - words
    return [-1 if token == asker else token for token in tokens[tokens >= 0].tolist()]


def test_prompts_name_the_neighbours_of_their_hops(split):
    """From the log's rows: of a user the history and who else took it, of an item its takers and what they took."""
    fanout, longest, log = 2, 3, split.train
    model = make(split, fanout=fanout, max_length=longest, budget=1000, train={"batch_size": 40}).train()
    rows = np.flatnonzero(log.position > 0)[::30]
    batch = model.prompts(dglrec.lm.hop_prompts.targets_of(log, rows, longest))

    def newest(own, other, node, time, without, most):
        """The last so many of the other side that `node` met before `time`."""
        order = np.lexsort((np.arange(len(log)), log.position, log.time))
        met = [int(other[row]) for row in order if own[row] == node and log.time[row] < time]
        met = [one for place, one in enumerate(met) if one not in met[place + 1 :] and one not in without]
        return met[-most:]

    for number, row in enumerate(rows.tolist()):
        user, item, time = int(log.user[row]), int(log.item[row]), log.time[row]
        history = log.item[max(row - longest, log.offsets[user]) : row].tolist()
        others = {v for i in history for v in newest(log.item, log.user, i, time, {user}, fanout)}
        takers = newest(log.item, log.user, item, time, {user}, longest)
        besides = {i for v in takers for i in newest(log.user, log.item, v, time, {item}, fanout)}
        said = {name: nodes_of(model, prompts, number) for name, prompts in batch.prompts.items()}
        assert said["user 0"] == [-1]
        assert said["user 1"] == [-1, *history]
        assert said["user far"] == said["ask"]
        assert said["user far"][: 1 + len(history)] == said["user 1"]
        assert sorted(said["user far"][1 + len(history) :]) == sorted(v + model.num_items for v in others)
        assert said["item 0"] == [item]
        assert said["item 1"] == [item, *(v + model.num_items for v in takers)]
        assert said["item far"][: 1 + len(takers)] == said["item 1"]
        assert sorted(said["item far"][1 + len(takers) :]) == sorted(besides)


def test_titles_stand_before_the_items_tokens(split):
    model = make(split, titles=3, hops=1)
    words, batch = model.backbone.words.num_embeddings, first_batch(model, split)
    item = batch.prompts["item 0"].values[:6].tolist()
    title = model.backbone.tokenize(split.log.titles[int(batch.target[0])])[:3]
    assert item[1 : 1 + len(title)] == title
    assert item[1 + len(title)] == words + int(batch.target[0])
    assert torch.isfinite(model.loss(batch)["next_item"])


def test_a_prompt_is_the_mean_of_its_states(split):
    """That of all its tokens, prompt after prompt."""
    model = make(split, train={"batch_size": 8}).eval()
    batch = first_batch(model, split)
    with torch.no_grad():
        found = model._encode(model._fast, batch, ["user 0", "item far"])
        for name in found:
            prompts = batch.prompts[name]
            vectors = model._vectors(model._fast, prompts, batch.history)
            states = model.backbone.encode(model.backbone.encoder, vectors, prompts.lengths)
            wanted = torch.stack([states[prompts.rows == row].mean(0) for row in range(8)])
            torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("titles", [0, 3])
def test_the_state_of_the_node_is_that_of_its_own_token(split, titles):
    """Not that of a title's first word, where titles stand before it."""
    model = make(split, pool="node", titles=titles, hops=1, train={"batch_size": 8}).eval()
    batch, words = first_batch(model, split), model.backbone.words.num_embeddings
    with torch.no_grad():
        found = model._encode(model._fast, batch, ["user 1", "item 1"])
        for name, own in (("user 1", words + model.num_items + model.num_users), ("item 1", words + batch.target)):
            prompts = batch.prompts[name]
            vectors = model._vectors(model._fast, prompts, batch.history)
            states = model.backbone.encode(model.backbone.encoder, vectors, prompts.lengths)
            assert (prompts.values == torch.as_tensor(own).expand(8)[prompts.rows]).sum() == 8
            wanted = states[prompts.values == torch.as_tensor(own).expand(8)[prompts.rows]]
            torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cutoffs", "hops"), [(True, 2), (False, 2), (True, 3)])
def test_no_prompt_names_the_target_pair(split, cutoffs, hops):
    """The asking user is in no prompt, and what is asked for is in none of the user's first two hops."""
    model = make(split, order="uniform", cutoffs=cutoffs, hops=hops, budget=1000)
    words = model.backbone.words.num_embeddings
    for batch in model.batches(split, Streams(1)):
        for name, prompts in batch.prompts.items():
            nodes = prompts.values.numpy() - words
            row = prompts.rows.numpy()
            user = words + model.num_items
            assert not (prompts.values.numpy() == user + batch.user.numpy()[row]).any(), name
            if name.startswith("user 1"):
                assert not (nodes == batch.target.numpy()[row]).any(), name


def test_neighbours_are_drawn_anew_in_training_and_once_to_rank(split):
    model = make(split, order="uniform", fanout=2, train={"batch_size": 64})

    def prompts_of(epoch):
        return [
            {name: p.values.tolist() for name, p in b.prompts.items()} for b in model.batches(split, Streams(3, epoch))
        ]

    asked = dglrec.lm.hop_prompts.history_of(split.test, 10)
    ranked = [model.prompts(asked, contrast=False).prompts["ask"].values for _ in range(2)]
    assert prompts_of(1) == prompts_of(1)  # as after a resume
    assert torch.equal(*ranked)
    rows = dglrec.lm.hop_prompts.targets_of(split.train, np.flatnonzero(split.train.position > 2)[:64], 10)
    first, second = (model.prompts(rows, seed=Streams(3, epoch).torch_seed("neighbours")).prompts for epoch in (0, 1))
    for name in ("ask", "user far", "item far"):
        assert first[name].values.tolist() != second[name].values.tolist(), name
    assert torch.equal(first["item 0"].values, second["item 0"].values)


def test_cut_offs_leave_the_future_out(split):
    """A user who is asked before anybody else did anything has neighbours only without cut-offs."""
    first = int(np.argmin(split.train.time))
    early = split.test[[0]]
    early = type(early).from_histories([[int(split.train.item[first])]])
    early = dataclasses.replace(early, time=split.train.time[[first]])
    for cutoffs in (True, False):
        model = make(split, cutoffs=cutoffs).eval()
        ask = model.prompts(dglrec.lm.hop_prompts.history_of(early, 5), contrast=False).prompts["ask"]
        users = (ask.values.numpy() >= model.backbone.words.num_embeddings + model.num_items).sum()
        assert (users > 1) == (not cutoffs)  # one token is the asker


def test_takers_of_the_target_came_before_the_moment(split):
    model, train = make(split), split.train
    rows = np.flatnonzero(train.position > 0)
    part = model.prompts(dglrec.lm.hop_prompts.targets_of(train, rows, 5)).prompts["item 1"]
    users = part.values.numpy() - model.backbone.words.num_embeddings - model.num_items
    named = np.flatnonzero(users >= 0)
    assert len(named) > 100
    for user, row in zip(users[named], rows[part.rows.numpy()[named]], strict=True):
        taken = train.time[(train.user == user) & (train.item == train.item[row])]
        assert taken.min() < train.time[row]


@pytest.mark.parametrize("embeddings", ["sasrec", "text", "learned"])
def test_other_embeddings_learn(split, embeddings):
    model = make(split, embeddings=embeddings, source_epochs=1, train={"lr": 5e-3, "batch_size": 128})
    rows = fit(model, split, epochs=3).rows
    assert rows[-1]["next_item"] < rows[0]["next_item"]
    assert rows[0]["tokens"] > 10_000
    assert rows[0]["padding"] < 0.2


def test_embeddings_are_scaled_by_what_training_has():
    split = dglrec.leave_one_out(dglrec.sample("shop", users=12, items=60))
    seen = np.unique(split.train.item)
    assert len(seen) < split.log.num_items
    model = make(split, embeddings="text")
    model.before_training()
    for known in (model.known_items[seen], model.known_users[np.unique(split.train.user)]):
        torch.testing.assert_close(known.mean(0), torch.zeros(known.shape[1]), rtol=0, atol=1e-5)
        scale = known.std(0, correction=0)
        torch.testing.assert_close(scale[scale > 0.5], torch.ones(int((scale > 0.5).sum())))
        assert (scale > 0.5).any()


def test_a_user_of_texts_is_the_mean_of_the_training_items(split):
    users, items = from_texts(split.log, split.train, "tfidf", 8)
    assert items.shape == (split.log.num_items, 8)
    assert torch.isfinite(items).all()
    for user in (0, 7):
        own = split.train.item[split.train.user == user]
        torch.testing.assert_close(users[user], items[own].mean(0))


def test_encoders_read_all_that_is_said_of_an_item(split):
    """Two items of one title are told apart by their categories; prompts and recommendations have the title alone."""
    count = split.log.num_items
    titles = np.array(["", *["mug"] * (count - 1)], dtype=object)
    texts = np.array(
        ["Kitchen", *[f"mug. {'Tea' if item % 2 else 'Coffee'}" for item in range(1, count)]], dtype=object
    )
    log = dataclasses.replace(split.log, titles=titles, texts=texts)
    assert item_texts(log) == texts.tolist()
    assert item_texts(log, brief=True) == ["Kitchen", *titles[1:]]  # one without a title has the rest
    _, items = from_texts(log, split.train, "tfidf", 3)
    assert len(items.unique(dim=0)) == 3
    own = dglrec.leave_one_out(log)
    model = make(own, titles=2, embeddings="learned")
    assert {rec.title for rec in dglrec.recommend(model, history=[log.item_ids[1]], k=5)} <= {"mug", ""}
    item = model._prompter("item", np.array([1])).tokens.tolist()
    assert item[1:-2] == model.backbone.tokenize("mug")


@pytest.mark.parametrize(("embeddings", "asker"), [("learned", "row"), ("learned", "history"), ("lightgcn", "row")])
def test_each_token_has_the_vector_of_what_it_names(split, embeddings, asker):
    """Eq. 4, token after token."""
    model = make(split, embeddings=embeddings, asker=asker, train={"batch_size": 8})
    batch, words = first_batch(model, split), model.backbone.words.weight
    part, (first, second) = batch.prompts["ask"], (len(words), len(words) + model.num_items)
    if embeddings == "learned":
        items, users = model.tokens.item.weight, model.tokens.user.weight
    else:
        items, users = (model.tokens.mapping(known) for known in (model.known_items, model.known_users))
    wanted, kinds = [], set()
    for token, row in zip(part.values.tolist(), part.rows.tolist(), strict=True):
        kind = (token >= first) + (token >= second) + (token == second + model.num_users)
        kinds.add(kind)
        history = batch.history.values[batch.history.rows == row]
        one = [words[token % first], items[(token - first) % model.num_items], users[(token - second) % len(users)]]
        wanted.append([*one, items[history].mean(0)][kind])
    assert kinds == ({0, 1, 2} if asker == "row" else {0, 1, 2, 3})
    torch.testing.assert_close(model._vectors(model._fast, part, batch.history), torch.stack(wanted))


@pytest.mark.parametrize("preset", ["cid", "sid"])
def test_other_names_learn(split, preset):
    model = dglrec.models.preset(preset, split, **TINY, train={"lr": 5e-3, "batch_size": 128})
    rows = fit(model, split, epochs=2).rows
    assert rows[-1]["next_item"] < rows[0]["next_item"]


def test_embeddings_of_a_run(split, tmp_path):
    fit(dglrec.models.preset("lightgcn", split, dim=16), split, epochs=2, out=tmp_path / "run")
    source = str(tmp_path / "run")
    model = make(split, source=source)
    model.before_training()
    known = np.unique(split.train.item)
    items = dglrec.load_model(source).item_vectors()[known].detach()
    wanted = (items - items.mean(0)) / items.std(0, correction=0)
    torch.testing.assert_close(model.known_items[known], wanted, rtol=1e-3, atol=1e-4)
    asked = split.valid  # their histories are the training histories
    with torch.no_grad():
        users = dglrec.load_model(source).query_vectors(asked)[:, 0]
    assert len(asked) == len(np.unique(split.train.user))
    wanted = (users - users.mean(0)) / users.std(0, correction=0)
    torch.testing.assert_close(model.known_users[asked.user], wanted, rtol=1e-3, atol=1e-4)
    other = dglrec.leave_one_out(dglrec.sample("shop", users=50, items=43))
    for wrong, error, words in (
        (make(split, source=source, embeddings="sasrec"), ConfigError, "expected one of 'sasrec'"),
        (make(split, source=source, source_dim=8), ConfigError, "set source_dim"),
        (make(other, source=source), DataError, "are of split"),
    ):
        with pytest.raises(error, match=words):
            wrong.before_training()


def test_what_is_refused(split, tmp_path):
    with pytest.raises(ConfigError, match=r"without a network, use the folder.*backbone='tiny'"):
        make(split, backbone=str(tmp_path))
    with pytest.raises(ConfigError, match="a prompt without neighbours takes"):
        make(split, budget=3)
    long = dataclasses.replace(split.log, titles=np.full(split.log.num_items, "wool " * 30))
    with pytest.raises(ConfigError, match="a prompt without neighbours takes 33"):
        make(dglrec.leave_one_out(long), budget=30, titles=30)  # the question fits, the longest title does not
    with pytest.raises(ConfigError, match="a prompt without neighbours takes"):
        dglrec.models.preset("sid", split, **TINY, budget=3)
    with pytest.raises(ConfigError, match=r"embeddings='learned' are not taken from a run"):
        make(split, embeddings="learned", source="runs/lightgcn")
    with pytest.raises(ConfigError, match="no more heads than dimensions"):
        make(split, dim=2, heads=4)
    with pytest.raises(ConfigError, match="hops is 4"):
        make(split, hops=4)
    untitled = dglrec.leave_one_out(dglrec.sample("grammar", users=30, items=40))
    with pytest.raises(DataError, match="has no titles"):
        make(untitled, embeddings="text")
    with pytest.raises(DataError, match="has no titles"):
        make(untitled, titles=4)
    said = np.array(["", *["mug"] * (split.log.num_items - 2), " "], dtype=object)
    blank = dglrec.leave_one_out(dataclasses.replace(split.log, titles=said))
    first = (
        f"2 of {len(said)} items of .* have no title, brand or categories, the first of them '{split.log.item_ids[0]}'"
    )
    with pytest.raises(DataError, match=first):
        make(blank, embeddings="text")
    with pytest.raises(DataError, match=first):
        make(blank, titles=4)
    with pytest.raises(ConfigError, match=r"needs no download|not installed"):
        make(split, embeddings="text", text_encoder=str(tmp_path)).before_training()
    (tmp_path / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "os.system"}]')
    with pytest.raises(ConfigError, match=r"names the module 'os\.system', and loading it would run code"):
        make(split, embeddings="text", text_encoder=str(tmp_path))
    with pytest.raises(ConfigError, match=r"text_encoder is 'st5', but embeddings='lightgcn' read no texts"):
        make(split, text_encoder="st5")
    for blank_name in ("", " "):
        with pytest.raises(ConfigError, match="expected 'tiny', or the name or folder of a T5"):
            make(split, backbone=blank_name)
    with pytest.raises(
        ConfigError, match=r"sid generates the names of its 20 most likely items .*: use top\(queries, k\)"
    ):
        dglrec.models.preset("sid", split, **TINY).scores(split.test)
    with pytest.raises(ConfigError, match="k=21 is more than the beam of 20"):
        dglrec.models.preset("sid", split, **TINY).top(split.test, 21)


def test_all_presets_have_one_backbone(split):
    """And prompts of one length, so that they are compared on equal terms."""
    names = ("galrec-lightgcn", "galrec-sasrec", "galrec-text", "iid", "sid", "cid", "p5")
    configs = [dglrec.models.preset(name, split).config for name in names]
    shared = {field.name for field in dataclasses.fields(PromptConfig)} - {"train"}
    assert {tuple(getattr(config, name) for name in sorted(shared)) for config in configs} == {
        tuple(getattr(PromptConfig(), name) for name in sorted(shared))
    }
    trains = [dataclasses.replace(config.train, weight_decay=0.0) for config in configs]
    assert all(train == trains[0] for train in trains)


BEYOND = {  # of each part that a config is made of
    "galrec-lightgcn": {"dim": 0, "dropout": 1.0, "lambda3": -0.1, "queue": 0, "momentum": 2.0, "fanout": 0},
    "cid": {"epoch_targets": -1, "max_length": 0, "clusters": 1, "beam": 0},
}


@pytest.mark.parametrize(
    ("preset", "field", "value"), [(preset, *one) for preset in BEYOND for one in BEYOND[preset].items()]
)
def test_numbers_outside_of_their_limits_are_refused(split, preset, field, value):
    with pytest.raises(ConfigError, match=rf"^{field} is {value}; expected"):
        dglrec.models.preset(preset, split, **{field: value})


def save_t5(folder, kind="T5"):
    """A small model of a kind of T5, with a tokenizer of one word, as they are downloaded; returns the model."""
    import tokenizers
    import transformers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "user": 3}, "<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    named = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)
    sizes = {"d_model": 24, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 3, "vocab_size": 10}
    config = getattr(transformers, f"{kind}Config")(**sizes, decoder_start_token_id=0)
    whole = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    whole.save_pretrained(folder)
    return whole


def test_a_model_of_another_kind_is_refused(split, tmp_path):
    """UMT5 has a bias of positions in each layer: what the library reads of it as a T5 is not that model."""
    save_t5(tmp_path, kind="UMT5")
    with pytest.raises(ConfigError, match="is of the kind 'umt5'; expected a T5"):
        make(split, backbone=str(tmp_path))


def test_a_t5_from_a_folder(split, tmp_path):
    """Weights, widths and words are those of the folder, and it is found again by a saved model."""
    whole = save_t5(tmp_path / "t5")
    model = make(split, backbone=str(tmp_path / "t5"))
    assert model.item_vectors().shape == (split.log.num_items, 24)
    torch.testing.assert_close(model.backbone.words.weight, whole.get_input_embeddings().weight)
    assert model.backbone.tokenize("user took") == [3, 2]
    rows = fit(model, split, epochs=2).rows
    assert rows[-1]["next_item"] < rows[0]["next_item"]
    dglrec.save_model(model, tmp_path / "model")
    loaded = dglrec.load_model(tmp_path / "model")
    assert torch.equal(loaded.scores(split.test), model.eval().scores(split.test))


def test_without_the_libraries_it_is_said_what_to_install(split, monkeypatch):
    found = importlib.import_module

    def missing(name, *rest):
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r'pip install "dglrec\[lm\]"'):
        make(split)


@pytest.mark.parametrize("learner", ["near", "far"])
def test_the_contrasts_share_passes_of_the_encoders(split, monkeypatch, learner):
    """A step encodes four kinds of prompts with a gradient and four without, each kind once, besides the question."""
    model, asked = make(split, learner=learner).train(), []
    batch, encode = first_batch(model, split), model._encode

    def counted(reader, batch, names):
        asked.append(("slow" if reader is model.contrasts.slow else "fast", sorted(names), torch.is_grad_enabled()))
        return encode(reader, batch, names)

    monkeypatch.setattr(model, "_encode", counted)
    seen, size = [], len(batch.target)
    encoders, whole = {model.backbone.encoder: "fast", model.contrasts.slow["encoder"]: "slow"}, backbone.encode

    def encoded(encoder, vectors, buckets):
        seen.append((encoders[encoder], len(buckets.lengths)))
        return whole(encoder, vectors, buckets)

    monkeypatch.setattr(backbone, "encode", encoded)
    model.loss(batch)
    queries = sorted({query for query, _, _ in model.config.pairs})
    assert asked == [("fast", queries, True), ("slow", sorted(KEYS), False)]
    prompts = {name: sum(rows for own, rows in seen if own == name) for name in ("fast", "slow")}
    assert prompts == {"fast": (4 + 1) * size, "slow": 4 * size}


def test_a_user_is_ranked_in_one_step_of_the_decoder(split, monkeypatch):
    model, said, step = make(split).eval(), [], backbone.first_states

    def counted(decoder, vectors, states, buckets):
        said.append(len(vectors))
        return step(decoder, vectors, states, buckets)

    monkeypatch.setattr(backbone, "first_states", counted)
    with torch.no_grad():
        assert model.scores(split.test).shape == (len(split.test), split.log.num_items)
    assert sum(said) == len(split.test)


def test_training_tells_tokens_a_second_and_padding(split, capsys):
    model = dglrec.models.preset("iid", split, **TINY, epoch_targets=100)
    row = fit(model, split, epochs=1, progress=True).rows[0]
    text = f"{row['tokens'] / row['seconds']:,.0f} tokens/s, {100 * row['padding']:.0f} % padding"
    assert text in capsys.readouterr().err
    assert row["padding"] < 0.2


@pytest.mark.parametrize("preset", ["iid", "galrec-lightgcn", "sid"])
def test_training_tells_what_the_budget_cut(split, capsys, preset):
    """The share, counted from the tokens of the prompts with a wide budget and with a narrow one."""
    named = []
    for budget in (1000, 18):
        model = dglrec.models.preset(preset, split, **TINY, budget=budget, train={"batch_size": 200}).train()
        batch = first_batch(model, split)
        named.append(sum(int((p.values >= model.backbone.words.num_embeddings).sum()) for p in batch.prompts.values()))
        share = model.epoch_figures()["cut"]
        model.eval().top(split.test[:3], 1)  # is not counted
        assert model.epoch_figures()["cut"] == 0
        assert (share > 0) == (budget == 18)
    if preset != "sid":  # whose entries are tokens, but for the node that a prompt is about
        own = 200 * len(batch.prompts)
        assert share == pytest.approx(1 - (named[1] - own) / (named[0] - own))
    if preset == "iid":
        row = fit(model, split, epochs=1, progress=True).rows[0]
        assert f"{100 * row['cut']:.0f} % of entries cut" in capsys.readouterr().err


def test_beam_search_over_all_items_is_scoring_each_of_them(split):
    """The log-probabilities of the lists are those of the loss, item after item."""
    model = dglrec.models.preset("sid", split, **TINY, beam=split.log.num_items).eval()
    queries = split.test[:2]
    items, scores = model.top(queries, split.log.num_items)
    batch = model._prompts(dglrec.lm.hop_prompts.history_of(queries[[0]], model.config.max_length))
    wanted = [model.loss(dataclasses.replace(batch, target=torch.tensor([item])))["next_item"] for item in items[0]]
    torch.testing.assert_close(scores[0], -torch.stack(wanted), rtol=1e-4, atol=1e-4)
    assert all(sorted(row) == list(range(split.log.num_items)) for row in items.tolist())


def test_whom_nobody_is_near_has_prompts_all_the_same(split):
    """A history that is empty, and one of an item that nobody took: neither has neighbours, and both are ranked."""
    unseen = int(np.setdiff1d(np.arange(split.log.num_items + 1), split.train.item)[0])
    histories = [[], [unseen]] if unseen < split.log.num_items else [[]]
    queries = dglrec.data.Queries.from_histories(histories)
    for model in (make(split, hops=3), make(split, asker="row"), dglrec.models.preset("p5", split, **TINY)):
        found = model.eval().top(queries, 3)
        assert torch.isfinite(found[1]).all()
        assert (found[0] >= 0).all()


def test_a_new_process_ranks_the_same(split, tmp_path):
    models = {
        "gal": make(split),
        "titles": make(split, titles=4),  # the tokenizer is trained on them again
        "cid": dglrec.models.preset("cid", split, **TINY, clusters=3, largest=10),
        "sid": dglrec.models.preset("sid", split, **TINY),
    }
    for name, model in models.items():
        model.before_training()
        dglrec.save_model(model, tmp_path / name)
    words = "import sys, torch, dglrec; torch.set_num_threads(1); models = map(dglrec.load_model, sys.argv[1:-1]); "
    words += "torch.save([torch.stack([x.double() for x in m.top(m.split.test, 9)]) for m in models], sys.argv[-1])"
    paths = [tmp_path / name for name in (*models, "found.pt")]
    environment = os.environ | {"PYTHONPATH": str(Path(dglrec.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", words, *map(str, paths)], check=True, env=environment)
    for model, (items, scores) in zip(models.values(), torch.load(paths[-1], weights_only=True), strict=True):
        own = model.eval().top(split.test, 9)
        assert torch.equal(own[0], items.long())
        torch.testing.assert_close(own[1].double(), scores, rtol=1e-5, atol=1e-5)


def test_the_encoder_knows_which_tokens_are_one_name(split):
    """Each token's vector has its part's added, and with whole_words=False none."""
    model, plain = (dglrec.models.preset("sid", split, **TINY, dropout=0.0, whole_words=on) for on in (True, False))
    plain.load_state_dict({name: one for name, one in model.state_dict().items() if name != "part.weight"})
    queries, read = split.test[:3], []
    for one in (model, plain):
        one.backbone.encode = lambda encoder, vectors, lengths: read.append(vectors) or vectors
        list(one._read(one._prompts(history_of(queries, 10))))
    parts = model._prompts(history_of(queries, 10)).prompts["part"].values
    torch.testing.assert_close(read[0] - read[1], model.part.weight[parts])
    assert plain.part is None and len(parts.unique()) > 4


def test_weights_that_learned_other_names_are_refused(split, tmp_path, monkeypatch):
    """As another version of scipy could make them, with the same number of tokens."""
    dglrec.save_model(dglrec.models.preset("cid", split, **TINY, clusters=3, largest=10), tmp_path / "run")
    dglrec.load_model(tmp_path / "run")
    monkeypatch.setattr(indexed, "cid", lambda *arguments: cid(*arguments)[::-1])
    with pytest.raises(CheckpointError, match=r"other item names .* versions of numpy and scipy"):
        dglrec.load_model(tmp_path / "run")


def test_a_t5_that_cannot_be_fetched_says_what_to_do_without_a_network(split, monkeypatch):
    """What was fetched before is looked at first; then the hub is asked once, and not as often as the library does."""
    import huggingface_hub
    import transformers

    asked = []

    def read(name, local_files_only, **_):
        asked.append("disk" if local_files_only else "hub")
        raise OSError("not here")

    def model_info(self, name, timeout):
        asked.append((name, timeout < 30))
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", read)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    with pytest.raises(
        ConfigError, match=r"'google/flan-t5' is not a model .*connect.*use the folder of a downloaded T5"
    ):
        make(split, backbone="google/flan-t5")
    assert asked == ["disk", ("google/flan-t5", True)]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="not here"):
        make(split, backbone="google/flan-t5")
    assert asked[2:] == ["disk", "hub"]


@pytest.mark.parametrize("width", [5, 24])
def test_texts_are_read_by_a_sentence_encoder(split, monkeypatch, width):
    """All texts of the items, in order; wide vectors are reduced, narrow ones end in zeros."""
    asked = []

    class Encoder:
        def __init__(self, name):
            asked.append(name)

        def encode(self, texts, batch_size, show_progress_bar):
            assert not show_progress_bar and texts == item_texts(split.log)
            return np.random.default_rng(0).normal(size=(len(texts), width)).astype(np.float32)

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Encoder))
    _, items = from_texts(split.log, split.train, "st5", 16)
    given = torch.as_tensor(Encoder("").encode(item_texts(split.log), 1, False))
    if width < 16:
        assert torch.equal(items, F.pad(given, (0, 16 - width)))
    else:  # angles are kept as far as 16 of 24 dimensions can
        found, wanted = (F.cosine_similarity(one[:, None], one[None], dim=2) for one in (items, given))
        assert torch.corrcoef(torch.stack([found.flatten(), wanted.flatten()]))[0, 1] > 0.9
    model = dglrec.models.preset("galrec-text", split, **{**SMALL, "text_encoder": "st5"})
    model.before_training()
    assert asked == ["st5", "", "st5"]
    torch.testing.assert_close(model.known_items.std(0, correction=0)[:5], torch.ones(5), rtol=0.2, atol=0)


def test_a_folder_of_sentence_transformers_is_read(split, tmp_path):
    """The library itself, with a small BERT that needs no download."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    spoken = item_texts(split.log)
    words = sorted({word for text in spoken for word in re.findall(r"\w+", text.lower())})
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=5 + len(words), **sizes)).save_pretrained(tmp_path / "bert")
    encoder = SentenceTransformer(modules=[Transformer(str(tmp_path / "bert")), Pooling(32)], device="cpu")
    encoder.save(str(tmp_path / "encoder"))
    _, items = from_texts(split.log, split.train, str(tmp_path / "encoder"), 32)
    expected = torch.as_tensor(encoder.encode(spoken, show_progress_bar=False))
    found, wanted = (F.cosine_similarity(one[:, None], one[None], dim=2) for one in (items, expected))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_a_sentence_encoder_that_cannot_be_had_is_said(split, monkeypatch):
    def offline(name):
        raise OSError(f"no {name} here\nand more")

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=offline))
    with pytest.raises(ConfigError, match=r"text encoder 'st5' cannot be read \(no st5 here\); .*'tfidf'"):
        from_texts(split.log, split.train, "st5", 8)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r'need sentence_transformers.*pip install "dglrec\[lm\]"'):
        from_texts(split.log, split.train, "st5", 8)
