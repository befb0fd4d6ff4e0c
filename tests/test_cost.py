"""Cost grows with the work: twice the users are twice the epoch. Counted, not timed, but for one generous check."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import dglrec
from dglrec.data.log import InteractionLog
from dglrec.data.sample import sample
from dglrec.losses import item_cross_entropy
from dglrec.streams import Streams
from tests.contract.model_contract import fit

SMALL = {"dim": 16, "train": {"batch_size": 64}}
SEQUENTIAL = {**SMALL, "inner": 32, "layers": 1}
MODELS = {
    "lightgcn": ("lightgcn", SMALL),
    "sasrec": ("sasrec", SEQUENTIAL),
    "sasrec on prefixes": ("sasrec", {**SEQUENTIAL, "targets": "prefixes"}),
    "gsau-rec": ("gsau-rec", SEQUENTIAL),
}


def times(log, number):
    """The log with `number` copies of each user; the items stay."""
    user = (log.user[None, :] + np.arange(number)[:, None] * log.num_users).reshape(-1)
    ids = [f"{name}-{copy}" for copy in range(number) for name in log.user_ids.tolist()]
    columns = [np.tile(column, number) for column in (log.item, log.time)]
    return InteractionLog.from_arrays(user, *columns, user_ids=ids, item_ids=log.item_ids, name=log.name)


@pytest.fixture(scope="module")
def splits():
    log = sample("shop", users=120, items=60, seed=1)
    return dglrec.leave_one_out(log), dglrec.leave_one_out(times(log, 2))


def work(name, split, monkeypatch):
    """What an epoch does, counted: steps, targets, tokens, rows through the feed-forward layers, edges summed over."""
    preset, fields = MODELS[name]
    model = dglrec.models.preset(preset, split, **fields)
    counts: Counter[str] = Counter()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, x, y: counts.update({"linear rows": x[0].shape[0]}))
    bag = F.embedding_bag

    def counted(columns, *arguments, **named):
        counts["edges"] += len(columns)
        return bag(columns, *arguments, **named)

    monkeypatch.setattr(F, "embedding_bag", counted)
    model.train()
    for batch in model.batches(split, Streams(0)):
        counts["steps"] += 1
        for part in (batch, getattr(batch, "edges", None), getattr(batch, "prefixes", None)):
            if hasattr(part, "history"):
                counts["tokens"] += len(part.history.items)
                counts["targets"] += len(part.target)
            elif hasattr(part, "negative"):
                counts["pairs"] += len(part.item)
        sum(model.loss(batch).values()).backward()
    monkeypatch.setattr(F, "embedding_bag", bag)
    return counts


@pytest.mark.parametrize("name", MODELS)
def test_twice_the_users_are_twice_the_work(name, splits, monkeypatch):
    once, twice = (work(name, split, monkeypatch) for split in splits)
    assert once["steps"] >= 15
    assert once.keys() == twice.keys()
    for what in once.keys() - {"edges"}:
        assert twice[what] / once[what] == pytest.approx(2, rel=0.1), what
    # A step of a graph model propagates over the whole graph, as the method says: what doubles is the step.
    if once["edges"]:
        a_step = [counts["edges"] / counts["steps"] for counts in (once, twice)]
        assert a_step[1] / a_step[0] == pytest.approx(2, rel=0.1)
        layers = 2
        pairs = len(np.unique(splits[0].train.user * 60 + splits[0].train.item))
        assert a_step[0] <= 2 * 2 * layers * pairs * 1.01  # forward and backward, both relations, each layer, no more


def test_packing_spares_the_padding(splits):
    """All positions take about the tokens of the log; prefixes theirs; neither is padded to 50."""
    split = splits[0]
    train = split.train
    targets = int((train.position > 0).sum())
    tokens = {}
    for name in ("sasrec", "sasrec on prefixes"):
        model = dglrec.models.preset(MODELS[name][0], split, **MODELS[name][1])
        tokens[name] = sum(len(batch.history.items) for batch in model.batches(split, Streams(0)))
    assert targets <= tokens["sasrec"] <= 1.5 * targets
    mean_prefix = np.minimum(train.position[train.position > 0], 50).mean()
    assert tokens["sasrec on prefixes"] == pytest.approx(targets * mean_prefix)
    assert tokens["sasrec on prefixes"] < targets * 50 / 3


class Products(TorchDispatchMode):
    """Counts the multiplications of matrix products."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if name.startswith(("aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm")):
            left, right = args[:2] if name.startswith(("aten.mm", "aten.bmm")) else args[1:3]
            self.count += left.numel() * right.shape[-1]
        return func(*args, **(kwargs or {}))


def test_cross_entropy_makes_each_logit_once(monkeypatch):
    """Three products of rows x items x width in all: the logits and two gradients, none of them twice."""
    queries, table = torch.randn(300, 16, requires_grad=True), torch.randn(500, 16, requires_grad=True)
    monkeypatch.setitem(dglrec.losses.LOGITS_BYTES, "cpu", 100_000)
    with Products() as products:
        item_cross_entropy(queries, table, torch.randint(500, (300,))).backward()
    assert products.count == 3 * 300 * 500 * 16


def test_an_epoch_of_eight_times_the_users_takes_no_more_than_its_share(splits):
    """Processor time of one thread, the least of three epochs each; were the cost quadratic, it would be 64 times."""
    seconds = []
    for split in (splits[0], dglrec.leave_one_out(times(splits[0].log, 8))):
        model = dglrec.models.preset("sasrec", split, **SEQUENTIAL)
        taken = []
        for _ in range(3):
            start = time.process_time()
            for batch in model.batches(split, Streams(0)):
                sum(model.loss(batch).values()).backward()
            taken.append(time.process_time() - start)
        seconds.append(min(taken))
    assert seconds[1] / seconds[0] < 20


def test_training_does_not_grow_in_memory(splits):
    """The same epoch again and again leaves no more tensors behind."""
    import gc

    model = dglrec.models.preset("gsau-rec", splits[0], **SEQUENTIAL)
    alive = []
    for _ in range(3):
        fit(model, splits[0], epochs=1)
        gc.collect()
        alive.append(sum(1 for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)))
    assert alive[2] <= alive[1]
