"""What a model's outputs are, and how they become logits (b, classes).

logits z (b, K)             z
one logit z (b, 1) or (b,)  (−z/2, z/2):        z > 0 is class 1, the margin is ±z
probabilities p (b, K)      log p:              a valid logit, as softmax(log p) = p
one probability p (b, 1)    (log(1−p), log p)
labels (b,)                 one-hot rows: the margin is ±1 and nothing else is known
"""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.errors import UnsupportedModel

_ROW_SUM = 1e-3  # half-precision softmax rows miss 1 by about this much


class Outputs(Enum):
    """Kinds of outputs."""

    LOGITS = "logits"
    ONE_LOGIT = "one logit"
    PROBABILITIES = "probabilities"
    ONE_PROBABILITY = "one probability"
    LABELS = "labels"


class Present(nn.Module):
    """Turns raw outputs of one kind into logits."""

    halves: Tensor

    def __init__(self, outputs: Outputs, classes: int | None = None) -> None:
        super().__init__()
        self.outputs = outputs
        self.classes = classes
        halves = torch.tensor([[-0.5], [0.5]])
        self.register_buffer("halves", halves if outputs is Outputs.ONE_LOGIT else halves[:0], persistent=False)

    def forward(self, raw: Tensor) -> Tensor:
        """(b, K), (b, 1) or (b,) -> (b, classes)."""
        if self.outputs is Outputs.LOGITS:
            return raw
        if self.outputs is Outputs.LABELS:
            return functional.one_hot(raw.reshape(len(raw)).long(), self.classes or -1).to(torch.float32)
        if self.outputs is Outputs.PROBABILITIES:
            return _log(raw)
        column = raw if raw.dim() == 2 else raw.unsqueeze(1)
        if self.outputs is Outputs.ONE_LOGIT:
            return functional.linear(column, self.halves.to(column.dtype))
        return torch.cat([_log(1 - column), _log(column)], dim=1)


def _log(p: Tensor) -> Tensor:
    # the clamp keeps log 0 finite: a class of probability 0 stays the least likely one
    return torch.log(p.clamp_min(torch.finfo(p.dtype).tiny))


def check_outputs(raw: object, rows: int) -> Tensor:
    """The outputs of one call on `rows` inputs as a tensor, or UnsupportedModel: no classifier."""
    remedy = "Wrap it in a module whose forward returns the class scores: one row per input, one column per class."
    if isinstance(raw, dict) or hasattr(raw, "keys"):
        names = ", ".join(str(k) for k in getattr(raw, "keys", list)())
        raise UnsupportedModel(
            f"The model returns a dictionary ({names}): a detector, or scores among other things.", remedy
        )
    if isinstance(raw, (list, tuple)):
        raise UnsupportedModel(f"The model returns {len(raw)} things, not one tensor of scores.", remedy)
    if not isinstance(raw, Tensor):
        raise UnsupportedModel(f"The model returns {type(raw).__name__}, not a tensor of scores.", remedy)
    if raw.is_complex():
        raise UnsupportedModel("The model returns complex numbers.", remedy)
    if raw.dim() == 4:
        raise UnsupportedModel(
            f"The model returns {tuple(raw.shape)}: a map per class, as segmentation does, not one score.",
            "Only classifiers are evaluated. A classifier that ends in 1x1 maps needs a Flatten.",
        )
    if raw.dim() not in (1, 2) or len(raw) != rows or (raw.dim() == 2 and raw.shape[1] == 0):
        raise UnsupportedModel(
            f"The model returns shape {tuple(raw.shape)} for {rows} inputs; a classifier returns ({rows}, classes).",
            remedy,
        )
    if raw.dim() == 2 and raw.shape[1] > 1 and not raw.is_floating_point():
        raise UnsupportedModel(
            f"The model returns {raw.dtype} scores.", "Return floating scores, or one label per input."
        )
    return raw


def find_out(ordinary: Tensor, far: Tensor | None, told: str) -> Outputs:
    """Kind of outputs, from those on ordinary inputs and those on inputs far outside the domain.

    Probabilities stay in [0, 1] (and sum to 1) wherever one looks; logits leave it far outside.
    """
    if not ordinary.is_floating_point():
        return Outputs.LABELS
    one = ordinary.dim() == 1 or ordinary.shape[1] == 1
    if told == "logits":
        return Outputs.ONE_LOGIT if one else Outputs.LOGITS
    looks = all(_like_probabilities(z, one) for z in (ordinary, far) if z is not None)
    if told == "probabilities" and not _like_probabilities(ordinary, one):
        raise UnsupportedModel(
            "The outputs were said to be probabilities; they leave [0, 1] or do not sum to 1.",
            'Leave outputs="auto".',
        )
    varied = bool((ordinary != ordinary.reshape(-1)[0]).any())  # constants say nothing
    probable = told == "probabilities" or (looks and (varied or not one))
    if one:
        return Outputs.ONE_PROBABILITY if probable else Outputs.ONE_LOGIT
    return Outputs.PROBABILITIES if probable else Outputs.LOGITS


def _like_probabilities(z: Tensor, one: bool) -> bool:
    finite = z[torch.isfinite(z).reshape(len(z), -1).all(1)]  # far outside, a model may overflow
    inside = bool(((finite >= 0) & (finite <= 1)).all())
    return inside and (one or bool(((finite.sum(1) - 1).abs() <= _ROW_SUM).all()))
