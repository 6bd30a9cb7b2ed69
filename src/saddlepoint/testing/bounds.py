"""The contract that every bound method keeps, one function per promise.

    report = check_bound(MyBound())                    # under Linf("0.02") and on a small network

An unsound bound is looked for with an attack: no certified margin may exceed the smallest that Auto-PGD reaches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from saddlepoint.attack import APGDTargeted, EngineSettings, Rows, run
from saddlepoint.bound.base import BoundMethod, Bounds
from saddlepoint.check.proofs import METHODS, recheck
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import Linf, PerturbationSet
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ir import Graph
from saddlepoint.spec import margin_matrix
from saddlepoint.testing.models import UNIT, convnet, images, wrap
from saddlepoint.testing.report import Promise, Report, examine, require

_CLASSES, _COUNT = 4, 5
_ROUNDING = 1e-4  # the deployed network is float32, so a bound of the real-valued one may exceed it by this


@dataclass(frozen=True)
class Ground:
    """A bound method, a set, and the network that it bounds."""

    method: BoundMethod
    threat: PerturbationSet

    @cached_property
    def net(self) -> nn.Module:
        """The network that is bounded."""
        return convnet(_CLASSES)

    @cached_property
    def graph(self) -> Graph:
        """Its graph."""
        return capture(self.net, self.rows.x0[:2])

    @cached_property
    def rows(self) -> Rows:
        """Images with labels and the set in the data box."""
        rows = images(self.net, _COUNT, self.threat)
        return replace(rows, set=rows.set.within(UNIT))

    @property
    def margins(self) -> Tensor:
        """C of the margins: (b, K − 1, K)."""
        return margin_matrix(self.rows.y, _CLASSES)

    def bounds(self, index: Tensor | None = None) -> Bounds:
        """Bounds of the margins of all rows, or of some."""
        i = torch.arange(_COUNT) if index is None else index
        return self.method(self.graph, self.rows.set.rows(i), self.rows.x0[i], self.margins[i])


def check_bound(method: BoundMethod, threat: PerturbationSet | None = None) -> Report:
    """Check one's own bound method in seconds, under Linf("0.02") unless another set is given.

    Raises ContractBroken, whose text and `report` say which promise is broken, with what, and the remedy. Returns the
    report where all are kept.
    """
    threat = Linf("0.02") if threat is None else threat
    name = getattr(method, "name", type(method).__name__)
    return examine(f"{name} under {threat.kind}", PROMISES, Ground(method, threat), basic=1)


def it_answers_in_form(ground: Ground) -> None:
    """It is called with (graph, set, x, C), returns Bounds with lower (b, m), and never NaN."""
    require(
        isinstance(ground.method, BoundMethod) and isinstance(getattr(ground.method, "name", None), str),
        f"{type(ground.method).__name__} is no BoundMethod.",
        "It has a `name` and is called with (graph, set, x, C).",
    )
    found = ground.bounds()
    require(
        isinstance(found, Bounds), f"it returned {type(found).__name__}.", "Return bound.Bounds(lower, upper, proof)."
    )
    shape = (_COUNT, _CLASSES - 1)
    require(
        tuple(found.lower.shape) == shape and not bool(found.lower.isnan().any()),
        f"lower has shape {tuple(found.lower.shape)} (wanted {shape}), or holds NaN.",
        "One bound per row of C; −inf where nothing is known (bound.base.never_certify).",
    )
    every = ground.method(ground.graph, ground.rows.set, ground.rows.x0)
    require(
        tuple(every.lower.shape) == (_COUNT, _CLASSES),
        f"without C, lower has shape {tuple(every.lower.shape)}.",
        "C = None stands for the identity: bound the logits (bound.base.specification).",
    )


def no_point_of_the_set_lies_below(ground: Ground) -> None:
    """The values at sampled points of the set lie between lower and upper."""
    found, rows = ground.bounds(), ground.rows
    for number in range(8):
        x = rows.set.sample(rows.x0, Draws(row_keys(0, rows.ids, "check_bound", number)))
        with torch.no_grad():
            value = torch.bmm(ground.margins, ground.net(x)[:, :, None])[..., 0]
        gap = float((found.lower - value).max())
        require(gap <= _ROUNDING, f"a sampled point lies {gap:.3g} below its lower bound.", "The bound is unsound.")
        if found.upper is not None:
            gap = float((value - found.upper).max())
            require(gap <= _ROUNDING, f"a sampled point lies {gap:.3g} above its upper bound.", "It is unsound.")


def no_attack_reaches_below(ground: Ground) -> None:
    """The smallest margin that Auto-PGD finds is at least the bound on the margin."""
    found = ground.bounds().lower.amin(1)
    attack = APGDTargeted(steps=20, loss="margin")
    reached = run(wrap(ground.net, _CLASSES), attack, ground.rows, EngineSettings(drop=False)).best_margin
    gap = float((found - reached).max())
    require(gap <= _ROUNDING, f"an attack reaches a margin {gap:.3g} below the certified one.", "It is unsound.")


def bounds_do_not_depend_on_the_batch(ground: Ground) -> None:
    """A row's bounds are the same whoever else is in the batch."""
    index = torch.tensor([3, 0])
    whole, part = ground.bounds().lower[index], ground.bounds(index).lower
    gap = float((whole - part).nan_to_num(0.0).abs().max())
    require(gap <= _ROUNDING, f"two rows alone have bounds that differ by {gap:.3g}.", "Treat rows by themselves.")


def nothing_is_changed(ground: Ground) -> None:
    """x, the weights and the global generator are as they were, and no weight has a gradient."""
    rows, before = ground.rows, torch.get_rng_state()
    x0, state = rows.x0.clone(), {k: v.clone() for k, v in ground.net.state_dict().items()}
    ground.bounds()
    same = torch.equal(rows.x0, x0) and all(torch.equal(v, state[k]) for k, v in ground.net.state_dict().items())
    require(same, "x or a weight was written to.", "Make new tensors.")
    require(all(p.grad is None for p in ground.net.parameters()), "weights have gradients.", "Never call backward().")
    require(torch.equal(before, torch.get_rng_state()), "the global generator moved.", "Bounds draw nothing.")


def proofs_are_accepted(ground: Ground) -> str | None:
    """The independent checker reaches a bound at least as good from the proof, up to rounding."""
    if ground.method.name not in METHODS:
        return f"check/ has no rule for proofs of {ground.method.name!r}: its evidence stays `claimed`"
    found, rows = ground.bounds(), ground.rows
    again = recheck(
        ground.graph, rows.set.canonical(), rows.x0, ground.margins, found.proof.tensors, ground.method.name
    )
    gap = float((found.lower.double() - again).max())
    require(gap <= 1e-3, f"the checker's bound is lower by {gap:.3g}.", "Put into the proof what the bound used.")
    return None


PROMISES: tuple[Promise[Ground], ...] = (
    it_answers_in_form,
    no_point_of_the_set_lies_below,
    no_attack_reaches_below,
    bounds_do_not_depend_on_the_batch,
    nothing_is_changed,
    proofs_are_accepted,
)
