"""Writes the generated tables of README.md and docs/*.md, between their markers.

    python docs/make_tables.py            # write
    python docs/make_tables.py --check    # exit code 1 if a file is not up to date

A table is between `<!-- table:NAME -->` and `<!-- end table -->`. Results come from files that
`dglrec reproduce TABLE --run` writes, figures of data sets from docs/figures.json and docs/slices.json (by
docs/measure_data.py), those of samples from docs/samples.json (by docs/measure_samples.py), of protocols from
docs/protocols.json (by docs/measure_protocols.py), of graph builders from docs/graphs.json (by docs/measure_graphs.py),
of choices from docs/choices.json (by docs/measure_choices.py), costs from tests/benchmarks/*.json, presets from
dglrec.models.PRESETS.
No number of ours in these tables is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dglrec.models import PRESETS
from dglrec.reproduce import RESULTS, reproduce, tables
from dglrec.tables import PLANS

DOCS = Path(__file__).parent
FILES = (DOCS.parent / "README.md", DOCS.parent / "data" / "README.md", *sorted(DOCS.glob("*.md")))
MARKED = re.compile(r"(<!-- table:([\w.-]+) -->\n).*?(<!-- end table -->)", re.DOTALL)

# The log of GSAU (rec) on Toys in the authors' repository: the training loss, summed over the 252 steps of an epoch,
# and NDCG@20 on validation, by epoch from 0; the table counts from 1.
AUTHORS_LOSS = {0: 2153, 1: 2080, 2: 2069, 3: 2064, 4: 2061, 5: 2058, 9: 2040, 16: 1979, 20: 1925, 40: 1629, 60: 1508}
AUTHORS_NDCG = {0: 0.0014, 9: 0.0136, 16: 0.0287, 20: 0.0319, 40: 0.048, 60: 0.056}


# A line of difference, where docs/protocols.json has it (section, data, model), and the readings before and after it.
DIFFERENCES = (
    ("seen items: masked instead of kept", "seen", "ml-latest-small", "popularity", "kept", "masked"),
    ("the same, of a trained model", "seen", "amazon-beauty", "gsau-rec", "kept", "masked"),
    (
        "the test history ends with the validation item",
        *("history", "amazon-beauty", "transitions", "training items alone", "with the validation item"),
    ),
    (
        "`rank = (scores > score).sum()` where many scores tie",
        *("ties", "ml-latest-small", "successors", "mean over the orders", "target first"),
    ),
    (
        "a repeated target is masked with the rest",
        *("repeats", "foursquare-nyc", "transitions", "masked, except the target", "masked, with the target"),
    ),
    ("1 + 99 candidates instead of all items", "sampled", "ml-latest-small", "popularity", "all items", "1 + 99"),
    (
        "a setting chosen on test",
        *("selection", "ml-latest-small", "recency, 15 half-lives", "chosen on validation", "chosen on test"),
    ),
    (
        "training knows what others did later",
        *("leak", "amazon-beauty", "transitions", "events before the period", "all of training"),
    ),
    (
        "one hit is enough, where a query has many targets",
        *("means", "foursquare-nyc", "popularity", "hits / targets", "at least one hit"),
    ),
    ("20-core instead of 5-core", "filters", "ml-latest-small", "popularity", "5-core", "20-core"),
)

# How docs/measure_protocols.py treats seen items, by section.
SEEN = {
    "seen": "as the columns say",
    "history": "kept",
    "ties": "masked",
    "repeats": "as the columns say; masked in the last two",
    "sampled": "masked",
    "selection": "masked",
    "splits": "kept",
    "leak": "kept",
    "means": "kept",
    "filters": "masked",
}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def results_table(name: str, brief: bool = False) -> str:
    """A paper's table beside what was measured, a block for every data set and protocol.

    A brief one leaves out what has not been run.
    """
    table = reproduce(name)
    shown = []
    for block in table.blocks():
        notes = [note for note in block.notes if not (brief and note.startswith("Not run yet"))]
        shown += [f"**{block.data}**, {block.protocol}:", markdown(block.header, block.rows), *notes]
    if brief:
        return "\n\n".join(shown)
    if not table.results:
        shown.insert(0, f"Nothing is measured yet; `dglrec reproduce {name} --run` does it.")
    return "\n\n".join([*shown, *table.not_begun()])


def pairs_table(name: str, row: str) -> str:
    """A row of a paper's table minus each other row, paired by user, in the table's first metric."""
    plan = PLANS[name]
    columns: dict[str, dict[str, str]] = {}
    for data, split in plan.data:
        block = reproduce(name, data=[data], splits=[split], compare=row).blocks()[0]
        at = block.header.index(f"{row} minus this, {plan.metrics[0]}")
        columns[f"{data}, by {split}"] = {line[0]: line[at] for line in block.rows if line[at]}
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    lines = [[f"`{row}`", *(column.get(row, "") for column in columns.values())] for row in rows]
    return markdown([f"`{row}` minus", *columns], lines)


def cost_table() -> str:
    """What a step of MDGR and its relatives costs, from tests/benchmarks/interests.json."""
    path = DOCS.parent / "tests" / "benchmarks" / "interests.json"
    measured = json.loads(path.read_text("utf-8"))
    systems, windows = measured["systems"], measured["windows_a_step"]
    base = systems["mip"]["median_ms"]
    rows = []
    for name, one in systems.items():
        least, median = one["least_ms"], one["median_ms"]
        rows.append([name, f"{least:.0f}", f"{median:.0f}", f"{median / base:.1f}", f"{one['parameters']:,}"])
    header = ["system", f"step of {windows} windows, ms at best", "median", "times MIP's", "parameters without items"]
    machine, versions = measured["machine"], measured["versions"]
    words = (
        f"{machine['processor']}, {measured['threads']} threads, PyTorch {versions['torch']}, numba {versions['numba']}"
    )
    return f"{markdown(header, rows)}\n\n{words}."


def trace_table() -> str:
    """Our training of GSAU (rec) on Toys beside the authors' log."""
    paths = sorted((RESULTS / "runs").glob("amazon-toys.leave-one-out.gsau-rec.*.jsonl"))
    if not paths:
        command = "dglrec reproduce gsau-table1 --run --row gsau-rec --data amazon-toys"
        return f"Nothing is measured yet; `{command}` does it."
    seeds = []
    for path in paths:
        rows = {row["epoch"]: row for row in map(json.loads, path.read_text("utf-8").splitlines())}
        shown = [
            [
                str(epoch + 1),
                str(loss),
                f"{rows[epoch]['loss_sum']:.0f}",
                f"{AUTHORS_NDCG[epoch]:.4f}" if epoch in AUTHORS_NDCG else "",
                f"{rows[epoch]['ndcg@20']:.4f}",
            ]
            for epoch, loss in AUTHORS_LOSS.items()
            if epoch in rows
        ]
        header = ["epoch", "loss, authors", "loss, here", "valid ndcg@20, authors", "valid ndcg@20, here"]
        seeds.append(f"Seed {path.stem.rpartition('.')[2]}:\n\n{markdown(header, shown)}")
    return "\n\n".join(seeds)


def presets_table() -> str:
    """Every preset, its class, and where it comes from."""
    rows = []
    for name, found in PRESETS.items():
        fields = " ".join(f"`{field}={value}`" for field, value in found.fields.items())
        rows.append([f"`{name}`", f"`{found.model.__name__}`", found.source, fields])
    return markdown(["preset", "class", "what it is", "fields that differ from the class's defaults"], rows)


def _figures() -> dict[str, dict[str, Any]]:
    return json.loads((DOCS / "figures.json").read_text("utf-8"))


def data_table() -> str:
    """What a leave-one-out split of each data set counts."""
    rows = [
        [
            f"`{name}`",
            *(f"{one[column]:,}" for column in ("users", "items", "interactions")),
            one["granularity"],
            *(f"{100 * one[column]:.1f} %" for column in ("tie_decided_test", "tie_decided_valid")),
            *(f"{100 * one[column]:.1f} %" for column in ("repeat_test", "cold_test")),
            f"{100 * one['older_test']:.2f} %",
        ]
        for name, one in _figures().items()
    ]
    header = ["data (5-core)", "users", "items", "interactions", "times in whole", "tie decides the test item"]
    header += ["tie decides the validation item", "test item is a repeat", "test item is cold", "older queries"]
    return markdown(header, rows)


def slices_table() -> str:
    """How dense the data of SelfGNN and HardGNN are, and how even in time."""
    known = json.loads((DOCS / "slices.json").read_text("utf-8"))
    rows = []
    for name, one in known.items():
        sizes = (f"{one[column]:,}" for column in ("users", "items", "interactions"))
        rows.append([f"`{name}`", *sizes, f"{100 * one['density']:.2f} %", f"{100 * one['largest_fifth']:.0f} %"])
    header = ["data (5-core)", "users", "items", "interactions", "density", "pairs in the largest fifth of the time"]
    return markdown(header, rows)


def ties_table() -> str:
    """What the tie rule and the treatment of seen items do to the models that count."""
    header = ["recall@10 on", "of"]
    header += [f"ties in {ties} order, seen {seen}" for ties in ("file", "random") for seen in ("kept", "masked")]
    rows = []
    for name, one in _figures().items():
        for preset in ("popularity", "recency", "transitions"):
            cells = [f"{preset}_{ties}_{seen}" for ties in ("file", "random") for seen in ("keep", "mask")]
            figures = [f"{one[cell]:.4f} ±{one[f'{cell}_error']:.4f}" for cell in cells]
            rows.append([f"`{name}`", f"`{preset}`", *figures])
    return markdown(header, rows)


def sample_table(kind: str, header: str, metrics: Sequence[str]) -> str:
    """What can be reached on a sample, by who knows how much of it."""
    figures = json.loads((DOCS / "samples.json").read_text("utf-8"))[kind]
    rows = [[name, *(f"{values[metric]:.3f}" for metric in metrics)] for name, values in figures.items()]
    return markdown([header, *(metric.replace("auc_pooled", "pooled AUC") for metric in metrics)], rows)


def samples_table() -> str:
    """The samples of one target, what can be learned from them, and the best that can be reached."""
    figures = json.loads((DOCS / "samples.json").read_text("utf-8"))
    learned = {
        "communities": "the user's group of items",
        "grammar": "the successor of the last item",
        "shop": "both, with skewed popularity, items that leave and come, and titles",
    }
    rows = [
        [f"`{kind}`" + " (default)" * (kind == "shop"), what, *(f"{value:.3f}" for value in figures[kind].values())]
        for kind, what in learned.items()
    ]
    return markdown(["kind", "what can be learned", *(f"best {metric}" for metric in figures["shop"])], rows)


def _protocols() -> dict[str, dict[str, Any]]:
    return json.loads((DOCS / "protocols.json").read_text("utf-8"))


def protocol_table(section: str) -> str:
    """A line of difference: what each reading of it gives."""
    found = _protocols()[section]
    columns = list(dict.fromkeys(column for row in found["rows"] for column in row["values"]))
    rows = []
    for row in found["rows"]:
        cells = []
        for column in columns:
            value, error = row["values"].get(column, ""), row["errors"].get(column)
            text = f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if value else ""
            cells.append(text if error is None else f"{text} ±{error:.4f}")
        queries = "" if row["queries"] is None else f"{row['queries']:,}"
        rows.append([f"`{row['data']}`", row["model"], queries, *cells])
    return f"Seen items: {SEEN[section]}.\n\n" + markdown([f"{found['metric']} on", "of", "queries", *columns], rows)


def differences_table() -> str:
    """How far one line moves a number."""
    measured, rows = _protocols(), []
    for line, section, data, model, before, after in DIFFERENCES:
        found = measured[section]
        (values,) = (row["values"] for row in found["rows"] if (row["data"], row["model"]) == (data, model))
        old, new = values[before], values[after]
        name = found["metric"]
        seen = {"seen": "kept, then masked", "repeats": "masked"}.get(section, SEEN[section])
        rows.append([line, f"`{data}`", model, name, seen, f"{old:.4f}", f"{new:.4f}", f"x {new / old:.2f}"])
    return markdown(["one line of difference", "data", "model", "metric", "seen items", "before", "after", ""], rows)


def builders_table() -> str:
    """What the graph builders cost."""
    measured = json.loads((DOCS / "graphs.json").read_text("utf-8"))
    rows = [
        [f"`{data}`", what, f"{one['edges']:,}", f"{one['seconds']:.3f}", f"{one['bytes'] / 1e6:.1f} MB"]
        for data, builders in measured.items()
        for what, one in builders.items()
    ]
    return markdown(["data", "builder", "edges (or nodes of trees)", "seconds", "size"], rows)


def choices_table() -> str:
    """What the defaults of GAL-Rec were chosen by, on validation."""
    told = json.loads((DOCS / "choices.json").read_text("utf-8"))
    rows = []
    for row in told["rows"]:
        setting = row["setting"]
        weights = [f"{setting[name]:g}" for name in setting if name.startswith("lambda")]
        learner = setting.get("learner", "near")
        contrasts = [", ".join(weights), setting["hide"], learner] if weights else ["no contrasts", "", ""]
        figures = (f"{row[metric]['value']:.4f} ±{row[metric]['error']:.4f}" for metric in ("ndcg@10", "recall@10"))
        rows.append([f"{setting['train.lr']:g}", *contrasts, *figures])
    header = ["`train.lr`", "`lambda1`, `lambda2`, `lambda3`", "`hide`", "`learner`", "validation ndcg@10", "recall@10"]
    draw, training = told["draw"], told["training"]
    words = f'`{told["preset"]}`, `sample("hops", seed={draw["seed"]}, users={draw["users"]}, items={draw["items"]})`'
    how = f"{training['epochs']} epochs, seed {training['seed']}, seen items masked, ± the standard error of a figure"
    return f"{markdown(header, rows)}\n\n{words}, {how}."


TABLES: dict[str, Callable[[], str]] = {
    **{name: partial(results_table, name) for name in tables()},
    "gsau-table1-brief": partial(results_table, "gsau-table1", brief=True),
    "mdgr-residual-pairs": partial(pairs_table, "mdgr-table2", "mdgr-residual"),
    "mdgr-cost": cost_table,
    "gsau-trace": trace_table,
    "presets": presets_table,
    "data": data_table,
    "ties": ties_table,
    "slices": slices_table,
    "samples": samples_table,
    "differences": differences_table,
    **{f"protocol-{section}": partial(protocol_table, section) for section in _protocols()},
    "builders": builders_table,
    "galrec-choices": choices_table,
    "sample-windows": partial(
        sample_table,
        "interests",
        'test windows of `windows(sample("interests"), by="user")`',
        ("recall@50", "auc_pooled"),
    ),
    "sample-drift": partial(
        sample_table,
        "drift",
        'test queries of `leave_one_out(sample("drift"))`, seen items masked',
        ("recall@10", "ndcg@10"),
    ),
}


def filled(text: str) -> str:
    """The text with every marked table written anew."""
    return MARKED.sub(lambda match: match[1] + TABLES[match[2]]() + "\n" + match[3], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(arguments)
    old = []
    for path in FILES:
        text = path.read_text("utf-8")
        new = filled(text)
        if new != text:
            old.append(path.name)
            if not args.check:
                path.write_text(new, "utf-8")
    what = "not up to date" if args.check else "written"
    print(f"{what}: {', '.join(old)}" if old else "all tables are up to date")
    return int(args.check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
