"""scikit-learn's handwritten digits: 1,797 images of 8x8, values 0..16 brought to [0, 1].

The split is fixed: every fifth row (4, 9, 14, …) is the test part; ids are the row numbers of the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn import datasets

from saddlepoint.core.errors import DataError
from saddlepoint.data.assemble import Description, assemble
from saddlepoint.data.rows import ArrayRows
from saddlepoint.data.samples import Samples


def load_digits(part: str | None, spec: str, dtype: torch.dtype = torch.float32) -> Samples:
    """All of the digits, or the part "train" or "test"."""
    bunch: Any = datasets.load_digits()
    x = (bunch.images / 16.0).astype(np.float32)  # k/16 is exact in float32
    at = np.arange(len(x))
    if part == "train":
        at = at[at % 5 != 4]
    elif part == "test":
        at = at[at % 5 == 4]
    elif part is not None:
        raise DataError(f"digits has no part {part!r}.", "Write digits, digits:train or digits:test.")
    about = Description(spec, [str(i) for i in at], 10, tuple(str(i) for i in range(10)), dtype)
    return assemble(ArrayRows(x[at]), bunch.target[at], about)
