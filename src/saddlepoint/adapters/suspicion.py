"""Which modules stop or bend the gradient, found by what they do and never by what they are called.

    told by the backward   p_k = ⟨vᵀJ_m(a), a_k⁺ − a_k⁻⟩          measured   d_k = ⟨v, m(a_k⁺) − m(a_k⁻)⟩

For every module m inside the network, at the inputs a that it gets for x: v is a random weighting of its outputs, and
a_k^± = a ± h u_k lie on both sides of a in random directions. Gradient attacks are blind to a module whose p is zero
where d is not (rounding, detach, a backward that returns zeros or raises), and to one that jumps (k winners take all:
its gradient is right for an infinitesimal step and wrong for any other). A jump shows as d that is unlike p and falls
as √h: the chance to cross one is proportional to h, its height is not. At a kink, of a maximum over ties, say, d falls
as h. Only the innermost such modules are named.

Carlini et al., On Evaluating Adversarial Robustness, 2019, §4.8; Tramèr et al., On Adaptive Attacks, NeurIPS 2020.
Cost: per module 4 K + 2 forwards and 1 backward of the module alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saddlepoint.adapters.backward import origin
from saddlepoint.adapters.draw import Draw, draw_key, generators_kept, seed_others
from saddlepoint.adapters.snapshot import Deployed, Frozen
from saddlepoint.attack.stand_in.bpda import passing
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.spec import Model

_ROWS, _DIRECTIONS = 16, 8
_STEPS = (0.1, 0.02)  # of the input's standard deviation
_SOUND = 0.6  # smallest cosine of a sound module
_FALL = 0.75  # the power of h with which d falls: 1 where m is continuous, 1/2 where it jumps


@dataclass(frozen=True)
class Suspect:
    """A module whose backward does not tell how its output moves.

    path         as `with_backward` takes it
    why          what was seen, in words
    zero         share of samples whose gradient through it is zero, missing or not finite although its output moves
    cosine       of what the backward tells and what was measured, over samples and directions; 0 where it tells nothing
    same_shape   whether its output has its input's shape
    suggestion   "straight-through" (operators inside it that can be given a backward), "identity", or "": give a g
    """

    path: str
    why: str
    zero: float
    cosine: float
    same_shape: bool
    suggestion: str


def suspects(model: Model, x: Tensor) -> list[Suspect]:
    """Candidates for `with_backward`, the worst first; [] where every module's gradient is usable.

    Raises NotAvailable for models that are no modules.
    """
    root = copy.deepcopy(origin(model))
    x = x[:_ROWS].detach()
    found: dict[str, Suspect] = {}
    with generators_kept(x):
        met = _inputs(root, x)
        # a module is named before what is around it, so those around it can be left out
        for path in sorted(met, key=lambda p: (-p.count(".") - bool(p), p)):
            if any(inner == path or not path or inner.startswith(f"{path}.") for inner in found):
                continue
            module = root.net.get_submodule(path)
            suspect = _look(path, module, met[path])
            if suspect is not None:
                found[path] = suspect
    return sorted(found.values(), key=lambda s: (-s.zero, s.cosine, s.path))


def _inputs(root: Deployed, x: Tensor) -> dict[str, Tensor]:
    """The input of every module that takes one floating tensor and gives one, at its first call."""
    met: dict[str, Tensor] = {}
    paths: dict[nn.Module, str] = {m: path for path, m in root.net.named_modules()}

    def note(module: nn.Module, given: tuple[object, ...], out: object) -> None:
        a = given[0] if len(given) == 1 else None
        if not (isinstance(a, Tensor) and isinstance(out, Tensor)) or not (a.is_floating_point() and a.dim() > 1):
            return
        if out.is_floating_point() and len(a) == len(x) == len(out):
            met.setdefault(paths[module], a.detach().clone())

    handles = [m.register_forward_hook(note) for m in paths]
    with torch.no_grad():
        _same_draw(Frozen(root), x)
    for handle in handles:  # the copy is ours, but its modules are called again below
        handle.remove()
    return met


def _same_draw(call: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    """A call with the random numbers of one draw: two calls differ by their inputs only."""
    seed_others(draw_key(0, 0))
    with Draw(0, 0, len(a)):
        return call(a)


def _look(path: str, module: nn.Module, a: Tensor) -> Suspect | None:
    """Compare what the module's backward tells with what its output does; None where they agree."""
    with torch.no_grad():
        out = _same_draw(module, a)
    keys = Draws(row_keys(0, [str(i) for i in range(len(a))], "suspects"))
    v = keys.normal(tuple(out.shape[1:])).to(out)
    g, why = _told(module, a, v)
    dead, moves, cosine, sizes = 0, 0, -1.0, []
    for step in _STEPS:
        above, below = _ends(a, keys, step)
        p = (g * (above - below)).flatten(2).sum(2)
        d = _measured(module, v, above, below)
        moving = d.abs().amax(0) > 1e-6 * v.flatten(1).norm(dim=1)
        dead, moves = dead + int((moving & (p == 0).all(0)).sum()), moves + int(moving.sum())
        found = torch.cosine_similarity(p[:, moving].flatten().double(), d[:, moving].flatten().double(), dim=0)
        cosine = max(cosine, float(found))
        sizes.append(float(d.square().mean().sqrt()))
    jumps = cosine < _SOUND and sizes[0] < sizes[1] * (_STEPS[0] / _STEPS[1]) ** _FALL
    if moves == 0 or (dead < moves / 2 and not jumps):
        return None  # constant here, so nothing to attack through it; or sound
    zero = dead / moves
    if not why:
        why = (
            f"its gradient is zero on {zero:.0%} of the samples, its output moves"
            if zero >= 0.5
            else f"its output jumps: the gradient has cosine {cosine:.2f} with how it moves"
        )
    same = out.shape == a.shape
    return Suspect(path, why, zero, cosine, same, _suggestion(module, a, v, same))


def _ends(a: Tensor, keys: Draws, step: float) -> tuple[Tensor, Tensor]:
    """(K, b, …) points on both sides of a, within the range of a: an index read from them must stay legal."""
    u = torch.stack([keys.normal(tuple(a.shape[1:]), 1 + k).to(a) for k in range(_DIRECTIONS)])
    h = step * float(a.std()) if a.numel() > 1 else step
    return (a + h * u).clamp(a.min(), a.max()), (a - h * u).clamp(a.min(), a.max())


def _measured(module: nn.Module, v: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """(K, b) differences of the weighted output."""
    with torch.no_grad():
        rises = [_same_draw(module, p) - _same_draw(module, q) for p, q in zip(above, below, strict=True)]
    return torch.stack([(v * rise).flatten(1).sum(1) for rise in rises]).nan_to_num(0.0, 0.0, 0.0)


def _told(call: Callable[[Tensor], Tensor], a: Tensor, v: Tensor) -> tuple[Tensor, str]:
    """vᵀJ as the backward gives it (zeros where it gives none), and what went wrong with it."""
    point = a.clone().requires_grad_()
    try:
        with torch.enable_grad():
            out = _same_draw(call, point)
            g = torch.autograd.grad((v * out).sum(), point, allow_unused=True)[0] if out.requires_grad else None
    except Exception as error:  # a hand-written backward may raise anything
        return torch.zeros_like(a), f"its backward raises {type(error).__name__}: {error}"
    if g is None:
        return torch.zeros_like(a), "its output does not depend differentiably on its input"
    return g.nan_to_num(0.0, 0.0, 0.0), "" if bool(g.isfinite().all()) else "its gradient holds NaN or infinity"


def _suggestion(module: nn.Module, a: Tensor, v: Tensor, same: bool) -> str:
    try:
        through = passing(lambda t: _same_draw(module, t), a)
    except Exception:  # the way back may raise anything; then it is not the remedy
        through = None
    if through is not None:
        g, wrong = _told(through, a, v)
        if not wrong and bool(g.flatten(1).any(1).all()):
            return "straight-through"
    return "identity" if same else ""
