"""How the vectors of a model's hops are spread: as points of a plane, as in GAL-Rec's Figure 4, and as one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.flat import Floats
from ..losses import uniformity

EVENTS = 1000
_BLOCK = 128  # events whose prompts are encoded together


@dataclass(frozen=True, eq=False)
class Spread:
    """How vectors are spread, by the name of a hop, such as "user far".

    Attributes:
        points: (n, 2) the unit vectors minus their mean, in the two directions in which they differ most.
        uniformity: log of the mean of exp(-2 d^2) over pairs of unit vectors: 0 if all are equal, near -4 if they
            fill the sphere.
    """

    points: dict[str, Floats]
    uniformity: dict[str, float]


def spread(model: Any, events: int = EVENTS) -> Spread:
    """The vectors of hop 0, 1 and the farthest, of the users and items of training events from all of the log.

    Args:
        model: a `GALRec` in evaluation mode.
        events: number of events, or a few more.
    """
    rows = np.flatnonzero(model.split.train.position > 0)
    rows = rows[:: max(1, len(rows) // events)]
    parts = [model.hop_vectors(rows[first : first + _BLOCK]) for first in range(0, len(rows), _BLOCK)]
    vectors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    units = {name: torch.nn.functional.normalize(found.float()) for name, found in vectors.items()}
    return Spread(
        {name: plane(unit.cpu().numpy()) for name, unit in units.items()},
        {name: float(uniformity(unit)) for name, unit in units.items()},
    )


def plane(vectors: Any) -> Floats:
    """(n, 2) vectors (n, d) minus their mean, in their first two principal directions.

    >>> np.abs(plane(np.array([[3.0, 1.0], [-3.0, 1.0]]))).round(2).tolist()
    [[3.0, 0.0], [3.0, 0.0]]
    """
    given = np.asarray(vectors, dtype=np.float64)
    given = given - given.mean(0)
    _, _, directions = np.linalg.svd(given, full_matrices=False)
    points: Floats = (given @ directions[:2].T).round(9) + 0.0  # no -0, which has another angle
    return points


def angles(points: Any) -> Floats:
    """(n,) radians of points (n, 2) around 0; 0 for a point at 0.

    >>> angles(np.array([[3.0, 0.0], [-3.0, 0.0]])).round(2).tolist()
    [0.0, 3.14]
    """
    first, second = np.asarray(points, dtype=np.float64).T
    return np.arctan2(second, first)
