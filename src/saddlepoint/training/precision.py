"""bfloat16 in inner searches: where the processor multiplies it in hardware, and only where the loop allows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor

_ALLOWED: ContextVar[bool] = ContextVar("bfloat16 in searches", default=True)


@contextmanager
def searches_in_bfloat16(allowed: bool) -> Iterator[None]:
    """Inside, searches may use bfloat16 or may not; outside, they may."""
    token = _ALLOWED.set(allowed)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def search_precision(x: Tensor, low: bool = True) -> torch.autocast:
    """The context of a search from x that could do with three digits (`low`)."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=low and _ALLOWED.get() and has_bfloat16(x))


def has_bfloat16(x: Tensor) -> bool:
    """Whether float32 work on this device gains from bfloat16: the processor multiplies it in hardware."""
    if x.dtype != torch.float32:
        return False
    if x.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return x.device.type == "cpu" and _processor_has_bfloat16()


def searched_in(precision: str, x: Tensor) -> str:
    """The type that a loop of this precision lets searches use here, as a word for whoever compares runs."""
    low = precision == "all" or (precision == "auto" and has_bfloat16(x))
    return "bfloat16" if low else str(x.dtype).removeprefix("torch.")


@cache
def _processor_has_bfloat16() -> bool:
    told = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(told.get("avx512_bf16") or told.get("amx_bf16") or told.get("bf16"))
