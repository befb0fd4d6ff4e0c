"""Scores of given candidates: by products with all items, or one vector a candidate, as is cheaper."""

from __future__ import annotations

import pytest
import torch

import dglrec
from dglrec.data.sample import sample
from dglrec.nn.products import candidate_products
from tests.contract.model_contract import fit


@pytest.mark.parametrize("num_vectors", [1, 3])
@pytest.mark.parametrize("num_items", [40, 40_000])
def test_both_ways_are_the_largest_products(num_items, num_vectors):
    """A row after the other, over several slices of queries."""
    rng = torch.Generator().manual_seed(num_items)
    vectors = torch.randn(70, num_vectors, 16, generator=rng)
    table, items = torch.randn(num_items, 16, generator=rng), torch.randint(num_items, (70, 1100), generator=rng)
    found = candidate_products(vectors, table, items)
    expected = torch.stack([(table[own] @ some.T).amax(1) for some, own in zip(vectors, items, strict=True)])
    torch.testing.assert_close(found, expected)
    assert candidate_products(vectors, table, items[:, :0]).shape == (70, 0)


@pytest.mark.parametrize("name", ["popularity", "lightgcn", "sasrec"])
def test_a_model_on_sampled_candidates(name):
    split = dglrec.leave_one_out(sample("shop", users=80, items=60, seed=2), negatives=15, test_users=30, seed=1)
    small = {"dim": 8} if name != "popularity" else {}
    model = dglrec.models.preset(name, split, **small)
    run = fit(model, split, epochs=min(2, model.train_config.epochs))
    test = run.test()
    assert test.protocol.candidates == "1+15" and test.queries == 30
    assert "auc_pooled" not in run.result["test"]
    full = dglrec.evaluate(model, split.test.without_candidates())
    assert {name: run.result["test_full"][name] for name in full} == pytest.approx(dict(full))
    assert full["recall@10"] < test["recall@10"]
