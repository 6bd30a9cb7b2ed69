"""What the engine is told, and what it tells: settings in, one line per sample out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saddlepoint.core.errors import InputError

_CACHED = 150_000  # 48 rows of 32 × 32 × 3: the activations of a ResNet-20 stay in the cache (`make bench-engine`)

Status = Literal["ok", "nan", "error", "stopped"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands, between two steps."""

    samples: int
    settled: int
    broken: int
    forwards: int
    seconds: float


@dataclass(frozen=True)
class EngineSettings:
    """How a run is carried out; none of it changes what is claimed.

    batch          most rows in flight
    call           most rows in one model call (None: all of them; on a CPU, as many as hold about 150,000 numbers,
                   since activations that leave the cache cost more than a second call)
    seed           of all random numbers
    smallest       keep the smallest point that breaks a sample, whatever the set's size, instead of the smallest margin
                   inside the set; nothing is dropped
    hasten         differentiate a faster function that agrees, where one is found on the first batch; every verdict and
                   every recorded margin is the model's own. Off when deterministic, counting queries or `smallest`
    drop           rows of fallen samples leave at once; without, every item runs to its end
    deterministic  every tensor operation has the shape (physical, …), rows padded by repeating; the items of
                   a sample run one after the other: results are bitwise the same for any batch, order or shard
    queries        most forwards per sample, the clean one included (a threat's query limit)
    deadline       a time.monotonic() after which the run stops between two steps
    stop           asked between two steps; True ends the run, unfinished samples get the status "stopped"
    watch          told the progress between two steps
    """

    batch: int = 128
    call: int | None = None
    seed: int = 0
    hasten: bool = True
    drop: bool = True
    smallest: bool = False
    deterministic: bool = False
    physical: int = 32
    queries: int | None = None
    deadline: float | None = None
    stop: Callable[[], bool] | None = None
    watch: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        if min(self.batch, self.physical, 1 if self.call is None else self.call) < 1:
            raise InputError(f"batch {self.batch}, call {self.call}, physical {self.physical}: all at least 1.")
        if self.queries is not None and self.queries < 1:
            raise InputError(f"a limit of {self.queries} queries allows nothing.", "Allow at least 1.")

    @property
    def rows(self) -> int:
        """Rows in flight at a time."""
        return self.physical if self.deterministic else self.batch

    def rows_per_call(self, x0: Tensor) -> int:
        """Most rows of inputs like x0 in one model call."""
        if self.deterministic:
            return self.physical
        if self.call is not None:
            return min(self.call, self.batch)
        if x0.device.type != "cpu":
            return self.batch
        return min(self.batch, max(8, _CACHED // max(1, x0[:1].numel()) // 8 * 8))

    @property
    def sequential(self) -> bool:
        """Whether the items of one sample wait for each other."""
        return self.deterministic or self.queries is not None


@dataclass(frozen=True)
class Outcome:
    """Per sample: the smallest margin seen at a point of the set (contains, slack 0), that point, and the cost.

    success  ⇔ best_margin ≤ 0 (a tie violates); best_point is then the witness: inputs, or the parameters of
    a parametric set. Where no admissible point with finite logits was seen, best_margin is +inf.
    status   "ok"; "nan": no finite logits in the set; "error": the model or the attack raised (message says what);
             "stopped": interrupted before its items ended. Only "ok" without success says "survived".
    item     which item (restart × targets + target's rank) gave best_point, −1: x0 itself. `first` is the number
             of forwards spent when the sample fell (−1: it has not). `dead` counts the gradients that were zero
             or not finite. seconds are wall time, shared evenly by the rows of a step.
    clean    the model's scores at x0.
    size     the gauge of best_point where it breaks the sample, else inf (float64). With `smallest` best_point is the
             smallest adversarial point of the domain, success says that there is one.
    """

    ids: tuple[str, ...]
    clean: Float[Tensor, "n k"]
    best_margin: Float[Tensor, " n"]
    best_point: Float[Tensor, "n ..."]
    success: Bool[Tensor, " n"]
    item: Int64[Tensor, " n"]
    restart: Int64[Tensor, " n"]
    first: Int64[Tensor, " n"]
    forwards: Int64[Tensor, " n"]
    backwards: Int64[Tensor, " n"]
    dead: Int64[Tensor, " n"]
    seconds: Float[Tensor, " n"]
    size: Float[Tensor, " n"]
    status: tuple[Status, ...]
    message: tuple[str, ...]
    parametric: bool = False
    notes: tuple[str, ...] = ()
