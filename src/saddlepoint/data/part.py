"""Some of the samples of a data set, in a given order, as data of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from saddlepoint.core.digests import digest_json
from saddlepoint.core.errors import DataError
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data.samples import Batch, Data


@dataclass(frozen=True, eq=False)
class PartOfData:
    """The rows `at` of `whole`; ids stay those of the whole."""

    whole: Data
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.at)

    @property
    def ids(self) -> Sequence[str]:
        """One a row."""
        return self._ids

    @cached_property
    def _ids(self) -> list[str]:
        return [self.whole.ids[int(i)] for i in self.at]

    @property
    def labels(self) -> np.ndarray:
        """One a row."""
        return self.whole.labels[self.at]

    @property
    def classes(self) -> int:
        """Those of the whole."""
        return self.whole.classes

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the whole."""
        return self.whole.shape

    @property
    def spec(self) -> str:
        """That of the whole: the ids say which rows."""
        return self.whole.spec

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Those of the whole."""
        return self.whole.class_names

    @property
    def digest(self) -> str:
        """Of the whole's digest and the rows."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_json([self.whole.digest, self.at.tolist()])

    def take(self, indexes: Sequence[int] | slice | np.ndarray | Tensor) -> Batch:
        """The samples at these positions of the part."""
        chosen = self.at[indexes if isinstance(indexes, slice) else np.asarray(indexes, dtype=np.int64)]
        return self.whole.take(chosen)


def split(data: Data, held_out: int, seed: int = 0) -> tuple[Data, Data]:
    """(the rest, `held_out` samples), drawn by the seed and the samples' ids: the same whatever the order of the data.

    Raises DataError where nothing would be left.
    """
    if not 0 < held_out < len(data):
        raise DataError(f"{held_out} of {len(data)} samples cannot be held out.", "Hold out fewer.")
    rank = Draws(row_keys(seed, data.ids, "held out")).integers((1,), 1 << 31)[:, 0].argsort(stable=True).numpy()
    return PartOfData(data, np.sort(rank[held_out:])), PartOfData(data, np.sort(rank[:held_out]))
