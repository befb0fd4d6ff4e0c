"""How the graph changes with time: one relation per slice, what DGL does with them, and a picture. Nothing is trained.

    python examples/time_slices.py
    python examples/time_slices.py --data sample:shop --by equal_counts
    python examples/time_slices.py --data amazon-beauty --by equal_counts --n 5

SelfGNN and HardGNN cut the time of a log into slices and learn from each slice's own graph (HardGNN, Definition 1):

    log -> graphs.time_slices -> user -t0-> item, item -t0_by-> user, user -t1-> item, ... -> multi_update_all

All users and items are nodes of every slice; a node without events in one has no edge there. In the sample "drift", the
interests of half of the users change wherever a slice begins, and the last two slices of a quarter of the users are
noise; in "shop", a fifth of the items leaves and another fifth comes in the middle of the time.
"""

import argparse
from pathlib import Path

import dglrec  # before dgl: this is what lets DGL 2.1.0 load on a current PyTorch

# isort: split
import dgl
import numpy as np
import torch
from matplotlib.figure import Figure

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample:drift", help="a data set, or a file (see dglrec data list)")
parser.add_argument("--by", default="equal_lengths", choices=["equal_lengths", "equal_counts", "month"])
parser.add_argument("--n", type=int, default=6, help="number of slices, except by month")
parser.add_argument("--out", default="runs/time_slices.png", help="the picture")
args = parser.parse_args()

# 1. The graph ---------------------------------------------------------------------------------------------------------
# equal_lengths is the papers' way. Where a log grows fast it puts most edges into the last slice (84 % for
# amazon-beauty with n = 5), and equal_counts is the better choice. Repeats within a slice are one edge with a `count`.

log = dglrec.leave_one_out(dglrec.load(args.data)).train  # what a model may see
graph = dglrec.graphs.time_slices(log, args.by, n=None if args.by == "month" else args.n)
names = dglrec.graphs.slice_names(graph)  # t0, t1, ... in the order of time; DGL itself lists t10 before t2
times = dglrec.graphs.slice_times(graph)  # (T, 2) seconds of the first and last edge
print(f"{log}\n{len(names)} slices over {graph.num_nodes('user')} users and {graph.num_nodes('item')} items\n")

# 2. How it changes ----------------------------------------------------------------------------------------------------

active = {kind: [] for kind in ("user", "item")}  # who has an edge, slice by slice
for name in names:
    active["user"].append((graph.out_degrees(etype=name) > 0).numpy())
    active["item"].append((graph.in_degrees(etype=name) > 0).numpy())
user, item = (np.stack(active[kind]) for kind in ("user", "item"))  # (T, U), (T, M)
edges = np.array([graph.num_edges(name) for name in names])
events = np.array([int(graph.edges[name].data["count"].sum()) for name in names])
assert events.sum() == len(log)  # slices partition the log
density = edges / np.maximum(user.sum(1) * item.sum(1), 1)  # among those who are active
before = np.cumsum(user, axis=0) - user > 0  # (T, U) seen in an earlier slice
new_users = (user & ~before).sum(1)
left = (item[:-1] & ~item[1:]).sum(1)  # (T - 1,) items of a slice without an edge in the next one
came = (item[1:] & ~item[:-1]).sum(1)
churn = np.concatenate([[np.nan], (left + came) / np.maximum((item[:-1] | item[1:]).sum(1), 1)])

print("slice  from        to            edges  events   users     new   items   churn  density")
for t, (first, last) in enumerate(times):
    days = ["-" if np.isnan(moment) else str(np.datetime64(int(moment), "s"))[:10] for moment in (first, last)]
    counts = f"{edges[t]:8} {events[t]:7} {user[t].sum():7} {new_users[t]:7} {item[t].sum():7}"
    changed = f"{churn[t]:7.1%}" if t else "      -"
    print(f"{names[t]:>5}  {days[0]:<11} {days[1]:<11}{counts} {changed} {density[t]:8.3%}")

# 3. Message passing over all slices -----------------------------------------------------------------------------------
# With DGL only: multi_update_all sends along all relations and writes one field per slice. Without its own field name
# for each, DGL would leave silent slices out and order the others by name. dglrec.nn.SliceEncoder computes such sums
# for training, all slices in one pass, and is tested to equal DGL.


def sums(source: str, target: str, ends: str, x: torch.Tensor) -> torch.Tensor:
    """What the target nodes of each slice receive from their neighbours there: (nodes, d) -> (T, nodes, d)."""
    with graph.local_scope():
        graph.nodes[source].data["x"] = x
        copy = dgl.function.copy_u("x", "m")
        graph.multi_update_all({name + ends: (copy, dgl.function.sum("m", name)) for name in names}, "sum")
        nothing = torch.zeros(graph.num_nodes(target), x.shape[1])
        data = graph.nodes[target].data
        return torch.stack([data.get(name, nothing) for name in names])


# The sums of ones are the items' degrees. Are the popular items of one slice also popular in the other?
popularity = sums("user", "item", "", torch.ones(graph.num_nodes("user"), 1))[:, :, 0]  # (T, M)
unit = torch.nn.functional.normalize(popularity, dim=1)
alike, what = (unit @ unit.T).numpy(), "Item degrees in two slices: cosine"  # (T, T)

# In a sample the groups of items are known: what a user receives from them are the user's interests in a slice.
kind = args.data.partition(":")[2]
if kind in ("drift", "shop"):
    oracle = dglrec.data.sample_oracle(kind, log=log)
    groups = torch.nn.functional.one_hot(torch.as_tensor(oracle.item_group)).float()  # (M, G)
    taste = torch.nn.functional.normalize(sums("item", "user", "_by", groups), dim=2)  # (T, U, G)

    def mean_cosine(one: int, two: int, who: np.ndarray) -> float:
        """Of the users in the mask `who` who are in both slices."""
        there = torch.as_tensor(who & user[one] & user[two])
        return float((taste[one] * taste[two]).sum(1)[there].mean())

    everybody, order = np.ones(graph.num_nodes("user"), dtype=bool), range(len(names))
    alike = np.array([[mean_cosine(one, two, everybody) for two in order] for one in order])  # (T, T)
    what = "A user's interests in two slices: cosine"
    print(f"\na user's interests in a slice and in the next: cosine {alike.diagonal(1).mean():.2f}")
if kind == "drift":
    print(f"in the first and in the last: {alike[0, -1]:.2f}")
    late = [mean_cosine(-2, -1, who) for who in (oracle.noisy, ~oracle.noisy)]
    print(f"in the last two: {late[0]:.2f} of the {oracle.noisy.sum()} noisy users, {late[1]:.2f} of the others")

# 4. The picture -------------------------------------------------------------------------------------------------------

figure = Figure(figsize=(13, 7), layout="constrained")
panels = figure.subplots(2, 3).flatten()
labels = np.arange(len(names))
panels[0].bar(labels, events, color="lightgrey", label="events")
panels[0].bar(labels, edges, width=0.5, label="edges (unique pairs)")
panels[0].set_title("Size of a slice")
panels[1].bar(labels, user.sum(1), color="lightgrey", label="active")
panels[1].bar(labels, new_users, width=0.5, label="new")
panels[1].set_title("Users")
panels[2].bar(labels, item.sum(1), color="lightgrey", label="active")
panels[2].bar(labels[1:], came, width=0.5, label="not in the slice before")
panels[2].set_title("Items")
for panel in panels[:3]:
    panel.legend(loc="upper left", ncols=2)
    panel.set_ylim(top=1.2 * panel.get_ylim()[1])
panels[3].plot(labels, 100 * density, "o-")
panels[3].set(title="Density among those who are active", ylabel="%", ylim=(0, 120 * density.max()))
panels[4].plot(labels, 100 * churn, "o-")
panels[4].set(title="Item churn since the slice before", ylabel="% of the items of both", ylim=(0, 100))
image = panels[5].imshow(alike, vmin=0, vmax=1, cmap="viridis")
figure.colorbar(image, ax=panels[5])
panels[5].set_title(what)
for panel in panels:
    panel.set_xlabel("slice")
    panel.xaxis.get_major_locator().set_params(integer=True)
panels[5].yaxis.get_major_locator().set_params(integer=True)
Path(args.out).parent.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out, dpi=100)
print(f"\npicture: {args.out}")
