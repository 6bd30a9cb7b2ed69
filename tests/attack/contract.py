"""The contract that every attack keeps, as one function per promise. `promises` lists them all.

Each takes an attack and a perturbation set, runs the attack on a small network, and asserts one promise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from attack_models import convnet, images, wrap
from torch import Tensor

from saddlepoint.attack import Attack, EngineSettings, Outcome, Rows, run
from saddlepoint.attack.rows import take
from saddlepoint.geometry import PerturbationSet
from saddlepoint.spec import margin

CLASSES, COUNT = 5, 10


@dataclass(frozen=True)
class Trial:
    """An attack under a threat; `settings` never change what is found, only how."""

    attack: Attack[Any]
    threat: PerturbationSet

    def rows(self, count: int = COUNT) -> Rows:
        return images(convnet(CLASSES), count, self.threat)

    def run(self, fn: Callable[[Tensor], Tensor] | None = None, rows: Rows | None = None, **how: Any) -> Outcome:
        model = wrap(fn or convnet(CLASSES), CLASSES)
        return run(model, self.attack, rows or self.rows(), EngineSettings(**how))

    def most(self) -> tuple[int, int]:
        """Most forwards and backwards of a sample, x0's own included."""
        clean = torch.zeros(1, CLASSES)
        targets = self.attack.targets(clean, torch.zeros(1, dtype=torch.int64))
        items = self.attack.restarts * (1 if targets is None else targets.shape[1])
        return 1 + items * self.attack.forwards, items * self.attack.backwards


def same(a: Outcome, b: Outcome) -> None:
    """Bitwise the same findings (seconds aside)."""
    for name in ("best_margin", "best_point", "success", "item", "first", "forwards", "backwards", "dead"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.ids, a.status) == (b.ids, b.status)


def arguments_are_left_alone(trial: Trial) -> None:
    rows = trial.rows()
    x0, y, threat = rows.x0.clone(), rows.y.clone(), rows.set
    trial.run(rows=rows)
    assert torch.equal(rows.x0, x0)
    assert torch.equal(rows.y, y)
    assert rows.set == threat
    assert not rows.x0.requires_grad


def points_lie_in_the_set_and_carry_their_margin(trial: Trial) -> None:
    rows, net = trial.rows(), convnet(CLASSES)
    found = trial.run(rows=rows, drop=False)
    threat = rows.set.within(wrap(net, CLASSES).domain)
    assert bool(threat.contains(rows.x0, found.best_point, slack=0.0).all())
    with torch.no_grad():
        again = margin(net(threat.render(rows.x0, found.best_point)), rows.y)
    assert torch.allclose(again, found.best_margin, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.success, found.best_margin <= 0)


def a_seed_fixes_everything(trial: Trial) -> None:
    same(trial.run(seed=3), trial.run(seed=3))


def no_global_generator_is_touched(trial: Trial) -> None:
    net, rows = convnet(CLASSES), trial.rows()  # layers draw their initial weights from the global generator
    before = torch.get_rng_state()
    trial.run(net, rows)
    assert torch.equal(before, torch.get_rng_state())


def verdicts_do_not_depend_on_the_batch(trial: Trial) -> None:
    runs = [trial.run(batch=b) for b in (1, 7, 128)]
    stands = ~runs[0].success  # of a fallen sample, which restart found it first may depend on who ran beside it
    for other in runs[1:]:
        assert torch.equal(other.success, runs[0].success)
        assert torch.allclose(other.best_margin[stands], runs[0].best_margin[stands], rtol=1e-3, atol=1e-4)


def deterministic_runs_are_bitwise_the_same_for_any_batch_order_and_shard(trial: Trial) -> None:
    rows = trial.rows()
    how = {"deterministic": True, "physical": 4}
    whole = trial.run(rows=rows, **how)
    for batch in (1, 7, 128):
        same(trial.run(rows=rows, batch=batch, **how), whole)
    order = torch.tensor([7, 2, 9, 0, 1, 8, 3, 6, 5, 4])
    shards = [trial.run(rows=take(rows, part), **how) for part in order.split(3)]
    for name in ("best_margin", "best_point", "success", "item", "first", "forwards"):
        joined = torch.cat([getattr(s, name) for s in shards])
        assert torch.equal(joined, getattr(whole, name)[order]), name


def weights_get_no_gradient_and_keep_their_flags(trial: Trial) -> None:
    net = convnet(CLASSES)
    flags = [p.requires_grad for p in net.parameters()]
    trial.run(net)
    assert all(p.grad is None for p in net.parameters())
    assert [p.requires_grad for p in net.parameters()] == flags


def modules_keep_their_mode(trial: Trial) -> None:
    net = convnet(CLASSES)
    net[2].train()  # a part that the user left in training mode stays there
    modes = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    trial.run(net)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def nan_is_never_a_success(trial: Trial) -> None:
    net, rows = convnet(CLASSES), trial.rows()
    dark = rows.x0.clone()
    dark[2] = 0.0
    rows = replace(rows, x0=dark)

    def poisoned(x: Tensor) -> Tensor:
        return net(x) + torch.where(x.flatten(1).sum(1) < 4.5, torch.nan, 0.0)[:, None]

    found = trial.run(poisoned, rows)
    assert found.status[2] == "nan"
    assert not bool(found.success[2])
    assert float(found.best_margin[2]) == torch.inf
    assert {s for i, s in enumerate(found.status) if i != 2} == {"ok"}


def the_budget_is_kept(trial: Trial) -> None:
    calls = 0
    net = convnet(CLASSES)

    def counting(x: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        return net(x)

    rows = take(trial.rows(), torch.arange(3))
    found = trial.run(counting, rows, drop=False)
    forwards, backwards = trial.most()
    assert int(found.forwards.max()) <= forwards
    assert int(found.backwards.max()) <= backwards
    assert calls == int(found.forwards.sum())  # nothing is asked that is not charged
    limited = trial.run(rows=rows, drop=False, queries=4)
    assert int(limited.forwards.max()) <= 4


def the_best_point_is_kept_not_the_last(trial: Trial) -> None:
    net = convnet(CLASSES)
    for i in range(3):
        rows = take(trial.rows(), torch.tensor([i]))
        seen: list[float] = []

        def watched(x: Tensor, y: Tensor = rows.y, seen: list[float] = seen) -> Tensor:
            z = net(x)
            seen.extend(margin(z.detach(), y.expand(len(x))).tolist())
            return z

        found = trial.run(watched, rows, drop=False)
        points = seen[1:] if rows.set.parametric else seen  # a parametric set renders even the unmoved image
        assert float(found.best_margin) == min(points)


def an_exception_is_an_error_of_its_rows_only(trial: Trial) -> None:
    net, rows = convnet(CLASSES), trial.rows()
    bad = rows.x0.clone()
    bad[2] = 0.0  # the only image without any light
    rows = replace(rows, x0=bad)

    def fragile(x: Tensor) -> Tensor:
        if bool((x.flatten(1).sum(1) < 4.5).any()):
            raise ValueError("too dark")
        return net(x)

    found = trial.run(fragile, rows)
    assert found.status[2] == "error"
    assert "too dark" in found.message[2]
    assert not bool(found.success[2])
    assert {s for i, s in enumerate(found.status) if i != 2} == {"ok"}


promises: tuple[Callable[[Trial], None], ...] = (
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
)
