"""How vectors lie: the plane in which they differ most, and one number for how evenly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dglrec.lm.spread import angles, spread


class Hops:
    """Stands in for a model: vectors from a table, a row an event."""

    def __init__(self, split, **tables):
        self.split, self.tables, self.asked = split, tables, []

    def hop_vectors(self, rows):
        self.asked.append(rows)
        return {name: table[rows] for name, table in self.tables.items()}


def test_points_on_a_circle_keep_the_angles_between_them():
    """In whatever plane of the space the circle lies, up to a turn and a reflection."""
    rng = np.random.default_rng(0)
    truth = np.arange(24) * np.pi / 12
    plane = np.linalg.qr(rng.standard_normal((6, 6)))[0][:2]
    found = angles(np.stack([np.cos(truth), np.sin(truth)], 1) @ plane + rng.standard_normal(6))
    steps = np.diff(np.unwrap(found))
    assert np.abs(steps) == pytest.approx(np.pi / 12)


def test_all_of_the_log_is_asked_and_what_has_collapsed_has_no_uniformity(split):
    rng = torch.Generator().manual_seed(0)
    wide = torch.randn(len(split.train), 64, generator=rng)
    model = Hops(split, wide=wide, narrow=1.0 + 0.05 * wide, one=torch.ones_like(wide))
    found = spread(model, events=100)
    rows = np.concatenate(model.asked)
    assert (split.train.position[rows] > 0).all()
    assert 100 <= len(rows) < 200
    assert rows.max() > 0.9 * len(split.train)
    assert {len(one) for one in found.angles.values()} == {len(rows)}
    assert (found.angles["one"] == 0).all()
    assert found.uniformity["wide"] == pytest.approx(-4, abs=0.2)
    assert found.uniformity["wide"] < found.uniformity["narrow"] < -0.005
    assert found.uniformity["one"] == pytest.approx(0, abs=1e-6)
