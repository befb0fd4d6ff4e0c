"""How vectors lie: the plane in which they differ most, and one number for how evenly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dglrec.lm.spread import angles, plane, spread


class Hops:
    """Stands in for a model: vectors from a table, a row an event."""

    def __init__(self, split, **tables):
        self.split, self.tables, self.asked = split, tables, []

    def hop_vectors(self, rows):
        self.asked.append(rows)
        return {name: table[rows] for name, table in self.tables.items()}


def test_points_on_a_circle_keep_their_radius_and_the_angles_between_them():
    """In whatever plane of the space the circle lies, up to a turn and a reflection."""
    rng = np.random.default_rng(0)
    truth = np.arange(24) * np.pi / 12
    directions = np.linalg.qr(rng.standard_normal((6, 6)))[0][:2]
    found = plane(2.5 * np.stack([np.cos(truth), np.sin(truth)], 1) @ directions + rng.standard_normal(6))
    assert np.hypot(*found.T) == pytest.approx(2.5)
    steps = np.diff(np.unwrap(angles(found)))
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
    assert {one.shape for one in found.points.values()} == {(len(rows), 2)}
    assert (found.points["one"] == 0).all()
    assert (angles(found.points["one"]) == 0).all()
    wide, narrow = (np.hypot(*found.points[name].T).mean() for name in ("wide", "narrow"))
    assert 0 < 10 * narrow < wide  # how far apart they are stays to be seen
    assert found.uniformity["wide"] == pytest.approx(-4, abs=0.2)
    assert found.uniformity["wide"] < found.uniformity["narrow"] < -0.005
    assert found.uniformity["one"] == pytest.approx(0, abs=1e-6)
