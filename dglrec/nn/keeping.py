"""Values that evaluation needs for each block, computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Module = TypeVar("Module", bound="Keeping")


class Keeping(nn.Module):
    """A module that, in evaluation, keeps what it computed from some tensors until one of them changes.

    Nothing is kept in training, if a gradient may be needed, or for inference tensors, whose changes are not counted.
    Switching between training and evaluation drops everything.
    """

    _kept: tuple[Any, Any, dict[str, Any]] | None = None

    def train(self: Module, mode: bool = True) -> Module:
        """Switch between training and evaluation; either drops what was kept, as weights may have changed."""
        self._kept = None
        return super().train(mode)

    def once(self, name: str, of: tuple[Any, ...], make: Callable[[], T]) -> T:
        """The result of `make` on tensors, and on other objects that do not change, kept under `name`."""
        tensors = [one for one in of if isinstance(one, Tensor)]
        if self.training or torch.is_grad_enabled() or any(t.is_inference() for t in tensors):
            return make()
        state = (*map(id, of), *((t.data_ptr(), t._version, t.device) for t in tensors))
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, of, {})  # all of it stays alive, so that no other object gets one of the ids
        made = self._kept[2]
        if name not in made:
            made[name] = make()
        result: T = made[name]
        return result
