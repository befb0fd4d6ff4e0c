"""Pictures of trainings: one by epoch, several by epoch, or results over a field of the config."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from .data.files import atomic_write
from .evaluate import WHOLE

_NO_TERM = (
    *("epoch", "seconds", "valid_seconds", "steps", "loss_sum", "test", "test_seconds"),
    *("tokens", "padding", "cut"),
)


def save_curves(rows: list[dict[str, Any]], monitor: str, best: int, path: Path, title: str) -> None:
    """Draw the rows of `metrics.jsonl` (one per epoch) to `path`, a PNG: losses left, validation right.

    `best` is the row of the epoch that was chosen by the metric `monitor`; rows without it are of a training in
    which nothing was held out.
    """
    epochs = [row["epoch"] + 1 for row in rows]  # from 1, for a reader
    figure, (losses, metrics) = _figure(10, 4, 2)
    terms = [name for name in rows[0] if "@" not in name and name not in (*_NO_TERM, "mrr", *WHOLE)]
    for name in terms if len(terms) > 2 else ["loss"]:  # a single term is the loss
        losses.plot(epochs, [row[name] for row in rows], label=name.replace("_", " "), lw=2 if name == "loss" else 1)
    losses.set(xlabel="epoch", ylabel="mean per step", title="training loss")
    losses.legend(fontsize=8)
    _, _, cut = monitor.partition("@")
    for name in rows[0]:
        if name.endswith(f"@{cut}") if cut else name in WHOLE:
            metrics.plot(epochs, [row[name] for row in rows], label=name)
    if monitor in rows[best]:
        metrics.axvline(epochs[best], color="grey", lw=0.8, ls=":")
        metrics.annotate(
            f"{rows[best][monitor]:.4f}", (epochs[best], rows[best][monitor]), fontsize=8, ha="right", va="bottom"
        )
        metrics.set(xlabel="epoch", title="validation", ylim=(0, None))
        metrics.legend(fontsize=8, loc="lower right")
    else:
        metrics.set(title="nothing is held out for validation", xticks=[], yticks=[])
    _save(figure, path, title)


def save_epochs(
    metric: str, curves: Mapping[str, Sequence[tuple[Sequence[float], int]]], path: Path, title: str
) -> None:
    """Draw a validation metric by epoch to `path`, a PNG.

    Args:
        metric: its name.
        curves: system -> for each seed the values by epoch, and the epoch that was chosen, from 0.
        path: of the picture.
        title: above it.
    """
    figure, (axes,) = _figure(8, 4.5, 1)
    for number, (system, runs) in enumerate(curves.items()):
        for values, best in runs:
            axes.plot(range(1, len(values) + 1), values, color=f"C{number}", lw=1)
            axes.plot(best + 1, values[best], "o", color=f"C{number}", ms=5)
        axes.plot([], [], color=f"C{number}", marker="o", ms=5, lw=1, label=system)
    axes.set(xlabel="epoch (dot: the one that was chosen)", ylabel=f"{metric} on validation")
    axes.legend(fontsize=8, loc="lower right")
    _save(figure, path, title)


def save_fields(
    points: Mapping[str, Mapping[str, Mapping[float, Mapping[str, tuple[float, float, float]]]]], path: Path, title: str
) -> None:
    """Draw results over fields of the config to `path`, a PNG: a row per field, a part per metric, a curve per system.

    Args:
        points: field -> system -> value of the field -> metric -> mean, low end and high end.
        path: of the picture.
        title: above it.
    """
    metrics = list(next(iter(next(iter(next(iter(points.values())).values())).values())))
    figure, parts = _figure(4 * len(metrics), 3.5 * len(points), len(metrics), len(points))
    places = [(field, metric) for field in points for metric in metrics]
    for axes, (field, metric) in zip(parts, places, strict=True):
        ticks = sorted({value for curve in points[field].values() for value in curve})
        apart = 0.04 * min((b - a for a, b in itertools.pairwise(ticks)), default=0.0)  # else bars hide each other
        for number, (system, curve) in enumerate(points[field].items()):
            values = sorted(curve)
            mean, low, high = zip(*(curve[value][metric] for value in values), strict=True)
            reach = [[m - e for m, e in zip(mean, low, strict=True)], [e - m for m, e in zip(mean, high, strict=True)]]
            shifted = [value + apart * (number - (len(points[field]) - 1) / 2) for value in values]
            axes.errorbar(shifted, mean, yerr=reach, marker="o", ms=4, capsize=3, lw=1, label=system)
        axes.set(xlabel=field, title=metric, xticks=ticks)
        if metric.startswith("seconds"):
            axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    figure.legend(*parts[0].get_legend_handles_labels(), fontsize=8, ncols=len(metrics), loc="outside lower center")
    _save(figure, path, title)


def save_densities(points: Mapping[str, Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw how vectors lie, a row for each model, to `path`, a PNG: GAL-Rec's Figure 4.

    Each part shows the density of the points in their plane, as wide in all parts, and under it that of their angles.
    What has collapsed is a spot.

    Args:
        points: model -> name of a hop -> (n, 2), see `dglrec.lm.spread`.
        path: of the picture.
        title: above it.
    """
    import numpy as np

    from .lm.spread import angles

    columns = list(next(iter(points.values())))
    figure, parts = _figure(2.1 * len(columns), 3.3 * len(points) + 0.4, len(columns), 2 * len(points), heights=(2, 1))
    # Without the few farthest points: a single outlier would shrink all others to a spot.
    far = max(float(np.quantile(np.abs(one), 0.995)) for hops in points.values() for one in hops.values())
    reach = 1.1 * far if far > 0 else 1.0
    for row, (model, hops) in enumerate(points.items()):
        for column, name in enumerate(columns):
            density, angle = (parts[(2 * row + part) * len(columns) + column] for part in (0, 1))
            seen = _density(hops[name], [(-reach, reach)] * 2, "constant")
            density.imshow(seen.T, origin="lower", extent=(-reach, reach, -reach, reach), cmap="Blues")
            density.set_title(name if row == 0 else "", fontsize=9)
            density.set(xticks=[-far, 0, far], yticks=[-far, 0, far])
            density.set_xticklabels([f"{-far:.2g}", "0", f"{far:.2g}"], fontsize=6)
            density.set_yticklabels(["", "", ""])
            turns = _density(angles(hops[name])[:, None], [(-np.pi, np.pi)], "wrap")
            turns = turns / turns.mean()
            line = (np.arange(len(turns)) + 0.5) / len(turns) * 2 * np.pi - np.pi
            angle.fill_between(line, turns, lw=0, alpha=0.5)
            angle.axhline(1.0, color="grey", lw=0.8, ls=":")  # evenly, all around
            angle.set(xlim=(-np.pi, np.pi), ylim=(0, max(2.5, 1.1 * float(turns.max()))))
            angle.set_xticks([-np.pi, 0, np.pi], ["-π", "0", "π"], fontsize=7)
            angle.tick_params("y", labelsize=6)
            if column == 0:
                density.set_ylabel(model, fontsize=8)
                angle.set_ylabel("angles, 1: evenly", fontsize=7)
    _save(figure, path, title)


def _density(points: Any, limits: Sequence[tuple[float, float]], edge: str) -> Any:
    """Points (n, k) counted in the cells of a grid, and smoothed; unlike a kernel estimate it can show equal points.

    Args:
        points: (n, k).
        limits: of the grid, k times.
        edge: what is beyond the grid, see `scipy.ndimage.gaussian_filter`.
    """
    import numpy as np
    from scipy.ndimage import gaussian_filter

    counts, _ = np.histogramdd(np.asarray(points, dtype=np.float64), bins=96, range=limits)
    return gaussian_filter(counts, 2.5, mode=edge)


def _figure(
    width: float, height: float, columns: int, rows: int = 1, heights: Sequence[float] = (1,)
) -> tuple[Any, list[Any]]:
    """A figure with its parts, beside each other, row after row; the rows are `heights` high in turn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [heights[row % len(heights)] for row in range(rows)]
    return figure, list(figure.subplots(rows, columns, squeeze=False, height_ratios=ratios).flat)


def _save(figure: Any, path: Path, title: str) -> None:
    figure.suptitle(title, fontsize=10)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
