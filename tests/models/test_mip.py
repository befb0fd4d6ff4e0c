"""MIP's interests, weights and scores, written out for one window after the other."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import dglrec
from dglrec.data import InteractionLog, Queries
from dglrec.errors import ConfigError
from dglrec.graphs.clustering import ward
from dglrec.streams import Streams

DAY = 86_400.0


def make(split, **fields):
    model = dglrec.models.preset("mip", split, **{"dim": 8, "hidden": 16, "train": {"batch_size": 64}, **fields})
    with torch.no_grad():
        model.scale.fill_(1.7)
        model.bias.fill_(-0.2)
    return model


def by_hand(model, history: list[int], days: list[float]) -> torch.Tensor:
    """(k', d + 2): weight, cosine's unit vector and bias of each cluster, as MIP's code makes them one by one."""
    c = model.config
    items = model.item.weight[torch.tensor(history)]  # (n, d)
    rate = [1 / 10_000 ** (2 * i / c.time_size) for i in range(c.time_size // 2)]
    angles = [[f(day * r) for r in rate for f in (math.sin, math.cos)] for day in days]
    inputs = torch.cat([items, torch.tensor(angles)], dim=1)
    labels = ward(items.unsqueeze(0), c.k)[0]
    found = []
    for cluster in labels.unique():
        own = labels == cluster
        last = int(own.nonzero().max())
        heads = []
        for head in range(c.heads):
            part = slice(head * c.dim, (head + 1) * c.dim)
            q, k = inputs[last] @ model.attention.query.weight[part].T, inputs @ model.attention.key.weight[part].T
            logits = (k @ q / math.sqrt(c.dim)).clamp(max=c.limit)
            heads.append(logits.masked_fill(~own, -torch.inf).softmax(0) @ items)
        interest = model.attention.join(torch.cat(heads))
        row = torch.zeros(c.max_length, 9)
        for place, day in enumerate(days):
            if own[place]:
                bucket = min(8, int(math.log2(days[-1] - day + 1)))
                row[c.max_length - len(days) + place, bucket] = 1
        hidden = model.weight.first(torch.cat([interest, row.flatten()])).sigmoid()
        found.append((F.softplus(model.weight.second(hidden)), interest))
    cosine = torch.stack([F.cosine_similarity(z.unsqueeze(0), model.item.weight) for _, z in found])  # (k', M)
    weight = torch.stack([w for w, _ in found])
    return (model.scale * weight * cosine + model.bias).sigmoid().amax(0)  # (M,)


def test_scores_are_those_of_the_method_written_out(split):
    model = make(split, k=3, max_length=12).eval()
    histories = [[3, 9, 4, 1, 5, 9, 2, 6, 30, 12], [7], [8, 8, 1], [5, 6]]
    days = [[0, 0.5, 1, 3, 3, 8, 20, 90, 400, 401.2], [0], [0, 3, 9], [0, 700]]
    times = [[day * DAY for day in one] for one in days]
    with torch.no_grad():
        scores = model.scores(Queries.from_histories(histories, times=times))
        for row, (history, own) in enumerate(zip(histories, days, strict=True)):
            torch.testing.assert_close(scores[row].sigmoid(), by_hand(model, history, own), rtol=1e-4, atol=1e-5)


def test_an_interest_too_many_never_wins(split):
    """Two items have two clusters at most; with room for five the scores stay the same."""
    two, five = make(split, k=2).eval(), make(split, k=5).eval()
    five.load_state_dict(two.state_dict())
    queries = Queries.from_histories([[4, 7], [9], [3, 3]], times=[[0.0, DAY], [0.0], [0.0, 3 * DAY]])
    with torch.no_grad():
        assert five.query_vectors(queries).shape == (3, 5, 9)
        torch.testing.assert_close(two.scores(queries), five.scores(queries))


def test_another_order_of_the_batch_is_the_same_loss(interest_windows, reversed_batch):
    model = make(interest_windows)
    batch = next(iter(model.batches(interest_windows, Streams(0))))
    assert batch.positive.shape == batch.negative.shape == (64, 20)
    torch.testing.assert_close(model.loss(batch), model.loss(reversed_batch(batch)))


def test_times_count_where_they_are_read(split):
    with_times, without = make(split).eval(), make(split, times=False).eval()
    soon, late = [[5, 1, 20, 7]], [[0.0, DAY, 2 * DAY, 300 * DAY]]
    with torch.no_grad():
        for model, same in ((with_times, False), (without, True)):
            timed, plain = (model.scores(Queries.from_histories(soon, times=times)) for times in (late, None))
            assert torch.allclose(timed, plain) is same


def test_a_log_without_times():
    log = InteractionLog.from_arrays([0] * 5, [0, 1, 2, 3, 4])
    split = dglrec.leave_one_out(log, order="file")
    with pytest.raises(ConfigError, match=r"reads times, and .* has none; use data with times, or times=false"):
        make(split)
    assert make(split, times=False).eval().scores(split.test).shape == (1, 5)


def test_targets_of_an_epoch(interest_windows, split):
    model = make(interest_windows)
    assert model.targets_per_epoch == 20 * len(interest_windows.windows)
    assert sum(batch.positive.numel() for batch in model.batches(interest_windows, Streams(0))) == 20 * len(
        interest_windows.windows
    )
    assert make(split).targets_per_epoch == (split.train.position > 0).sum()


def test_it_finds_interests(interest_windows, chance):
    model = dglrec.models.preset("mip", interest_windows, dim=16, train={"lr": 1e-2, "batch_size": 64})
    run = dglrec.fit(model, interest_windows, epochs=8, progress=False)
    assert model.train_config.monitor == "auc_pooled"
    assert "auc_pooled" in run.rows[0]
    found = dglrec.evaluate(model, interest_windows.test, k=20)
    assert found["auc_pooled"] > chance + 0.2
    assert found["recall@20"] > 0.65
