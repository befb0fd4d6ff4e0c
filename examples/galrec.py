"""GAL-Rec: a small T5 that reads a user's neighbourhood in the graph, with and without graph-aware learning.

Paper: Guan et al., Enhancing Collaborative Semantics of Language Model-Driven Recommendations via Graph-Aware Learning.
docs/galrec.md walks through its equations, whose numbers are used below.

What calls what:

    examples/galrec.py
      dglrec.models.preset("galrec-lightgcn", split)   dglrec/models/galrec.py
      dglrec.fit(model, split)                          dglrec/train.py
        GALRec.before_training                          external embeddings, Eq. 2 and 3
        GALRec.batches                                  prompts of a batch's users and items
          dglrec.graphs.hops                            other users of the same items, before the target's time
          Prompter                                      token numbers (dglrec/lm/prompts.py)
        GALRec.loss                                     Eq. 18; what `fit` calls for each batch
          Backbone.answers, item_cross_entropy          Eq. 1
          Contrasts.forward                             Eq. 5 to 15 (dglrec/lm/contrasts.py)
            Backbone.pooled, info_nce                   what is contrasted, and each contrast
        GALRec.after_batch                              queues and momentum encoder, Eq. 16 and 17
      run.test()                                        reads the test queries, once

Commands (they need the extra: pip install "dglrec[lm]"):

    python examples/galrec.py                              a sample where neighbours show what comes next, offline
    python examples/galrec.py --picture hops.png           and how the hops' vectors are spread, as in Figure 4
    python examples/galrec.py --data amazon-beauty --backbone google/flan-t5-small --device cuda

Where to look next: examples/hop_prompts.py prints a prompt; PAIRS in dglrec/lm/contrasts.py are the six contrasts.
"""

import argparse
from pathlib import Path

import dglrec

# Arguments ------------------------------------------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample", help="a data set (see dglrec data list) or a file")
parser.add_argument("--preset", default="galrec-lightgcn", help="galrec-lightgcn, galrec-sasrec or galrec-text")
parser.add_argument("--backbone", default="tiny", help="tiny, or the name or folder of a T5")
parser.add_argument("--hops", type=int, default=2, choices=[1, 2, 3])
parser.add_argument("--epochs", type=int, help="maximum number of epochs (6 on the sample, 20 else)")
parser.add_argument("--seed", type=int, default=2020)
parser.add_argument("--device", default="auto")
parser.add_argument("--picture", type=Path, help="PNG file for a picture of how the hops' vectors are spread")
args = parser.parse_args()

# Data -----------------------------------------------------------------------------------------------------------------

if args.data == "sample":
    log = dglrec.sample("hops", users=160, items=240, seed=args.seed)
    small = {"dim": 32, "layers": 1, "heads": 2, "inner": 64, "source_dim": 32}
else:
    log, small = dglrec.load(args.data, k_core=5), {}
split = dglrec.leave_one_out(log)
print(split)

# With and without graph-aware learning --------------------------------------------------------------------------------

epochs = args.epochs if args.epochs is not None else (6 if args.data == "sample" else 20)
train = {"seed": args.seed, "epochs": epochs} | ({"lr": 3e-3} if small else {})
models = {}
for name, gal in (("without GAL", False), ("with GAL", True)):
    fields = {**small, "hops": args.hops, "backbone": args.backbone, "gal": gal}
    model = models[name] = dglrec.models.preset(args.preset, split, **fields, train=train)
    run = dglrec.fit(model, split, device=args.device)
    print(f"\n{name}: {run}")
    test = run.test()
    print(", ".join(f"{metric} {value:.4f}" for metric, value in test.items()))
print(f"\n{test.protocol}\n")
print(models["with GAL"].recommend(user=str(log.user_ids[0]), k=5))

# Figure 4 -------------------------------------------------------------------------------------------------------------

if args.picture is not None:
    from dglrec.curves import save_densities
    from dglrec.lm.spread import spread

    points = {name: spread(model).points for name, model in models.items()}
    save_densities(points, args.picture, f"the encoder's outputs by hop, {log.name}")
    print(f"\n{args.picture}")
