"""Models on the real data sets: the sizes that the papers' logs print, and the first steps of GSAU (rec)."""

from __future__ import annotations

import functools
import os

import pytest
import torch

import dglrec
from dglrec.streams import Streams, global_generator
from dglrec.train import make_optimizer

pytestmark = pytest.mark.skipif(not os.environ.get("DGLREC_DATA"), reason="DGLREC_DATA is not set")

# 5-core users, items, interactions; prefixes, pairs; steps of 512 prefixes, of 512 pairs (GSAU's log and code)
SIZES = {
    "amazon-beauty": (22_363, 12_101, 198_502, 131_413, 153_776, 257, 301),
    "amazon-toys": (19_412, 11_924, 167_597, 109_361, 128_773, 214, 252),
    "amazon-sports": (35_598, 18_357, 296_337, 189_543, 225_141, 371, 440),
}
SEQUENCE = 50 * 64 + 2 * 64 + 2 * 49_984  # positions, a norm, two blocks


@functools.cache
def split_of(name):
    return dglrec.leave_one_out(dglrec.load(name, k_core=5))


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_authors_log(name):
    users, items, interactions, targets, pairs, _, _ = SIZES[name]
    split = split_of(name)
    assert (split.log.num_users, split.log.num_items, len(split.log)) == (users, items, interactions)
    assert interactions - 3 * users == targets
    assert len(split.train) == interactions - 2 * users == pairs
    assert int((split.train.position > 0).sum()) == targets
    assert len(split.valid) == len(split.test) == users


def test_steps_an_epoch_are_those_of_the_authors_log():
    """Counted on Toys, the smallest; the others follow by division."""
    for _, _, _, targets, pairs, steps, longer in SIZES.values():
        assert (-(-targets // 512), -(-pairs // 512)) == (steps, longer)
    split = split_of("amazon-toys")
    for preset, steps in (("sasrec", 214), ("lightgcn", 252), ("gsau-rec", 252)):
        model = dglrec.models.preset(preset, split)
        assert sum(1 for _ in model.batches(split, Streams(2020))) == steps
        assert model.targets_per_epoch == (128_773 if preset == "lightgcn" else 109_361)
    prefixes = dglrec.models.preset("sasrec", split, targets="prefixes")
    assert sum(1 for _ in prefixes.batches(split, Streams(2020))) == 214


def test_numbers_of_weights_are_those_of_the_authors_log_without_padding_rows():
    toys, beauty = split_of("amazon-toys"), split_of("amazon-beauty")
    gsau = sum(p.numel() for p in dglrec.models.preset("gsau", toys).parameters())
    assert gsau == 2_108_928 - 2 * 64 == (19_412 + 11_924) * 64 + SEQUENCE  # rows for user 0 and item 0
    sasrec = sum(p.numel() for p in dglrec.models.preset("sasrec", beauty).parameters())
    assert sasrec == 877_824 - 64 == 12_101 * 64 + SEQUENCE


def test_prefixes_are_short():
    """1.10 million tokens an epoch on Beauty where padding to 50 has 6.57 million."""
    split = split_of("amazon-beauty")
    model = dglrec.models.preset("gsau", split)
    batches = list(model.batches(split, Streams(2020)))[:257]
    assert sum(len(batch.prefixes.target) for batch in batches) == 131_413
    tokens = sum(len(batch.prefixes.history.items) for batch in batches)
    assert tokens == pytest.approx(1.10e6, rel=0.02)


def first_losses(steps):
    """The summed loss of each of the first steps of GSAU (rec) on Toys."""
    split = split_of("amazon-toys")
    model = dglrec.models.preset("gsau-rec", split, **{"train.seed": 2020}).train()
    optimizer = make_optimizer(model.train_config, model.parameters())
    streams, losses = Streams(2020), []
    with global_generator():
        for step, batch in zip(range(1, steps + 1), model.batches(split, streams), strict=False):
            torch.manual_seed(streams.torch_seed("dropout", step))
            loss = torch.stack(list(model.loss(batch).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def test_the_first_steps_of_gsau_rec_on_toys():
    """The authors' log sums 2,153 over the 252 steps of its first epoch, 8.54 a step; the loss comes down to that."""
    losses = first_losses(25)
    assert losses[0] == pytest.approx(9.12, abs=0.03)
    assert 8.54 < sum(losses[-5:]) / 5 < 8.54 * 1.04
    assert all(later < earlier for earlier, later in zip(losses[:-8:8], losses[8::8], strict=False))


@pytest.mark.slow  # two minutes on two busy cores
def test_the_first_epoch_of_gsau_rec_on_toys():
    """Within .2 % of the authors' log."""
    losses = first_losses(1000)
    assert len(losses) == 252
    assert sum(losses) == pytest.approx(2153, rel=2e-3)
