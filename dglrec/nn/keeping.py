"""What evaluation asks for block after block, and is made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Module = TypeVar("Module", bound="Keeping")


class Keeping(nn.Module):
    """A module that keeps in evaluation what it made of some tensors until one of them changes.

    Nothing is kept in training, nor where a gradient may be asked for, nor of inference tensors, whose changes are not
    counted. To switch between training and evaluation forgets all.
    """

    _kept: tuple[Any, Any, dict[str, Any]] | None = None

    def train(self: Module, mode: bool = True) -> Module:
        """Switch between training and evaluation; either forgets what was kept, for weights may have changed."""
        self._kept = None
        return super().train(mode)

    def once(self, name: str, of: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` makes of tensors, and of other things that stay as they are, under a name of its own."""
        tensors = [one for one in of if isinstance(one, Tensor)]
        if self.training or torch.is_grad_enabled() or any(t.is_inference() for t in tensors):
            return make()
        state = (*map(id, of), *((t.data_ptr(), t._version, t.device) for t in tensors))
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, of, {})  # all of it stays alive, so that nothing takes the place of another
        made = self._kept[2]
        if name not in made:
            made[name] = make()
        result: T = made[name]
        return result
