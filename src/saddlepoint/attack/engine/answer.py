"""Answering asks: one forward for all rows, one backward where a gradient is wanted.

    z = f(render(points)),   g = (∂ objective / ∂ z) · (∂ z / ∂ points)

Where the model brings a stand-in for its gradient (`Model.slopes`), ∂ z / ∂ points is the stand-in's, z is f's. Where
the engine found a faster function (stand_in/choose.py), both are its, the reply says so, and `confirm` asks f.

The slope in the logits is taken first (K numbers a row), so it can be scaled per row to 1 where a direction is
all that is wanted: a saturated loss then does not underflow on its way through the network. Only points get
gradients; the model's parameters, flags and returned logits are left alone. Margins and losses are read from
the deployed model's logits. A call that fails is halved until the rows that make it fail are alone; those get
an error, the others their answer. When memory ends, the batch is halved for good. A refusal (no rule for
this set or graph) is no row's failure and is passed on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from saddlepoint.attack.protocol import Answers, Ask
from saddlepoint.attack.rows import Rows, concat, span, take
from saddlepoint.attack.stand_in.choose import Faster, StandIn
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
    """Answers, and what only the engine reads: the margin under the goal, and rows whose gradient is dead.

    `sure` (b,) marks margins of the model itself; `rough` those of a stand-in too coarse to be worth keeping.
    """

    answers: Answers
    margin: Tensor
    dead: Tensor
    sure: Tensor
    rough: Tensor


@dataclass
class Answerer:
    """Calls the model. `limit` is the most rows in a call, `pad` the physical shape when deterministic."""

    model: Model
    limit: int
    pad: bool = False
    faster: Faster = field(default_factory=Faster)
    errors: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __call__(self, questions: list[Question], sure: bool = False) -> list[Reply]:
        """One reply per question, rows in order; `sure`: from the model itself."""
        replies: list[list[Reply]] = [[] for _ in questions]
        by: dict[int, tuple[StandIn | None, list[tuple[int, Question]]]] = {}
        for tag, question in enumerate(questions):
            stand_in = None if sure else self.faster.to_answer(question.ask)
            by.setdefault(id(stand_in), (stand_in, []))[1].append((tag, question))
        for stand_in, tagged in by.values():
            left = sum(len(q.rows) for _, q in tagged)
            while tagged:
                # calls of equal size: 70 rows as 35 + 35, since a last call of 6 costs far more than 6 rows' share
                share = -(-left // -(-left // self._limit(stand_in)))
                now, tagged = _cut(tagged, share)
                self._guarded(now, replies, stand_in)
                left -= share
        return [concat(parts) for parts in replies]

    def _limit(self, stand_in: StandIn | None) -> int:
        return self.limit if stand_in is None else max(self.limit, stand_in.rows)

    def _guarded(
        self, tagged: list[tuple[int, Question]], replies: list[list[Reply]], stand_in: StandIn | None
    ) -> None:
        """Answer, or halve and try again; a single row that fails gets an error and NaN."""
        count = sum(len(q.rows) for _, q in tagged)
        try:
            got = self._call([q for _, q in tagged], stand_in)
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
                self._guarded(first, replies, None)  # the model itself: a stand-in's failure is none of its own
                self._guarded(rest, replies, None)
                return
        for (tag, _), reply in zip(tagged, got, strict=True):
            replies[tag].append(reply)

    def _call(self, questions: list[Question], stand_in: StandIn | None = None) -> list[Reply]:
        sloped = [q.ask.want >= Access.GRADIENT for q in questions]
        points = [q.ask.points.detach().requires_grad_(s) for q, s in zip(questions, sloped, strict=True)]
        replaced = self.model.slopes
        with torch.set_grad_enabled(any(sloped) and replaced is None):
            x = self._inputs(questions, points)
            z = self._scores(stand_in or self.model, x)[: sum(len(p) for p in points)]
        parts = z.detach().split([len(p) for p in points])
        values, slopes = zip(*[_slope(q, part) for q, part in zip(questions, parts, strict=True)], strict=True)
        if any(sloped) and replaced is not None:
            with torch.enable_grad():
                z = self._scores(replaced, self._inputs(questions, points))[: len(z)]
        grads = _pull_back(z, points, sloped, slopes)
        replies = [
            _reply(q, part, value, grad) for q, part, value, grad in zip(questions, parts, values, grads, strict=True)
        ]
        if stand_in is None:
            return replies
        rough = stand_in is self.faster.rough
        return [replace(r, sure=r.rough, rough=torch.full_like(r.sure, rough)) for r in replies]

    def confirm(self, asked: list[Question], replies: list[Reply], doubtful: list[Tensor]) -> list[Reply]:
        """The doubtful rows' margins, scores and labels from the model itself, put in the place of the stand-in's."""
        parts = [(q, r, d.nonzero()[:, 0]) for q, r, d in zip(asked, replies, doubtful, strict=True)]
        again = [
            Question(take(q.rows, i), replace(take(q.ask, i), want=Access.SCORES, values=True, done=None), q.sample[i])
            for q, _, i in parts
            if len(i)
        ]
        truths = iter(self(again, sure=True))
        return [_amended(r, next(truths), i) if len(i) else r for _, r, i in parts]

    def _inputs(self, questions: list[Question], points: list[Tensor]) -> Tensor:
        """All points as one batch of the model's inputs, padded when deterministic."""
        inputs = [
            q.rows.set.render(q.rows.x0, p) if q.rows.set.parametric else p
            for q, p in zip(questions, points, strict=True)
        ]
        x = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
        if self.pad and len(x) < self.limit:
            x = torch.cat([x, x[-1:].expand(self.limit - len(x), *x.shape[1:])])
        return x

    def _scores(self, fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        z = fn(x)
        if z.shape != (len(x), self.model.classes):
            raise UnsupportedModel(
                f"the model returned scores of shape {tuple(z.shape)} for {len(x)} inputs and "
                f"{self.model.classes} classes.",
                "A classifier returns (batch, classes).",
            )
        return z

    def slopes(self, rows: Rows, dual: Callable[[Rows, Tensor], Tensor]) -> Tensor:
        """(b, K) dual norms of ∇(z_t − z_y) at x0: one forward, K − 1 backwards a row. Rows that fail are zero."""
        found = []
        for begin in range(0, len(rows), self.limit):
            part = span(rows, begin, min(begin + self.limit, len(rows)))
            question = Question(part, Ask(part.x0), part.y)
            x = part.x0.detach().requires_grad_()
            with torch.enable_grad():
                z = self._scores(self.model.slopes or self.model, self._inputs([question], [x]))[: len(part)]
                gaps = z - z.gather(1, part.y[:, None])
                grads = [torch.autograd.grad(gaps[:, t].sum(), x, retain_graph=True)[0] for t in range(z.shape[1])]
            found.append(torch.stack([dual(part, g) for g in grads], 1))
        return torch.cat(found).nan_to_num(0.0)


def _slope(question: Question, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The objective's value, and its slope in the logits where a gradient is wanted."""
    ask, y = question.ask, question.rows.y
    target = question.rows.target if ask.target is None else ask.target
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
    sure, rough = torch.ones_like(dead), torch.zeros_like(dead)
    if ask.want < Access.SCORES:
        answers = Answers(label)
    elif not ask.values:
        answers = Answers(label, slopes=grad)
    else:
        answers = Answers(label, z, margin, value, grad)
    return Reply(answers, margin, dead, sure, rough)


def _amended(reply: Reply, truth: Reply, index: Tensor) -> Reply:
    """The reply with the rows `index` as the model itself answers them; gradients stay."""

    def put(of: Tensor | None, into: Tensor | None) -> Tensor | None:
        return into if of is None or into is None else into.index_copy(0, index, of.to(into.dtype))

    old, new = reply.answers, truth.answers
    label = old.label.index_copy(0, index, new.label)
    scores, margins = put(new.scores, old.scores), put(new.margins, old.margins)
    answers = Answers(label, scores, margins, put(new.values, old.values), old.slopes)
    margin = reply.margin.index_copy(0, index, truth.margin.to(reply.margin.dtype))
    return replace(reply, answers=answers, margin=margin, sure=reply.sure.index_fill(0, index, True))


def _nothing(question: Question, classes: int) -> Reply:
    """The reply to a row whose call failed: NaN scores, no direction."""
    x0, points = question.rows.x0, question.ask.points
    z = x0.new_full((1, classes), torch.nan)
    value = z[:, 0] if question.ask.objective is not None else None
    grad = torch.zeros_like(points) if question.ask.want >= Access.GRADIENT else None
    dead = torch.ones(1, dtype=torch.bool, device=x0.device)
    return Reply(Answers(z.argmax(1), z, z[:, 0], value, grad), z[:, 0], dead, dead, ~dead)


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
