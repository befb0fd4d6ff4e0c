"""The graph alone: build it, and hand it to DGL and to networkx. Nothing is trained.

    python examples/build_graphs.py

For anyone who wants the user-item graph for their own code. `dglrec.graphs.user_item` takes a log or plain arrays and
gives a DGL heterograph, which all of DGL works on:

    user -interacts-> item        one edge per interaction, sorted by (user, position)
    item -interacted_by-> user    the same edges the other way round, in the same order

Edges have `position` (0 for a user's oldest) and, where there are times, `time` in seconds. The steps below are: from a
log, from arrays, a neighbour sampler, message passing by hand, histories read back, a cut in time, and networkx.
"""

import argparse
from pathlib import Path

import dglrec  # before dgl: this is what lets DGL 2.1.0 load on a current PyTorch

# isort: split
import dgl
import networkx as nx
import numpy as np
import torch
from matplotlib.figure import Figure

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample:shop", help="a data set, or a file (see dglrec data list)")
parser.add_argument("--out", default="runs/graphs.png", help="the picture")
args = parser.parse_args()

# 1. From a log --------------------------------------------------------------------------------------------------------

log = dglrec.load(args.data)
graph = dglrec.graphs.user_item(log)
print(f"1. {log}\n{graph}\n")

# 2. From plain arrays -------------------------------------------------------------------------------------------------
# Whatever the ids are, np.unique turns them into indices from 0. Rows may be in any order: edges are sorted by time
# within each user. unique=True merges repeated pairs into one edge and keeps their number as `count`.

who = np.array(["bob", "ann", "ann", "bob", "ann"])
what = np.array(["tea", "jam", "tea", "tea", "egg"])
when = np.array([10.0, 30.0, 20.0, 40.0, 50.0])
users, user = np.unique(who, return_inverse=True)
items, item = np.unique(what, return_inverse=True)
small = dglrec.graphs.user_item(user=user, item=item, time=when)
merged = dglrec.graphs.user_item(user=user, item=item, time=when, unique=True)

print("2. edges of the small graph, oldest first within each user:")
for u, i, seconds in zip(*small.edges(etype="interacts"), small.edges["interacts"].data["time"], strict=True):
    print(f"   {users[u]} -> {items[i]} at {seconds:.0f} s")
print(f"   merged: {merged.num_edges('interacts')} edges, counts {merged.edges['interacts'].data['count'].tolist()}\n")

# 3. DGL's neighbour samplers ------------------------------------------------------------------------------------------
# A sampler walks edges backwards: for users it samples the edges item -interacted_by-> user. DGL draws at random here;
# training in dglrec never does.

dgl.seed(0)
seeds = torch.arange(min(64, graph.num_nodes("user")))
sampled = dgl.sampling.sample_neighbors(graph, {"user": seeds}, fanout=5)
print(f"3. at most 5 items for each of {len(seeds)} users: {sampled.num_edges('interacted_by')} edges")

sampler = dgl.dataloading.NeighborSampler([5, 5])  # two layers: a user's items, and other users of those
inputs, outputs, blocks = sampler.sample_blocks(graph, {"user": seeds})
reached = ", ".join(f"{len(nodes)} {kind}s" for kind, nodes in inputs.items())
print(f"   two layers of blocks: {reached} feed {len(outputs['user'])} users")

walks, _ = dgl.sampling.random_walk(graph, seeds[:3], metapath=["interacts", "interacted_by", "interacts"])
print("   random walks user, item, user, item: " + "; ".join(str(walk.tolist()) for walk in walks) + "\n")

# 4. Message passing by hand -------------------------------------------------------------------------------------------
# "Users of this item also use": a 1 at one item goes to its users, and from them to all of their items. copy_u and sum
# send rows as they are, so no array with one row per edge is made.

pairs = dglrec.graphs.user_item(log, unique=True)
degree = pairs.in_degrees(etype="interacts")  # (M,) users of each item
start = int(degree.argmax())
copy, add = dgl.function.copy_u("x", "m"), dgl.function.sum("m", "x")
pairs.nodes["item"].data["x"] = torch.nn.functional.one_hot(torch.tensor([start]), pairs.num_nodes("item")).float().T
pairs.update_all(copy, add, etype="interacted_by")  # (U, 1): 1 for the item's users
pairs.update_all(copy, add, etype="interacts")  # (M, 1): how many of them have each item
together = pairs.nodes["item"].data["x"][:, 0]
assert int(together[start]) == int(degree[start])


def name(number: int) -> str:
    """The title of an item, or its id where it has none."""
    return str((log.titles is not None and log.titles[number]) or log.item_ids[number])


# Popular items occur together with every item; cosine similarity corrects for that.
similar = together / (degree * degree[start]).clamp(min=1).sqrt()
similar[start] = 0
neighbours = similar.topk(min(8, len(similar))).indices.tolist()
print(f"4. users of {name(start)!r} ({int(degree[start])} of them) also have:")
for number in neighbours[:5]:
    print(f"   {int(together[number]):3} of {int(degree[number]):3} users of {name(number)!r}")

# 5. Histories ---------------------------------------------------------------------------------------------------------
# The edges are the packed histories: row pointers and columns of the CSR, as sequential models read them.

packed = dglrec.graphs.sequences(graph)
first = packed.items[packed.offsets[0] : packed.offsets[1]]
print(f"\n5. {len(packed)} histories without padding; the first one, oldest first: {[name(i) for i in first[:4]]} ...")

# 6. A cut in time -----------------------------------------------------------------------------------------------------

if log.time is not None:
    cut = float(np.quantile(log.time, 0.8))
    earlier = {kind: graph.edges[kind].data["time"] < cut for kind in graph.etypes}
    past = dgl.edge_subgraph(graph, earlier, relabel_nodes=False)
    print(f"\n6. the first 80 % of the time: {past.num_edges('interacts')} of {graph.num_edges('interacts')} edges")

# 7. networkx, and a picture -------------------------------------------------------------------------------------------
# The graph around the item of step 4, projected onto items: an edge where two items share users, wider the more there
# are. Node 0 .. U-1 are users, U .. U+M-1 items.

num_users = graph.num_nodes("user")
source, target = (ends.numpy() for ends in pairs.edges(etype="interacts"))
near = np.isin(target, [start, *neighbours])
bipartite = nx.Graph(zip(source[near].tolist(), (target[near] + num_users).tolist(), strict=True))
projected = nx.bipartite.weighted_projected_graph(bipartite, [num_users + i for i in [start, *neighbours]])
print(f"\n7. {len(projected)} items, {projected.number_of_edges()} pairs of them with common users")

figure = Figure(figsize=(12, 5), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=[2, 3])
for kind, values in (("users", pairs.out_degrees(etype="interacts")), ("items", degree)):
    size, number = np.unique(values[values > 0].numpy(), return_counts=True)
    left.loglog(size, number, "o", ms=4, label=f"{kind}, mean {values.float().mean():.1f}")
left.set(xlabel="edges of a node", ylabel="number of nodes", title="Degrees")
left.legend()

place = nx.spring_layout(projected, weight="weight", seed=1, k=1.5)
common = np.array([weight for *_, weight in projected.edges(data="weight")])
width = (0.3 + 5 * common / common.max()).tolist()
colour = ["tab:orange" if node == num_users + start else "tab:blue" for node in projected]
size = [50 + 700 * float(degree[node - num_users] / degree.max()) for node in projected]
nx.draw_networkx_edges(projected, place, ax=right, width=width, edge_color="lightgrey")
nx.draw_networkx_nodes(projected, place, ax=right, node_color=colour, node_size=size)
titles = {node: name(node - num_users)[:28] for node in projected}
above = {node: (x, y + 0.15) for node, (x, y) in place.items()}
nx.draw_networkx_labels(projected, above, titles, ax=right, font_size=8)
right.set_title(f"Items most similar to {name(start)!r} (edges: common users)")
right.margins(0.15)
right.axis("off")

Path(args.out).parent.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out, dpi=100)
print(f"   picture: {args.out}")
