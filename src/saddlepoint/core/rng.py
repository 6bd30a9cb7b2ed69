"""Counter-based random numbers, keyed by row.

    u = Philox4x32-10(key, counter) / 2³²          Salmon et al., SC 2011, §3.3

A row's key is a hash of (seed, sample id, method, restart); its numbers are a pure function of the key,
the stream and the position. So draws never depend on the batch a row happens to sit in, on its order,
on workers or on resuming, and no global generator is touched. All arithmetic is int64 tensor operations
on the device of the keys; products of 32-bit words wrap modulo 2⁶⁴, which keeps every bit we read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from saddlepoint.core.digests import canonical_json

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_FORKS = 1 << 31  # the first stream that keys of forks are made of


def row_keys(seed: int, ids: Sequence[str], method: str, restart: int = 0) -> Int64[Tensor, " b"]:
    """A 63-bit key per row from (seed, sample id, method, restart)."""
    keys = [
        int.from_bytes(hashlib.sha256(canonical_json([seed, i, method, restart]).encode()).digest()[:8], "big") >> 1
        for i in ids
    ]
    return torch.tensor(keys, dtype=torch.int64)


@dataclass(frozen=True)
class Draws:
    """Random numbers of a batch of rows. Equal (key, stream, shape) always give equal numbers."""

    keys: Int64[Tensor, " b"]

    def uniform(self, shape: Sequence[int], stream: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """(b, *shape) numbers in [0, 1): multiples of 2⁻²⁴ (float32) or 2⁻³² (float64)."""
        words = self._words(math.prod(shape), stream)
        bits = 24 if dtype != torch.float64 else 32
        # shifting before the conversion keeps every value exact, so 1.0 can never appear by rounding
        unit = (words >> (32 - bits)).to(dtype) * 2.0**-bits
        return unit.reshape(len(self.keys), *shape)

    def normal(self, shape: Sequence[int], stream: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """(b, *shape) standard normal numbers (Box–Muller)."""
        pairs = self.uniform((2, *shape), stream, torch.float64)
        radius = torch.sqrt(-2 * torch.log1p(-pairs[:, 0]))  # log(1 − u) is finite for u in [0, 1)
        return (radius * torch.cos(2 * math.pi * pairs[:, 1])).to(dtype)

    def sign(self, shape: Sequence[int], stream: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """(b, *shape) independent fair ±1."""
        return (self.uniform(shape, stream) < 0.5).to(dtype) * 2 - 1

    def integers(self, shape: Sequence[int], high: int, stream: int = 0) -> Int64[Tensor, "b ..."]:
        """(b, *shape) integers in [0, high); the bias is below high / 2³²."""
        words = self._words(math.prod(shape), stream)
        return ((words * high) >> 32).reshape(len(self.keys), *shape)

    def take(self, index: Tensor) -> Draws:
        """The draws of the chosen rows."""
        return Draws(self.keys[index])

    def fork(self, number: int) -> Draws:
        """Draws of their own for the same rows: those of different numbers, and this one's, are independent."""
        high, low = self.integers((2,), 1 << 31, stream=_FORKS + number).unbind(1)
        return Draws((high << 31) | low)

    def _words(self, count: int, stream: int) -> Tensor:
        """(b, count) independent 32-bit words as int64."""
        blocks = -(-count // 4)
        device = self.keys.device
        counter = torch.arange(blocks, device=device).expand(len(self.keys), blocks)
        zeros = torch.zeros_like(counter)
        state = [counter & _MASK, zeros + (stream & _MASK), zeros, zeros]
        key = [(self.keys & _MASK)[:, None], ((self.keys >> 32) & _MASK)[:, None]]
        for _ in range(10):
            a, b = state[0] * _MULTIPLIERS[0], state[2] * _MULTIPLIERS[1]
            state = [
                ((b >> 32) & _MASK) ^ state[1] ^ key[0],
                b & _MASK,
                ((a >> 32) & _MASK) ^ state[3] ^ key[1],
                a & _MASK,
            ]
            key = [(key[0] + _WEYL[0]) & _MASK, (key[1] + _WEYL[1]) & _MASK]
        return torch.stack(state, dim=-1).reshape(len(self.keys), 4 * blocks)[:, :count]
