"""Pictures of trainings: one by epoch, several by epoch, or results over a field of the config."""

from __future__ import annotations

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
    """Draw the rows of `metrics.jsonl` (one an epoch) to `path`, a PNG: losses left, validation right.

    `best` is the row of the epoch that was chosen by the metric `monitor`; rows without it stand for a training in
    which nothing was held out.
    """
    epochs = [row["epoch"] for row in rows]
    figure, (losses, metrics) = _figure(10, 4, 2)
    terms = [name for name in rows[0] if "@" not in name and name not in (*_NO_TERM, "mrr", *WHOLE)]
    for name in terms if len(terms) > 2 else ["loss"]:  # a single term is the loss
        losses.plot(epochs, [row[name] for row in rows], label=name.replace("_", " "), lw=2 if name == "loss" else 1)
    losses.set(xlabel="epoch", ylabel="mean a step", title="training loss")
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
        curves: system -> for each seed the values by epoch, and the epoch that was chosen.
        path: of the picture.
        title: above it.
    """
    figure, (axes,) = _figure(8, 4.5, 1)
    for number, (system, runs) in enumerate(curves.items()):
        for values, best in runs:
            axes.plot(range(len(values)), values, color=f"C{number}", lw=1)
            axes.plot(best, values[best], "o", color=f"C{number}", ms=5)
        axes.plot([], [], color=f"C{number}", marker="o", ms=5, lw=1, label=system)
    axes.set(xlabel="epoch (dot: the one that was chosen)", ylabel=f"{metric} on validation")
    axes.legend(fontsize=8, loc="lower right")
    _save(figure, path, title)


def save_fields(
    points: Mapping[str, Mapping[str, Mapping[float, Mapping[str, tuple[float, float, float]]]]], path: Path, title: str
) -> None:
    """Draw results over fields of the config to `path`, a PNG: a row a field, a part a metric, a curve a system.

    Args:
        points: field -> system -> value of the field -> metric -> mean, low end and high end.
        path: of the picture.
        title: above it.
    """
    metrics = list(next(iter(next(iter(next(iter(points.values())).values())).values())))
    figure, parts = _figure(4 * len(metrics), 3.5 * len(points), len(metrics), len(points))
    places = [(field, metric) for field in points for metric in metrics]
    for axes, (field, metric) in zip(parts, places, strict=True):
        for system, curve in points[field].items():
            values = sorted(curve)
            mean, low, high = zip(*(curve[value][metric] for value in values), strict=True)
            reach = [[m - e for m, e in zip(mean, low, strict=True)], [e - m for m, e in zip(mean, high, strict=True)]]
            axes.errorbar(values, mean, yerr=reach, marker="o", ms=4, capsize=3, lw=1, label=system)
        ticks = sorted({value for curve in points[field].values() for value in curve})
        axes.set(xlabel=field, title=metric, xticks=ticks)
        if metric.startswith("seconds"):
            axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    parts[0].legend(fontsize=8)
    _save(figure, path, title)


def save_densities(angles: Mapping[str, Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw how vectors lie, a row for each model, to `path`, a PNG: GAL-Rec's Figure 4.

    Each part shows the density of points on the unit circle, and under it that of their angles. What has collapsed is
    a spot, and a peak.

    Args:
        angles: model -> name of a hop -> (n,) radians, see `dglrec.lm.spread`.
        path: of the picture.
        title: above it.
    """
    import numpy as np
    from scipy.stats import gaussian_kde

    columns = list(next(iter(angles.values())))
    figure, parts = _figure(2.2 * len(columns), 4.4 * len(angles), len(columns), 2 * len(angles))
    grid, line = np.linspace(-1.3, 1.3, 60), np.linspace(-np.pi, np.pi, 120)
    plane = np.stack(np.meshgrid(grid, grid)).reshape(2, -1)
    for row, (model, hops) in enumerate(angles.items()):
        for column, name in enumerate(columns):
            density, angle = (parts[(2 * row + part) * len(columns) + column] for part in (0, 1))
            given = np.asarray(hops[name], dtype=np.float64)
            points = np.stack([np.cos(given), np.sin(given)])
            points += 0.08 * np.random.default_rng(0).standard_normal(points.shape)  # so that equal ones are a spot
            density.imshow(
                gaussian_kde(points)(plane).reshape(60, 60),
                origin="lower",
                extent=(-1.3, 1.3, -1.3, 1.3),
                cmap="Blues",
            )
            density.set(title=name, ylabel=model if column == 0 else "", xticks=[], yticks=[])
            turns = np.concatenate([given + turn for turn in (-2 * np.pi, 0.0, 2 * np.pi)])  # -pi is where pi is
            angle.plot(line, gaussian_kde(turns, bw_method=0.08)(line), lw=1)
            angle.set(xlabel="angle", ylim=(0, None), yticks=[])
    _save(figure, path, title)


def _figure(width: float, height: float, columns: int, rows: int = 1) -> tuple[Any, list[Any]]:
    """A figure with its parts, beside each other, row after row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _save(figure: Any, path: Path, title: str) -> None:
    figure.suptitle(title, fontsize=10)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
