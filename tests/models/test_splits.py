"""Models on a split by time, whose users may have no training event and whose queries have several targets."""

from __future__ import annotations

import math
import re

import pytest
import torch

import dglrec
from dglrec.data.sample import sample
from dglrec.models import Counts, IndexedLM
from dglrec.streams import Streams, global_generator
from tests.contract.model_contract import assert_same_bits, fit, weights_of


@pytest.fixture(scope="module")
def by_time():
    return dglrec.time_point(sample("shop", users=80, items=50, seed=2), valid_share=0.2, test_share=0.3)


@pytest.mark.parametrize("name", dglrec.models.PRESETS)
def test_a_split_by_time(name, by_time):
    assert by_time.counts["cold_users_test"] > 0
    small = {} if not hasattr(dglrec.models.PRESETS[name].model.Config(), "dim") else {"dim": 16}
    model = dglrec.models.preset(name, by_time, **small)
    run = fit(model, by_time, epochs=min(2, model.train_config.epochs))
    assert all(math.isfinite(row["loss"]) for row in run.rows)
    metrics = dglrec.evaluate(model, by_time.test, k=20)
    assert 0 < metrics["recall@20"] <= 1
    assert len(model.recommend(user=str(by_time.log.user_ids[0]), k=3)) == 3


@pytest.mark.parametrize("name", [name for name, one in dglrec.models.PRESETS.items() if one.model is not IndexedLM])
def test_a_split_by_windows(name):
    log = sample("interests", users=20, items=900, seed=2)
    split = dglrec.windows(log, by="user", inputs=20, targets=10, negatives=10)
    small = {} if not hasattr(dglrec.models.PRESETS[name].model.Config(), "dim") else {"dim": 16}
    model = dglrec.models.preset(name, split, **small, train={"monitor": "auc_pooled"})
    run = fit(model, split, epochs=min(2, model.train_config.epochs))
    assert 0.3 < run.valid["auc_pooled"] < 1
    metrics = run.test()
    assert metrics.protocol.candidates == "10+10"
    assert {"auc", "auc_pooled", "recall@50"} <= set(run.result["test"]) & set(run.result["test_new"])
    assert 0 < dglrec.evaluate(model, split.test.without_candidates())["recall@20"] < 1


def test_a_list_of_items_is_no_ranking_of_candidates():
    log = sample("interests", users=20, items=900, seed=2)
    split = dglrec.windows(log, by="user", inputs=20, targets=10, negatives=10)
    model = dglrec.models.preset("sid", split, dim=16)
    with pytest.raises(dglrec.ConfigError, match="a generative model cannot rank given candidates; evaluate it on"):
        dglrec.evaluate(model, split.test, k=20)
    with pytest.raises(dglrec.ConfigError, match="auc_pooled needs a ranking of all items; this model gives a list"):
        dglrec.evaluate(model, split.test, k=20, metrics="auc_pooled")


# What a softmax drops: the bias of keys, and in a decoder of one step all that makes its weights.
DROPPED = re.compile(r"key\.bias$|decoder\..*SelfAttention\.([qk]\.weight|relative_attention_bias\.weight)$")


@pytest.mark.parametrize("name", [name for name, one in dglrec.models.PRESETS.items() if one.model is not Counts])
def test_every_parameter_that_is_trained_gets_a_gradient(name):
    """None carries weights that its loss does not read."""
    log = sample("interests", users=20, items=900, seed=2)
    split = dglrec.windows(log, by="user", inputs=20, targets=10, negatives=10)
    model = dglrec.models.preset(name, split, dim=16)
    with global_generator():
        for batch in model.batches(split, Streams(0)):
            sum(model.loss(batch).values()).backward()
    trained = {
        name: p.grad
        for name, p in model.named_parameters()
        if p.numel() and p.requires_grad and not DROPPED.search(name)
    }
    assert not [name for name, grad in trained.items() if grad is None or not grad.any()]


def test_the_monitor_needs_candidates(by_time):
    model = dglrec.models.preset("sasrec", by_time, dim=8, train={"monitor": "auc_pooled"})
    with pytest.raises(dglrec.ConfigError, match="this split has no candidates; take auc or ndcg@20"):
        fit(model, by_time, epochs=1)
    model = dglrec.models.preset("sasrec", by_time, dim=8, train={"monitor": "auc"})
    assert 0 < fit(model, by_time, epochs=1).valid["auc"] < 1


def test_a_model_on_windows_is_saved_and_loaded(tmp_path):
    split = dglrec.windows(sample("interests", users=20, items=900), by="time", inputs=20, targets=10, negatives=10)
    model = dglrec.models.preset("sasrec", split, dim=8, inner=8)
    dglrec.save_model(model, tmp_path / "run")
    loaded = dglrec.load_model(tmp_path / "run")
    assert loaded.split.digest == split.digest
    assert loaded.split.windows.candidates.tolist() == split.windows.candidates.tolist()


def test_targets_after_the_time_point_change_no_weight(by_time):
    """Poisoning, by time: the training log is cut before validation begins, so other items after it change nothing."""
    import dataclasses

    log = by_time.log
    late = log.time >= by_time.valid_time
    item = log.item.copy()
    item[late] = (item[late] + 7) % log.num_items
    other = dglrec.make_split(dataclasses.replace(log, item=item), {**by_time.rule})
    assert (other.valid.targets != by_time.valid.targets[: len(other.valid.targets)]).any()
    for name in ("lightgcn", "gsau-rec"):
        models = [fit(dglrec.models.preset(name, split, dim=8), split, epochs=1).model for split in (by_time, other)]
        assert_same_bits(weights_of(models[0]), weights_of(models[1]))
        buffers = [dict(model.named_buffers()) for model in models]
        assert all(torch.equal(buffers[0][key], buffers[1][key]) for key in buffers[0])
