"""SASRec's loss, scores and weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import dglrec
from dglrec.batches import query_sequences
from dglrec.streams import Streams


def make(split, **fields):
    off = {"dropout": 0.0, "attention_dropout": 0.0}
    return dglrec.models.preset(
        "sasrec", split, **{"dim": 8, "inner": 16, "train": {"batch_size": 64}, **off, **fields}
    )


def history(split, row):
    """The items that stand before a row of the training log."""
    train = split.train
    return train.item[train.offsets[train.user[row]] : row]


@pytest.mark.parametrize("targets", ["positions", "prefixes"])
@pytest.mark.parametrize("max_length", [50, 6])
def test_the_loss_is_cross_entropy_of_the_next_item_over_all_items(targets, max_length, split):
    """An epoch's sum over targets, each prefix encoded alone."""
    model = make(split, targets=targets, max_length=max_length, stride=1)
    found = sum(
        float(model.loss(batch)["cross_entropy"]) * len(batch.target) for batch in model.batches(split, Streams(0))
    )
    expected = 0.0
    for row in (split.train.position > 0).nonzero()[0]:
        queries = dglrec.Queries.from_histories([history(split, row)])
        with torch.no_grad():
            logits = model.query_vectors(queries)[0] @ model.item.weight.T
        expected += float(F.cross_entropy(logits, torch.tensor([split.train.item[row]])))
    assert found == pytest.approx(expected, rel=1e-4)


def test_only_the_most_recent_items_are_read(split):
    model = make(split, max_length=6).eval()
    whole, recent = [3, 9, 4, 1, 5, 9, 2, 6], [4, 1, 5, 9, 2, 6]
    with torch.no_grad():
        scores = model.scores(dglrec.Queries.from_histories([whole, recent, whole[:6]]))
    torch.testing.assert_close(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_the_user_plays_no_part(split):
    model, histories = make(split).eval(), [[3, 1], [2]]
    with torch.no_grad():
        known = model.scores(dglrec.Queries.from_histories(histories, users=[5, 0]))
        assert torch.equal(known, model.scores(dglrec.Queries.from_histories(histories)))


def test_a_score_is_the_product_with_the_item_table(split):
    model = make(split).eval()
    with torch.no_grad():
        states = model.query_vectors(split.test)
        assert states.shape == (len(split.test), 1, 8)
        torch.testing.assert_close(model.scores(split.test), states[:, 0] @ model.item.weight.T)


def test_with_a_temperature_logits_are_cosines_over_it(split):
    """Loss and scores, by a plain reference, and whatever the lengths of the items' vectors are."""
    model = make(split, temperature=0.2)
    batch = next(iter(model.batches(split, Streams(0))))
    states = model.encoder(batch.history, model.item.weight)[batch.row]
    logits = F.cosine_similarity(states[:, None], model.item.weight[None], dim=2) / 0.2
    found = model.loss(batch)["cross_entropy"]
    torch.testing.assert_close(found, F.cross_entropy(logits, batch.target))
    with torch.no_grad():
        states = model.eval().encoder(query_sequences(split.test, 50, model.device), model.item.weight, last=True)
        scores = model.scores(split.test)
    torch.testing.assert_close(scores, F.cosine_similarity(states[:, None], model.item.weight[None], dim=2))
    assert scores.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_is_above_zero(temperature, split):
    with pytest.raises(dglrec.ConfigError, match="temperature"):
        make(split, temperature=temperature)


def test_initial_weights_are_recbole_s(split):
    model = make(split, dim=64, inner=256)
    assert float(model.item.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert bool((parameter == (1 if name.endswith("weight") else 0)).all()), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.1), name


def test_the_number_of_weights(split):
    """Tables, positions, one norm, and two blocks of 49,984 at the paper's sizes."""
    model = make(split, dim=64, inner=256)
    count = sum(p.numel() for p in model.parameters())
    assert count == split.log.num_items * 64 + 50 * 64 + 2 * 64 + 2 * 49_984
    assert 12_102 * 64 + 50 * 64 + 2 * 64 + 2 * 49_984 == 877_824  # with the public code's padding row
