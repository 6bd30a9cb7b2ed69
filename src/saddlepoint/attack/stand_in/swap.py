"""One tensor's value with another's gradient: y = v on the way forward, ∂y := ∂s on the way back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Swap(torch.autograd.Function):
    """The first argument's value, the second's gradient; both have one shape."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, smooth: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Exactly the value: smooth + (value − smooth) would round."""
        ctx.dtype = smooth.dtype
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """All of it to the second."""
        return None, slope.to(ctx.dtype)
