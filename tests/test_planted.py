"""The oracle as a row, and clusters against the planted interests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import dglrec
from dglrec import planted
from dglrec.data.queries import Queries


@pytest.fixture(scope="module")
def world() -> Any:
    """A split of a small sample, with its oracle."""
    with pytest.MonkeyPatch.context() as patch:
        small = {"users": 20, "items": 400, "seed": 1, "noise": 0.0}
        patch.setitem(planted.SAMPLES, planted.NAME, ("interests", small))
        log = planted.sample_log()
        split = dglrec.windows(log, by="user", inputs=30, targets=10, negatives=10)
        yield split, planted.oracle_of(log)


class Clusters:
    """Gives the planted interests as its final clusters, and one cluster as its first, of the last `length` items."""

    def __init__(self, oracle: Any, k: int, length: int, width: int) -> None:
        self.oracle, self.config, self.length, self.width = oracle, SimpleNamespace(k=k), length, width

    def clusters(self, queries: Queries) -> tuple[torch.Tensor, torch.Tensor]:
        final = np.full((len(queries), self.width), -1)
        labels = self.oracle.labels(queries).reshape(len(queries), -1)
        final[:, self.width - self.length :] = labels[:, -self.length :]  # padding before the items
        first = np.where(final >= 0, 0, -1)
        return torch.from_numpy(first), torch.from_numpy(final)


def test_the_planted_interests_agree_with_themselves(world: Any) -> None:
    split, oracle = world
    found = planted.agreement(Clusters(oracle, k=20, length=30, width=35), split.test, oracle)
    assert found["final"] == 1
    assert found["first"] == pytest.approx(0, abs=1e-9)
    assert found["histories_where_true_is_1"] < len(split.test)  # 20 clusters split interests that are one
    few = planted.agreement(Clusters(oracle, k=3, length=30, width=30), split.test, oracle)
    assert 0 < few["true"] < 1  # three clusters put interests together


def test_ward_on_true_vectors_finds_as_many_interests_as_there_are(world: Any) -> None:
    """A history with exactly k interests is one where the true vectors give them."""
    split, oracle = world
    numbers = [len(set(labels)) for labels in oracle.labels(split.test).reshape(len(split.test), -1)]
    k = max(numbers, key=numbers.count)
    found = planted.agreement(Clusters(oracle, k=k, length=30, width=30), split.test, oracle)
    assert found["histories_where_true_is_1"] == numbers.count(k)
    assert found["final_where_true_is_1"] == 1
    assert found["first_where_true_is_1"] == pytest.approx(0, abs=1e-9)


def test_only_what_is_read_is_compared(world: Any) -> None:
    split, oracle = world
    found = planted.agreement(Clusters(oracle, k=5, length=7, width=9), split.test, oracle)
    assert found["final"] == 1


def test_the_oracle_is_measured_as_models_are(world: Any) -> None:
    split, oracle = world
    direct = dglrec.evaluate(oracle, split.test, seen="keep")
    for sees in ("history", "state"):
        model = planted.Oracle(split, sees=sees)
        run = dglrec.fit(model, split)
        assert run.rows == [] and model.config.sees == sees
        found = dict(run.test())
        assert (found == dict(direct)) == (sees == "history")
    with pytest.raises(dglrec.ConfigError, match="sees"):
        planted.Oracle(split, sees="all")


@pytest.mark.parametrize("name", sorted(planted.SAMPLES))
def test_every_sample_of_the_tables_has_its_oracle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, size = planted.SAMPLES[name]
    monkeypatch.setitem(planted.SAMPLES, name, (kind, size | {"users": 40, "items": 400}))
    split = dglrec.ratio(planted.sample_log(name))
    assert split.log.name == name
    best, popular = (
        dglrec.evaluate(model, split.test, k=10, seen="mask")["ndcg@10"]
        for model in (planted.Oracle(split), dglrec.models.preset("popularity", split))
    )
    assert best > popular
    if kind == "hops":
        with pytest.raises(dglrec.ConfigError, match="nothing is hidden in 'sample-hops'"):
            planted.Oracle(split, sees="state")
    with pytest.raises(dglrec.ConfigError, match="'sample-shop' has no oracle"):
        planted.oracle_of(dglrec.sample("shop"))
