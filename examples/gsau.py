"""GSAU (rec): a graph encoder and a sequential encoder in one embedding space, joined by alignment and uniformity.

Paper: Cao et al., Graph-Sequential Alignment and Uniformity: Toward Enhanced Recommendation Systems, WWW 2025
Companion, https://doi.org/10.1145/3701716.3715498. docs/gsau.md goes through its equations, which are cited by number.

What calls what:

    examples/gsau.py
      dglrec.models.preset("gsau-rec", split)   dglrec/models/gsau.py
      dglrec.fit(model, split)                  dglrec/train.py
        GSAU.batches                            edges, and prefixes of histories (dglrec/batches.py)
        GSAU.loss                               Eq. 10; what `fit` calls for each batch
          LightGCNEncoder                       Eq. 1, 2 (dglrec/nn/propagation.py)
          CausalTransformer                     Eq. 3 (dglrec/nn/transformer.py)
          alignment, uniformity, ...            Eq. 4, 5 (dglrec/losses.py)
        dglrec.evaluate on split.valid          selects the epoch (dglrec/evaluate.py)
      run.test()                                reads the test queries, once

Commands:

    python examples/gsau.py                                      a sample, offline, about a minute on two cores
    python examples/gsau.py --data amazon-toys --out runs/gsau-toys      the paper's experiment

Numbers to expect on test, seen items kept, and the time on an AMD EPYC of 2 cores:

    amazon-beauty   recall@10 .0872, ndcg@10 .0462; 1.59 hours on 2 threads
    amazon-toys     recall@10 .0915, ndcg@10 .0472; 2.05 hours on 2 threads

`dglrec reproduce gsau-table1` prints the paper's figures beside those measured with this package.

Where to look next: GSAU.loss in dglrec/models/gsau.py is the whole method; examples/lightgcn.py and examples/sasrec.py
are its two halves alone.
"""

import argparse

import torch.nn.functional as F

import dglrec
from dglrec.losses import alignment, cross_uniformity, item_cross_entropy, uniformity
from dglrec.streams import Streams

# Arguments ------------------------------------------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample", help="a data set (see dglrec data list) or a file")
parser.add_argument("--align", action="store_true", help="GSAU: alignment in place of cross-entropy")
parser.add_argument("--gamma", type=float, default=0.1, help="weight of uniformity, Eq. 10")
parser.add_argument("--epochs", type=int, help="maximum number of epochs (12 on the sample, 300 else)")
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
# The defaults are the authors' settings. They learn slowly: the cross-entropy of a unit vector with raw items is nearly
# flat at first. On the sample, cosines over a temperature, less dropout and a larger learning rate are used instead, so
# that there is something to see in a minute.

fields = {"gamma": args.gamma, "train": {"seed": args.seed}}
if args.data.partition(":")[0] == "sample":
    fields |= {"normalise_item": True, "temperature": 0.1, "rank": "cosine", "dropout": 0.2, "attention_dropout": 0.2}
    fields["train"] |= {"lr": 5e-3, "epochs": 12}
if args.epochs is not None:
    fields["train"] |= {"epochs": args.epochs}
model = dglrec.models.preset("gsau" if args.align else "gsau-rec", split, **fields)
print(f"{sum(weights.numel() for weights in model.parameters()):,} parameters, fields {fields}\n")

# One step by hand -----------------------------------------------------------------------------------------------------
# What GSAU.loss does with a batch, written out. A step takes a batch of edges and an independent batch of prefixes.

model.eval()  # no dropout, so that both ways give the same numbers
c = model.config
batch = next(model.batches(split, Streams(args.seed)))
edges, prefixes = batch.edges, batch.prefixes

graph = dglrec.graphs.user_item(split.train, unique=True)
users, items = model.graph_encoder(graph, (model.user.weight, model.item.weight))  # Eq. 1 and 2, (U, d), (M, d)
user, item = F.normalize(users[edges.user]), F.normalize(items[edges.item])  # (B, d) each, the pairs of Eq. 6

raw = model.sequence_encoder(prefixes.history, model.item.weight, last=True)  # Eq. 3, (B, d)
sequence, target = F.normalize(raw), F.normalize(model.item(prefixes.target))  # (B, d) each, the pairs of Eq. 8
negative = target.roll(-1, dims=0)  # rows are in random order: another row's target is not an item of the user's

terms = {
    "graph_alignment": alignment(user, item),  # Eq. 4
    "graph_uniformity": c.gamma * (uniformity(item) + uniformity(user)),  # Eq. 5 over Eq. 7
}
if c.rec:
    table = F.normalize(model.item.weight) if c.normalise_item else model.item.weight
    terms["cross_entropy"] = item_cross_entropy(sequence / c.temperature, table, prefixes.target)
else:
    terms["sequence_alignment"] = alignment(sequence, target)
spread = uniformity(target) + uniformity(sequence) + cross_uniformity(sequence, negative)  # Eq. 5 over Eq. 9
terms["sequence_uniformity"] = c.gamma * spread

print("one step before training     by hand    GSAU.loss")
for name, value in model.loss(batch).items():
    print(f"  {name:24} {terms[name].item():10.5f} {value.item():12.5f}")
    assert abs(terms[name].item() - value.item()) < 1e-4

# Training -------------------------------------------------------------------------------------------------------------

run = dglrec.fit(model, split, out=args.out, device=args.device, resume=args.resume)
names = [*terms, "ndcg@20"]
print("\nepoch" + "".join(f"{name:>21}" for name in names))
for row in run.rows[:: max(1, len(run.rows) // 10)]:
    print(f"{row['epoch'] + 1:5}" + "".join(f"{row[name]:21.4f}" for name in names))
print(run)

# Test -----------------------------------------------------------------------------------------------------------------
# The paper keeps items of the history in the ranking of sequential models; the second line masks them.

test = run.test()
print(f"\n{test}")
print("seen items masked: " + ", ".join(f"{name} {value:.4f}" for name, value in run.result["test_masked"].items()))
counts = dglrec.evaluate(dglrec.models.preset("transitions", split), split.test, k=(10, 50), seen="keep")
print("counting transitions, same protocol: " + ", ".join(f"{name} {value:.4f}" for name, value in counts.items()))

print(f"\nfor user {log.user_ids[0]}:\n{model.recommend(user=log.user_ids[0], k=5)}")
