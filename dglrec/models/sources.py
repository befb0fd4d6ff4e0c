"""External embeddings h of users and items from a trained model of this package (GAL-Rec, Eq. 3).

They are learned from the training log alone, and for a fixed number of epochs, so that validation plays no part.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import Model, preset
from ..checkpoint import load
from ..data.log import InteractionLog
from ..data.queries import Queries
from ..data.splits import Split
from ..errors import ConfigError, DataError
from ..streams import Streams, global_generator
from ..train import make_optimizer


def from_model(
    kind: str, split: Split, source: str, dim: int, epochs: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """h of users (U, d1) and items (M, d1) from a LightGCN or a SASRec, Eq. 3.

    A user's vector of SASRec is the state after the training history; without a history it is a zero vector.

    Args:
        kind: "lightgcn" or "sasrec".
        split: the split that the vectors are for.
        source: folder of a trained run of such a model on this split; "" trains one here.
        dim, epochs, seed, device: of the training here, with all other settings of the preset.

    Raises:
        ConfigError: the run is of another model.
        DataError: it is of another split.
    """
    if source:
        model = load(source)
        if type(model).__name__.lower() != kind:
            raise ConfigError(
                f"{source} is a run of {model.preset!r}; expected one of {kind!r}; or leave embeddings={kind!r} out"
            )
        if model.split.digest != split.digest:
            raise DataError(
                f"the embeddings in {source} are of split {model.split.digest[:12]} of {model.split.log.name!r}, not "
                f"of {split.digest[:12]} of {split.log.name!r}; train {kind} on this split, or leave source= out"
            )
        if model.item_vectors().shape[1] != dim:
            raise ConfigError(f"{source} has vectors of width {model.item_vectors().shape[1]}; set source_dim to that")
    else:
        model = _trained(preset(kind, split, dim=dim, train={"seed": seed}).to(device), split, epochs)
    model.eval()
    with torch.no_grad():
        users = _user_vectors(model, split.train)
        return users, model.item_vectors().detach().clone()


def _trained(model: Model, split: Split, epochs: int) -> Model:
    """The model after `epochs` epochs, trained as by `fit`, but without validation."""
    optimizer, seed = make_optimizer(model.train_config, model.parameters()), model.train_config.seed
    model.train()
    with global_generator(model.device):
        for epoch in range(epochs):
            streams = Streams(seed, epoch)
            for number, batch in enumerate(model.batches(split, streams), 1):
                torch.manual_seed(streams.torch_seed("dropout", number))
                optimizer.zero_grad(set_to_none=True)
                torch.stack(list(model.loss(batch).values())).sum().backward()
                optimizer.step()
    return model


def _user_vectors(model: Model, train: InteractionLog) -> Tensor:
    """(U, d): the query vectors of all users after their training histories."""
    known = np.flatnonzero(np.diff(train.offsets) > 0)
    nothing = np.zeros(0, dtype=np.int64)
    no_targets = np.zeros(len(known) + 1, dtype=np.int64)
    queries = Queries(known, np.unique(train.offsets), train.item, None, no_targets, nothing, None)
    found = torch.cat(
        [model.query_vectors(queries[first : first + 1024])[:, 0] for first in range(0, len(known), 1024)]
    )
    users = found.new_zeros(train.num_users, found.shape[1])
    return users.index_copy(0, torch.as_tensor(known, device=users.device), found)
