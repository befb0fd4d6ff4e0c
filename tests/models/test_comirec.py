"""ComiRec's two ways of reading interests, and its losses, against loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import dglrec
from dglrec.data import Queries
from dglrec.models.comirec import DynamicRouting, SelfAttention, chosen_softmax, squash
from dglrec.streams import Streams

PRESETS = ("comirec-sa", "comirec-dr")


def make(name, split, **fields):
    return dglrec.models.preset(name, split, **{"dim": 8, "k": 3, "train": {"batch_size": 64}, **fields})


def test_self_attention_is_the_equation():
    torch.manual_seed(0)
    layer, items = SelfAttention(4, 3, slots=6), torch.randn(2, 5, 4)
    mask = torch.tensor([[True] * 5, [False, False, True, True, True]])
    found = layer(items, mask)
    for window in range(2):
        own = items[window, mask[window]]  # H, (n, d)
        places = layer.place.weight[-len(own) :]  # P
        hidden = torch.tanh((own + places) @ layer.first.weight.T + layer.first.bias)
        mixture = (hidden @ layer.second.weight.T).softmax(0)  # A, (n, K)
        torch.testing.assert_close(found[window], mixture.T @ own)


def routing(dim, k, slots, steps):
    """With maps that differ from place to place, as they do once they have learned."""
    layer = DynamicRouting(dim, k, slots, steps)
    assert (layer.maps == layer.maps[0]).all(), "all places start alike"
    with torch.no_grad():
        layer.maps.normal_()
    return layer


@pytest.mark.parametrize("steps", [1, 3])
def test_routing_is_the_loop(steps):
    torch.manual_seed(0)
    layer, items = routing(4, 3, 6, steps), torch.randn(2, 5, 4)
    mask = torch.tensor([[True] * 5, [False, False, True, True, True]])
    found = layer(items, mask)
    for window in range(2):
        places = mask[window].nonzero()[:, 0].tolist()
        votes = {(i, k): items[window, i] @ layer.maps[1 + i, k] for i in places for k in range(3)}
        logits = dict.fromkeys(votes, torch.tensor(0.0))
        for step in range(steps):
            share = {i: torch.stack([logits[i, k] for k in range(3)]).softmax(0) for i in places}
            capsules = []
            for k in range(3):
                total = torch.stack([share[i][k] * votes[i, k] for i in places]).sum(0)
                length = total.norm()
                capsules.append(length**2 / (1 + length**2) * total / length)
            if step < steps - 1:
                logits = {(i, k): logits[i, k] + votes[i, k] @ capsules[k] for i, k in votes}
        torch.testing.assert_close(found[window], torch.stack(capsules), rtol=1e-4, atol=1e-5)


def test_only_the_last_routing_step_is_learned_through():
    """With the shares of the last step held fixed, the gradient is the same."""
    torch.manual_seed(0)
    layer, items = routing(3, 2, 4, 3), torch.randn(1, 4, 3)
    mask = torch.ones(1, 4, dtype=torch.bool)
    layer(items, mask).sum().backward()
    votes = torch.einsum("bnd,nkde->bnke", items, layer.maps)
    fixed, logits = votes.detach(), torch.zeros(1, 4, 2)
    for _ in range(2):
        agreed = squash((logits.softmax(2).unsqueeze(3) * fixed).sum(1))
        logits = logits + (fixed * agreed.unsqueeze(1)).sum(3)
    by_hand = torch.autograd.grad(squash((logits.softmax(2).unsqueeze(3) * votes).sum(1)).sum(), layer.maps)[0]
    torch.testing.assert_close(layer.maps.grad, by_hand)


def test_squash():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.1]])
    expected = torch.tensor([[0.6 * 25 / 26, 0.8 * 25 / 26], [0.0, 0.0], [0.0, 0.01 / 1.01]])
    torch.testing.assert_close(squash(vectors), expected)


def test_the_softmax_takes_the_interest_of_its_target():
    interests = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    positive, negative = torch.tensor([[[3.0, 0.0], [0.5, 1.0]]]), torch.tensor([[[1.0, 1.0], [0.0, -1.0]]])
    first = F.cross_entropy(torch.tensor([3.0, 1.0, 0.0]), torch.tensor(0))  # by interest 0
    second = F.cross_entropy(torch.tensor([2.0, 2.0, -2.0]), torch.tensor(0))  # by interest 1
    torch.testing.assert_close(chosen_softmax(interests, positive, negative), (first + second) / 2)


@pytest.mark.parametrize("name", PRESETS)
def test_histories_of_unequal_length_are_read_as_if_alone(name, split):
    model = make(name, split, max_length=10).eval()
    histories = [[3, 9, 4, 1, 5, 9, 2, 6, 30, 12, 8, 1], [7], [8, 8, 1]]
    with torch.no_grad():
        together = model.query_vectors(Queries.from_histories(histories))
        assert together.shape == (3, 3, 8)
        for row, history in enumerate(histories):
            alone = model.query_vectors(Queries.from_histories([history[-10:]]))
            torch.testing.assert_close(together[row], alone[0])
        if name == "comirec-sa":  # a mixture of one item is that item
            torch.testing.assert_close(together[1], model.item.weight[7].expand(3, -1))


@pytest.mark.parametrize("loss", ["bce", "softmax"])
@pytest.mark.parametrize("name", PRESETS)
def test_another_order_of_the_batch_is_the_same_loss(name, loss, interest_windows, reversed_batch):
    model = make(name, interest_windows, loss=loss)
    batch = next(iter(model.batches(interest_windows, Streams(0))))
    terms = model.loss(batch)
    assert list(terms) == [loss]
    torch.testing.assert_close(terms, model.loss(reversed_batch(batch)))


@pytest.mark.parametrize(("name", "lr", "epochs"), [("comirec-sa", 2e-2, 5), ("comirec-dr", 3e-2, 8)])
def test_it_finds_interests(name, lr, epochs, interest_windows, chance):
    model = dglrec.models.preset(name, interest_windows, dim=16, train={"lr": lr, "batch_size": 64})
    dglrec.fit(model, interest_windows, epochs=epochs, progress=False)
    found = dglrec.evaluate(model, interest_windows.test, k=20)
    assert found["auc_pooled"] > chance + 0.15
    assert found["recall@20"] > 0.6
