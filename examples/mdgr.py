"""MDGR: several vectors a user, from the clusters of a history that is drawn into graphs again and again.

Paper: Xiao et al., Learning Multi-interest Embedding with Dynamic Graph Cluster for Sequential Recommendation.
docs/mdgr.md walks through its equations, whose numbers stand below.

What calls what:

    examples/mdgr.py
      dglrec.windows(log)                       50 items to read, 50 to find, 50 that the user never touched
      dglrec.models.preset("mdgr", split)       dglrec/models/mdgr.py
      dglrec.fit(model, split)                  dglrec/train.py
        MDGR.batches                            windows (dglrec/batches.py)
        MDGR.loss                               Eq. 17; what `fit` calls for each batch
          InterestAttention                      Eq. 4, 5, 6 (dglrec/nn/interests.py)
          MDGR.sub_graphs, MDGR.attend, m times  cluster and connect; move: Eq. 7 to 9, 10 to 13
            ward                                dglrec/graphs/clustering.py
            weighted_cosine, sparsify           Eq. 7, 8, 9 (dglrec/graphs/interests.py)
          InterestWeight, augmented             Eq. 15, 16
      run.test()                                reads the test windows, once

Commands:

    python examples/mdgr.py                                      a sample, offline
    python examples/mdgr.py --preset mdgr-residual               the same, as the model is mended in docs/mdgr.md
    python examples/mdgr.py --data foursquare-nyc --by time      check-ins, cut at a point in time

Numbers to expect on the sample's test windows, where chance is .5; a minute on one core of an AMD EPYC:

    mdgr            recall@50 .538, pooled AUC .553; all interests are nearly one vector, as docs/mdgr.md explains
    mdgr-residual   recall@50 .523, pooled AUC .541 after so few steps; its interests differ

On the full sample (`dglrec reproduce mdgr-table2`) the second is well ahead.

Where to look next: MDGR.rounds in dglrec/models/mdgr.py; examples/interest_graphs.py draws what it does.
"""

import argparse

import torch

import dglrec

# Arguments ------------------------------------------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample", help="a data set (see dglrec data list) or a file")
parser.add_argument("--by", default="user", choices=["window", "user", "time"], help="which windows are held out")
parser.add_argument("--preset", default="mdgr", help="mdgr, mdgr-residual, or mdgr-w, -dgc, -pt, -p, -t")
parser.add_argument("--m", type=int, help="times m that the graph is built (5)")
parser.add_argument("--epochs", type=int, help="most epochs (15 on the sample, 100 else)")
parser.add_argument("--seed", type=int, default=2020)
parser.add_argument("--device", default="auto")
parser.add_argument("--out", help="folder of the run; without it nothing is written")
args = parser.parse_args()

# Data -----------------------------------------------------------------------------------------------------------------
# The sample has users who follow five interests at a time, and gives them up for others now and then.

if args.data == "sample":
    log = dglrec.sample("interests", users=400, items=2500, seed=args.seed)
else:
    log = dglrec.load(args.data).one_pass_core()
split = dglrec.windows(log, by=args.by, seed=args.seed)
print(split)

# Model ----------------------------------------------------------------------------------------------------------------

epochs = args.epochs if args.epochs is not None else (15 if args.data == "sample" else 100)
fields = {"train": {"seed": args.seed, "epochs": epochs}} | ({} if args.m is None else {"m": args.m})
model = dglrec.models.preset(args.preset, split, **fields)
table = model.item.weight.numel()
print(f"{sum(weights.numel() for weights in model.parameters()) - table:,} parameters beside {table:,} of the items\n")

# Training -------------------------------------------------------------------------------------------------------------

run = dglrec.fit(model, split, out=args.out, device=args.device)
print(run)
test = run.test()
print(f"\n{test}")
for name in ("popularity", "transitions"):
    counts = dglrec.evaluate(dglrec.models.preset(name, split), split.test, k=50, metrics=("recall", "auc_pooled"))
    print(f"{name}, same protocol: " + ", ".join(f"{metric} {value:.4f}" for metric, value in counts.items()))

# One user's interests -------------------------------------------------------------------------------------------------

query = split.test[:1]
model.eval()
with torch.no_grad():
    vectors = model.query_vectors(query)[0]  # (k, d + 1)
    scores = vectors @ model.item_vectors().T  # (k, M)
print(f"\nthe interests of user {log.user_ids[query.user[0]]}, each with its three best items:")
for number, row in enumerate(scores):
    names = [str((log.titles if log.titles is not None else log.item_ids)[item]) for item in row.topk(3).indices]
    print(f"  {number}: " + "; ".join(names))
