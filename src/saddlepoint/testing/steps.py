"""Promises about `init` and `step`, walked through by hand: form, budget, purity, independence of rows."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from saddlepoint.attack.protocol import Ask, Attack
from saddlepoint.attack.rows import check_rows, take
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.spec.access import Access
from saddlepoint.testing.models import UNIT
from saddlepoint.testing.report import Promise, PromiseBroken, require
from saddlepoint.testing.trial import COUNT, Trial

_PARTS = tuple(torch.tensor(part) for part in ([6, 0, 3], [1], [2, 7], [5, 4]))
_CLOSE = {"rtol": 1e-3, "atol": 1e-4, "equal_nan": True}


def it_is_an_attack(trial: Trial) -> None:
    """It is a frozen dataclass that derives from Attack and names itself."""
    attack = trial.attack
    require(
        isinstance(attack, Attack),
        f"{attack!r} is no instance of saddlepoint.attack.Attack.",
        "class MyAttack(Attack[MyState]), and give an instance: check_attack(MyAttack()).",
    )
    frozen = is_dataclass(attack) and type(attack).__dataclass_params__.frozen  # pyright: ignore
    require(frozen, f"{type(attack).__name__} is no frozen dataclass.", "Put @dataclass(frozen=True) above the class.")
    named = isinstance(getattr(attack, "name", None), str)
    require(named, f"{type(attack).__name__} has no name.", 'name: ClassVar[str] = "my-attack".')
    for bound in ("forwards", "backwards", "restarts"):
        value = getattr(attack, bound)
        require(
            isinstance(value, int) and value >= (0 if bound == "backwards" else 1),
            f"{bound} is {value!r}.",
            "It is a whole number: the most that one item costs (restarts: at least 1).",
        )
    attack.method(0)  # its parameters must be JSON, or evidence could not name it


def it_ends_within_its_budget(trial: Trial) -> None:
    """An item asks at most `forwards` times, `backwards` of them for gradients, and then ends."""
    attack, forwards, backwards = trial.attack, 0, 0
    try:
        for _, ask, _ in trial.walk(trial.fresh()):
            forwards, backwards = forwards + 1, backwards + (ask.want >= Access.GRADIENT)
    except NotAvailable as refusal:
        raise PromiseBroken(
            f"it refuses {type(trial.threat).__name__}: {refusal}", "Check it under a set that it has a rule for."
        ) from refusal
    require(
        forwards <= attack.forwards,
        f"it asked more than {attack.forwards} times, its own bound `forwards`.",
        "Return no ask at the end (return state, None), or state the true cost.",
    )
    require(
        backwards <= attack.backwards,
        f"it asked for {backwards} gradients, its own bound `backwards` is {attack.backwards}.",
        "Ask for SCORES where no gradient is read, or state the true cost.",
    )


def asks_are_well_formed(trial: Trial) -> None:
    """Points have x0's shape and type (or the parameters'), are finite, and gradients name their objective."""
    rows = trial.fresh()
    like = rows.set.sample(rows.x0, rows.random) if rows.set.parametric else rows.x0
    for number, (_, ask, _) in enumerate(trial.walk(rows)):
        points = ask.points
        require(
            points.shape == like.shape and points.dtype == like.dtype,
            f"ask {number} has points {tuple(points.shape)} {points.dtype}, wanted {tuple(like.shape)} {like.dtype}.",
            "Keep the rows' dtype: torch.zeros_like(rows.x0), Draws(..., dtype=rows.x0.dtype).",
        )
        require(
            bool(points.isfinite().all()),
            f"ask {number} has points that are not finite.",
            "Guard divisions: a gradient may be zero in every coordinate.",
        )
        require(
            ask.want < Access.GRADIENT or ask.objective is not None,
            f"ask {number} wants gradients of nothing.",
            "Ask(points, Access.GRADIENT, objective): a function of logits, to be maximised.",
        )


def states_have_rows_first(trial: Trial) -> None:
    """Every tensor of a state and of an ask has the row dimension first."""
    for number, (state, ask, _) in enumerate(trial.walk(trial.fresh())):
        try:
            check_rows((state, ask), COUNT, "state")
        except InputError as error:
            raise PromiseBroken(f"after {number} answers: {error.what}", error.remedy) from error


def steps_change_nothing_they_are_given(trial: Trial) -> None:
    """Rows, states, answers and points asked before are never written to."""
    rows = trial.fresh()
    kept: list[tuple[str, Tensor, Tensor]] = [(name, t, t.clone()) for name, t in _tensors(rows, "rows")]
    for number, told in enumerate(trial.walk(rows)):
        for name, tensor, before in kept:
            _unchanged(name, tensor, before)
        for part, value in zip(("state", "ask", "answers"), told, strict=True):
            kept += [(name, t, t.clone()) for name, t in _tensors(value, f"{part} {number}")]
    for name, tensor, before in kept:
        _unchanged(name, tensor, before)


def steps_draw_nothing_of_their_own(trial: Trial) -> None:
    """The same state and answers give the same ask, and no global generator moves."""
    rows, before = trial.fresh(), torch.get_rng_state()
    remedy = "Draw from rows.random with stream=number, and keep no state outside the state."
    _same_ask(trial.attack.init(rows)[1], trial.attack.init(rows)[1], "init", remedy)
    for number, (state, _, answers) in enumerate(trial.walk(rows)):
        first, second = (trial.attack.step(state, answers)[1] for _ in range(2))
        require((first is None) == (second is None), f"step {number} ends once and goes on once.", remedy)
        if first is not None and second is not None:
            _same_ask(first, second, f"step {number}", remedy)
    require(torch.equal(before, torch.get_rng_state()), "it moved PyTorch's global generator.", remedy)


def rows_do_not_look_at_each_other(trial: Trial) -> str | None:
    """A row's next point is the same whoever else is in the batch, and in any order."""
    if trial.attack.coupled:
        return "it is coupled: its rows share state"
    rows = trial.fresh()
    for index in _PARTS:
        _same_rows(trial.attack.init(rows)[1], trial.attack.init(take(rows, index))[1], index, "init")
    for number, (state, _, answers) in enumerate(trial.walk(rows)):
        whole = trial.attack.step(state, answers)[1]
        for index in _PARTS:
            part = trial.attack.step(take(state, index), take(answers, index))[1]
            require(
                (whole is None) == (part is None),
                f"step {number} ends for rows {index.tolist()} alone, not for all, or the other way round.",
                "When an item ends may depend on the count of answers only; use Ask.done for single rows.",
            )
            if whole is not None and part is not None:
                _same_rows(whole, part, index, f"step {number}")
    return None


def some_points_can_count(trial: Trial) -> None:
    """Of the points asked, some lie in the set (in the domain, for minimum-size attacks)."""
    rows = trial.fresh()
    box = UNIT if trial.attack.minimum and not rows.set.parametric else rows.set
    for _, ask, _ in trial.walk(rows):
        if bool(box.contains(rows.x0, ask.points).any()):
            return
    raise PromiseBroken(
        "not one point asked lies in its set, so nothing can ever be found.",
        "Project what you ask: attack.steps.project(rows, x), or rows.set.project(rows.x0, x).",
    )


BASIC: tuple[Promise[Trial], ...] = (
    it_is_an_attack,
    it_ends_within_its_budget,
    asks_are_well_formed,
    states_have_rows_first,
)
STEPS: tuple[Promise[Trial], ...] = (
    steps_change_nothing_they_are_given,
    steps_draw_nothing_of_their_own,
    rows_do_not_look_at_each_other,
    some_points_can_count,
)


def _tensors(value: Any, where: str) -> list[tuple[str, Tensor]]:
    """Every tensor inside, with its place."""
    if isinstance(value, Tensor):
        return [(where, value)]
    if isinstance(value, tuple):
        return [found for i, part in enumerate(value) for found in _tensors(part, f"{where}[{i}]")]
    if is_dataclass(value) and not isinstance(value, type):
        return [found for f in fields(value) for found in _tensors(getattr(value, f.name), f"{where}.{f.name}")]
    return []


def _unchanged(name: str, tensor: Tensor, before: Tensor) -> None:
    a, b = (t.nan_to_num(nan=1e30) if t.is_floating_point() else t for t in (tensor, before))
    require(
        torch.equal(a, b),
        f"{name} was written to.",
        "Make new tensors (x = x + d, torch.where) instead of x += d, x.clamp_() or x[i] = v.",
    )


def _same_ask(a: Ask, b: Ask, where: str, remedy: str) -> None:
    require(torch.equal(a.points, b.points), f"{where} twice, the same arguments: other points.", remedy)


def _same_rows(whole: Ask, part: Ask, index: Tensor, where: str) -> None:
    """The chosen rows of one ask are the other's."""
    for (name, a), (_, b) in zip(_tensors(take(whole, index), "ask"), _tensors(part, "ask"), strict=True):
        same = torch.equal(a, b) if not a.is_floating_point() else torch.allclose(a, b, **_CLOSE)
        require(
            same,
            f"{where}: {name} of a row differs when other rows are left out.",
            "Reduce over a row's own axes only (flatten(1).mean(1), not mean()); draw from rows.random.",
        )
