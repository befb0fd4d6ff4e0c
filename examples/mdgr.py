"""MDGR: several vectors per user, from the clusters of a history that is connected to graphs again and again.

Paper: Xiao et al., Learning Multi-interest Embedding with Dynamic Graph Cluster for Sequential Recommendation.
docs/mdgr.md walks through its equations, whose numbers are used below.

What calls what:

    examples/mdgr.py
      dglrec.windows(log)                       50 items to read, 50 to find, 50 that the user never has
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
      model.recommend(user, per_interest=3)     the best items of each interest

Commands:

    python examples/mdgr.py                                      a sample, offline
    python examples/mdgr.py --preset mdgr-residual               the same, with the remedy of docs/mdgr.md
    python examples/mdgr.py --data foursquare-nyc --by time      check-ins, cut at a point in time

Numbers to expect on the sample's test windows, where chance is .5; 20 s on one core of an AMD EPYC:

    mdgr            recall@50 .732, pooled AUC .794
    mdgr-residual   recall@50 .764, pooled AUC .823

The lists at the end show the difference: those of mdgr hardly depend on the interest, those of mdgr-residual do;
docs/mdgr.md gives the reason. The sample is small and the learning rate high, so that it does not take long; tables
on larger data are in docs/mdgr.md.

Where to look next: MDGR.rounds in dglrec/models/mdgr.py; examples/interest_graphs.py draws what it does.
"""

import argparse

import dglrec

# Arguments ------------------------------------------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample", help="a data set (see dglrec data list) or a file")
parser.add_argument("--by", default="user", choices=["window", "user", "time"], help="which windows are held out")
parser.add_argument("--preset", default="mdgr", help="mdgr, mdgr-residual, or mdgr-w, -dgc, -pt, -p, -t")
parser.add_argument("--m", type=int, help="number of times m that the graph is built (5)")
parser.add_argument("--epochs", type=int, help="maximum number of epochs (8 on the sample, 100 else)")
parser.add_argument("--seed", type=int, default=2020)
parser.add_argument("--device", default="auto")
parser.add_argument("--out", help="folder of the run; without it nothing is written")
args = parser.parse_args()

# Data -----------------------------------------------------------------------------------------------------------------
# The users of the sample follow five interests at a time, and replace them by others now and then.

if args.data == "sample":
    log = dglrec.sample("interests", users=300, items=400, seed=args.seed)
    train = {"epochs": 8, "batch_size": 32, "lr": 5e-3}  # 30 steps per epoch
else:
    log = dglrec.load(args.data).one_pass_core()
    train = {"epochs": 100}  # and the preset's 128 windows per step
split = dglrec.windows(log, by=args.by, seed=args.seed)
print(split)

# Model ----------------------------------------------------------------------------------------------------------------

train |= {"seed": args.seed} | ({} if args.epochs is None else {"epochs": args.epochs})
model = dglrec.models.preset(args.preset, split, train=train, **({} if args.m is None else {"m": args.m}))
table = model.item.weight.numel()
print(f"{sum(weights.numel() for weights in model.parameters()) - table:,} parameters besides {table:,} of the items\n")

# Training -------------------------------------------------------------------------------------------------------------

run = dglrec.fit(model, split, out=args.out, device=args.device)
print(run)
test = run.test()
print(f"\n{test}")
for name in ("popularity", "transitions"):
    counts = dglrec.evaluate(dglrec.models.preset(name, split), split.test, k=50, metrics=("recall", "auc_pooled"))
    print(f"{name}, same protocol: " + ", ".join(f"{metric} {value:.4f}" for metric, value in counts.items()))

# One user's interests -------------------------------------------------------------------------------------------------

user = log.user_ids[split.test.user[0]]
print(f"\nthe interests of user {user}, named by items of the history, each with its three best new items:")
print(model.recommend(user=user, per_interest=3))
