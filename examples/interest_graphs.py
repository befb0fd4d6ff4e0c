"""One user's interests as graphs: before training, after it, and how they move while the graph is built m times.

MDGR ("Learning Multi-interest Embedding with Dynamic Graph Cluster for Sequential Recommendation", Xiao et al.)
clusters the items of each history and connects, within a cluster, the pairs that are most similar:

    item vectors -> graphs.interests -> Ward's clusters -> weighted cosine (Eq. 7, 8) -> top pairs (Eq. 9) -> DGL graph

Attention along those edges moves the vectors, the moved ones are clustered again, and so on, m times. In the sample it
is known which interest each item was chosen for, so that the clusters can be checked.

Commands:

    python examples/interest_graphs.py                      a minute; writes runs/interests.png
    python examples/interest_graphs.py --preset mdgr        as the paper prints it: items are distinguished much later
"""

import argparse
from pathlib import Path

import dglrec

# isort: split
import dgl
import networkx as nx
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from dglrec.nn.interests import query_window

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--preset", default="mdgr-residual", help="mdgr, or one of its variants")
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--clusters", type=int, default=8, help="k, the number of interests")
parser.add_argument("--rounds", type=int, default=4, help="m, times that the graph is built")
parser.add_argument("--gamma", type=float, default=0.5, help="share of the pairs within clusters that become edges")
parser.add_argument("--out", default="runs/interests.png", help="the picture")
args = parser.parse_args()
if args.rounds < 1 or args.preset == "mdgr-dgc":
    parser.error(
        "without a round no graph is built, and --preset mdgr-dgc has none; use another preset and --rounds 1 or more"
    )

# 1. A model, before and after training --------------------------------------------------------------------------------

sample = {"kind": "interests", "users": 400, "items": 400, "seed": 3}
log = dglrec.sample(**sample)
split = dglrec.windows(log, by="user", seed=3)
fields = {"k": args.clusters, "m": args.rounds, "gamma": args.gamma}
train = {"epochs": args.epochs, "batch_size": 32, "lr": 5e-3}
model = dglrec.models.preset(args.preset, split, **fields, train=train)


def rounds(query):
    """Vectors (n, d) of the history's items before each round and after the last one."""
    history = query_window(query, model.config.max_length, model.device)
    with torch.no_grad():
        model.eval()
        return [vectors[0] for vectors, _ in model.rounds(history, model.encode(history))]


# A user whose history mixes few enough planted interests for the clusters to separate them.
oracle = dglrec.data.sample_oracle(**sample, log=log)
planted = oracle.labels(split.test).reshape(len(split.test), -1)  # (Q, n), -1 where an item is random
several = [len(np.unique(row[row >= 0])) for row in planted]
chosen = int(np.argmin(np.abs(np.array(several) - (args.clusters - 2))))
query, planted = split.test[chosen : chosen + 1], planted[chosen]
history = query.items  # (n,)

before = rounds(query)
dglrec.fit(model, split)
after = rounds(query)

# 2. The graphs --------------------------------------------------------------------------------------------------------
# For one user; a list of lengths gives many at once, batched, and `dgl.unbatch` separates them. The similarity of
# each edge and the cluster of each node are features, ready for message passing.


def graph_of(vectors):
    """The interest sub-graphs of vectors (n, d)."""
    metric = model.metric.detach()
    return dglrec.graphs.interests(vectors, [len(vectors)], args.clusters, args.gamma, weight=metric)


def agreement(graph):
    """Adjusted Rand index of clusters and planted interests: 0 is chance, 1 is the same."""
    known = planted >= 0
    return adjusted_rand_score(planted[known], graph.nodes["item"].data["cluster"].numpy()[known])


graphs = {
    "before training": graph_of(before[0]),
    "trained, before the first round": graph_of(after[0]),
    f"trained, after {args.rounds} rounds": graph_of(after[-1]),
}
final = list(graphs.values())[-1]
print(f"{final}\n")
for title, graph in graphs.items():
    print(f"{title}: agreement with the planted interests {agreement(graph):.2f}")

final.update_all(dgl.function.copy_e("similarity", "m"), dgl.function.mean("m", "similarity"))
cluster = final.nodes["item"].data["cluster"].numpy()
for number in range(int(cluster.max()) + 1):
    inside = np.flatnonzero(cluster == number)
    kept = final.nodes["item"].data["similarity"][inside].mean()
    print(f"\ninterest {number + 1}: {len(inside)} items, mean similarity {kept:.2f}")
    print("   " + "; ".join(str(log.titles[item]) for item in history[inside][:5]))

# 3. The picture -------------------------------------------------------------------------------------------------------
# Above, the graphs: a colour is a planted interest, grey is chance, and each disc is a cluster, over the titles of its
# newest items. Below, the vectors of all rounds in the plane in which those of the last one differ most.

interests = np.unique(planted[planted >= 0])
wheel = colormaps["hsv"](np.linspace(0, 0.9, len(interests)))  # as many colours as there are interests
colours = {interest: to_hex(colour) for interest, colour in zip(interests, wheel, strict=True)}
colour = [colours.get(interest, "lightgrey") for interest in planted]
figure = Figure(figsize=(14, 9), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(2, 1))
columns = int(np.ceil(np.sqrt(args.clusters)))
rows = int(np.ceil(args.clusters / columns))


def shortened(title):
    """A title of at most 24 letters."""
    return title if len(title) <= 24 else title[:23].rstrip() + "\u2026"


for axes, (title, graph) in zip(above.subplots(1, len(graphs)), graphs.items(), strict=True):
    source, target = (ends.tolist() for ends in graph.edges(etype="similar"))
    drawn = nx.Graph()
    drawn.add_nodes_from(range(len(history)))
    drawn.add_edges_from((i, j) for i, j in zip(source, target, strict=True) if i < j)
    own = graph.nodes["item"].data["cluster"].numpy()
    place = {}
    for number in np.unique(own):  # each cluster in a disc of its own
        inside = np.flatnonzero(own == number)
        centre = np.array([number % columns, -1.3 * (number // columns)])
        axes.add_patch(Circle(centre, 0.42, color="whitesmoke"))
        place |= nx.circular_layout(drawn.subgraph(inside), center=centre, scale=0.32)
        names = [shortened(str(log.titles[item])) for item in history[inside][::-1]]
        names = list(dict.fromkeys(names))[:3]  # of the newest items; the first one's vector is the interest (Eq. 14)
        axes.text(*(centre - (0, 0.45)), "\n".join(names), ha="center", va="top", fontsize=7)
    nx.draw_networkx_edges(drawn, place, ax=axes, edge_color="lightgrey")
    nx.draw_networkx_nodes(drawn, place, ax=axes, node_color=colour, node_size=40)
    axes.set_title(f"{title} (agreement {agreement(graph):.2f})", fontsize=10)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-1.3 * rows + 0.45, 0.45), aspect="equal")
    axes.axis("off")

units = [torch.nn.functional.normalize(vectors, dim=1).numpy() for vectors in after]
plane = PCA(2).fit(units[-1])
for number, (axes, vectors) in enumerate(
    zip(below.subplots(1, len(after), sharex=True, sharey=True), units, strict=True)
):
    axes.scatter(*plane.transform(vectors).T, c=colour, s=15)
    axes.set_title(f"round {number}", fontsize=10)
    axes.tick_params(labelsize=7)
figure.suptitle(f"Interests of {log.user_ids[query.user[0]]} ({args.preset}); colours are the planted ones")

Path(args.out).parent.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out, dpi=80)
print(f"\npicture: {args.out}")
