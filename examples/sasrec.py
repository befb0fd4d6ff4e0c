"""SASRec: the next item of a history, by a causal transformer.

Paper: Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018, https://arxiv.org/abs/1808.09781. The
variant is RecBole's, which GSAU's Table 1 compares with: post-norm blocks, and cross-entropy over all items.

What calls what:

    examples/sasrec.py
      dglrec.models.SASRec(split)               dglrec/models/sasrec.py
      dglrec.fit(model, split)                  dglrec/train.py
        SASRec.batches                          windows of histories (dglrec/batches.py)
        SASRec.loss                             what `fit` calls for each batch
          CausalTransformer                     on packed rows, without padding (dglrec/nn/transformer.py)
          item_cross_entropy                    over all items, in chunks (dglrec/losses.py)
        dglrec.evaluate on split.valid          selects the epoch (dglrec/evaluate.py)
      run.test()                                reads the test queries, once

Commands:

    python examples/sasrec.py                                    a sample, offline
    python examples/sasrec.py --data amazon-beauty --out runs/sasrec-beauty

Numbers to expect on test, under the protocol that is printed, and the time on an AMD EPYC of 2 cores:

    sample          recall@10 .496, ndcg@10 .325; 21 seconds on 1 thread
    amazon-beauty   recall@10 .0813, ndcg@10 .0410; .86 hours on 1 thread

In the sample no user has an item twice, so that masking seen items helps: recall@10 is .529 then; the best reachable is
.70. `dglrec reproduce gsau-table1` prints the paper's figures beside those measured with this package.

Where to look next: position_batches in dglrec/batches.py, and CausalTransformer, which pads in attention only.
"""

import argparse

import torch

import dglrec
from dglrec.streams import Streams

# Arguments ------------------------------------------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample", help="a data set (see dglrec data list) or a file")
parser.add_argument("--targets", choices=("positions", "prefixes"), default="positions", help="what a step holds")
parser.add_argument("--epochs", type=int, help="maximum number of epochs (20 on the sample, 300 else)")
parser.add_argument("--seed", type=int, default=2020)
parser.add_argument("--device", default="auto")
parser.add_argument("--out", help="folder of the run; without it nothing is written")
parser.add_argument("--resume", action="store_true", help="continue the run in --out")
args = parser.parse_args()

# Data -----------------------------------------------------------------------------------------------------------------

log = dglrec.load(args.data, k_core=5)
split = dglrec.leave_one_out(log)
print(split)

# Model ----------------------------------------------------------------------------------------------------------------

train = {"seed": args.seed, "epochs": 20 if args.data.partition(":")[0] == "sample" else 300}
if args.epochs is not None:
    train["epochs"] = args.epochs
model = dglrec.models.SASRec(split, targets=args.targets, train=train)
print(f"{sum(weights.numel() for weights in model.parameters()):,} parameters; train fields {train}\n")

# A batch --------------------------------------------------------------------------------------------------------------
# Histories lie one after the other. In "positions" every position predicts the item after it, so that a window is read
# once for all of its targets; in "prefixes" each target has its own copy of the history.

batch = next(model.batches(split, Streams(args.seed)))
tokens, targets = len(batch.history.items), len(batch.target)
print(f"a step: {targets} targets from {len(batch.history)} histories with {tokens} items in all")

# A user-item graph is the same packed structure: the encoder reads it as it is.
few = dglrec.graphs.user_item(split.train.select(split.train.position < model.config.max_length))
model.eval()
with torch.no_grad():
    from_graph = model.encoder(few, model.item.weight, last=True)  # (U, d), the state after each user's last item
    from_log = model.encoder(dglrec.graphs.sequences(few), model.item.weight, last=True)
assert torch.equal(from_graph, from_log)

# Training -------------------------------------------------------------------------------------------------------------

run = dglrec.fit(model, split, out=args.out, device=args.device, resume=args.resume)
names = ["cross_entropy", "recall@20", "ndcg@20"]
print("\nepoch" + "".join(f"{name:>15}" for name in names))
for row in run.rows[:: max(1, len(run.rows) // 10)]:
    print(f"{row['epoch'] + 1:5}" + "".join(f"{row[name]:15.4f}" for name in names))
print(run)

# Test -----------------------------------------------------------------------------------------------------------------
# RecBole keeps items of the history in the ranking of sequential models; the line below masks them.

print(f"\n{run.test()}")
print("seen items masked: " + ", ".join(f"{name} {value:.4f}" for name, value in run.result["test_masked"].items()))
counts = dglrec.evaluate(dglrec.models.preset("transitions", split), split.test, k=(10, 50), seen="keep")
print("counting transitions, kept as above: " + ", ".join(f"{name} {value:.4f}" for name, value in counts.items()))

history = log.item_ids[log.item[:3]].tolist()
print(f"\nafter {history}:\n{model.recommend(history=history, k=5)}")
