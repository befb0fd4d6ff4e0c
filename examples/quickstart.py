"""The first minute with dglrec: from a log of interactions to a trained recommender.

    python examples/quickstart.py

Needs no download and no GPU, and takes well under a minute on two cores. It draws the log of a small shop whose best
scores are known, cuts it into a past and a future, and compares models that only count with two that learn:

    data.sample -> leave_one_out -> models.preset -> fit -> evaluate -> model.recommend

Numbers to expect, recall@10 on test: .50 for counting transitions, .54 for SASRec and for GSAU (rec), .70 for an
oracle that knows the rules of the shop.

Everything it writes goes into a new folder under `runs/`.
"""

import argparse
import json
import time
from itertools import count
from pathlib import Path

import dglrec

# Arguments ------------------------------------------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--users", type=int, default=2000)
parser.add_argument("--items", type=int, default=1000)
parser.add_argument("--epochs", type=int, default=8, help="of each model that learns")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", default="runs", help="where the new folder goes")
args = parser.parse_args()

start = time.perf_counter()
names = (Path(args.out) / f"quickstart-{number}" for number in count(1))
folder = next(name for name in names if not name.exists())

# Data -----------------------------------------------------------------------------------------------------------------
# In the shop a user shops in one department, and often buys the item that goes with the last one. Some items are more
# popular than others, a tenth of all steps is noise, and in the middle of the period part of the assortment changes.

log = dglrec.data.sample("shop", users=args.users, items=args.items, seed=args.seed)
split = dglrec.leave_one_out(log)  # the last item of each user is for the test, the one before it for validation
graph = dglrec.graphs.user_item(split.train)  # a DGL graph; the models below build it themselves
print(f"{log}\n{split}\n{graph.num_edges('interacts'):,} edges in the training graph\n")

# Models ---------------------------------------------------------------------------------------------------------------
# In this shop no user buys an item twice, so all models mask the items of the history. The two that learn are small
# here, with a large learning rate, to finish in seconds. GSAU (rec) compares cosines over a temperature, which needs
# fewer epochs than the paper's form; that one is `examples/gsau.py`.

cosine = {"normalise_item": True, "temperature": 0.1, "rank": "cosine"}
small = {"layers": 1, "inner": 128, "dropout": 0.2, "attention_dropout": 0.2, "seen": "mask"}
learn = {"lr": 5e-3, "batch_size": 256, "epochs": args.epochs, "seed": args.seed}
models = [
    dglrec.models.preset("popularity", split),
    dglrec.models.preset("recency", split),
    dglrec.models.preset("transitions", split),
    dglrec.models.preset("sasrec", split, **small, train=learn),
    dglrec.models.preset("gsau-rec", split, **small, **cosine, train=learn),
]

# Training and test ----------------------------------------------------------------------------------------------------
# `fit` keeps the epoch that is best on validation; the test queries are read once, afterwards.

results = {}
for model in models:
    run = dglrec.fit(model, split, out=folder / model.preset)
    results[model.preset] = dglrec.evaluate(model, split.test, k=(10, 50))
    how = f"{len(run.rows)} epochs in {run.result['train_seconds']:.1f} s" if run.rows else "counts only"
    print(f"{model.preset:12} {how}", flush=True)

oracle = dglrec.data.sample_oracle("shop", users=args.users, items=args.items, seed=args.seed)
best = oracle.best_scores(split.test, k=(10, 50))  # what to expect with the process known

# Results --------------------------------------------------------------------------------------------------------------

print(f"\n{results['gsau-rec'].protocol}\n")
columns = ("recall@10", "ndcg@10", "recall@50", "ndcg@50")
print(f"{'':12}" + "".join(f"{column:>12}" for column in columns))
for name, metrics in [*results.items(), ("reachable", best)]:
    print(f"{name:12}" + "".join(f"{metrics[column]:12.4f}" for column in columns))
error = max(metrics.standard_errors["recall@10"] for metrics in results.values())
print(f"(standard error of recall@10: at most {error:.4f}; 'reachable' is what knowing the shop's rules would give)")

table = {name: metrics.to_dict() for name, metrics in results.items()}  # each with its protocol
(folder / "results.json").write_text(json.dumps({"results": table, "reachable": best}, indent=1))

# Recommendations ------------------------------------------------------------------------------------------------------

user = str(log.user_ids[0])
history = log.item[log.user == 0]
print(f"\nlast items of {user}, most recent last:")
print("\n".join(f"      {log.item_ids[item]:9} {log.titles[item]}" for item in history[-5:]))
print("gsau-rec recommends:")
print(models[-1].recommend(user=user, k=5))

print(f"""
Curves of the training:       {folder / "gsau-rec" / "curves.png"}
The same model from its files: dglrec recommend {folder / "gsau-rec"} --user {user}
Done in {time.perf_counter() - start:.0f} s. Next:
  python examples/build_graphs.py    the graph alone: DGL's sampler, message passing, networkx
  python examples/custom_data.py     your own CSV file
  python examples/gsau.py            the paper's model, step by step (docs/gsau.md)
  dglrec data list                   real data sets
""")
