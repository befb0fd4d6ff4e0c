"""Measures what the defaults of GAL-Rec were chosen by, for docs/galrec.md, and writes it to docs/choices.json.

    python docs/measure_choices.py    # 40 minutes on one core; settings that are in the file already are left out
    python docs/make_tables.py

Validation of a smaller draw of the sample "hops" with a seed of its own; test queries are not used.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dglrec

FIGURES = Path(__file__).with_name("choices.json")
DRAW = {"seed": 5, "users": 1000, "items": 1500}
TRAINING = {"epochs": 8, "patience": 8, "seed": 1}  # a patience that stops none before its end
PRESET = "galrec-lightgcn"

Setting = dict[str, Any]


def _setting(lr: float, weight: float | None, hide: str = "linked") -> Setting:
    """Fields of a training: its rate, lambda_1 to lambda_3 (None for no contrasts), and what is not a negative."""
    if weight is None:
        return {"train.lr": lr, "gal": False}
    return {"train.lr": lr, "hide": hide} | {f"lambda{number}": weight for number in (1, 2, 3)}


# In the order in which they were tried; from the fourth on, each changes one thing of the best so far.
SETTINGS = (
    _setting(1e-3, None),
    _setting(1e-3, 0.1, "own"),
    _setting(3e-3, None),
    _setting(3e-3, 0.1, "own"),
    _setting(3e-3, 0.3, "own"),
    _setting(3e-3, 0.3),
    _setting(3e-3, 1.0),
    _setting(3e-3, 0.3) | {"learner": "far"},
)


def measured(setting: Setting) -> dict[str, Any]:
    """Figures of a training on validation, seen items masked."""
    fields = {name: value for name, value in setting.items() if not name.startswith("train.")}
    train = TRAINING | {name.removeprefix("train."): setting[name] for name in setting if name not in fields}
    split = dglrec.leave_one_out(dglrec.sample("hops", **DRAW))
    model = dglrec.models.preset(PRESET, split, **fields, train=train)
    dglrec.fit(model, split)
    found = dglrec.evaluate(model, split.valid, k=10, seen="mask")
    return {name: {"value": found[name], "error": found.standard_errors[name]} for name in ("recall@10", "ndcg@10")}


def main() -> int:
    """Measure what is not in the file yet."""
    told: dict[str, Any] = {"preset": PRESET, "draw": DRAW, "training": TRAINING}
    found = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    rows = found.pop("rows", []) if found.items() >= told.items() else []  # else they were measured otherwise
    for setting in SETTINGS:
        if setting in [row["setting"] for row in rows]:
            continue
        rows.append({"setting": setting, **measured(setting)})
        FIGURES.write_text(json.dumps(told | {"rows": rows}, indent=1) + "\n", "utf-8")
        print(setting, rows[-1]["ndcg@10"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
