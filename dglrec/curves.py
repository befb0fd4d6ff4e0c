"""The picture of a training: loss terms and validation metrics by epoch."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from .data.files import atomic_write
from .evaluate import WHOLE

_NO_TERM = ("epoch", "seconds", "valid_seconds", "steps", "loss_sum")


def save_curves(rows: list[dict[str, Any]], monitor: str, best: int, path: Path, title: str) -> None:
    """Draw the rows of `metrics.jsonl` (one an epoch) to `path`, a PNG: losses left, validation right.

    `best` is the row of the epoch that was chosen by the metric `monitor`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, metrics = figure.subplots(1, 2)
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
    figure.suptitle(title, fontsize=10)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
