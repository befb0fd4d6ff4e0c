"""fit: the loop, early stopping, what it writes, and that nothing that interrupts it changes what comes out."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import dglrec
from dglrec.checkpoint import load_state, load_tensors, read_json
from dglrec.data.queries import Queries
from dglrec.errors import CheckpointError, ConfigError, DataError, DglrecError
from dglrec.streams import Streams
from dglrec.train import _warmup_steps, make_optimizer, pick_device
from tests.contract.model_contract import assert_same_bits, draw_nothing, fit, plain_epoch, poisoned, weights_of

SMALL = {"dim": 8, "train": {"batch_size": 64, "lr": 1e-2}}


def make(split, name="lightgcn", **train):
    return dglrec.models.preset(name, split, **{**SMALL, "train": {**SMALL["train"], **train}})


def sasrec(split, **train):
    return dglrec.models.preset(
        "sasrec", split, dim=8, inner=16, layers=1, train={"batch_size": 128, "lr": 1e-2, **train}
    )


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    """Nothing here waits for the disk: what a killed process has written is there for others at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


# --- The loop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"clip": 1e-3},
        {"weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"accumulate": 3},
        {"accumulate": 3, "clip": 1e-3},
    ],
    ids=str,
)
def test_an_epoch_is_the_loop_written_out(train, split):
    """9 batches: with `accumulate=3`, 3 steps, each along the mean of 3 gradients."""
    run, model = fit(make(split, **train), split, epochs=1), make(split, **train)
    assert plain_epoch(model, split) == run.rows[0]["steps"] == 9
    assert_same_bits(weights_of(run.model), weights_of(model))


def test_every_step_of_every_epoch_draws_anew(split, monkeypatch):
    model, pairs, seeds = make(split), [], []
    loss = model.loss

    def noted(batch):
        pairs.append(tuple(batch.user.tolist()))
        seeds.append(torch.initial_seed())  # of dropout
        return loss(batch)

    monkeypatch.setattr(model, "loss", noted)
    fit(model, split, epochs=2)
    assert len(pairs) == len(set(pairs)) == len(set(seeds)) == 18


def test_the_settings_change_what_comes_out(split):
    """So that the test above compares something."""
    settings = (
        {},
        {"clip": 1e-3},
        {"weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"accumulate": 3},
    )
    weights = [fit(make(split, **train), split, epochs=1).model.user.weight for train in settings]
    for one in range(len(weights)):
        for other in range(one):
            assert not torch.equal(weights[one], weights[other]), (settings[one], settings[other])


def test_accumulating_is_a_larger_batch(split):
    """Two batches of 32 prefixes are one of 64, as the order of the prefixes does not depend on the size."""
    fields = {"dim": 8, "inner": 16, "layers": 1, "targets": "prefixes", "dropout": 0.0, "attention_dropout": 0.0}
    losses = []
    for train in ({"batch_size": 64}, {"batch_size": 32, "accumulate": 2}):
        model = dglrec.models.preset("sasrec", split, **fields, train={"lr": 1e-2, **train})
        losses.append([row["loss"] for row in fit(model, split, epochs=3).rows])
    assert losses[1][1:] == pytest.approx(losses[0][1:], rel=5e-3)


def test_the_last_batches_count_where_they_are_too_few_to_accumulate(split, tmp_path):
    fit(make(split, accumulate=2), split, epochs=1, out=tmp_path / "run")
    assert load_state(tmp_path / "run")[1]["steps"] == 5  # of 9 batches


def test_a_step_of_fewer_batches_is_their_mean(split, monkeypatch):
    """The only batch of an epoch has its own gradient, not a tenth of it, where ten make a step."""
    found = []

    def norm(self):
        found.append(torch.stack([p.grad.norm() for p in self.parameters.values()]).norm())

    monkeypatch.setattr("dglrec.train._Trainer._step", norm)
    for accumulate in (1, 10):
        fit(make(split, accumulate=accumulate, batch_size=10**6), split, epochs=1)
    assert found[1] == pytest.approx(found[0].item(), rel=1e-5)


def test_terms_in_half_precision_are_summed_in_full(split, monkeypatch):
    """Sums of bfloat16 stand still at 256."""
    model = make(split, batch_size=1)
    unit = torch.zeros((), requires_grad=True)
    monkeypatch.setattr(model, "loss", lambda _: {"one": (unit + 1).bfloat16()})
    monkeypatch.setattr("dglrec.train._Trainer._step", lambda _: None)
    row = fit(model, split, epochs=1).rows[0]
    assert row["steps"] > 300
    assert row["loss"] == 1.0 and row["loss_sum"] == row["steps"]


class Recorder:
    """Stands in for `make_optimizer` and notes the learning rate of every step."""

    def __init__(self):
        self.rates = []

    def __call__(self, *arguments):
        optimizer = make_optimizer(*arguments)
        optimizer.register_step_pre_hook(lambda o, *_: self.rates.append(o.param_groups[0]["lr"]))
        return optimizer


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "exponential"])
def test_schedules_warm_up_and_decay(schedule, split, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("dglrec.train.make_optimizer", recorder)
    fit(make(split, schedule=schedule, decay=0.8, warmup_steps=4, batch_size=128, lr=1e-2), split, epochs=6)
    rates = np.array(recorder.rates)
    assert len(rates) == 6 * 5
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    after = rates[5:]
    if schedule == "constant":
        assert after == pytest.approx(0.01)
    elif schedule == "exponential":
        assert rates[5:] == pytest.approx(0.01 * 0.8 ** np.repeat(np.arange(1, 6), 5))
    else:
        assert (np.diff(after) <= 1e-12).all()
        assert after[0] > 0.008
        assert 0 < after[-1] < 0.002
        half = after[len(after) // 2]
        assert half == pytest.approx(0.005, abs=0.0015)


def test_a_share_of_all_steps_is_warm_up(split, monkeypatch):
    """With `accumulate` batches are fewer steps; 5 batches are 3 steps, and a third of 6 epochs is 6 of them."""
    for train, steps in (({}, 10), ({"accumulate": 2}, 6), ({"warmup_share": 0.0}, 0)):
        recorder = Recorder()
        monkeypatch.setattr("dglrec.train.make_optimizer", recorder)
        fit(make(split, **{"warmup_share": 0.34, "batch_size": 128, "lr": 1e-2, **train}), split, epochs=6)
        assert recorder.rates[:steps] == pytest.approx([0.01 * (step + 1) / steps for step in range(steps)])
        assert recorder.rates[steps:] == pytest.approx([0.01] * (len(recorder.rates) - steps))
    with pytest.raises(ConfigError, match=r"warmup_steps is 3 and train\.warmup_share 0\.1; set one of them"):
        make(split, warmup_steps=3, warmup_share=0.1)


def test_warm_up_counts_windows_where_a_batch_is_of_windows():
    log = dglrec.sample("interests", users=60, items=400)
    split = dglrec.windows(log, by="user", inputs=10, targets=10, negatives=10, valid=0.2, test=0.2)
    for name in ("comirec-sa", "surge"):
        model = make(split, name, batch_size=4, warmup_share=0.5)
        steps = sum(1 for _ in model.batches(split, Streams(1)))
        assert _warmup_steps(model) == int(0.5 * model.train_config.epochs * steps)


def test_warm_up_counts_the_steps_of_gsau(split):
    model = make(split, "gsau-rec", warmup_share=0.5)
    steps = sum(1 for _ in model.batches(split, Streams(1)))
    assert _warmup_steps(model) == int(0.5 * model.train_config.epochs * steps)


HALVED = (
    "lightgcn",
    "lightgcn-softmax",
    "directau",
    "graphau",
    "sasrec",
    "bert4rec",
    "gsau",
    "gsau-rec",
    "mip",
    "comirec-sa",
)
HALVED += ("comirec-dr", "surge", "mdgr", "selfgnn", "selfgnn-code", "selfgnn-inductive", "hardgnn", "hardgnn-code")


@pytest.mark.parametrize("name", HALVED)
def test_bfloat16_trains(name, split):
    run, exact = (
        fit(dglrec.models.preset(name, split, dim=16, train={"precision": precision}), split, epochs=2)
        for precision in ("bfloat16", "float32")
    )
    assert run.rows[-1]["loss"] == pytest.approx(exact.rows[-1]["loss"], rel=0.02, abs=0.05)
    assert all(p.dtype == torch.float32 for p in run.model.parameters())


# --- Early stopping ------------------------------------------------------------------------------------------------


class Scripted(dict):
    seconds = 0.0


@pytest.mark.parametrize(
    ("values", "train", "epochs", "best"),
    [
        ([0.1, 0.3, 0.2, 0.2, 0.2, 0.9], {"patience": 2}, 5, 1),  # more than 2 epochs in a row
        ([0.1, 0.3, 0.2, 0.2, 0.4, 0.2, 0.2, 0.2, 0.9], {"patience": 2}, 8, 4),  # counted anew
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.9], {"patience": 3}, 5, 0),
        ([0.3, 0.2, 0.9], {"patience": 0}, 2, 0),
        ([0.3, 0.3, 0.3, 0.2, 0.2, 0.9], {"patience": 1}, 5, 2),  # a tie counts as better
        ([0.30004, 0.30001, 0.2, 0.2, 0.9], {"patience": 1}, 4, 1),  # equal in 4 digits
        ([0.30004, 0.30001, 0.2, 0.9], {"patience": 1, "monitor_digits": 5}, 3, 0),
        ([0.0, 0.0, 0.0], {"patience": 0}, 3, 2),
        ([0.1, 0.2, 0.1], {"patience": 10}, 3, 1),  # the end comes first
    ],
    ids=str,
)
def test_it_stops_after_more_than_patience_epochs_without_a_better_one(values, train, epochs, best, split, monkeypatch):
    weights = []

    def scripted(model, *_, **__):
        weights.append(weights_of(model))
        return Scripted({"ndcg@20": values[len(weights) - 1], "recall@10": 1 - values[len(weights) - 1]})

    monkeypatch.setattr("dglrec.train.evaluate", scripted)
    run = fit(make(split, **train), split, epochs=len(values))
    assert len(run.rows) == len(weights) == epochs
    assert run.best_epoch == run.result["best_epoch"] == best
    assert run.valid["ndcg@20"] == values[best]
    assert_same_bits(weights_of(run.model), weights[best])


def test_another_metric_may_be_monitored(split, monkeypatch):
    values = iter([0.1, 0.3, 0.2])
    monkeypatch.setattr("dglrec.train.evaluate", lambda *_, **__: Scripted({"recall@10": next(values), "ndcg@20": 0.5}))
    assert fit(make(split, monitor="recall@10"), split, epochs=3).best_epoch == 1


def test_the_metric_may_be_left_to_the_queries(split):
    """Where one target is ranked it is ndcg@20; with several among candidates the pooled AUC."""
    model = make(split, monitor="auto")
    fit(model, split, epochs=1)
    assert model.train_config.monitor == "ndcg@20"
    sampled = dglrec.leave_one_out(split.log, negatives=5)
    run = fit(make(sampled, monitor="auto"), sampled, epochs=1)
    assert run.model.train_config.monitor == "ndcg@20"  # one target: its rank is what is read
    log = dglrec.sample("interests", users=12, items=400)
    windowed = dglrec.windows(log, by="user", inputs=10, targets=10, negatives=10, valid=0.2, test=0.2)
    run = fit(make(windowed, monitor="auto"), windowed, epochs=1)
    assert run.model.train_config.monitor == "auc_pooled"
    assert set(run.rows[0]) >= {"auc_pooled", "ndcg@20"}


@pytest.mark.parametrize("monitor", ["ndgc@20", "ndcg", "loss", "recall@0", "recall@x", "recall@²", ""])
def test_a_metric_that_does_not_exist_is_refused_before_training(monitor, split, monkeypatch):
    monkeypatch.setattr("dglrec.train._Trainer._train", lambda *_: pytest.fail("an epoch was trained first"))
    with pytest.raises(ConfigError, match=r"train\.monitor"):
        fit(make(split, monitor=monitor), split, epochs=1)


# --- What it leaves alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_of_the_caller_stay(fails, split, monkeypatch):
    model = sasrec(split)
    if fails:
        monkeypatch.setattr("dglrec.train.evaluate", lambda *_, **__: 1 / 0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        fit(model, split, epochs=1)
        assert not fails
    except ZeroDivisionError:
        assert fails
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(one, two) for one, two in zip(before[2], after, strict=True))


class Untouchable(Queries):
    def __init__(self):
        pass

    def __getattribute__(self, name):
        raise AssertionError(f"fit read the test set: .{name}")

    def __len__(self):
        raise AssertionError("fit read the test set: len()")


def test_the_test_set_is_not_read(split, tmp_path):
    hidden = dataclasses.replace(split, test=Untouchable())
    run = fit(make(hidden), hidden, epochs=2, out=tmp_path / "run")
    assert "test" not in run.result
    assert_same_bits(weights_of(run.model), weights_of(fit(make(split), split, epochs=2).model))
    with pytest.raises(AssertionError, match="read the test set"):
        run.test()


def test_another_test_set_selects_the_same_epoch(split):
    """Poisoning: what is asked at the end changes neither weights nor the choice of the epoch."""
    other = dataclasses.replace(split, test=dataclasses.replace(poisoned(split).test, split_digest=split.digest))
    one, two = (fit(make(some), some, epochs=5) for some in (split, other))
    assert one.best_epoch == two.best_epoch
    assert_same_bits(weights_of(one.model), weights_of(two.model))


# --- Peeking at the test queries -----------------------------------------------------------------------------------


def without_seconds(rows):
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


def test_peeking_selects_nothing(split, tmp_path):
    """The same weights to the bit, the same epoch, the same rows; beside them what the test queries say."""
    plain = fit(sasrec(split), split, epochs=4)
    run = fit(sasrec(split), split, epochs=4, peek_at_test=True, out=tmp_path / "run")
    assert_same_bits(weights_of(plain.model), weights_of(run.model))
    assert run.best_epoch == plain.best_epoch
    rows = without_seconds(run.rows)
    peeks = [row.pop("test") for row in rows]
    assert rows == without_seconds(plain.rows)
    assert "selected_on_test" not in plain.result and "leak" not in str(plain)
    assert set(peeks[0]) == set(run.valid)
    best = max(range(4), key=lambda epoch: peeks[epoch]["ndcg@20"])
    peeked = read_json(tmp_path / "run" / "result.json")["selected_on_test"]
    assert (peeked["epoch"], peeked["metrics"]) == (best, peeks[best])
    assert "leak" in peeked["note"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["test"] for line in lines] == peeks
    honest = run.test()  # on the weights that validation chose
    assert {name: honest[name] for name in peeks[0]} == pytest.approx(peeks[run.best_epoch])
    assert run.result["selected_on_test"] == peeked


def test_the_epoch_that_is_best_on_test_is_called_a_leak(split, monkeypatch):
    values = {"valid": iter([0.1, 0.3, 0.2]), "test": iter([0.5, 0.25, 0.5])}
    scripted = lambda model, queries, **_: Scripted({"ndcg@20": next(values[queries.name])})  # noqa: E731
    monkeypatch.setattr("dglrec.train.evaluate", scripted)
    run = fit(make(split, peek_at_test=True), split, epochs=3)
    assert run.best_epoch == 1
    assert run.result["selected_on_test"]["epoch"] == 0  # the first of equals
    assert run.result["selected_on_test"]["metrics"] == {"ndcg@20": 0.5}
    last = str(run).splitlines()[-1]
    assert "selected on the test queries (epoch 1)" in last
    assert "would be 0.5000, not 0.2500: a leak, shown for its size only" in last


def test_a_run_that_peeks_is_resumed(split, tmp_path):
    whole = fit(make(split, peek_at_test=True), split, epochs=4, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(dying_model(split, 22, KeyboardInterrupt(), peek_at_test=True), split, epochs=4, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"train\.peek_at_test=True, not False"):
        fit(make(split), split, epochs=4, out=tmp_path / "run", resume=True)
    resumed = fit(make(split, peek_at_test=True), split, epochs=4, out=tmp_path / "run", resume=True)
    assert_same_bits(weights_of(whole.model), weights_of(resumed.model))
    assert without_seconds(whole.rows) == without_seconds(resumed.rows)
    assert whole.result["selected_on_test"] == resumed.result["selected_on_test"]


def test_a_run_from_before_a_field_came_is_resumed(split, tmp_path):
    """It had the field's usual value, and no other."""
    whole = fit(make(split), split, epochs=2)
    fit(make(split), split, epochs=1, out=tmp_path / "run")
    config = read_json(tmp_path / "run" / "config.json")
    del config["config"]["train"]["peek_at_test"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="peek_at_test=False, not True"):
        fit(make(split, peek_at_test=True), split, epochs=2, out=tmp_path / "run", resume=True)
    resumed = fit(make(split), split, epochs=2, out=tmp_path / "run", resume=True)
    assert_same_bits(weights_of(whole.model), weights_of(resumed.model))


def test_nothing_held_out_selects_nothing(tmp_path):
    """All epochs are run, the last weights kept, and a run that was stopped is the same."""
    split = dglrec.ratio(dglrec.sample("shop", users=50, items=30), valid=0)
    assert len(split.valid) == 0
    whole = fit(make(split, patience=0), split, epochs=3, out=tmp_path / "whole")
    assert [row["epoch"] for row in whole.rows] == [0, 1, 2]
    assert (whole.best_epoch, whole.valid) == (2, {})
    assert "nothing is held out for validation" in str(whole)
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 0
    assert whole.test()["ndcg@10"] > 0
    assert_same_bits(weights_of(dglrec.load_model(tmp_path / "whole")), weights_of(whole.model))
    fit(make(split, patience=0), split, epochs=2, out=tmp_path / "run")
    resumed = fit(make(split, patience=0), split, epochs=3, out=tmp_path / "run", resume=True)
    assert_same_bits(weights_of(resumed.model), weights_of(whole.model))
    counts = fit(dglrec.models.preset("popularity", split), split)
    assert counts.valid == {} and counts.rows == []


def test_nothing_is_printed_on_standard_output(split, capsys):
    fit(make(split), split, epochs=1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 1" in err
    fit(make(split), split, epochs=1, progress=False)
    assert capsys.readouterr() == ("", "")


def test_it_ends_in_evaluation_mode_and_may_begin_in_it(split):
    """As a model that was loaded does; dropout is not left out."""
    one, other = (fit(model, split, epochs=1).model for model in (sasrec(split), sasrec(split).eval()))
    assert not one.training
    assert_same_bits(weights_of(one), weights_of(other))


def test_two_threads_repeat_as_well(split):
    torch.set_num_threads(2)
    one, two = (fit(sasrec(split, batch_size=300), split, epochs=1) for _ in range(2))
    assert_same_bits(weights_of(one.model), weights_of(two.model))


# --- Errors --------------------------------------------------------------------------------------------------------


def test_arguments_that_do_not_fit(split, tmp_path):
    with pytest.raises(ConfigError, match="split"):
        fit(make(split), poisoned(split), epochs=1)
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        fit(make(split), split, lrr=1.0)
    with pytest.raises(ConfigError, match="device"):
        fit(make(split), split, device="gpu")
    with pytest.raises(ConfigError, match="folder"):
        fit(make(split), split, resume=True)
    with pytest.raises(CheckpointError, match="does not exist"):
        fit(make(split), split, resume=True, out=tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        fit(make(split), split, out=tmp_path / "file" / "run")
    with pytest.raises(DataError, match="file"):
        fit(make(split), split, out=tmp_path / "file")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there():
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="sees no GPU"):
        pick_device("cuda")
    with pytest.raises(ConfigError, match="device is 'meta'; expected auto, cpu or cuda"):
        pick_device("meta")


def test_a_folder_is_not_written_over(split, tmp_path):
    fit(make(split), split, epochs=1, out=tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run"):
        fit(make(split), split, epochs=1, out=tmp_path / "run")
    assert contents(tmp_path / "run") == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def dying_model(split, at, value=math.nan, **train):
    """A model whose loss turns to `value` (or raises it) in the step `at`, counted over all epochs."""
    model = make(split, **train)
    loss, calls = model.loss, []

    def fails(batch):
        calls.append(None)
        terms = loss(batch)
        if len(calls) != at:
            return terms
        if isinstance(value, BaseException):
            raise value
        return {**terms, "bpr": terms["bpr"] * value}

    model.loss = fails
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_training_and_spoils_nothing(value, split, tmp_path):
    whole = fit(make(split), split, epochs=3)
    with pytest.raises(DglrecError, match=r"epoch 2.*train\.lr") as error:
        fit(dying_model(split, 9 + 4, value), split, epochs=3, out=tmp_path / "run")
    assert "bpr" in str(error.value)
    tensors, values = load_state(tmp_path / "run")
    assert values["epoch"] == 0
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    resumed = fit(make(split), split, epochs=3, out=tmp_path / "run", resume=True)
    assert_same_bits(weights_of(whole.model), weights_of(resumed.model))


# --- What it writes ------------------------------------------------------------------------------------------------

RESULT = {
    *("preset", "model", "data", "seed", "valid", "best_epoch", "epochs", "epoch_seconds", "valid_seconds"),
    *("steps_per_epoch", "targets_per_epoch", "train_seconds", "device", "threads", "peak_memory_bytes", "versions"),
}
TESTED = {"protocol", "test", "test_masked"}


@pytest.fixture(scope="module")
def run(split, tmp_path_factory):
    run = fit(sasrec(split, seed=7), split, epochs=3, out=tmp_path_factory.mktemp("runs") / "run")
    run.test()
    return run


def test_a_run_is_a_folder(run):
    files = set(contents(run.folder))
    assert files >= {
        *("config.json", "protocol.json", "metrics.jsonl", "result.json", "weights.safetensors", "curves.png"),
        *("ids.npz", "state/latest.json"),
    }
    assert not [name for name in files if name.endswith((".part", ".tmp", ".pkl", ".pt"))]
    assert len({name.split("/")[1] for name in files if name.startswith("state/epoch")}) == 1
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_jsonl_has_a_row_an_epoch(run):
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == run.rows
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert {"seconds", "valid_seconds", "loss", "cross_entropy", "ndcg@20", "recall@10", "recall@50"} <= set(row)
        assert row["seconds"] > 0
        assert row["valid_seconds"] > 0


def test_result_json_has_what_the_design_lists(run, split):
    result = read_json(run.folder / "result.json")
    assert result == json.loads(json.dumps(run.result))
    assert set(result) >= RESULT | TESTED
    assert (result["preset"], result["model"], result["data"]) == ("sasrec", "SASRec", split.log.name)
    assert (result["seed"], result["epochs"], result["steps_per_epoch"]) == (7, 3, 4)
    assert result["targets_per_epoch"] == int((split.train.position > 0).sum())
    assert result["epoch_seconds"] == pytest.approx(np.median([row["seconds"] for row in run.rows]))
    assert result["valid_seconds"] == pytest.approx(np.median([row["valid_seconds"] for row in run.rows]))
    assert result["train_seconds"] >= sum(row["seconds"] for row in run.rows)
    assert result["best_epoch"] == run.best_epoch
    assert result["valid"] == {name: run.rows[run.best_epoch][name] for name in result["valid"]}
    assert result["threads"] == torch.get_num_threads()
    assert result["peak_memory_bytes"] > 2**26
    assert {"dglrec", "torch", "dgl", "python"} <= set(result["versions"])
    assert result["device"].startswith("cpu")


def test_the_test_set_is_measured_twice(run, split):
    """Under the model's own protocol, and with seen items masked."""
    result = run.result
    own, masked = (dglrec.evaluate(run.model, split.test, seen=seen) for seen in (None, "mask"))
    assert own.protocol.seen == "keep"
    assert {name: result["test"][name] for name in own} == pytest.approx(dict(own))
    assert {name: result["test_masked"][name] for name in masked} == pytest.approx(dict(masked))
    assert dict(own) != dict(masked)
    protocol = read_json(run.folder / "protocol.json")
    assert protocol == json.loads(json.dumps(result["protocol"]))
    assert dglrec.Protocol.from_dict(protocol).same_column(own.protocol)


def test_it_prints_itself(run):
    best = f"best epoch {run.best_epoch + 1} of {len(run.rows)}"
    assert str(run).startswith(f"sasrec on sample-shop: {best}; validation ndcg@20 ")
    assert repr(run) == f"Run(sasrec on sample-shop by leave_one_out: {best}, in {run.folder})"


def test_it_says_what_belongs_elsewhere(run):
    model, split = run.model, run.model.split
    for call in (lambda: fit(model, split.log), lambda: dglrec.models.preset("sasrec", split.log)):
        with pytest.raises(ConfigError, match=r"expected a Split, got InteractionLog; cut it first: split = "):
            call()
    with pytest.raises(ConfigError, match=r"expected a Split, got str$"):
        fit(model, "shop")
    with pytest.raises(ConfigError, match=r"'dim' is a field of the model; pass it to preset\(\)"):
        fit(model, split, dim=3, epochs=1)
    with pytest.raises(ConfigError, match="unknown field 'dimm'"):
        fit(model, split, dimm=3)


def test_a_model_without_weights_needs_no_training(split, tmp_path):
    run = fit(dglrec.models.preset("transitions", split), split, out=tmp_path / "run")
    assert run.rows == []
    assert run.best_epoch is None
    assert run.valid["recall@10"] > 0
    loaded = dglrec.load_model(tmp_path / "run")
    assert torch.equal(loaded.scores(split.test), run.model.scores(split.test))
    assert str(run)
    run.test()
    assert set(read_json(tmp_path / "run" / "result.json")) >= RESULT | TESTED


# --- Resume --------------------------------------------------------------------------------------------------------


def test_a_finished_run_goes_on_with_more_epochs(split, tmp_path):
    whole = fit(sasrec(split), split, epochs=4)
    first = fit(sasrec(split), split, epochs=2, out=tmp_path / "run")
    again = fit(sasrec(split), split, epochs=2, out=tmp_path / "run", resume=True)
    assert again.rows == first.rows
    assert_same_bits(weights_of(first.model), weights_of(again.model))
    more = fit(sasrec(split), split, epochs=4, out=tmp_path / "run", resume=True)
    assert [row["loss"] for row in more.rows] == [row["loss"] for row in whole.rows]
    assert_same_bits(weights_of(whole.model), weights_of(more.model))


def test_a_resumed_run_keeps_its_test_as_long_as_its_weights(split, tmp_path, monkeypatch):
    run = fit(sasrec(split), split, epochs=2, out=tmp_path / "run")
    assert run.best_epoch == 1
    run.test()
    saved = read_json(tmp_path / "run" / "result.json")
    again = fit(sasrec(split), split, epochs=2, out=tmp_path / "run", resume=True)
    assert again.result == saved | {"peak_memory_bytes": again.result["peak_memory_bytes"]}
    assert read_json(tmp_path / "run" / "result.json") == again.result

    with monkeypatch.context() as patch:  # a third epoch that is worse: the weights of the second one stay
        patch.setattr("dglrec.train.evaluate", lambda *_, **__: Scripted(dict.fromkeys(run.valid, 0.0)))
        worse = fit(sasrec(split), split, epochs=3, out=tmp_path / "run", resume=True)
    assert (worse.best_epoch, worse.result["test"]) == (1, saved["test"])
    assert worse.result["test"] == pytest.approx(dict(dglrec.evaluate(worse.model, split.test)))
    with monkeypatch.context() as patch:  # a fourth that is better: other weights, which nobody has tested
        patch.setattr("dglrec.train.evaluate", lambda *_, **__: Scripted(dict.fromkeys(run.valid, 1.0)))
        better = fit(sasrec(split), split, epochs=4, out=tmp_path / "run", resume=True)
    assert better.best_epoch == 3
    assert not TESTED & better.result.keys()
    assert not TESTED & read_json(tmp_path / "run" / "result.json").keys()


def test_a_run_is_not_resumed_for_fewer_epochs_than_it_has(split, tmp_path):
    fit(make(split), split, epochs=3, out=tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(ConfigError, match="has 3 finished epochs, and epochs is 2; resume it with 3 or more"):
        fit(make(split), split, epochs=2, out=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before
    assert len(fit(make(split), split, epochs=3, out=tmp_path / "run", resume=True).rows) == 3


@pytest.mark.parametrize("at", [6, 9 + 6], ids=["first epoch", "second epoch"])
def test_a_training_that_was_stopped_within_a_step_leaves_nothing_behind(at, split, tmp_path):
    """As in a notebook: the same model goes on in the same process."""
    whole = fit(make(split, accumulate=3), split, epochs=2)
    model = dying_model(split, at, KeyboardInterrupt(), accumulate=3)
    with pytest.raises(KeyboardInterrupt):
        fit(model, split, epochs=2, out=tmp_path / "run")
    assert any(parameter.grad is not None for parameter in model.parameters())
    counts = [7.0]  # of the epoch that was stopped
    model.epoch_figures = lambda: {"counted": counts.pop() if counts else 0.0}
    resumed = fit(model, split, epochs=2, out=tmp_path / "run", resume=True)
    assert_same_bits(weights_of(whole.model), weights_of(resumed.model))
    assert resumed.rows[1]["counted"] == 0


def test_a_run_that_has_stopped_early_stays_stopped(split, tmp_path, monkeypatch):
    values = iter([0.5, 0.4, 0.3, 0.9])
    monkeypatch.setattr("dglrec.train.evaluate", lambda *_, **__: Scripted({"ndcg@20": next(values)}))
    assert len(fit(make(split, patience=1), split, epochs=9, out=tmp_path / "run").rows) == 3
    assert len(fit(make(split, patience=1), split, epochs=9, out=tmp_path / "run", resume=True).rows) == 3


@pytest.mark.parametrize(
    "train",
    [
        {"schedule": "cosine", "warmup_steps": 12},
        {"schedule": "linear", "warmup_share": 0.7},  # the run dies in the middle of it
        {"accumulate": 2},
        {"optimizer": "adamw"},
    ],
    ids=str,
)
def test_schedule_and_optimizer_are_resumed(train, split, tmp_path):
    whole = fit(make(split, **train), split, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        fit(dying_model(split, 2 * 9 + 4, KeyboardInterrupt(), **train), split, epochs=4, out=tmp_path / "run")
    resumed = fit(make(split, **train), split, epochs=4, out=tmp_path / "run", resume=True)
    assert_same_bits(weights_of(whole.model), weights_of(resumed.model))


def test_a_run_is_resumed_with_its_own_model_only(split, tmp_path):
    fit(make(split), split, epochs=1, out=tmp_path / "run")
    before = contents(tmp_path / "run")
    others = {
        "another model": sasrec(split),
        "another config": dglrec.models.preset("lightgcn", split, dim=8, layers=3, train=SMALL["train"]),
        "another seed": make(split, seed=1),
        "another rate": make(split, lr=1.0),
    }
    for what, model in others.items():
        with pytest.raises((CheckpointError, ConfigError)):
            fit(model, split, epochs=2, out=tmp_path / "run", resume=True)
            pytest.fail(f"resumed with {what}")
        assert contents(tmp_path / "run") == before
    other = poisoned(split)
    with pytest.raises((CheckpointError, ConfigError), match="split"):
        fit(make(other), other, epochs=2, out=tmp_path / "run", resume=True)


# --- Kill -9 and a full disk ---------------------------------------------------------------------------------------


def assert_whole(folder: Path) -> None:
    """Every file of a run that is there can be read."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue  # what a killed process was writing has a name of its own
        if path.suffix == ".safetensors":
            load_tensors(path)
        elif path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".jsonl":
            assert all(json.loads(line) for line in path.read_text().splitlines())
        elif path.suffix == ".npz":
            dglrec.InteractionLog.load(path)
    if (folder / "state" / "latest.json").exists():
        load_state(folder)


def resume_or_start(split, folder: Path, epochs: int):
    """What a user does after an interruption: resume, or start again where nothing was begun."""
    return fit(sasrec(split), split, epochs=epochs, out=folder, resume=(folder / "config.json").exists())


def assert_same_run(folder: Path, expected: Path) -> None:
    assert_same_bits(load_tensors(expected / "weights.safetensors"), load_tensors(folder / "weights.safetensors"))
    rows = []
    for one in (expected, folder):
        lines = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
        rows.append([{k: v for k, v in row.items() if "seconds" not in k} for row in lines])
    assert rows[0] == rows[1]
    assert read_json(expected / "result.json")["best_epoch"] == read_json(folder / "result.json")["best_epoch"]
    assert (folder / "curves.png").exists()


def test_a_full_disk_leaves_nothing_half_written(split, tmp_path, monkeypatch):
    """Whichever write fails, the error says so, what stands there is whole, and the run can be resumed."""
    monkeypatch.setattr("dglrec.curves.save_curves", draw_nothing)
    fit(sasrec(split), split, epochs=2, out=tmp_path / "expected")
    writes = []

    def full(_):
        writes.append(None)
        if len(writes) == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fails_at = 0
    monkeypatch.setattr(os, "fsync", full)
    fit(sasrec(split), split, epochs=2, out=tmp_path / "counted")
    count, folders = len(writes), []
    assert count >= 10
    for fails_at in range(1, count + 1):
        writes.clear()
        folders.append(tmp_path / f"run-{fails_at}")
        with pytest.raises(DataError, match="No space left"):
            fit(sasrec(split), split, epochs=2, out=folders[-1])
        assert not list(folders[-1].rglob(".*")), "a part of a file was left"
        assert_whole(folders[-1])
    fails_at = 0
    for folder in folders:
        resume_or_start(split, folder, 2)
        assert_same_run(folder, tmp_path / "expected")


KILLS = """
import os, shutil, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import dglrec, dglrec.curves
from dglrec.data.sample import sample
from tests.contract.model_contract import draw_nothing, fit
from tests.test_train import assert_same_run, assert_whole, resume_or_start, sasrec

dglrec.curves.save_curves, os.fsync = draw_nothing, lambda _: None
folder = Path(sys.argv[1])
split = dglrec.leave_one_out(sample("shop", users=61, items=43, seed=3))
ticks, dies_at = [], 0

model = sasrec(split)  # what a first use imports, once for all children
for parameter in model.parameters():
    parameter.grad = torch.zeros_like(parameter)
dglrec.train.make_optimizer(model.train_config, model.parameters()).step()
dglrec.evaluate(model, split.valid)
dglrec.save_model(model, folder / "first")
dglrec.load_model(folder / "first")

def tick(what):
    ticks.append(what)
    if len(ticks) == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(function, what):
    def call(*arguments, **named):
        tick(what)
        return function(*arguments, **named)
    return call

def train(out):
    os.replace, shutil.rmtree = counted(os.replace, "replace"), counted(shutil.rmtree, "rmtree")
    model = sasrec(split)
    model.loss = counted(model.loss, "loss")
    fit(model, split, epochs=2, out=out)

def in_a_child(function, *arguments):
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]

def count():
    train(folder / "expected")
    (folder / "ticks").write_text(" ".join(ticks))

assert in_a_child(count) == 0
names = (folder / "ticks").read_text().split()
steps = names.count("loss") // 2
middles = [number for number, name in enumerate(names, 1) if name == "loss"][steps // 2 :: steps]
points = [(number, name) for number, name in enumerate(names, 1) if name != "loss" or number in middles]
for dies_at, name in points:
    out = folder / f"killed-{dies_at}-{name}"
    status = in_a_child(train, out)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (dies_at, name, status)

def check(out):
    assert_whole(out)
    resume_or_start(split, out, 2)
    assert_same_run(out, folder / "expected")

failed = [name for name in sorted(os.listdir(folder)) if name.startswith("killed") and in_a_child(check, folder / name)]
print(len(points), "kills;", "not the same after resuming:" if failed else "all the same", *failed)
sys.exit(bool(failed))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_and_resumed_it_is_the_same(tmp_path):
    """kill -9 in the middle of an epoch and at every step of writing; then resume, in a process of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert int(done.stdout.split()[0]) >= 12


def test_streams_of_steps_do_not_repeat(split):
    """Dropout differs from step to step and from epoch to epoch."""
    seeds = {Streams(1, epoch).torch_seed("dropout", step) for epoch in range(20) for step in range(50)}
    assert len(seeds) == 1000
