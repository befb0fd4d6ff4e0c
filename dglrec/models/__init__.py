"""Models, one file per system, and presets named after the rows of the papers' tables."""

from __future__ import annotations

from ..base import PRESETS, Model, Preset, preset
from .bert4rec import BERT4Rec, BERT4RecConfig
from .comirec import ComiRec, ComiRecConfig
from .counts import Counts, CountsConfig
from .galrec import GALRec, GALRecConfig
from .graphau import GraphAU, GraphAUConfig
from .gsau import GSAU, GSAUConfig
from .hardgnn import HardGNN, HardGNNConfig
from .indexed import IndexedConfig, IndexedLM
from .lightgcn import LightGCN, LightGCNConfig
from .mdgr import MDGR, MDGRConfig
from .mip import MIP, MIPConfig
from .sasrec import SASRec, SASRecConfig
from .selfgnn import SelfGNN, SelfGNNConfig
from .surge import SURGE, SURGEConfig

__all__ = [
    "GSAU", "MDGR", "MIP", "PRESETS", "SURGE", "BERT4Rec", "BERT4RecConfig", "ComiRec", "ComiRecConfig", "Counts",
    "CountsConfig", "GALRec", "GALRecConfig", "GSAUConfig", "GraphAU", "GraphAUConfig", "HardGNN", "HardGNNConfig",
    "IndexedConfig", "IndexedLM", "LightGCN", "LightGCNConfig", "MDGRConfig", "MIPConfig", "Model", "Preset", "SASRec",
    "SASRecConfig", "SURGEConfig", "SelfGNN", "SelfGNNConfig", "preset",
]  # fmt: skip


_CODE = {"recurrent": "lstm", "instance": "collapsed", "activate": True, "train.schedule": "exponential"}  # of SelfGNN
_PREFIXES = {"targets": "prefixes", "norm": "symmetric", "pool": "mean", "dropout": 0.1, "max_length": 50, "reg": 1e-4}
_INDUCTIVE = {**_PREFIXES, "tables": "items", "past": True, "interval_pool": "last"}
_LARGE_STEPS = {"train.batch_size": 1024, "train.lr": 2e-3}

PRESETS |= {
    "popularity": Preset(Counts, {"what": "popularity"}, "number of training interactions of an item"),
    "recency": Preset(Counts, {"what": "recency"}, "the same, where older interactions count less"),
    "transitions": Preset(Counts, {"what": "transitions"}, "how often an item came right after the last one"),
    "lightgcn": Preset(LightGCN, {}, "He et al., SIGIR 2020, as in GSAU's Table 1"),
    "lightgcn-softmax": Preset(
        LightGCN,
        {"loss": "softmax", "layers": 3, "norm": "squared", "l2": 1e-6, "train.batch_size": 2048},
        "not in its paper: LightGCN with the sampled softmax of Wu et al., TOIS 2024",
    ),
    "sasrec": Preset(SASRec, {}, "Kang and McAuley, ICDM 2018, as in GSAU's Table 1"),
    "sasrec-cosine": Preset(
        SASRec,
        {"temperature": 0.07, "seen": "mask"},
        "not in a paper: SASRec on cosines over a temperature, seen items masked",
    ),
    "bert4rec": Preset(BERT4Rec, {}, "Sun et al., CIKM 2019, as in GSAU's Table 1"),
    "gsau": Preset(GSAU, {}, "Cao et al., WWW 2025 Companion"),
    "gsau-rec": Preset(GSAU, {"rec": True}, "GSAU (rec): cross-entropy in place of the sequential alignment"),
    "directau": Preset(
        GSAU,
        {"sequential": False, "gamma": 0.5, "seen": "mask"},
        "Wang et al., KDD 2022, as in GSAU's Table 1; w/o sequential in its Table 2",
    ),
    "graphau": Preset(GraphAU, {}, "Yang et al., CIKM 2023, as in GSAU's Table 1"),
    "graphau-original": Preset(
        GraphAU,
        {"form": "original", "dim": 32, "gamma": 0.4, "train.lr": 0.1, "train.batch_size": 2048},
        "Yang et al., CIKM 2023, as published",
    ),
    "sasrec-u": Preset(
        GSAU,
        {"graph": False, "rec": True, "gamma": 0.05},
        "Chung and Kim, NeurIPS SSL workshop 2023, as in GSAU's Table 1; w/o graph in its Table 2",
    ),
    "bert4rec-u": Preset(
        GSAU,
        {
            "graph": False,
            "rec": True,
            "gamma": 0.05,
            "encoder": "bert4rec",
            "dropout": 0.2,
            "attention_dropout": 0.2,
        },
        "the same with BERT4Rec",
    ),
    "gsau-rec-bert4rec": Preset(
        GSAU,
        {"rec": True, "encoder": "bert4rec", "dropout": 0.2, "attention_dropout": 0.2},
        "replace sequential in GSAU's Table 2",
    ),
    "mdgr": Preset(MDGR, {}, "Xiao et al., MDGR: interest sub-graphs by dynamic graph clustering"),
    "mdgr-w": Preset(MDGR, {"weights": False}, "Xiao et al., MDGR-W: interests without weights"),
    "mdgr-dgc": Preset(MDGR, {"m": 0}, "Xiao et al., MDGR-DGC: one clustering in place of dynamic graph clustering"),
    "mdgr-pt": Preset(
        MDGR, {"positions": False, "times": False}, "Xiao et al., MDGR-PT: items without positions and times"
    ),
    "mdgr-p": Preset(MDGR, {"positions": False}, "Xiao et al., MDGR-P: items without positions"),
    "mdgr-t": Preset(MDGR, {"times": False}, "Xiao et al., MDGR-T: items without times"),
    "mdgr-residual": Preset(
        MDGR,
        {"residual": True, "dropout": 0.3, "weights": False},
        "not in the paper: MDGR with the items' own vectors in Eq. 6, dropout, and no weights",
    ),
    "mip": Preset(MIP, {}, "Shi et al., arXiv 2207.06652, as in MDGR's Table 2"),
    "comirec-sa": Preset(ComiRec, {"extractor": "attention"}, "Cen et al., KDD 2020: interests by self-attention"),
    "comirec-dr": Preset(
        ComiRec, {"extractor": "routing", "train.lr": 5e-3}, "the same, by dynamic routing, with its own learning rate"
    ),
    "galrec-lightgcn": Preset(GALRec, {}, "Guan et al., GAL(LightGCN): graph-aware learning of a language model"),
    "galrec-sasrec": Preset(GALRec, {"embeddings": "sasrec"}, "the same on SASRec's embeddings"),
    "galrec-text": Preset(GALRec, {"embeddings": "text"}, "the same on embeddings of the items' texts"),
    "iid": Preset(
        GALRec, {"embeddings": "learned", "gal": False, "hops": 1}, "Hua et al., SIGIR-AP 2023: one token per item"
    ),
    "sid": Preset(IndexedLM, {"scheme": "sid"}, "the same, items named by numbers in the order of training"),
    "cid": Preset(IndexedLM, {"scheme": "cid"}, "the same, items named by paths through clusters"),
    "p5": Preset(IndexedLM, {"scheme": "p5"}, "Geng et al., RecSys 2022, with shuffled numbers"),
    "surge": Preset(SURGE, {}, "Chang et al., SIGIR 2021, as in MDGR's Table 2"),
    "selfgnn": Preset(SelfGNN, {}, "Liu et al., SIGIR 2024, by the equations that HardGNN's paper prints"),
    "selfgnn-code": Preset(
        SelfGNN,
        _CODE,
        "the same, mostly as the authors' public code computes it",
    ),
    "selfgnn-prefixes": Preset(
        SelfGNN,
        _PREFIXES,
        "not in the paper: SelfGNN that learns from every item of a history, with means in place of sums",
    ),
    "selfgnn-inductive": Preset(
        SelfGNN,
        _INDUCTIVE,
        "not in the paper: the same, with users computed from their items only, up to the slice before the target's",
    ),
    "selfgnn-causal": Preset(
        SelfGNN,
        {**_INDUCTIVE, "instance": "causal", "loss": "softmax", "dropout": 0.5, **_LARGE_STEPS},
        "not in the paper: the same with causal attention over a history, and a softmax over all items of a step",
    ),
    "hardgnn": Preset(HardGNN, {}, "Lin et al., HardGNN: SelfGNN with hard negatives"),
    "hardgnn-code": Preset(
        HardGNN,
        {**_CODE, "shared_cell": False, "k": 5, "contrast": "batch", "hard_in_rec": True},
        "the same, mostly as the authors' public code computes it",
    ),
}
