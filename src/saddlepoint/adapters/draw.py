"""One draw of a random network as a pure function: f(x, ω) with ω named by a seed and a number.

While a `Draw` is active, every random operator of torch takes its numbers from a generator seeded by (seed, number,
position of the operator in the call). Random tensors whose first axis runs over the batch are drawn for one row and
shared by all rows: ω belongs to the draw, not to the row, so f(x, ω)_i depends on x_i alone, whatever else is in the
batch. Each row's answer keeps its distribution; only the rows of one call become dependent on each other.

Python's and NumPy's global generators are seeded the same way and, like torch's, put back afterwards. Random numbers
from anywhere else (a `numpy.random.Generator` held by the model, the operating system) cannot be named.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from saddlepoint.core.rng import row_keys

Asked = tuple[str, tuple[int, ...]]
_COPIES = ("aten::rand_like", "aten::randn_like", "aten::randint_like")  # only the shape of their input is read


class Draw(TorchDispatchMode):
    """Random operators answer as draw `number` of `seed` does, for a batch of `rows`.

    `known` lists what an earlier call asked for, and how many leading entries of each random tensor belonged to one
    row (0: it has no batch axis). Where a call asks for something else, a first axis of `rows` is the batch's.
    """

    def __init__(self, seed: int, number: int, rows: int, known: Sequence[tuple[Asked, int]] = ()) -> None:
        super().__init__()
        self.key = draw_key(seed, number)
        self.rows = rows
        self.known = known
        self.asked: list[Asked] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Random operators with our numbers, all others as they are."""
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if "generator" in kwargs:
            kwargs["generator"] = None  # the global one, which is seeded below
        shape = _shape(args)
        share = self._share(func.name(), shape)
        self.asked.append((func.name(), shape))
        key = (self.key + len(self.asked) * 0x9E3779B97F4A7C15) & (2**63 - 1)

        def draw(*arguments: Any) -> Any:
            torch.default_generator.manual_seed(key)
            if torch.cuda.is_initialized():
                torch.cuda.manual_seed_all(key)
            return func(*arguments, **kwargs)

        return draw(*args) if share == 0 else _shared(func, draw, args, share, self.rows)

    def _share(self, name: str, shape: tuple[int, ...]) -> int:
        """Leading entries per row."""
        if not shape:
            return 0
        at = len(self.asked)
        if at < len(self.known):
            (before, was), share = self.known[at]
            if before == name and len(was) == len(shape):
                return share if shape[0] == share * self.rows else 0
        return 1 if shape[0] == self.rows else 0


def _shape(args: Sequence[Any]) -> tuple[int, ...]:
    """Of what an operator will draw: its first tensor's, or the size that it is given."""
    for value in args:
        if isinstance(value, Tensor):
            return tuple(value.shape)
        if isinstance(value, (list, tuple, torch.Size)):
            return tuple(value)
    return ()


def _shared(func: Any, draw: Any, args: Sequence[Any], share: int, rows: int) -> Any:
    """The same numbers for every row: drawn once and repeated, or row by row from the same seed."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    in_place = func._schema.is_mutable
    if not tensors or (len(tensors) == 1 and (in_place or func.name().split(".")[0] in _COPIES)):
        first = _first(args, share)
        one = draw(*first)
        whole = one.repeat(rows, *[1] * (one.dim() - 1))
        return args[0].copy_(whole) if in_place else whole
    parts = [draw(*tree_map(lambda t, i=i: _row(t, i, share, rows), list(args))) for i in range(rows)]
    if isinstance(parts[0], Tensor):
        return args[0] if in_place and func.name().split(".")[0].endswith("_") else torch.cat(parts)
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _first(args: Sequence[Any], share: int) -> list[Any]:
    """Arguments for one row: the first tensor (a copy, it may be written to) or the size cut to `share` entries."""
    out, cut = [], False
    for value in args:
        if not cut and isinstance(value, Tensor):
            value, cut = value[:share].clone(), True
        elif not cut and isinstance(value, (list, tuple, torch.Size)):
            value, cut = [share, *value[1:]], True
        out.append(value)
    return out


def _row(value: Any, i: int, share: int, rows: int) -> Any:
    """Row i's part of a tensor with a batch axis; anything else as it is."""
    if isinstance(value, Tensor) and value.dim() and len(value) == share * rows:
        return value[i * share : (i + 1) * share]
    return value


def draw_key(seed: int, number: int) -> int:
    """63 bits that name a draw."""
    return int(row_keys(seed, [str(number)], "draw")[0])


@contextmanager
def generators_kept(x: Tensor) -> Iterator[None]:
    """Global generators of torch (on x's device too), Python and NumPy are afterwards what they were."""
    devices = [x.device] if x.is_cuda else []
    python, numpy = random.getstate(), np.random.get_state()  # a user's module may read it
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def seed_others(key: int) -> None:
    """Python's and NumPy's global generators, inside `generators_kept`."""
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)


def shares(small: Sequence[Asked], large: Sequence[Asked], rows: tuple[int, int]) -> list[tuple[Asked, int]]:
    """How many leading entries of each random tensor belong to one row, from two calls of different batch sizes."""
    found = []
    for (name, a), (other, b) in zip(small, large, strict=False):
        if name != other or len(a) != len(b):
            break  # from here on the two calls went different ways
        share = a[0] // rows[0] if a and a[0] % rows[0] == 0 and a[0] // rows[0] * rows[1] == b[0] else 0
        found.append(((name, a), share))
    return found
