"""SelfGNN: one graph per time slice, read in order; and which slices the model learns to trust.

Paper: Liu, Xia, Huang, SelfGNN: Self-Supervised Graph Neural Networks for Sequential Recommendation, SIGIR 2024.
docs/selfgnn.md walks through its equations, whose numbers (those of HardGNN's paper) are used below.

What calls what:

    examples/selfgnn.py
      dglrec.graphs.time_slices(log)            one relation per slice (dglrec/graphs/time_slices.py)
      dglrec.models.preset("selfgnn", split)    dglrec/models/selfgnn.py
      dglrec.fit(model, split)                  dglrec/train.py
        SelfGNN.batches                         a recent target of each user, unseen items, edges for Eq. 10
        SelfGNN.loss                            what `fit` calls for each batch
          SliceEncoder                          Eq. 1, 2, all slices in one pass (dglrec/nn/slices.py)
          IntervalFusion                        Eq. 3, 4, 5 (dglrec/nn/intervals.py)
          InstanceEncoder                       Eq. 6, 7, 8
          hinge                                 of Eq. 9 (dglrec/losses.py)
          Reliability                           w of Eq. 10
      run.test()                                reads the test queries, once

Commands:

    python examples/selfgnn.py                                   a sample, offline
    python examples/selfgnn.py --slices 1                        the same model without slices
    python examples/selfgnn.py --data ml-latest-small --by equal_counts --slices 5 --negatives 999

In the sample "drift" users' interests change at known times, and the last slices of a quarter of the users are noise.

Numbers to expect on test, under the protocol that is printed, and the time on an AMD EPYC of 2 cores:

    sample          recall@10 .312, ndcg@10 .145; 12 seconds on 1 thread

Their standard errors are .02 and .01, and transitions, which count what follows what, are within them. The weights w
do not distinguish the noisy users from others here, as with beta = 1e-6 they hardly learn; docs/selfgnn.md says where
they do. `dglrec reproduce hardgnn-table1` prints what was measured on real data.

Where to look next: examples/time_slices.py, the graph alone; examples/hardgnn.py, hard negatives.
"""

import argparse

import numpy as np

import dglrec
from dglrec.nn import slice_message_passing

# Arguments ------------------------------------------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample", help="a data set (see dglrec data list) or a file")
parser.add_argument("--preset", default="selfgnn", help="selfgnn, selfgnn-code, -prefixes, -inductive, -causal")
parser.add_argument("--slices", type=int, default=6, help="number of time slices T")
parser.add_argument("--by", default="equal_lengths", choices=["equal_lengths", "equal_counts", "month"])
parser.add_argument("--negatives", type=int, help="items drawn per target, 999 in the paper; without it all are ranked")
parser.add_argument("--epochs", type=int, help="maximum number of epochs (40 on the sample, 150 else)")
parser.add_argument("--seed", type=int, default=2020)
parser.add_argument("--device", default="auto")
parser.add_argument("--out", help="folder of the run; without it nothing is written")
args = parser.parse_args()

# Data -----------------------------------------------------------------------------------------------------------------

drift = {"users": 600, "items": 300, "seed": args.seed}
log = dglrec.sample("drift", **drift) if args.data == "sample" else dglrec.load(args.data, k_core=5)
split = dglrec.leave_one_out(log, negatives=args.negatives)
n = None if args.by == "month" else args.slices
graph = dglrec.graphs.time_slices(split.train, args.by, n=n)
print(split)
print("edges of the slices: " + ", ".join(str(graph.num_edges(t)) for t in dglrec.graphs.slice_names(graph)))

# Model ----------------------------------------------------------------------------------------------------------------
# On the small sample smaller values are enough; the fields are explained by help(dglrec.models.SelfGNNConfig).

fields = {"slices": args.slices, "by": args.by, "train": {"seed": args.seed, "epochs": 150}}
if args.data == "sample":
    fields |= {"dim": 32, "heads": 4, "negatives": 20, "max_length": 40, "dropout": 0.1, "pool": "mean", "reg": 1e-4}
    fields["train"] |= {"epochs": 40, "lr": 5e-3, "batch_size": 128}
if args.slices == 1:
    fields["past"] = False  # a single slice does not end before any target
if args.epochs is not None:
    fields["train"]["epochs"] = args.epochs
model = dglrec.models.preset(args.preset, split, **fields)
print(f"{sum(weights.numel() for weights in model.parameters()):,} parameters\n")

# Slices by hand -------------------------------------------------------------------------------------------------------
# The model runs on tensors; DGL's own message passing over the relations of the graph gives the same.

tables = (model.user.detach(), model.item.detach())  # (T, U, d), (T, M, d)
fast = model.encoder(graph, tables)
c = model.config
reference = slice_message_passing(graph, tables, c.layers, c.norm, c.slope)
gap = max(float((one - other).abs().max()) for one, other in zip(fast, reference, strict=True))
print(f"slices on tensors and by DGL differ by at most {gap:.1e}")
assert gap < 1e-3

# Training -------------------------------------------------------------------------------------------------------------

run = dglrec.fit(model, split, out=args.out, device=args.device)
names = [model.config.loss, "self_augmented", "l2", "ndcg@10"]
print("\nepoch" + "".join(f"{name:>16}" for name in names))
for row in run.rows[:: max(1, len(run.rows) // 10)]:
    print(f"{row['epoch'] + 1:5}" + "".join(f"{row[name]:16.5f}" for name in names))
print(f"{run}\n\n{run.test()}")
for name in ("popularity", "transitions"):
    counts = dglrec.evaluate(dglrec.models.preset(name, split), split.test, k=10, seen=model.seen)
    print(f"{name}, same protocol: " + ", ".join(f"{metric} {value:.4f}" for metric, value in counts.items()))

# Which slices count ---------------------------------------------------------------------------------------------------
# w of Eq. 10, learned without knowing whose slices are noise.

weights = model.slice_weights().cpu().numpy()  # (T, U)
print("\nreliability of the slices, mean over users: " + ", ".join(f"{value:.3f}" for value in weights.mean(1)))
if args.data == "sample":
    noisy = dglrec.data.sample_oracle("drift", log=log, **drift).noisy
    late = weights[-2:].mean(0)  # (U,)
    below = np.mean(late[noisy][:, None] < late[~noisy])
    print(f"in the last two, noisy users ({noisy.sum()}) have lower values than others in {below:.0%} of pairs;")
    print("50% is no difference, and 6% to either side is within chance")
