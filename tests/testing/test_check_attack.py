"""`check_attack` finds what is wrong with an attack: each planted bug breaks the promise that is about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from saddlepoint.attack import PGD, Answers, Ask, Attack, Rows
from saddlepoint.attack.losses import ce
from saddlepoint.attack.steps import ascend, project
from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry import Linf
from saddlepoint.spec import Access
from saddlepoint.testing import ContractBroken, Report, check_attack
from saddlepoint.testing.models import convnet

STEPS = 3


@dataclass(frozen=True)
class State:
    rows: Rows
    x: Tensor
    asked: int
    extra: Any = None


@dataclass(frozen=True)
class Honest(Attack[State]):
    """A short sign-gradient ascent from x0 that keeps the contract; the broken ones below override one line."""

    name: ClassVar[str] = "honest"

    @property
    def forwards(self) -> int:
        return STEPS + 1

    @property
    def backwards(self) -> int:
        return STEPS

    def init(self, rows: Rows) -> tuple[State, Ask]:
        return State(rows, rows.x0, 0), self.ask(rows.x0, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        asked = state.asked + 1
        if asked > STEPS:
            return state, None
        x = project(state.rows, ascend(state.rows, state.x, self.direction(state, answers), 0.5))
        return replace(state, x=x, asked=asked), self.ask(x, asked)

    def ask(self, x: Tensor, asked: int) -> Ask:
        return Ask(x, Access.SCORES) if asked == STEPS else Ask(x, Access.GRADIENT, ce)

    def direction(self, state: State, answers: Answers) -> Tensor:
        return answers.grad


class WritesIntoRows(Honest):
    def direction(self, state: State, answers: Answers) -> Tensor:
        state.rows.x0.add_(0.01)
        return answers.grad


class WritesIntoAnswers(Honest):
    def direction(self, state: State, answers: Answers) -> Tensor:
        return answers.grad.mul_(2)


class MovesTheCentre(Honest):
    """Walks off by moving what the set is drawn around: points "in the set" that are not."""

    def init(self, rows: Rows) -> tuple[State, Ask]:
        rows.x0.add_(0.2).clamp_(0, 1)
        return super().init(replace(rows, limits=None))

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        return super().step(replace(state, rows=replace(state.rows, limits=None)), answers)


class NeverProjects(Honest):
    def init(self, rows: Rows) -> tuple[State, Ask]:
        far = rows.x0 + 0.3
        return State(rows, far, 0), self.ask(far, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        following, ask = super().step(state, answers)
        return following, ask if ask is None else replace(ask, points=state.x + 0.3 * answers.grad.sign())


class GlobalNoise(Honest):
    def direction(self, state: State, answers: Answers) -> Tensor:
        return answers.grad + torch.randn_like(answers.grad)


class BatchMean(Honest):
    def direction(self, state: State, answers: Answers) -> Tensor:
        return answers.grad - answers.grad.mean()


class Coward(Honest):
    """Ends for everybody as soon as one row has fallen."""

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        return (state, None) if bool((answers.margin <= 0).any()) else super().step(state, answers)


class Cheap(Honest):
    @property
    def forwards(self) -> int:
        return STEPS - 1


class Endless(Honest):
    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        return state, self.ask(state.x, 0)


class FewGradients(Honest):
    @property
    def backwards(self) -> int:
        return 1


class Scalar(Honest):
    def init(self, rows: Rows) -> tuple[State, Ask]:
        state, ask = super().init(rows)
        return replace(state, extra=torch.tensor(0.5)), ask


class ScalarLater(Honest):
    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        following, ask = super().step(state, answers)
        return replace(following, extra=torch.zeros(3)), ask


class Raises(Honest):
    def direction(self, state: State, answers: Answers) -> Tensor:
        raise KeyError("alpha")


class RaisesOnNan(Honest):
    def direction(self, state: State, answers: Answers) -> Tensor:
        if bool(answers.loss.isnan().any()):
            raise ValueError("NaN loss")
        return answers.grad


class SpreadsNan(Honest):
    """One row's NaN ends up in all."""

    coupled: ClassVar[bool] = True

    def direction(self, state: State, answers: Answers) -> Tensor:
        return answers.grad * answers.loss.mean()


class Divides(Honest):
    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        following, ask = super().step(state, answers)
        return following, ask if ask is None else replace(ask, points=ask.points * (0 * answers.grad) / 0)


class Wide(Honest):
    def init(self, rows: Rows) -> tuple[State, Ask]:
        state, ask = super().init(rows)
        return state, replace(ask, points=ask.points.double())


class Single(Honest):
    """Makes float32 of everything."""

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        following, ask = super().step(state, answers)
        return following, ask if ask is None else replace(ask, points=ask.points.float())


class FiveClasses(Honest):
    def direction(self, state: State, answers: Answers) -> Tensor:
        answers.logits.topk(5)
        return answers.grad


class Remembers(Honest):
    """Keeps state outside the state."""

    seen: ClassVar[list[float]] = []

    def direction(self, state: State, answers: Answers) -> Tensor:
        self.seen.append(1.0)
        return answers.grad * (-1) ** len(self.seen)


@lru_cache(maxsize=1)
def shared_net() -> nn.Module:
    return convnet(5)


class Backward(Honest):
    """Differentiates by itself, and leaves gradients in the weights."""

    def direction(self, state: State, answers: Answers) -> Tensor:
        with torch.enable_grad():
            shared_net()(state.x).sum().backward()
        return answers.grad


class Training(Honest):
    """Leaves the model in training mode."""

    def direction(self, state: State, answers: Answers) -> Tensor:
        shared_net().train()
        return answers.grad


@dataclass(frozen=True)
class SmallestLiar(Honest):
    """Calls itself a minimum-size attack, and never leaves x0's neighbourhood."""

    name: ClassVar[str] = "liar"
    minimum: ClassVar[bool] = True

    def direction(self, state: State, answers: Answers) -> Tensor:
        return torch.zeros_like(answers.grad)


PLANTED: list[tuple[Attack[Any], str, str]] = [
    (WritesIntoRows(), "steps_change_nothing_they_are_given", "rows.x0 was written to"),
    (WritesIntoAnswers(), "steps_change_nothing_they_are_given", "answers 0.slopes was written to"),
    (MovesTheCentre(), "points_lie_in_the_set_and_carry_their_margin", "lie outside the set"),
    (NeverProjects(), "some_points_can_count", "not one point asked lies in its set"),
    (GlobalNoise(), "steps_draw_nothing_of_their_own", "rows.random"),
    (GlobalNoise(), "no_global_generator_is_touched", "generator moved"),
    (GlobalNoise(), "a_seed_fixes_everything", "same seed"),
    (BatchMean(), "rows_do_not_look_at_each_other", "flatten"),
    (BatchMean(), "verdicts_do_not_depend_on_the_batch", "batches of 1"),
    (Coward(), "rows_do_not_look_at_each_other", "Ask.done"),
    (Cheap(), "it_ends_within_its_budget", "more than 2 times"),
    (Endless(), "it_ends_within_its_budget", "return state, None"),
    (FewGradients(), "it_ends_within_its_budget", "asked for 3 gradients"),
    (Scalar(), "states_have_rows_first", "shape ()"),
    (ScalarLater(), "states_have_rows_first", "after 1 answers"),
    (Raises(), "it_ends_within_its_budget", "in direction"),
    (RaisesOnNan(), "nan_is_never_a_success", "NaN loss"),
    (SpreadsNan(), "nan_is_never_a_success", "changed what is found for the others"),
    (Divides(), "asks_are_well_formed", "not finite"),
    (Wide(), "asks_are_well_formed", "float64"),
    (Single(), "float64_and_two_classes_work", "like rows.x0"),
    (FiveClasses(), "float64_and_two_classes_work", "samples failed"),
    (Remembers(), "steps_draw_nothing_of_their_own", "other points"),
    (SmallestLiar(), "the_smallest_is_what_it_says", "none was broken"),
]


def broken(attack: Any, **how: Any) -> Report:
    with pytest.raises(ContractBroken) as caught:
        check_attack(attack, **how)
    return caught.value.report


@pytest.mark.parametrize(("attack", "promise", "words"), PLANTED, ids=lambda v: type(v).__name__)
def test_a_planted_bug_breaks_its_promise(attack: Attack[Any], promise: str, words: str) -> None:
    report = broken(attack)
    assert promise in report.broken
    (finding,) = [f for f in report.findings if f.promise == promise]
    assert words in str(finding)
    assert finding.remedy


@pytest.mark.parametrize(
    ("attack", "promise"),
    [
        (Backward(), "weights_get_no_gradient_and_keep_their_flags"),
        (Training(), "modules_keep_their_mode"),
    ],
    ids=["backward", "training"],
)
def test_what_is_done_to_the_model_is_seen(attack: Attack[Any], promise: str) -> None:
    """On the author's own network, which is where such an attack would do it."""
    try:
        assert promise in broken(attack, net=shared_net).broken
    finally:
        shared_net.cache_clear()


def test_a_sound_attack_is_told_so() -> None:
    report = check_attack(Honest())
    assert report.broken == ()
    assert report.skipped == ("the_smallest_is_what_it_says",)
    assert "21 kept" in str(report)
    assert report.seconds < 30


def test_what_is_no_attack_is_refused_at_once() -> None:
    assert broken(Honest).broken[0] == "it_is_an_attack"  # the class in place of an instance
    report = broken(object())
    assert report.broken == ("it_is_an_attack",)
    assert {f.state for f in report.findings[1:]} == {"not reached"}


def test_a_set_without_a_rule_is_named() -> None:
    class Picky(Honest):
        def init(self, rows: Rows) -> tuple[State, Ask]:
            raise NotAvailable("no rule for Linf.", "Use L2.")

    report = broken(Picky(), threat=Linf("0.05"))
    assert "refuses Linf" in report.findings[1].what


def test_house_attacks_pass() -> None:
    assert check_attack(PGD(steps=2)).broken == ()
