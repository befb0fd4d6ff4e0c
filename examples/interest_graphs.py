"""One account, several interests: which items of a history belong together, as a graph and as a picture.

    python examples/interest_graphs.py

MDGR ("Learning Multi-interest Embedding with Dynamic Graph Cluster for Sequential Recommendation")
clusters the items of each history and connects, within a cluster, the pairs that are most alike:

    item vectors -> graphs.interests -> Ward's clusters -> weighted cosine (Eq. 7, 8) -> top pairs (Eq. 9) -> DGL graph

In the sample shop everybody stays in one department, so three people who share an account stand in for somebody with
three interests, which makes the right answer known. The vectors are those of LightGCN, trained for a few seconds.
"""

import argparse
from pathlib import Path

import dglrec

# isort: split
import dgl
import networkx as nx
import numpy as np
import torch
from matplotlib.figure import Figure

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=8, help="of LightGCN")
parser.add_argument("--clusters", type=int, default=3, help="k, the number of interests")
parser.add_argument("--gamma", type=float, default=0.3, help="share of the pairs within clusters that become edges")
parser.add_argument("--out", default="runs/interests.png", help="the picture")
args = parser.parse_args()

# 1. Vectors -----------------------------------------------------------------------------------------------------------

log = dglrec.data.sample("shop", users=1500, items=400)
split = dglrec.leave_one_out(log)
model = dglrec.models.preset("lightgcn", split, dim=32, train={"lr": 1e-2, "batch_size": 512, "epochs": args.epochs})
dglrec.fit(model, split, progress=False)
with torch.no_grad():
    vectors = model.item_vectors()  # (M, d)

# 2. The history of an account that three people share -----------------------------------------------------------------
# Of each department in turn, somebody who took 8 to 12 items. The three histories are merged by time.

oracle = dglrec.data.sample_oracle("shop", users=1500, items=400)
packed = dglrec.graphs.sequences(dglrec.graphs.user_item(split.train))
people = []
for department in range(3):
    for user, length in enumerate(packed.lengths):
        items = packed.items[packed.offsets[user] : packed.offsets[user + 1]].numpy()
        if 8 <= length <= 12 and (oracle.item_group[items] == department).mean() > 0.8:
            people.append(user)
            break
mine = np.isin(split.train.user, people)
order = np.argsort(split.train.time[mine], kind="stable")
history = split.train.item[mine][order]  # (n,)
person = split.train.user[mine][order]
print(f"{len(history)} items of {len(people)} people, oldest first: {[str(log.titles[i]) for i in history[:3]]} ...\n")

# 3. The graph ---------------------------------------------------------------------------------------------------------
# For one account; a list of lengths gives many at once, batched, and `dgl.unbatch` takes them apart. The similarity of
# each edge and the cluster of each node are features, ready for message passing.

graph = dglrec.graphs.interests(vectors[history], [len(history)], k=args.clusters, gamma=args.gamma)
print(graph)
graph.update_all(dgl.function.copy_e("similarity", "m"), dgl.function.mean("m", "similarity"))
cluster = graph.nodes["item"].data["cluster"].numpy()
for number in range(int(cluster.max()) + 1):
    inside = np.flatnonzero(cluster == number)
    kept = graph.nodes["item"].data["similarity"][inside].mean()
    whose = np.unique(person[inside], return_counts=True)[1].max() / len(inside)
    print(f"\ninterest {number + 1}: {len(inside)} items, {whose:.0%} of one person, mean similarity {kept:.2f}")
    print("   " + "; ".join(str(log.titles[item]) for item in history[inside][:5]))

# 4. The picture -------------------------------------------------------------------------------------------------------
# A panel for each set of vectors of the same history.

panels = {"LightGCN's vectors": graph}

figure = Figure(figsize=(11 * len(panels), 8), layout="constrained")
for axes, (title, one) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
    source, target = (ends.tolist() for ends in one.edges(etype="similar"))
    weight = one.edges["similar"].data["similarity"].tolist()
    drawn = nx.Graph()
    drawn.add_nodes_from(range(len(history)))
    drawn.add_weighted_edges_from((i, j, w) for i, j, w in zip(source, target, weight, strict=True) if i < j)
    cluster = one.nodes["item"].data["cluster"].numpy()
    together = nx.Graph(np.argwhere(cluster[:, None] == cluster).tolist())  # all pairs: keeps a cluster in one place
    place = nx.spring_layout(together, seed=1, k=0.7)
    width = [0.5 + 2 * max(w, 0) for *_, w in drawn.edges(data="weight")]
    nx.draw_networkx_edges(drawn, place, ax=axes, width=width, edge_color="lightgrey")
    colour = [f"C{number}" for number in cluster]
    nx.draw_networkx_nodes(drawn, place, ax=axes, node_color=colour, node_size=120)
    names = {node: str(log.titles[item])[:26] for node, item in enumerate(history)}
    above = {node: (x, y + 0.05) for node, (x, y) in place.items()}
    nx.draw_networkx_labels(drawn, above, names, ax=axes, font_size=7)
    axes.set_title(f"{args.clusters} interests of one account: {title}")
    axes.margins(0.12)
    axes.axis("off")

Path(args.out).parent.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out, dpi=100)
print(f"\npicture: {args.out}")
