"""The shop, which the examples show: groups, successors, drift and noise at once, at its default size.

Shares are of the oracle's recall@10 on the same test queries, seen items masked. Six of ten steps that are no noise go
to the successor of the last item, so that counting transitions has .72 of it already, and a model without order cannot
come near. Measured with three seeds each: LightGCN .35 to .36, SASRec .77 to .78, GSAU (rec) .77 to .78; one standard
error of the test set is .016. What is asked for below leaves two of those.
"""

from __future__ import annotations

import functools

import pytest

import dglrec
from dglrec.data.sample import sample, sample_oracle
from tests.contract.model_contract import fit

SMALL = {"layers": 1, "inner": 128, "dropout": 0.2, "attention_dropout": 0.2}
COSINE = {"normalise_item": True, "temperature": 0.1, "rank": "cosine"}
WITHOUT_ORDER = ("popularity", "recency")


@functools.cache
def shop():
    return dglrec.leave_one_out(sample("shop"))


def recall(model) -> float:
    return dglrec.evaluate(model, shop().test, k=10, metrics="recall", seen="mask")["recall@10"]


@functools.cache
def of_the_oracle(preset: str) -> float:
    """The share of the best recall that a model without training has."""
    return recall(dglrec.models.preset(preset, shop())) / recall(sample_oracle("shop"))


@pytest.mark.parametrize(
    ("preset", "fields", "share", "beaten"),
    [
        ("lightgcn", {}, 0.32, WITHOUT_ORDER),
        ("sasrec", SMALL, 0.74, (*WITHOUT_ORDER, "transitions")),
        ("gsau-rec", {**SMALL, **COSINE}, 0.74, (*WITHOUT_ORDER, "transitions")),
    ],
)
def test_its_share_of_the_best(preset, fields, share, beaten):
    model = dglrec.models.preset(preset, shop(), **fields, train={"lr": 5e-3, "batch_size": 256})
    fit(model, shop(), epochs=8)
    reached = recall(model) / recall(sample_oracle("shop"))
    assert reached >= share, f"{preset} has {reached:.3f} of the oracle's recall@10; expected {share}"
    for name in beaten:
        assert reached > of_the_oracle(name), f"{preset} has {reached:.3f}, {name} {of_the_oracle(name):.3f}"


def test_order_is_what_there_is_to_learn():
    """Transitions stand far above the two models without order: beating these alone says little in the shop."""
    assert of_the_oracle("transitions") > 0.7
    assert all(of_the_oracle(name) < 0.05 for name in WITHOUT_ORDER)
