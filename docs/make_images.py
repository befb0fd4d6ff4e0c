"""Draws the pictures of docs/images from files of real runs.

    python docs/make_images.py                        # quickstart.png; runs examples/quickstart.py first
    python docs/make_images.py runs/quickstart-1      # or takes a run that is there
    python docs/make_images.py --figures              # the papers' figures that the pages show, from their result files

examples/interest_graphs.py draws interest-graphs.png. Look at a picture before you commit it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from dglrec import reproduce
from dglrec.tables import PLANS

DOCS = Path(__file__).parent
COLOURS = {"sasrec": "tab:blue", "gsau-rec": "tab:orange"}


def draw(folder: Path, out: Path) -> None:
    """Left the test scores beside the best reachable one, right validation by epoch of the models that learn."""
    saved = json.loads((folder / "results.json").read_text("utf-8"))
    results = saved["results"]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)

    names = list(results)
    values = [results[name]["metrics"]["recall@10"] for name in names]
    errors = [results[name]["standard_errors"]["recall@10"] for name in names]
    left.barh(names, values, xerr=errors, color=[COLOURS.get(name, "silver") for name in names], height=0.65)
    for place, (value, error) in enumerate(zip(values, errors, strict=True)):
        left.text(value + error + 0.01, place, f"{value:.3f}", va="center", fontsize=9)
    best = saved["reachable"]["recall@10"]
    left.axvline(best, color="black", ls="--", lw=1)
    left.text(best - 0.01, 0, f"best reachable: {best:.3f}", ha="right", va="center", fontsize=9)
    queries = results[names[0]]["protocol"]["queries"]
    left.set(title=f"test, {queries:,} queries", xlabel="recall@10", xlim=(0, best * 1.08))
    left.invert_yaxis()

    for name, colour in COLOURS.items():
        rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text("utf-8").splitlines()]
        seconds = sum(row["seconds"] + row["valid_seconds"] for row in rows)
        epochs = [row["epoch"] + 1 for row in rows]
        label = f"{name}, {len(rows)} epochs in {seconds:.0f} s"
        right.plot(epochs, [row["recall@10"] for row in rows], "o-", ms=3, color=colour, label=label)
    right.set(title="validation", xlabel="epochs", ylabel="recall@10", ylim=(0, None))
    right.legend(loc="lower right", fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    print(out)


def draw_figures() -> None:
    """The picture of each figure of a paper to which a page refers as images/NAME.png."""
    pages = "".join(path.read_text("utf-8") for path in DOCS.glob("*.md"))
    for name in sorted(set(re.findall(r"\(images/([\w-]+)\.png\)", pages)) & set(PLANS)):
        out = DOCS / "images" / f"{name}.png"
        data, split = PLANS[name].data[0]  # the page shows the first of them
        reproduce(name, data=[data], splits=[split]).save_figure(out)
        print(out)


def main() -> None:
    """Draw a given run, a new one, or the papers' figures."""
    if sys.argv[1:] == ["--figures"]:
        draw_figures()
        return
    out = DOCS / "images" / "quickstart.png"
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]), out)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, DOCS.parent / "examples" / "quickstart.py", "--out", folder], check=True)
        draw(Path(folder) / "quickstart-1", out)


if __name__ == "__main__":
    main()
