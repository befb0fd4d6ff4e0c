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

# What each model has of these: small, and of a language model no more than a few steps an epoch.
SMALL = {
    "dim": 16,
    "inner": 32,
    "layers": 1,
    "max_length": 20,
    "source_dim": 16,
    "source_epochs": 1,
    "fanout": 4,
    "queue": 64,
    "budget": 64,
    "epoch_targets": 256,
}


def small(name, split, **fields):
    """The model of a preset with those of the fields `SMALL` that it has."""
    config = dglrec.models.PRESETS[name].config
    known = {field: value for field, value in SMALL.items() if hasattr(config, field)}
    return dglrec.models.preset(name, split, **{**known, **fields})


@pytest.fixture(scope="module")
def by_time():
    return dglrec.time_point(sample("shop", users=80, items=50, seed=2), valid_share=0.2, test_share=0.3)


@pytest.fixture(scope="module")
def by_windows():
    log = sample("interests", users=20, items=900, seed=2)
    return dglrec.windows(log, by="user", inputs=20, targets=10, negatives=10)


@pytest.mark.parametrize("name", dglrec.models.PRESETS)
def test_a_split_by_time(name, by_time):
    assert by_time.counts["cold_users_test"] > 0
    model = small(name, by_time)
    run = fit(model, by_time, epochs=min(2, model.train_config.epochs))
    assert all(math.isfinite(row["loss"]) for row in run.rows)
    metrics = dglrec.evaluate(model, by_time.test, k=20)
    assert 0 < metrics["recall@20"] <= 1
    assert len(model.recommend(user=str(by_time.log.user_ids[0]), k=3)) == 3


@pytest.mark.parametrize("name", [name for name, one in dglrec.models.PRESETS.items() if one.model is not IndexedLM])
def test_a_split_by_windows(name, by_windows):
    model = small(name, by_windows, train={"monitor": "auc_pooled"})
    run = fit(model, by_windows, epochs=min(2, model.train_config.epochs))
    assert 0.3 < run.valid["auc_pooled"] < 1
    metrics = run.test()
    assert metrics.protocol.candidates == "10+10"
    assert {"auc", "auc_pooled", "recall@50"} <= set(run.result["test"]) & set(run.result["test_new"])
    assert 0 < dglrec.evaluate(model, by_windows.test.without_candidates())["recall@20"] < 1


def test_a_list_of_items_is_no_ranking_of_candidates(by_windows):
    model = small("sid", by_windows)
    with pytest.raises(dglrec.ConfigError, match="a generative model cannot rank given candidates; evaluate it on"):
        dglrec.evaluate(model, by_windows.test, k=20)
    with pytest.raises(dglrec.ConfigError, match="auc_pooled needs a ranking of all items; this model gives a list"):
        dglrec.evaluate(model, by_windows.test, k=20, metrics="auc_pooled")


@pytest.mark.parametrize("name", [name for name, one in dglrec.models.PRESETS.items() if one.model is IndexedLM])
def test_a_generative_model_refuses_candidates_before_it_is_trained(name, by_windows, by_time, tmp_path, monkeypatch):
    monkeypatch.setattr(IndexedLM, "loss", lambda *_: pytest.fail("trained first"))
    negatives = dglrec.leave_one_out(by_time.log, negatives=9)
    for split, monitor in ((by_windows, "auto"), (by_windows, "ndcg@20"), (negatives, "ndcg@20")):
        with pytest.raises(dglrec.ConfigError, match=f"{name} is a generative model and cannot rank the given cand"):
            fit(small(name, split), split, monitor=monitor, out=tmp_path / "run")
    with pytest.raises(dglrec.ConfigError, match=r"train\.monitor is 'auc', .*gives a list of 20: take ndcg@20"):
        fit(small(name, by_time), by_time, monitor="auc", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# What a softmax drops: the bias of keys, and in a decoder of one step all that makes its weights.
DROPPED = re.compile(r"key\.bias$|decoder\..*SelfAttention\.([qk]\.weight|relative_attention_bias\.weight)$")


@pytest.mark.parametrize("name", [name for name, one in dglrec.models.PRESETS.items() if one.model is not Counts])
def test_every_parameter_that_is_trained_gets_a_gradient(name, by_windows):
    """None carries weights that its loss does not read; an epoch ends early where all are known to be read."""
    model = small(name, by_windows)
    trained = {
        name: p for name, p in model.named_parameters() if p.numel() and p.requires_grad and not DROPPED.search(name)
    }
    with global_generator():
        for batch in model.batches(by_windows, Streams(0)):
            sum(model.loss(batch).values()).backward()
            unread = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
            if not unread:
                break
    assert not unread


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
