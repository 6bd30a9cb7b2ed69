"""Promises about runs through the engine: what is found, what it costs, what is left behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saddlepoint.attack import EngineSettings, Outcome, run
from saddlepoint.attack.rows import take
from saddlepoint.spec import margin
from saddlepoint.testing.models import UNIT, convnet, images, wrap
from saddlepoint.testing.report import Promise, require
from saddlepoint.testing.trial import Trial

_FOUND = ("best_margin", "best_point", "success", "item", "first", "forwards")
_KEYED = "Draw from rows.random only; reduce over a row's own axes; keep nothing outside the state."


def arguments_are_left_alone(trial: Trial) -> None:
    """The caller's rows are as they were, without gradients."""
    rows = trial.rows()
    x0, y, threat = rows.x0.clone(), rows.y.clone(), rows.set
    trial.run(rows=rows)
    fine = torch.equal(rows.x0, x0) and torch.equal(rows.y, y) and rows.set == threat and not rows.x0.requires_grad
    require(fine, "x0, y or the set changed.", "Make new tensors instead of writing into the rows'.")


def points_lie_in_the_set_and_carry_their_margin(trial: Trial) -> None:
    """The best point lies in the set, and its margin is the model's own there."""
    rows, net = trial.rows(), trial.network()
    found = trial.run(rows=rows, drop=False)
    _all_ok(found)
    threat = rows.set.within(UNIT)
    inside = threat.contains(rows.x0, found.best_point, slack=0.0)
    remedy = "Leave rows.x0, rows.limits and the points asked untouched: what is recorded rests on them."
    require(bool(inside.all()), f"{int((~inside).sum())} of {len(rows)} best points lie outside the set.", remedy)
    with torch.no_grad():
        again = margin(net(threat.render(rows.x0, found.best_point)), rows.y)
    require(
        torch.allclose(again, found.best_margin, rtol=1e-4, atol=1e-5),
        f"the model's margin at the best points differs by {float((again - found.best_margin).abs().max()):.3g}.",
        remedy,
    )
    require(torch.equal(found.success, found.best_margin <= 0), "success is not margin ≤ 0.", remedy)


def a_seed_fixes_everything(trial: Trial) -> None:
    """The same seed finds the same, bit by bit."""
    _same(trial.run(seed=3), trial.run(seed=3), "a second run with the same seed")


def no_global_generator_is_touched(trial: Trial) -> None:
    """PyTorch's global generator is where it was."""
    net, rows, before = trial.network(), trial.rows(), torch.get_rng_state()
    trial.run(net, rows)
    require(torch.equal(before, torch.get_rng_state()), "the global generator moved.", "Draw from rows.random.")


def verdicts_do_not_depend_on_the_batch(trial: Trial) -> None:
    """Batches of 1, 7 and 128 rows find the same."""
    runs = [trial.run(batch=b) for b in (1, 7, 128)]
    stands = ~runs[0].success  # of a fallen sample, which restart found it first may depend on who ran beside it
    for size, other in zip((7, 128), runs[1:], strict=True):
        fine = torch.equal(other.success, runs[0].success) and torch.allclose(
            other.best_margin[stands], runs[0].best_margin[stands], rtol=1e-3, atol=1e-4
        )
        require(fine, f"batches of 1 and of {size} rows differ.", _KEYED)


def deterministic_runs_are_bitwise_the_same_for_any_batch_order_and_shard(trial: Trial) -> str | None:
    """With `deterministic`, any batch, order or shard gives the same bits."""
    rows = trial.rows()
    how: dict[str, Any] = {"deterministic": True, "physical": 4}
    whole = trial.run(rows=rows, **how)
    _same(trial.run(rows=rows, batch=1, **how), whole, "a deterministic batch of 1")
    if trial.attack.coupled:
        return "it is coupled: what it finds depends on all its rows"
    order = torch.tensor([7, 2, 0, 1, 3, 6, 5, 4])
    shards = [trial.run(rows=take(rows, part), **how) for part in order.split(3)]
    for name in _FOUND:
        joined = torch.cat([getattr(s, name) for s in shards])
        require(torch.equal(joined, getattr(whole, name)[order]), f"{name} differs in shards of 3.", _KEYED)
    return None


def weights_get_no_gradient_and_keep_their_flags(trial: Trial) -> None:
    """No weight has a gradient afterwards, and requires_grad is as it was."""
    net = trial.network()
    for p in net.parameters():
        p.grad = None
    flags = [p.requires_grad for p in net.parameters()]
    trial.run(net)
    remedy = "Let the engine differentiate (Ask with want=GRADIENT); never call backward()."
    require(all(p.grad is None for p in net.parameters()), "weights have gradients.", remedy)
    require([p.requires_grad for p in net.parameters()] == flags, "requires_grad flags changed.", remedy)


def modules_keep_their_mode(trial: Trial) -> None:
    """Every module is in the mode in which it was, and weights and statistics are unchanged."""
    net = trial.network()
    part = list(net.modules())[-1]
    part.train()  # what the user left in training mode stays there
    modes = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    trial.run(net)
    remedy = "Leave the model alone: the engine calls it."
    require([m.training for m in net.modules()] == modes, "train/eval flags changed.", remedy)
    same = all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    require(same, "weights or running statistics changed.", remedy)


def nan_is_never_a_success(trial: Trial) -> None:
    """A sample whose logits are NaN gets the status "nan", and its neighbours are none the worse."""
    net, rows = trial.network(), trial.rows()
    dark = rows.x0.clone()
    dark[2] = 0.0  # the only image without any light
    rows = replace(rows, x0=dark)

    def poisoned(x: Tensor) -> Tensor:
        return net(x) + torch.where(x.flatten(1).sum(1) < 4.5, torch.nan, 0.0)[:, None]

    found, plain = trial.run(poisoned, rows), trial.run(rows=rows)
    _neighbours(found, 2, "NaN logits")
    told = f"status {found.status[2]!r} {found.message[2]}, margin {float(found.best_margin[2])}"
    right = found.status[2] == "nan" and not bool(found.success[2]) and float(found.best_margin[2]) == torch.inf
    require(right, f"the NaN sample has {told}.", "Compare so that NaN loses: loss > best, never ~(loss <= best).")
    others = torch.arange(len(rows)) != 2
    moved = bool((found.item[others] >= 0).any()) or not bool((plain.item[others] >= 0).any())
    if not trial.attack.coupled:
        moved &= torch.equal(found.success[others], plain.success[others])
    remedy = "Never let one row's numbers into another's; where rows are coupled, leave out what is not finite."
    require(moved, "NaN logits in one row changed what is found for the others.", remedy)


def the_budget_is_kept(trial: Trial) -> None:
    """What is charged is what was asked, and never more than the bounds or the query limit."""
    calls = 0
    net = trial.network()

    def counting(x: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        return net(x)

    rows = take(trial.rows(), torch.arange(3))
    found = trial.run(counting, rows, drop=False)
    forwards, backwards = trial.most()
    used = int(found.forwards.max()), int(found.backwards.max())
    require(
        used[0] <= forwards and used[1] <= backwards,
        f"a sample cost {used[0]} forwards and {used[1]} backwards, the bounds are {forwards} and {backwards}.",
        "State the true cost of an item in `forwards` and `backwards`; restarts and targets are counted beside it.",
    )
    require(
        calls == int(found.forwards.sum()),
        f"the model saw {calls} rows, {int(found.forwards.sum())} were charged.",
        "Never call the model: ask.",
    )
    limited = trial.run(rows=rows, drop=False, queries=4)
    require(int(limited.forwards.max()) <= 4, "a limit of 4 queries was passed.", "Never call the model: ask.")


def the_best_point_is_kept_not_the_last(trial: Trial) -> None:
    """What is reported is the smallest margin seen inside the set."""
    net = trial.network()
    for i in range(3):
        rows = take(trial.rows(), torch.tensor([i]))
        threat, seen = rows.set.within(UNIT), []

        def watched(x: Tensor) -> Tensor:
            z = net(x)
            inside = torch.ones(len(x), dtype=torch.bool)
            if not rows.set.parametric:  # noqa: B023
                inside = threat.contains(rows.x0.expand_as(x), x.detach())  # noqa: B023
            seen.extend(margin(z.detach(), rows.y.expand(len(x)))[inside].tolist())  # noqa: B023
            return z

        found = trial.run(watched, rows, drop=False)
        points = seen[1:] if rows.set.parametric else seen  # a parametric set renders even the unmoved image
        require(
            float(found.best_margin) == min(points),
            f"margin {float(found.best_margin):.6g} is reported, {min(points):.6g} was seen.",
            "Leave rows.x0 and the points asked untouched, or the engine records other points than were shown.",
        )


def an_exception_is_an_error_of_its_rows_only(trial: Trial) -> None:
    """Where the model raises on a sample, that one gets the status "error", its neighbours an answer."""
    net, rows = trial.network(), trial.rows()
    bad = rows.x0.clone()
    bad[2] = 0.0  # the only image without any light
    rows = replace(rows, x0=bad)

    def fragile(x: Tensor) -> Tensor:
        if bool((x.flatten(1).sum(1) < 4.5).any()):
            raise ValueError("too dark")
        return net(x)

    found = trial.run(fragile, rows)
    right = found.status[2] == "error" and "too dark" in found.message[2] and not bool(found.success[2])
    require(right, f"status {found.status[2]!r}, {found.message[2]!r}.", "Let the model's exceptions pass.")
    _neighbours(found, 2, "an exception of the model")


def the_smallest_is_what_it_says(trial: Trial) -> str | None:
    """Minimum-size attacks: the size reported is the point's own, and the point breaks the model."""
    if not trial.attack.minimum:
        return "it looks inside a set of fixed size"
    rows, net = trial.rows(), trial.network()
    found = trial.run(rows=rows, smallest=True)
    _all_ok(found)
    hit = found.success.nonzero()[:, 0]
    require(len(hit) > 0, f"of {len(rows)} samples none was broken at any size.", "The domain is all yours: step far.")
    part, points = take(rows, hit), found.best_point[hit]
    size = part.set.within(UNIT).gauge(part.x0, points)
    remedy = "Ask at the points you mean: what is recorded is what was asked."
    require(torch.equal(size, found.size[hit]), "a size is not its point's gauge in the domain.", remedy)
    with torch.no_grad():
        again = margin(net(points), part.y)
    require(bool((again <= 1e-5).all()), "a smallest point does not break the model.", remedy)
    return None


def float64_and_two_classes_work(trial: Trial) -> str | None:
    """Inputs in float64 stay float64, and a model of two classes is enough."""
    if trial.net is not None:
        return "the network was given"
    rows = trial.rows(4)
    double = replace(rows, x0=rows.x0.double())
    found = trial.run(trial.network().double(), double)
    remedy = "Make tensors like rows.x0: its dtype, its device."
    _all_ok(found, remedy)
    require(found.best_point.dtype == torch.float64, "float64 rows end as float32.", remedy)
    two = convnet(2)
    found = run(wrap(two, 2), trial.attack, images(two, 4, trial.threat), EngineSettings(drop=False))
    _all_ok(found, "Ask logits.shape[1] how many classes there are.")
    return None


RUNS: tuple[Promise[Trial], ...] = (
    arguments_are_left_alone,
    points_lie_in_the_set_and_carry_their_margin,
    a_seed_fixes_everything,
    no_global_generator_is_touched,
    verdicts_do_not_depend_on_the_batch,
    deterministic_runs_are_bitwise_the_same_for_any_batch_order_and_shard,
    weights_get_no_gradient_and_keep_their_flags,
    modules_keep_their_mode,
    nan_is_never_a_success,
    the_budget_is_kept,
    the_best_point_is_kept_not_the_last,
    an_exception_is_an_error_of_its_rows_only,
    the_smallest_is_what_it_says,
    float64_and_two_classes_work,
)


def _same(a: Outcome, b: Outcome, what: str) -> None:
    """Bitwise the same findings (seconds aside)."""
    for name in (*_FOUND, "backwards", "dead"):
        require(torch.equal(getattr(a, name), getattr(b, name)), f"{what} has another {name}.", _KEYED)
    require((a.ids, a.status) == (b.ids, b.status), f"{what} has other statuses.", _KEYED)


def _all_ok(found: Outcome, remedy: str = "It should not raise.") -> None:
    bad = [f"{i}: {s} {m}".strip() for i, s, m in zip(found.ids, found.status, found.message, strict=True) if s != "ok"]
    require(not bad, f"{len(bad)} of {len(found.ids)} samples failed, the first {bad[:1]}.", remedy)


def _neighbours(found: Outcome, row: int, after: str) -> None:
    bad = [f"{s} {found.message[i]}".strip() for i, s in enumerate(found.status) if i != row and s != "ok"]
    require(
        not bad,
        f"after {after} in one row, {len(bad)} others failed: {bad[:1]}.",
        "Never raise on values, and never let one row's numbers into another's.",
    )
