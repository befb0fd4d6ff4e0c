"""SURGE's graph, attention, recurrent unit and scores, written out."""

from __future__ import annotations

import importlib

import torch
import torch.nn.functional as F

import dglrec
from dglrec.data import Queries
from dglrec.models.surge import AUGRU, PairNet, metric_graph
from dglrec.streams import Streams


def make(split, **fields):
    return dglrec.models.preset("surge", split, **{"dim": 8, "hidden": 8, "train": {"batch_size": 64}, **fields})


def test_the_graph_by_hand():
    """Rows are scaled to [0, 1]; of 9 entries the ceil(.5 * 9) = 5 largest stay, and loops."""
    similarity = torch.tensor([[[1.0, 0.6, 0.0], [0.6, 1.0, 0.5], [0.0, 0.5, 1.0]]])  # rows: 1 .6 0, .2 1 0, 0 .5 1
    edges = metric_graph(similarity, torch.ones(1, 3, dtype=torch.bool), keep=0.5)
    assert edges.int().tolist() == [[[1, 1, 0], [0, 1, 0], [0, 1, 1]]]
    all_of_them = metric_graph(similarity, torch.ones(1, 3, dtype=torch.bool), keep=1.0)
    assert all_of_them.all()


def test_the_graph_of_a_window_does_not_see_its_padding():
    torch.manual_seed(0)
    similarity = torch.rand(1, 5, 5)
    alone = metric_graph(similarity[:, 2:, 2:], torch.ones(1, 3, dtype=torch.bool), 0.5)
    padded = metric_graph(similarity, torch.tensor([[False, False, True, True, True]]), 0.5)
    assert torch.equal(padded[:, 2:, 2:], alone)
    assert padded[0, :2].int().tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert not padded[0, 2:, :2].any()


def test_the_recurrent_unit_is_torch_s_with_its_gate_scaled():
    torch.manual_seed(0)
    unit, inputs = AUGRU(4), torch.randn(3, 6, 4)
    whole, _ = torch.func.functional_call(
        torch.nn.GRU(4, 4, batch_first=True),
        {
            "weight_ih_l0": unit.of_input.weight,
            "bias_ih_l0": unit.of_input.bias,
            "weight_hh_l0": unit.of_state.weight,
            "bias_hh_l0": unit.of_state.bias,
        },
        (inputs,),
    )
    # torch keeps the old state where its gate is open: with the gate's sign turned it is the same unit.
    flipped = AUGRU(4)
    flipped.load_state_dict(unit.state_dict())
    with torch.no_grad():
        for layer in (flipped.of_input, flipped.of_state):
            layer.weight[4:8] *= -1
            layer.bias[4:8] *= -1
        torch.testing.assert_close(flipped(inputs, torch.ones(3, 6)), whole[:, -1])
        assert not unit(inputs, torch.zeros(3, 6)).any()


def test_pair_net_is_two_layers():
    torch.manual_seed(0)
    net, items, other = PairNet(4, 5), torch.randn(2, 3, 4), torch.randn(2, 1, 4)
    turned = items @ net.turn.weight.T
    row = torch.cat([turned, other.expand(-1, 3, -1), turned * other], dim=2)
    torch.testing.assert_close(net(items, other), net.second(net.first(row).relu()).squeeze(2))


def by_hand(model, history: list[int], candidate: int) -> torch.Tensor:
    """The logit of one candidate, node by node."""
    items, target = model.item.weight[torch.tensor(history)], model.item.weight[candidate]
    unit = F.normalize(items * model.metric, dim=1)
    edges = metric_graph((unit @ unit.T).unsqueeze(0), torch.ones(1, len(items), dtype=torch.bool), 0.5)[0]
    degree = edges.sum(1).float()
    near = edges / (degree.unsqueeze(1) * degree).sqrt()
    around, asked = model.around(items, near @ near @ items), model.asked(items, target.unsqueeze(0))
    nodes = []
    for i in range(len(items)):
        others = edges[i].nonzero()[:, 0]
        weight = F.leaky_relu(around[i] + asked[others], 0.2).softmax(0)
        nodes.append(F.leaky_relu(model.update(weight @ items[others]) + items[i], 0.2))
    importance = (around + asked).softmax(0)
    kept = importance.argsort(descending=True)[: model.config.pool].sort().values
    nodes = torch.stack(nodes)
    state = model.recurrent(nodes[kept], importance[kept])
    readout = importance @ nodes
    return model.judge(torch.cat([state, readout, target, readout * target]))[0]


def test_scores_are_those_of_the_method_written_out(split):
    model = make(split, pool=4).eval()
    histories = [[3, 9, 4, 1, 5, 9, 2, 6], [7], [8, 8, 1]]
    with torch.no_grad():
        scores = model.scores(Queries.from_histories(histories))
        for row, history in enumerate(histories):
            for candidate in (0, 9, 42):
                torch.testing.assert_close(scores[row, candidate], by_hand(model, history, candidate))


def test_a_shuffled_list_of_candidates_gets_the_same_scores(split):
    """Nothing says which candidates are positive, and none looks at another."""
    model, queries = make(split).eval(), split.test[:5]
    items = torch.randint(43, (5, 12), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model.scores(queries, items)[:, order], model.scores(queries, items[:, order]))


def test_chunks_do_not_matter(split, monkeypatch):
    model = make(split).eval()
    with torch.no_grad():
        whole = model.scores(split.test[:7])
        monkeypatch.setattr(importlib.import_module("dglrec.models.surge"), "_CHUNK", {"cpu": 5000})
        torch.testing.assert_close(model.scores(split.test[:7]), whole)
        items = torch.arange(43).expand(7, -1)[:, :11]
        torch.testing.assert_close(model.scores(split.test[:7], items), whole[:, :11])


def test_a_step_learns_from_some_of_the_candidates(interest_windows, reversed_batch):
    model = make(interest_windows, targets=3)
    batches = list(model.batches(interest_windows, Streams(0)))
    assert batches[0].positive.shape == batches[0].negative.shape == (64, 3)
    assert model.targets_per_epoch == sum(batch.positive.numel() for batch in batches)
    queries = interest_windows.windows
    own = [set(queries.targets[start : start + 20]) for start in queries.offsets[:-1]]
    assert all(any(set(row) <= one for one in own) for row in batches[0].positive.tolist()[:5])
    again = next(iter(model.batches(interest_windows, Streams(0, 1))))
    assert not torch.equal(batches[0].positive.sort().values, again.positive.sort().values)
    torch.testing.assert_close(model.loss(batches[0]), model.loss(reversed_batch(batches[0])))


def test_the_metric_stays_as_it_began(split):
    """A threshold lets no gradient through."""
    model = make(split)
    assert not model.metric.requires_grad
    sum(model.loss(next(iter(model.batches(split, Streams(0))))).values()).backward()
    assert model.metric.grad is None


def test_it_finds_interests(interest_windows, chance):
    train = {"lr": 2e-2, "batch_size": 64}
    model = dglrec.models.preset("surge", interest_windows, dim=16, hidden=16, pool=10, train=train)
    dglrec.fit(model, interest_windows, epochs=6, progress=False)
    found = dglrec.evaluate(model, interest_windows.test, k=20)
    assert found["auc_pooled"] > chance + 0.15
    assert found["recall@20"] > 0.6
