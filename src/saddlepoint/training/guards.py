"""What goes wrong in robust training, noticed on the validation part at the end of each epoch.

    catastrophic overfitting   accuracy after one step − accuracy after many > `gap`      Wong et al. 2020, §5.4
        The network resists the attack that it is trained with and no other. Stop, go back to the last good epoch.
    collapse                   effective classes exp(entropy of the predicted classes) < `classes`
        One class for everything: the loss is ln k and stays there (too large a set too soon). Said at every epoch;
        after `patience` of them back to the last good one, and the end. A run that never was good goes on.
    overfitting                Rice, Wong, Kolter, ICML 2020: robust accuracy on held-out data falls while training goes
        on. Kept is the last epoch whose count on the *validation* part lies within a standard error √(k (1 − k/n)) of
        the best one's k: among epochs that differ by chance, the one trained longest. Never one chosen on test data.

Label leaking is guarded where the inner maximum is taken (adversarial.py: it holds δ = 0). Accuracies here are counts
over a short search: good enough to notice a failure, never reported as robustness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from saddlepoint.training.attacked import Attacked
from saddlepoint.training.certified.mtl_ibp import MTLIBP
from saddlepoint.training.certified.sabr import SABR
from saddlepoint.training.checks import check, check_count
from saddlepoint.training.measure import Epoch
from saddlepoint.training.replayed import Replays
from saddlepoint.training.stability import ReluStability
from saddlepoint.training.weight_perturbation import AWP


@dataclass(frozen=True)
class Note:
    """Something a guard did or noticed, at the end of an epoch."""

    epoch: int
    guard: str
    text: str

    def event(self, run: str) -> dict[str, str | int]:
        """As the ledger's event table takes it."""
        return {"kind": "guard", "run": run, "epoch": self.epoch, "guard": self.guard, "text": self.text}


@dataclass(frozen=True)
class Guards:
    """Thresholds. `keep_best`: end with the weights of the last epoch that is as good as the best on validation."""

    gap: float = 0.3
    classes: float = 1.5
    patience: int = 3
    keep_best: bool = True

    def __post_init__(self) -> None:
        check("gap", self.gap, 0, 1)
        check("classes", self.classes, 1)
        check_count("patience", self.patience)

    def overfitted(self, epoch: Epoch, objective: object) -> Note | None:
        """Catastrophic overfitting, for objectives that are trained against a search."""
        if not _searches(objective) or epoch.single is None or epoch.robust is None:
            return None
        if epoch.single - epoch.robust <= self.gap:
            return None
        text = f"accuracy {epoch.single:.3f} after one step, {epoch.robust:.3f} after many (n = {epoch.n})"
        return Note(epoch.epoch, "catastrophic overfitting", text)

    def as_good(self, score: tuple[int, int], best: tuple[int, int], n: int) -> bool:
        """Whether (set at its full size, count of n) does not fall behind the best by more than a standard error."""
        if score[0] != best[0]:
            return score[0] > best[0]
        k = max(best[1], 0)
        return score[1] >= k - math.sqrt(k * (1 - k / max(n, 1)))

    def collapsed(self, epoch: Epoch) -> Note | None:
        """Collapse to one class, where the labels are spread over more than `classes`."""
        if not epoch.n or epoch.predicted is None or epoch.predicted >= self.classes or epoch.present <= self.classes:
            return None
        text = f"predictions are spread over {epoch.predicted:.2f} classes, the labels over {epoch.present:.2f}"
        return Note(epoch.epoch, "collapse", f"{text}; a longer warm-up or a lower rate may help")


def _searches(objective: object) -> bool:
    """Whether its loss is taken at points that a search found."""
    if isinstance(objective, ReluStability):
        return objective.objective is None or _searches(objective.objective)
    return isinstance(objective, Attacked | Replays | AWP | SABR | MTLIBP)
