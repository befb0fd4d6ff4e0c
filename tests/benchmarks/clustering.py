"""Many small sets clustered at once, beside a loop of scikit-learn over them.

    python tests/benchmarks/clustering.py [--threads 2] [--repeats 20]

In each case the same sets go through `dglrec.graphs.clustering`, scikit-learn set by set and, for Ward, SciPy's
`linkage` set by set, in turn: each round runs all of them once, and the fastest of all rounds counts. The partitions of
Ward are compared as well. Where there is a GPU, 20,000 sets of 50 points are clustered and sparsified there, labels and
edge mask staying on it. Results go to `clustering.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent
CASES = [  # sets, points, dimensions, clusters, kind of points
    (128, 50, 32, 8, "normal"),
    (128, 50, 32, 8, "planted"),
    (128, 50, 32, 8, "repeats"),
    (2000, 50, 32, 8, "normal"),
    (1000, 10, 32, 4, "normal"),
    (64, 200, 32, 8, "normal"),
    (64, 50, 4, 8, "grid"),
]
KINDS = {
    "normal": "independent normal numbers",
    "planted": "8 centres, each point at one of them, noise .3",
    "repeats": "20 different points, drawn with repetition",
    "grid": "integers from 0 to 3: ties everywhere",
}


def points_of(sets: int, points: int, dim: int, kind: str) -> Any:
    """(B, n, d) float32."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    def rows_of(table: Any) -> Any:
        which = torch.randint(table.shape[1], (sets, points, 1), generator=generator)
        return table.gather(1, which.expand(-1, -1, dim))

    if kind == "planted":
        return rows_of(normal(sets, 8, dim)) + 0.3 * normal(sets, points, dim)
    if kind == "repeats":
        return rows_of(normal(sets, 20, dim))
    if kind == "grid":
        return torch.randint(4, (sets, points, dim), generator=generator).float()
    return normal(sets, points, dim)


def fastest(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each, the least of `rounds`, taken in turn so that all meet the same disturbances."""
    for one in work.values():
        one()
    seconds = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, one in work.items():
            began = time.perf_counter()
            one()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def on_cpu(sets: int, points: int, dim: int, k: int, kind: str, repeats: int) -> dict[str, Any]:
    """Seconds of one case, in two rounds at least, and how many partitions are those of scikit-learn."""
    from scipy.cluster.hierarchy import linkage
    from sklearn.cluster import AgglomerativeClustering, KMeans

    from dglrec.graphs import clustering
    from dglrec.graphs.clustering import kmeans, ward

    batch = points_of(sets, points, dim, kind)
    each = list(batch.numpy())

    def first_appearance(label: Any) -> list[int]:
        number: dict[int, int] = {}
        return [number.setdefault(int(value), len(number)) for value in label]

    def in_rounds() -> Any:
        """Ward as it goes without numba."""
        with mock.patch.object(clustering, "compiled_ward", return_value=None):
            return ward(batch, k)

    expected = [first_appearance(AgglomerativeClustering(k, linkage="ward").fit_predict(one)) for one in each]
    equal = sum(one == two for one, two in zip(ward(batch, k).tolist(), expected, strict=True))
    loops = {
        "ward": lambda: ward(batch, k),
        "ward_in_rounds": in_rounds,
        "ward_scikit_learn": lambda: [AgglomerativeClustering(k, linkage="ward").fit_predict(one) for one in each],
        "ward_scipy_linkage": lambda: [linkage(one, "ward") for one in each],
        "kmeans": lambda: kmeans(batch, k),
        "kmeans_scikit_learn": lambda: [KMeans(k, n_init=1).fit_predict(one) for one in each],
    }
    seconds = fastest(loops, max(2, repeats * 128 * 50 // (sets * points)))
    return {
        "sets": sets,
        "points": points,
        "dimensions": dim,
        "clusters": k,
        "data": KINDS[kind],
        "seconds": seconds,
        "equal_partitions": equal,
        "ward_times_faster": seconds["ward_scikit_learn"] / seconds["ward"],
        "kmeans_times_faster": seconds["kmeans_scikit_learn"] / seconds["kmeans"],
    }


def on_gpu(repeats: int, sets: int = 20_000) -> dict[str, Any]:
    """Milliseconds and memory of 20,000 sets of 50 points, clustered and sparsified on the GPU."""
    import torch

    from dglrec.graphs import dense_interests

    points, weight = points_of(sets, 50, 32, "normal").cuda(), torch.ones(4, 32).cuda()
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "sets": sets, "points": 50, "dimensions": 32}
    for method in ("ward", "kmeans"):

        def work(method: Any = method) -> None:
            with torch.no_grad():
                dense_interests(points, 8, 0.5, method=method, weight=weight)
            torch.cuda.synchronize()

        work()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = fastest({method: work}, repeats)[method]
        result[method] = {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated() - before}
    return result


def report(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['machine']['processor']}, {result['threads']} threads",
        f"{'sets x points x dim':<22}{'ward ms':>9}{'sklearn':>9}{'times':>7}{'linkage':>9}{'rounds':>9}{'equal':>12}"
        f"{'kmeans ms':>11}{'sklearn':>9}{'times':>7}  points",
    ]
    for case in result["cases"]:
        ms = {name: 1e3 * value for name, value in case["seconds"].items()}
        shape = f"{case['sets']} x {case['points']} x {case['dimensions']}"
        lines.append(
            f"{shape:<22}{ms['ward']:>9.2f}{ms['ward_scikit_learn']:>9.1f}{case['ward_times_faster']:>7.1f}"
            f"{ms['ward_scipy_linkage']:>9.1f}{ms['ward_in_rounds']:>9.1f}{case['equal_partitions']:>6}/{case['sets']:<5}"
            f"{ms['kmeans']:>11.2f}{ms['kmeans_scikit_learn']:>9.1f}{case['kmeans_times_faster']:>7.1f}  {case['data']}"
        )
    if gpu := result["gpu"]:
        parts = (f"{name} {1e3 * gpu[name]['seconds']:.1f} ms" for name in ("ward", "kmeans"))
        lines.append(f"{gpu['device']}, {gpu['sets']} sets of 50, labels and edges: {', '.join(parts)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20, help="of the cases with 128 sets; large ones run less often")
    parser.add_argument("--quick", action="store_true", help="two small cases, to see that it runs; writes nothing")
    parser.add_argument("--out", type=Path, default=HERE / "clustering.json")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # scikit-learn's and NumPy's as well: before they are imported

    import machine
    import torch

    torch.set_num_threads(args.threads)
    here = machine.describe()
    cases = [(8, 20, 4, 3, kind) for kind in ("normal", "grid")] if args.quick else CASES
    result = {
        "command": f"python tests/benchmarks/clustering.py --threads {args.threads} --repeats {args.repeats}",
        "machine": here,
        "threads": args.threads,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("dglrec", "torch", "numpy", "scipy", "scikit-learn")}
        | ({"numba": version("numba")} if find_spec("numba") else {}),  # without it, Ward runs in rounds
        "cases": [on_cpu(*case, repeats=0 if args.quick else args.repeats) for case in cases],
        "gpu": on_gpu(args.repeats) if torch.cuda.is_available() and not args.quick else None,
    }
    print(report(result))
    if not args.quick:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
