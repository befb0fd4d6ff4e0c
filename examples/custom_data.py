"""Your own data: from a CSV file with its own column names to recommendations.

    python examples/custom_data.py

Writes the orders of a small bookshop as CSV, as another program might have left them, and goes on as you would:

    look at the file      dglrec.data.check
    read it               dglrec.load(path, columns=..., items=..., k_core=5)
    cut it                dglrec.leave_one_out, or dglrec.time_point for a test in the future of all users
    train, test           dglrec.fit, dglrec.evaluate
    save, load, recommend for a new user

To use your own file, give it and its columns:

    python examples/custom_data.py --csv orders.csv --user customer --item product --time bought_at

docs/data.md describes the formats.
"""

import argparse
from itertools import count
from pathlib import Path

import numpy as np

import dglrec

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--csv", help="your file; without it one is written")
parser.add_argument("--user", default="customer", help="its column of user ids")
parser.add_argument("--item", default="product", help="its column of item ids")
parser.add_argument("--time", default="bought_at", help="its column of times: seconds since 1970")
parser.add_argument("--k-core", type=int, default=5, help="keep users and items with at least this many events")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--out", default="runs", help="where the new folder goes")
args = parser.parse_args()

names = (Path(args.out) / f"custom-data-{number}" for number in count(1))
folder = next(name for name in names if not name.exists())

# 1. A file ------------------------------------------------------------------------------------------------------------
# 600 readers with two favourite genres each, who usually read a series in order.

orders, books = args.csv, None
if orders is None:
    orders, books = folder / "orders.csv", folder / "books.csv"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    genres = ["crime", "travel", "poetry", "history", "cookery", "science"]
    with open(books, "w", encoding="utf-8") as file:
        file.write("item_id,title\n")
        for genre in genres:
            file.writelines(f'{genre}-{volume},"{genre.capitalize()}, volume {volume}"\n' for volume in range(1, 31))
    with open(orders, "w", encoding="utf-8") as file:
        file.write("order_number,customer,product,bought_at\n")
        number = 0
        for reader in range(600):
            likes = rng.permutation(genres)[:2]
            volume = dict.fromkeys(likes, int(rng.integers(1, 15)))
            now = 1_600_000_000 + int(rng.integers(400 * 86_400))
            for _ in range(int(rng.integers(4, 16))):
                genre = likes[int(rng.random() < 0.3)]
                now += int(rng.integers(3600, 20 * 86_400))
                number += 1
                file.write(f"{number},reader{reader:03},{genre}-{volume[genre]},{now}\n")
                volume[genre] += 1 if rng.random() < 0.9 else 2

# 2. A look at it ------------------------------------------------------------------------------------------------------
# Also as `dglrec data check orders.csv --columns user_id=customer ...`. Bad lines are named with their numbers.

columns = {"user_id": args.user, "item_id": args.item, "timestamp": args.time}
report = dglrec.data.check(orders, columns=columns)
print(report)
if not report.ok:
    raise SystemExit(2)

# 3. Reading, filtering ------------------------------------------------------------------------------------------------
# Columns that are not named (order_number) are ignored. Ids are kept as they are, as text.

name = "bookshop" if args.csv is None else None  # of your own file: as the file
log = dglrec.load(orders, columns=columns, items=books, k_core=args.k_core, name=name)
print(f"\n{log}, filters {log.filters}")

# 4. Two ways to cut ---------------------------------------------------------------------------------------------------
# leave_one_out: as in the papers. Each user's last item is the target, and the model knows what other users did later.
# time_point: as in practice. Nothing after a cut-off is known; the targets are all of a user's items from then on.

train = {"lr": 5e-3, "batch_size": 256, "epochs": args.epochs}
small = {"layers": 1, "dropout": 0.2, "attention_dropout": 0.2, "seen": "mask", "train": train}
for split in (dglrec.leave_one_out(log), dglrec.time_point(log, valid_share=0.1, test_share=0.1)):
    print(f"\n{split}")
    model = dglrec.models.preset("sasrec", split, **small)
    run = dglrec.fit(model, split, out=folder / f"sasrec-by-{split.kind}")
    for one in (dglrec.models.preset("popularity", split), dglrec.models.preset("transitions", split), model):
        metrics = dglrec.evaluate(one, split.test, k=10)
        error = metrics.standard_errors.get("recall@10", float("nan"))  # a single query has none
        print(f"  {one.preset:12} recall@10 {metrics['recall@10']:.4f} +-{error:.4f}")
    print(f"  queries older than what the model may know: {split.counts['older_share_test']:.0%}")

# 5. A new user --------------------------------------------------------------------------------------------------------
# The run folder holds all that is needed: weights, ids, titles, the split. No user id is needed.

model = dglrec.load_model(run.folder)
history = log.item_ids[log.item[log.user == 0]].tolist()[:3]
print(f"\na new user with the history {', '.join(history)} may like:\n{model.recommend(history=history, k=5)}")

# 6. The graph, for other code -----------------------------------------------------------------------------------------

graph = dglrec.graphs.user_item(log)
print(f"\n{graph}\n\nall files are in {folder}")
