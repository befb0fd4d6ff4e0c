"""On a GPU: a step is that of the CPU, fit, evaluate, recommend and resume work there, and clusters are the same."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

import dglrec
from dglrec.data.sample import sample
from dglrec.graphs import Sequences, clustering, dense_interests, interests, time_slices, user_item
from dglrec.losses import item_cross_entropy
from dglrec.nn import CausalTransformer, LightGCNEncoder, SliceAdjacency, SliceEncoder
from dglrec.streams import Streams
from tests.contract.model_contract import tensors_in

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

OFF = {"inner": 32, "dropout": 0.0, "attention_dropout": 0.0}
SLICES = {"heads": 2, "slices": 3, "negatives": 5, "max_length": 10, "dropout": 0.0}
MODELS = {
    "lightgcn": ("lightgcn", {}),
    "sasrec": ("sasrec", OFF),
    "sasrec on prefixes": ("sasrec", {**OFF, "targets": "prefixes"}),
    "gsau": ("gsau", OFF),
    "gsau-rec": ("gsau-rec", {**OFF, "negatives": "unseen"}),
    "directau": ("gsau", {"sequential": False, "seen": "mask"}),
    "graphau": ("graphau", {}),
    "bert4rec": ("bert4rec", OFF),
    "gsau-rec-bert4rec": ("gsau-rec-bert4rec", OFF),
    "mip": ("mip", {"k": 2, "negatives": 5}),
    "comirec-sa": ("comirec-sa", {"k": 3, "negatives": 5}),
    "comirec-dr": ("comirec-dr", {"k": 3, "negatives": 5}),
    "surge": ("surge", {"pool": 5}),
    # As printed all items of a history are nearly one point: rounding, which is another on a GPU, decides who is with
    # whom. With one cluster and all of its edges nothing is left to decide.
    "mdgr": ("mdgr", {"k": 1, "gamma": 1.0, "m": 2, "negatives": 5}),
    "mdgr-residual": ("mdgr-residual", {"k": 3, "m": 2, "negatives": 5, "dropout": 0.0}),
    "selfgnn": ("selfgnn", SLICES),
    "selfgnn-code": ("selfgnn-code", SLICES),
    "selfgnn-prefixes": ("selfgnn-prefixes", SLICES),
    "selfgnn-inductive": ("selfgnn-inductive", SLICES),
    "selfgnn-causal": ("selfgnn-causal", SLICES),
    "hardgnn": ("hardgnn", SLICES),
    "hardgnn-code": ("hardgnn-code", SLICES),
}
T5 = {"layers": 1, "heads": 2, "inner": 32, "max_length": 10, "dropout": 0.0}
if find_spec("transformers"):
    # Few in the queues, so that the contrasts are as hard in the first epoch as in the last.
    gal = {**T5, "source_dim": 16, "source_epochs": 0, "fanout": 4, "queue": 16}
    MODELS |= {"galrec-lightgcn": ("galrec-lightgcn", gal), "iid": ("iid", T5)}


@pytest.fixture(scope="module", autouse=True)
def exact_products():
    """No TF32, so that the two devices can be compared."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def split():
    return dglrec.leave_one_out(sample("grammar", users=150, items=40, seed=3))


def make(name, split, **train):
    preset, fields = MODELS[name]
    return dglrec.models.preset(preset, split, dim=16, **fields, train={"batch_size": 128, "lr": 1e-2, **train})


def fit(model, split, **arguments):
    return dglrec.fit(model, split, **{"progress": False, "device": DEVICE, **arguments})


@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_that_of_the_cpu(name, split):
    here, there = make(name, split).train(), make(name, split).train().to(DEVICE)
    pairs = zip(here.batches(split, Streams(0)), there.batches(split, Streams(0)), strict=True)
    for number, (one, two) in enumerate(pairs):
        for left, right in zip(tensors_in(one), tensors_in(two), strict=True):
            assert right.device.type == DEVICE
            assert torch.equal(left, right.cpu())
        if number >= 2:
            continue
        terms = here.loss(one), there.loss(two)
        for term in terms[0]:
            assert terms[1][term].device.type == DEVICE
            torch.testing.assert_close(terms[1][term].cpu(), terms[0][term], rtol=1e-4, atol=1e-5)
        for model, some in zip((here, there), terms, strict=True):
            model.zero_grad()
            sum(some.values()).backward()
        for (parameter, left), right in zip(here.named_parameters(), there.parameters(), strict=True):
            if left.grad is None:
                assert right.grad is None
            else:
                scale = float(left.grad.abs().max())
                torch.testing.assert_close(
                    right.grad.cpu(),
                    left.grad,
                    rtol=1e-3,
                    atol=1e-4 * scale + 1e-8,
                    msg=lambda m, p=parameter: f"{p}: {m}",
                )


@pytest.mark.parametrize("name", MODELS)
def test_scores_and_metrics_are_those_of_the_cpu(name, split):
    here, there = make(name, split).eval(), make(name, split).eval().to(DEVICE)
    items = torch.randint(split.log.num_items, (len(split.test), 7))
    with torch.no_grad():
        torch.testing.assert_close(there.scores(split.test).cpu(), here.scores(split.test), rtol=1e-3, atol=1e-5)
        given = there.scores(split.test, items=items.to(DEVICE)).cpu()
        torch.testing.assert_close(given, here.scores(split.test, items=items), rtol=1e-3, atol=1e-5)
    histories = [split.log.item_ids[:4].tolist(), split.log.item_ids[5:6].tolist()]
    for model in (here, there):
        assert model.recommend(histories=histories, k=5).num_queries == 2
    one, two = (dglrec.evaluate(model, split.test, metrics=("recall", "ndcg", "auc")) for model in (here, there))
    assert dict(two) == pytest.approx(dict(one), abs=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_it_learns_there_as_on_the_cpu(name, split, tmp_path):
    run = fit(make(name, split), split, epochs=4, out=tmp_path / "run")
    on_cpu = fit(make(name, split), split, epochs=4, device="cpu")
    assert run.model.device.type == DEVICE
    for one, two in zip(run.rows, on_cpu.rows, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=0.03 * (1 + abs(two["loss"])))
    assert run.rows[-1]["loss"] < run.rows[0]["loss"]
    run.test()
    assert run.result["peak_memory_bytes"] > 0
    if DEVICE == "cuda":
        assert run.result["device"] == torch.cuda.get_device_name()
    recommended = run.model.recommend(users=split.log.user_ids[:4].tolist(), k=5)
    for user, part in zip(split.log.user_ids[:4], recommended.queries(), strict=True):
        seen = set(split.log.item_ids[split.log.item[split.log.user == split.log.user_index(str(user))]].tolist())
        assert len(part) == 5
        assert not seen & {one.item_id for one in part}
    loaded = dglrec.load_model(tmp_path / "run")  # on the CPU
    assert loaded.device.type == "cpu"
    metrics = dglrec.evaluate(loaded, loaded.split.valid)
    assert {name: run.valid[name] for name in metrics} == pytest.approx(dict(metrics), abs=0.02)


@pytest.mark.parametrize("preset", ["sid", "cid"])
def test_generated_names_are_those_of_the_cpu(preset, split):
    """One step of learning, and the lists of a beam."""
    pytest.importorskip("transformers")
    fields = {**T5, "dim": 16, "train": {"batch_size": 128}}
    here, there = (dglrec.models.preset(preset, split, **fields).to(device) for device in ("cpu", DEVICE))
    losses = []
    for model in (here, there):
        loss = model.train().loss(next(iter(model.batches(split, Streams(0)))))["next_item"]
        loss.backward()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    with torch.no_grad():
        (items, scores), (others, expected) = (model.eval().top(split.test, 5) for model in (there, here))
    assert {items.device.type, scores.device.type} == {DEVICE}
    torch.testing.assert_close(scores.cpu(), expected, rtol=1e-3, atol=1e-4)
    assert (items.cpu() == others).float().mean() > 0.95
    run = fit(dglrec.models.preset(preset, split, **fields), split, epochs=2, precision="bfloat16")
    assert run.rows[-1]["loss"] < run.rows[0]["loss"]


@pytest.mark.parametrize("name", ["lightgcn", "sasrec", "gsau-rec"])
def test_stopped_and_resumed_it_goes_the_same_way(name, split, tmp_path):
    """Sums on a GPU have no fixed order, so not to the bit."""
    whole = fit(make(name, split), split, epochs=4)
    model, calls = make(name, split), []
    loss, steps = model.loss, whole.rows[0]["steps"]

    def dies(batch):
        calls.append(None)
        if len(calls) == 2 * steps + steps // 2:
            raise KeyboardInterrupt
        return loss(batch)

    model.loss = dies
    with pytest.raises(KeyboardInterrupt):
        fit(model, split, epochs=4, out=tmp_path / "run")
    resumed = fit(make(name, split), split, epochs=4, out=tmp_path / "run", resume=True)
    assert resumed.model.device.type == DEVICE
    for one, two in zip(resumed.rows, whole.rows, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=5e-3, abs=5e-3)


def test_dropout_repeats_and_the_caller_s_generators_stay(split):
    def train():
        model = dglrec.models.preset("sasrec", split, dim=16, inner=32, layers=1, train={"batch_size": 128})
        return [row["loss"] for row in fit(model, split, epochs=2).rows]

    before = torch.get_rng_state(), torch.cuda.get_rng_state() if DEVICE == "cuda" else None
    assert train() == pytest.approx(train(), rel=1e-3)
    assert torch.equal(before[0], torch.get_rng_state())
    if DEVICE == "cuda":
        assert torch.equal(before[1], torch.cuda.get_rng_state())


@pytest.mark.parametrize(
    "name", [*("lightgcn", "sasrec", "gsau", "gsau-rec"), *sorted({"galrec-lightgcn", "iid"} & {*MODELS})]
)
def test_bfloat16_trains(name, split):
    run = fit(make(name, split, precision="bfloat16"), split, epochs=3)
    assert all(math.isfinite(row["loss"]) for row in run.rows)
    assert run.rows[-1]["loss"] < run.rows[0]["loss"]


def test_auto_takes_the_gpu(split):
    assert fit(make("lightgcn", split), split, epochs=1, device="auto").model.device.type == DEVICE


def test_encoders_read_a_graph_of_the_cpu(split):
    """DGL on PyPI has no CUDA: the structure is taken from its graph once, the vectors stay where they are."""
    graph, train = user_item(split.train), split.train
    x = [torch.randn(n, 16) for n in (train.num_users, train.num_items)]
    there = LightGCNEncoder(2)(graph, [part.to(DEVICE) for part in x])
    for one, two in zip(LightGCNEncoder(2)(graph, x), there, strict=True):
        torch.testing.assert_close(two.cpu(), one, rtol=1e-4, atol=1e-5)
    encoder = CausalTransformer(16, 50, inner=32).eval()
    packed = Sequences(torch.as_tensor(train.offsets), torch.as_tensor(train.item))
    expected = encoder(packed, x[1], last=True)
    found = encoder.to(DEVICE)(packed.to(DEVICE), x[1].to(DEVICE), last=True)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)


def test_cross_entropy_over_many_items():
    """Several chunks of logits; value and both gradients."""
    generator = torch.Generator().manual_seed(0)
    queries, table = (torch.randn(n, 16, generator=generator).to(DEVICE).requires_grad_() for n in (700, 150_000))
    targets = torch.randint(150_000, (700,), generator=generator).to(DEVICE)
    loss, exact = item_cross_entropy(queries, table, targets), F.cross_entropy(queries @ table.T, targets)
    torch.testing.assert_close(loss, exact, rtol=1e-4, atol=1e-4)
    for one, two in zip(*(torch.autograd.grad(x, (queries, table)) for x in (loss, exact)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


# --- Interest sub-graphs ----------------------------------------------------------------------------------------------


def sets_of_points():
    """40 sets of up to 50 points, and their mask: with numbers that never tie, and on a grid where many do."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(40, 50, generator=generator) < torch.linspace(0.1, 1, 40)[:, None]
    yield torch.randn(40, 50, 8, generator=generator), mask
    yield torch.randint(4, (40, 50, 3), generator=generator).float(), mask


@pytest.mark.parametrize("method", [clustering.ward, clustering.kmeans])
def test_clusters_are_those_of_the_cpu(method):
    points, mask = next(sets_of_points())
    for some in (None, mask):
        found = method(points.to(DEVICE), 6, None if some is None else some.to(DEVICE))
        assert found.device.type == DEVICE
        assert torch.equal(found.cpu(), method(points, 6, some))


def test_ties_break_as_on_the_cpu():
    *_, (points, mask) = sets_of_points()
    assert torch.equal(clustering.ward(points.to(DEVICE), 6, mask.to(DEVICE)).cpu(), clustering.ward(points, 6, mask))


@pytest.mark.parametrize("rank", ["clusters", "matrix", "pairs"])
def test_interests_are_those_of_the_cpu(rank):
    points, mask = next(sets_of_points())
    weight = torch.rand(3, 8, generator=torch.Generator().manual_seed(1))
    here = dense_interests(points, 6, 0.4, mask, weight=weight, rank=rank)
    there = dense_interests(points.to(DEVICE), 6, 0.4, mask.to(DEVICE), weight=weight.to(DEVICE), rank=rank)
    assert there.edges.device.type == there.cluster.device.type == DEVICE
    assert torch.equal(there.cluster.cpu(), here.cluster)
    assert torch.equal(there.edges.cpu(), here.edges)
    torch.testing.assert_close(there.similarity.cpu(), here.similarity, rtol=1e-4, atol=1e-5)
    graph = interests(points.to(DEVICE), [50] * 40, 6, rank=rank)  # DGL's graph is on the CPU
    assert graph.num_edges("similar") == int(dense_interests(points, 6, 0.5, rank=rank).edges.sum())


def test_clusters_of_twenty_thousand_sets_stay_within_the_memory():
    points = torch.randn(20_000, 50, 32, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    clustering.ward(points, 8)
    assert torch.cuda.max_memory_allocated() - before < 2 * clustering.CHUNK_BYTES["cuda"]


@pytest.mark.parametrize("norm", ["sum", "symmetric"])
@pytest.mark.parametrize("some", [False, True])
def test_time_slices_are_those_of_the_cpu(norm, some):
    split = dglrec.leave_one_out(sample("drift", users=150, items=60))
    adjacency = SliceAdjacency(time_slices(split.train, 6))
    generator = torch.Generator().manual_seed(0)
    shapes = ((6, 150, 16), (60, 16))  # tables of its own for each slice, and one for all
    rows = (torch.tensor([3, 3, 149]), torch.arange(60)) if some else None
    found = []
    tables = [torch.randn(shape, generator=generator) for shape in shapes]
    for device in ("cpu", DEVICE):
        x = tuple(table.detach().to(device).requires_grad_() for table in tables)
        own = None if rows is None else tuple(part.to(device) for part in rows)
        out = SliceEncoder(2, norm)(adjacency.to(device), x, own)
        assert {part.device.type for part in out} == {device}
        found.append([*out, *torch.autograd.grad(sum(part.square().sum() for part in out), x)])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)
