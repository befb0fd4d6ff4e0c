"""External embeddings h of users and items from the items' texts (GAL-Rec, Eq. 2), and their scaling.

Those from a trained model (Eq. 3) are in `dglrec.models.sources`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.log import InteractionLog
from ..errors import ConfigError, DataError
from .backbone import library

TFIDF = "tfidf"
_SENTENCES = 64  # texts that a pre-trained encoder reads at once


def from_texts(log: InteractionLog, train: InteractionLog, encoder: str, dim: int) -> tuple[Tensor, Tensor]:
    """h of users (U, d1) and items (M, d1) from all texts of an item in the log, Eq. 2.

    A user is the mean of the user's training items; the paper does not define it.

    Args:
        log: the log with the texts.
        train: the training log.
        encoder: "tfidf", or the name or folder of a sentence-transformers model.
        dim: d1; wider vectors are reduced to it by truncated SVD, narrower ones end in zeros.

    Raises:
        DataError: there are no texts, or an item has none.
    """
    texts = item_texts(log)
    items = torch.zeros(len(texts), dim)
    found = _reduced(_tfidf(texts) if encoder == TFIDF else _sentences(texts, encoder), dim)
    items[:, : found.shape[1]] = torch.as_tensor(found)
    return mean_of_items(items, train), items


def item_texts(log: InteractionLog, brief: bool = False) -> list[str]:
    """The text of each item: title, brand, categories and description, as far as the log has them.

    Args:
        log: the log with the texts.
        brief: the title alone, if there is one.

    Raises:
        DataError: the log has no texts, or an item has none.
    """
    whole = log.titles if log.texts is None else log.texts
    if whole is None:
        raise DataError(
            f"{log.name!r} has no titles; load it with its items table, or use no texts (embeddings, titles)"
        )
    titles = whole if log.titles is None or not brief else log.titles
    texts = [title or text for title, text in zip(titles.tolist(), whole.tolist(), strict=True)]
    without = [number for number, text in enumerate(texts) if not text.strip()]
    if without:
        raise DataError(
            f"{len(without)} of {len(texts)} items of {log.name!r} have no title, brand or categories, the first of "
            f"them {str(log.item_ids[without[0]])!r}; fill in its items table, or use no texts (embeddings, titles)"
        )
    return texts


def mean_of_items(items: Tensor, train: InteractionLog) -> Tensor:
    """(U, d): mean of each user's training items, a zero vector for a user without any."""
    offsets = torch.as_tensor(train.offsets, device=items.device)
    rows = torch.as_tensor(train.item, device=items.device)
    return torch.nn.functional.embedding_bag(rows, items, offsets, mode="mean", include_last_offset=True)


def standardised(vectors: Tensor, rows: Tensor) -> Tensor:
    """Vectors whose columns have mean 0 and variance 1 over `rows`, so that all kinds have the same scale."""
    known = vectors[rows]
    return (vectors - known.mean(0)) / known.std(0, correction=0).clamp(min=1e-6)


def _tfidf(texts: list[str]) -> Any:
    """(M, words) sparse."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    except ValueError:  # none of them has a word of two letters
        raise DataError("the texts have no words that distinguish items; choose embeddings without texts") from None


def _reduced(vectors: Any, dim: int) -> Any:
    """(M, n) -> (M, at most dim)."""
    from sklearn.decomposition import TruncatedSVD

    if vectors.shape[1] <= dim:
        return vectors.toarray() if hasattr(vectors, "toarray") else vectors
    return TruncatedSVD(min(dim, *(size - 1 for size in vectors.shape)), random_state=0).fit_transform(vectors)


def _sentences(texts: list[str], encoder: str) -> Any:
    """Vectors of a sentence-transformers model."""
    check_encoder(encoder)
    found = library("sentence_transformers")
    try:
        model = found.SentenceTransformer(encoder)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"text encoder {encoder!r} cannot be read ({reason[:120]}); without a network, use the folder of a "
            "downloaded one, or text_encoder='tfidf', which needs no download"
        ) from None
    return np.asarray(model.encode(texts, batch_size=_SENTENCES, show_progress_bar=False))


def check_encoder(encoder: str) -> None:
    """Refuse a folder whose list of modules names Python classes that are not of sentence-transformers.

    Loading it would import them, also from the folder.

    Raises:
        ConfigError: it names such a class.
    """
    path = Path(encoder) / "modules.json"
    if encoder == TFIDF or not path.is_file():
        return
    try:
        kinds = [str(part["type"]) for part in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError, KeyError):
        kinds = ["(unreadable)"]
    for kind in kinds:
        if not kind.startswith("sentence_transformers."):
            raise ConfigError(
                f"{path} names the module {kind[:80]!r}, and loading it would run code that is not of "
                "sentence-transformers; use an encoder that has only its modules, or text_encoder='tfidf'"
            )
