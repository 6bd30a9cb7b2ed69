"""Answering asks: one forward for all rows, one backward where a gradient is wanted.

    z = f(render(points)),   g = (∂ objective / ∂ z) · (∂ z / ∂ points)

The slope in the logits is taken first (K numbers a row), so it can be scaled per row to 1 where a direction is
all that is wanted: a saturated loss then does not underflow on its way through the network. Only points get
gradients; the model's parameters, flags and returned logits are left alone. Margins and losses are read from
the deployed model's logits. A call that fails is halved until the rows that make it fail are alone; those get
an error, the others their answer. When memory ends, the batch is halved for good. A refusal (no rule for
this set or graph) is no row's failure and is passed on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from saddlepoint.attack.protocol import Answers, Ask
from saddlepoint.attack.rows import Rows, concat, span
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import NotAvailable, UnsupportedModel, UnsupportedOperator
from saddlepoint.spec.access import Access
from saddlepoint.spec.model import Model

REFUSALS = (NotAvailable, UnsupportedOperator)  # "this does not apply here": about the method, not about samples


@dataclass(frozen=True)
class Question:
    """An ask with its rows; `sample` (b,) numbers the samples that they belong to."""

    rows: Rows
    ask: Ask
    sample: Tensor


@dataclass(frozen=True)
class Reply:
    """Answers, and what only the engine reads: the margin under the goal, and rows whose gradient is dead."""

    answers: Answers
    margin: Tensor
    dead: Tensor


@dataclass
class Answerer:
    """Calls the model. `limit` is the most rows in a call, `pad` the physical shape when deterministic."""

    model: Model
    limit: int
    pad: bool = False
    errors: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __call__(self, questions: list[Question]) -> list[Reply]:
        """One reply per question, rows in order."""
        replies: list[list[Reply]] = [[] for _ in questions]
        tagged = list(enumerate(questions))
        left = sum(len(q.rows) for q in questions)
        while tagged:
            # calls of equal size: 70 rows as 35 + 35, since a last call of 6 costs far more than 6 rows' share
            share = -(-left // -(-left // self.limit))
            now, tagged = _cut(tagged, share)
            self._guarded(now, replies)
            left -= share
        return [concat(parts) for parts in replies]

    def _guarded(self, tagged: list[tuple[int, Question]], replies: list[list[Reply]]) -> None:
        """Answer, or halve and try again; a single row that fails gets an error and NaN."""
        count = sum(len(q.rows) for _, q in tagged)
        try:
            got = self._call([q for _, q in tagged])
        except REFUSALS:
            raise
        except Exception as error:
            if count == 1:
                self.errors[int(tagged[0][1].sample[0])] = describe(error)
                got = [_nothing(tagged[0][1], self.model.classes)]
            else:
                if _out_of_memory(error) and count // 2 < self.limit:
                    self.limit = max(1, count // 2)
                    self.notes.append(f"memory ended: batch halved to {self.limit} rows")
                first, rest = _cut(tagged, count // 2)
                self._guarded(first, replies)
                self._guarded(rest, replies)
                return
        for (tag, _), reply in zip(tagged, got, strict=True):
            replies[tag].append(reply)

    def _call(self, questions: list[Question]) -> list[Reply]:
        sloped = [q.ask.want >= Access.GRADIENT for q in questions]
        points = [q.ask.points.detach().requires_grad_(s) for q, s in zip(questions, sloped, strict=True)]
        with torch.set_grad_enabled(any(sloped)):
            z = self._scores(questions, points)
        parts = z.detach().split([len(p) for p in points])
        values, slopes = zip(*[_slope(q, part) for q, part in zip(questions, parts, strict=True)], strict=True)
        grads = _pull_back(z, points, sloped, slopes)
        return [
            _reply(q, part, value, grad) for q, part, value, grad in zip(questions, parts, values, grads, strict=True)
        ]

    def _scores(self, questions: list[Question], points: list[Tensor]) -> Tensor:
        inputs = [
            q.rows.set.render(q.rows.x0, p) if q.rows.set.parametric else p
            for q, p in zip(questions, points, strict=True)
        ]
        x = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
        count = len(x)
        if self.pad and count < self.limit:
            x = torch.cat([x, x[-1:].expand(self.limit - count, *x.shape[1:])])
        z = self.model(x)
        if z.shape != (len(x), self.model.classes):
            raise UnsupportedModel(
                f"the model returned scores of shape {tuple(z.shape)} for {len(x)} inputs and "
                f"{self.model.classes} classes.",
                "A classifier returns (batch, classes).",
            )
        return z[:count]


def _slope(question: Question, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The objective's value, and its slope in the logits where a gradient is wanted."""
    ask, y, target = question.ask, question.rows.y, question.rows.target
    if ask.objective is None:
        return None, None
    # K numbers a row, and slopes down to 1e-308 survive until they are scaled
    wide = z.detach().to(torch.float64, copy=True)
    if ask.want < Access.GRADIENT:
        return ask.objective(wide, y, target), None
    with torch.enable_grad():
        value = ask.objective(wide.requires_grad_(), y, target)
        (slope,) = torch.autograd.grad(value.sum(), wide)
    if ask.scale_free:
        top = slope.abs().amax(1, keepdim=True)
        slope = torch.where(top > 0, slope / top, slope)
    return value.detach(), slope.to(z.dtype)


def _pull_back(
    z: Tensor, points: list[Tensor], sloped: list[bool], slopes: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """vᵀ ∂z/∂points for all questions at once."""
    if not any(sloped):
        return [None] * len(points)
    if not z.requires_grad:
        raise UnsupportedModel(
            "the model's scores do not depend differentiably on its input.",
            "Use an attack that needs scores only, or give the model a lower access level.",
        )
    seeds = [s if s is not None else z.new_zeros(len(p), z.shape[1]) for s, p in zip(slopes, points, strict=True)]
    wanted = [p for p, s in zip(points, sloped, strict=True) if s]
    found = iter(torch.autograd.grad(z, wanted, grad_outputs=torch.cat(seeds)))
    return [next(found) if s else None for s in sloped]


def _reply(question: Question, z: Tensor, value: Tensor | None, grad: Tensor | None) -> Reply:
    ask, rows = question.ask, question.rows
    margin = rows.goal.margin(z, rows.y)
    dead = torch.zeros_like(rows.y, dtype=torch.bool)
    if grad is not None:
        top = torch.linalg.vector_norm(grad.flatten(1), torch.inf, dim=1)
        dead = ~((top > 0) & top.isfinite())  # NaN compares false, so it is dead too
        if bool(dead.any()):
            grad = torch.where(per_row(dead, grad), 0, grad)
    label = z.argmax(1)
    if ask.want < Access.SCORES:
        return Reply(Answers(label), margin, dead)
    return Reply(Answers(label, z, margin, value, grad), margin, dead)


def _nothing(question: Question, classes: int) -> Reply:
    """The reply to a row whose call failed: NaN scores, no direction."""
    x0, points = question.rows.x0, question.ask.points
    z = x0.new_full((1, classes), torch.nan)
    value = z[:, 0] if question.ask.objective is not None else None
    grad = torch.zeros_like(points) if question.ask.want >= Access.GRADIENT else None
    dead = torch.ones(1, dtype=torch.bool, device=x0.device)
    return Reply(Answers(z.argmax(1), z, z[:, 0], value, grad), z[:, 0], dead)


def _cut(
    tagged: list[tuple[int, Question]], count: int
) -> tuple[list[tuple[int, Question]], list[tuple[int, Question]]]:
    """The first `count` rows, and the rest."""
    head: list[tuple[int, Question]] = []
    for i, (tag, q) in enumerate(tagged):
        size = len(q.rows)
        if size <= count:
            head.append((tag, q))
            count -= size
            continue
        if count == 0:
            return head, tagged[i:]
        return [*head, (tag, span(q, 0, count))], [(tag, span(q, count, size)), *tagged[i + 1 :]]
    return head, []


def describe(error: Exception) -> str:
    """Type and text of an exception, one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _out_of_memory(error: Exception) -> bool:
    # the CPU's allocator raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
