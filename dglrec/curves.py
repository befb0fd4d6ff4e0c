"""Pictures of trainings: one by epoch, several by epoch, or results over a field of the config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from .data.files import atomic_write
from .evaluate import WHOLE

_NO_TERM = ("epoch", "seconds", "valid_seconds", "steps", "loss_sum", "test", "test_seconds")


def save_curves(rows: list[dict[str, Any]], monitor: str, best: int, path: Path, title: str) -> None:
    """Draw the rows of `metrics.jsonl` (one an epoch) to `path`, a PNG: losses left, validation right.

    `best` is the row of the epoch that was chosen by the metric `monitor`.
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
    metrics.axvline(epochs[best], color="grey", lw=0.8, ls=":")
    metrics.annotate(
        f"{rows[best][monitor]:.4f}", (epochs[best], rows[best][monitor]), fontsize=8, ha="right", va="bottom"
    )
    metrics.set(xlabel="epoch", title="validation", ylim=(0, None))
    metrics.legend(fontsize=8, loc="lower right")
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


def save_field(
    field: str,
    points: Mapping[str, Mapping[float, Mapping[str, tuple[float, float, float]]]],
    path: Path,
    title: str,
) -> None:
    """Draw results over a field of the config to `path`, a PNG, a part for each metric and a curve for each system.

    Args:
        field: its name.
        points: system -> value of the field -> metric -> mean, low end and high end.
        path: of the picture.
        title: above it.
    """
    metrics = list(next(iter(next(iter(points.values())).values())))
    figure, parts = _figure(4 * len(metrics), 3.5, len(metrics))
    ticks = sorted({place for curve in points.values() for place in curve})
    for axes, metric in zip(parts, metrics, strict=True):
        for system, curve in points.items():
            places = sorted(curve)
            mean, low, high = zip(*(curve[place][metric] for place in places), strict=True)
            reach = [[m - e for m, e in zip(mean, low, strict=True)], [e - m for m, e in zip(mean, high, strict=True)]]
            axes.errorbar(places, mean, yerr=reach, marker="o", ms=4, capsize=3, lw=1, label=system)
        axes.set(xlabel=field, title=metric, xticks=ticks)
        if metric.startswith("seconds"):
            axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    parts[0].legend(fontsize=8)
    _save(figure, path, title)


def _figure(width: float, height: float, columns: int) -> tuple[Any, list[Any]]:
    """A figure with its parts, beside each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _save(figure: Any, path: Path, title: str) -> None:
    figure.suptitle(title, fontsize=10)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
