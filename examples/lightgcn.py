"""LightGCN: propagation without weights over the user-item graph, trained by BPR.

Paper: He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR 2020,
https://doi.org/10.1145/3397271.3401063. The settings are those of RecBole, which GSAU's Table 1 compares with: two
layers where the original has three, and unsquared norms.

What calls what:

    examples/lightgcn.py
      dglrec.models.LightGCN(split)             dglrec/models/lightgcn.py
      dglrec.fit(model, split)                  dglrec/train.py
        LightGCN.batches                        pairs, each with one unseen item (dglrec/batches.py)
        LightGCN.loss                           what `fit` calls for each batch
          LightGCNEncoder                       D^-1/2 A D^-1/2 x, mean of the layers (dglrec/nn/propagation.py)
          bpr                                   dglrec/losses.py
        dglrec.evaluate on split.valid          selects the epoch (dglrec/evaluate.py)
      run.test()                                reads the test queries, once

Commands:

    python examples/lightgcn.py                                  a sample, offline
    python examples/lightgcn.py --data amazon-beauty --out runs/lightgcn-beauty

Numbers to expect on test, under the protocol that is printed, and the time on an AMD EPYC of 2 cores:

    sample          recall@10 .255, ndcg@10 .136; 5 seconds on 1 thread
    amazon-beauty   recall@10 .0428, ndcg@10 .0214; .31 hours on 1 thread

Most of what can be learned in the sample is in the order of the items, which LightGCN does not see: the best reachable
recall@10 is .70. `dglrec reproduce gsau-table1` prints the paper's figures beside those measured with this package.

Where to look next: Adjacency in dglrec/nn/propagation.py, which never makes an array with one row per edge;
examples/build_graphs.py, the graph alone.
"""

import argparse

import torch

import dglrec
from dglrec.nn import message_passing

# Arguments ------------------------------------------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample", help="a data set (see dglrec data list) or a file")
parser.add_argument("--layers", type=int, default=2)
parser.add_argument("--epochs", type=int, help="maximum number of epochs (40 on the sample, 300 else)")
parser.add_argument("--seed", type=int, default=2020)
parser.add_argument("--device", default="auto")
parser.add_argument("--out", help="folder of the run; without it nothing is written")
parser.add_argument("--resume", action="store_true", help="continue the run in --out")
args = parser.parse_args()

# Data -----------------------------------------------------------------------------------------------------------------

log = dglrec.load(args.data, k_core=5)
split = dglrec.leave_one_out(log)
graph = dglrec.graphs.user_item(split.train, unique=True)  # repeats merged: propagation counts a pair once
print(f"{split}\n{graph}")

# Model ----------------------------------------------------------------------------------------------------------------

train = {"seed": args.seed, "epochs": 40 if args.data.partition(":")[0] == "sample" else 300}
if args.epochs is not None:
    train["epochs"] = args.epochs
model = dglrec.models.LightGCN(split, layers=args.layers, train=train)
print(f"{sum(weights.numel() for weights in model.parameters()):,} parameters; train fields {train}\n")

# Propagation by hand --------------------------------------------------------------------------------------------------
# The model takes the structure from the DGL graph once and runs on tensors. DGL's own message passing gives the same.

x = (model.user.weight.detach(), model.item.weight.detach())  # (U, d), (M, d)
fast = torch.cat(model.encoder(graph, x))
reference = torch.cat(message_passing(graph, x, layers=args.layers))
gap = float((fast - reference).abs().max())
print(f"propagation on tensors and by DGL differ by at most {gap:.1e}")
assert gap < 1e-5

# Training -------------------------------------------------------------------------------------------------------------

run = dglrec.fit(model, split, out=args.out, device=args.device, resume=args.resume)
names = ["bpr", "l2", "recall@20", "ndcg@20"]
print("\nepoch" + "".join(f"{name:>12}" for name in names))
for row in run.rows[:: max(1, len(run.rows) // 10)]:
    print(f"{row['epoch'] + 1:5}" + "".join(f"{row[name]:12.5f}" for name in names))
print(run)

# Test -----------------------------------------------------------------------------------------------------------------
# Seen items are masked, as in RecBole's protocol for models without a sequence.

print(f"\n{run.test()}")
counts = dglrec.evaluate(dglrec.models.preset("popularity", split), split.test, k=(10, 50))
print("popularity, same protocol: " + ", ".join(f"{name} {value:.4f}" for name, value in counts.items()))

# A new user has no row in the user table: the history alone is propagated once (`fold_in`).
history = log.item_ids[log.item[:3]].tolist()
print(f"\nafter {history}:\n{model.recommend(history=history, k=5)}")
