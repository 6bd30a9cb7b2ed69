"""The contract that every perturbation set keeps, one function per promise.

    report = check_set(MySet(...))                     # on images 1 × 8 × 8 in the unit box
    report = check_set(MySet(...), shape=(20,))        # on feature vectors

Maps that the set refuses with NotAvailable are skipped and listed. Convex sets must satisfy the variational inequality
<v − Pv, z − Pv> ≤ 0 for z in S; the others must have no sampled point nearer than the projection.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor

from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry import Box, PerturbationSet
from saddlepoint.testing.case import ROWS, Case
from saddlepoint.testing.report import Promise, Report, examine, require

_TYPES = (torch.float32, torch.float64)
_SLACK = {torch.float32: 3e-5, torch.float64: 1e-9}


def check_set(threat: PerturbationSet, *, shape: tuple[int, ...] = (1, 8, 8), box: Box | None = None) -> Report:
    """Check one's own set in seconds, on inputs of `shape` in `box` (unit box unless given).

    Raises ContractBroken, whose text and `report` say which promise is broken, with what, and the remedy. Returns the
    report where all are kept; `report.skipped` are the maps that the set does not have.
    """
    domain = Box(0, 1) if box is None else box
    inside = threat.within(domain) if isinstance(threat, PerturbationSet) else threat
    return examine(f"{type(threat).__name__} on {shape}", PROMISES, Case(inside, shape, domain), basic=2)


# -- the promises -----------------------------------------------------------------------------------------
def it_is_a_set(case: Case) -> None:
    """It derives from PerturbationSet, names its kind, and its canonical form is JSON."""
    s = case.set
    require(isinstance(s, PerturbationSet), f"{s!r} is no PerturbationSet.", "class MySet(PerturbationSet), frozen.")
    kind = getattr(s, "kind", None)
    require(isinstance(kind, str), f"its kind is {kind!r}.", 'kind: ClassVar[str] = "my-set".')
    spec = s.canonical()
    again = json.loads(json.dumps(spec, allow_nan=False))
    require(spec == again, f"canonical() is {spec!r}, which JSON does not bring back.", "Sizes as text, lists, no NaN.")
    require(spec.get("kind") == kind, f"canonical() says kind {spec.get('kind')!r}, not {kind!r}.", "Name the kind.")
    require(s == s.rows(torch.arange(ROWS)) or isinstance(s.size, Tensor), "rows(all) is another set.", "Return self.")
    require(hash(s) == hash(s.within(case.box)), "equal sets have other hashes.", "Make it @dataclass(frozen=True).")


def x0_lies_inside_and_nonsense_does_not(case: Case) -> None:
    """x0 itself is in the set; NaN and a point far away are not."""
    for dtype in _TYPES:
        x0 = case.x0(dtype)
        like = case.like(x0)
        inside = case.set.contains(x0, like)
        require(
            inside.dtype == torch.bool and inside.shape == (ROWS,),
            f"contains returns {tuple(inside.shape)} {inside.dtype}.",
            "One boolean per row: flatten(1).all(1).",
        )
        require(bool(inside.all()), f"x0 is outside in {dtype}.", "A perturbation of 0 belongs to every set.")
        require(
            not bool(case.set.contains(x0, like + 1e6).any()),
            "a point 10⁶ away is inside.",
            "contains must compare with the size and the box.",
        )
        bad = like.clone()
        bad[0] = torch.nan
        require(
            case.set.contains(x0, bad).tolist() == [False, True, True, True],
            "a NaN point is inside, or spoils its neighbours.",
            "Compare so that NaN loses (d <= size, never ~(d > size)), row by row.",
        )


def samples_lie_inside(case: Case) -> None:
    """Samples are in the set, differ between draws, and are the same for the same draws."""
    for dtype in _TYPES:
        x0 = case.x0(dtype)
        points = list(case.samples(x0))
        for z in points:
            _inside(case, x0, z, "sample")
        again = case.set.sample(x0, case.draws(500))
        require(torch.equal(points[0], again), "the same draws give another sample.", "Draw from `draws` only.")
        require(not torch.equal(points[0], points[1]), "other draws give the same sample.", "Draw from `draws`.")


def projection_is_feasible_and_idempotent(case: Case) -> None:
    """project lands in the set, and leaves points of the set alone."""
    for dtype in _TYPES:
        x0 = case.x0(dtype)
        z = case.set.project(x0, case.cloud(x0))
        _inside(case, x0, z, "project")
        again = case.set.project(x0, z)
        require(
            torch.equal(again, z), _most("project(project(x)) is elsewhere", again - z), "Return members unchanged."
        )


def projection_is_the_nearest_point(case: Case) -> None:
    """No point of the set is nearer than the projection (convex sets: the variational inequality)."""
    for dtype in _TYPES:
        x0 = case.x0(dtype)
        convex, tolerance = case.convex(x0), _SLACK[dtype]
        for number in range(3):
            v = case.cloud(x0, number)
            p = case.set.project(x0, v).double()
            far = v.double() - p
            for z in [*case.known(x0), *_hardest(case, x0, far.to(dtype))]:
                nearer = _inner(far, far) - _inner(v.double() - z.double(), v.double() - z.double())
                remedy = "It is the Euclidean projection onto all of the set, the box included, not a rescaling."
                require(bool((nearer <= tolerance).all()), f"a point is nearer by {float(nearer.max()):.3g}.", remedy)
                angle = _inner(far, z.double() - p)
                fine = not convex or bool((angle <= tolerance).all())
                require(fine, f"<v − Pv, z − Pv> = {float(angle.max()):.3g} > 0 at a point z of the set.", remedy)


def lmo_lies_inside_and_beats_every_point(case: Case) -> None:
    """lmo lands in the set, and no point of the set has a larger <g, z>."""
    for dtype in _TYPES:
        x0 = case.x0(dtype)
        for number in range(3):
            g = case.directions(x0, number)
            best = case.set.lmo(x0, g)
            _inside(case, x0, best, "lmo")
            for z in [*case.known(x0), *_far_along(case, x0, g)]:
                gap = _inner(g, z) - _inner(g, best)
                require(
                    bool((gap <= _SLACK[dtype]).all()),
                    f"a point has a value larger by {float(gap.max()):.3g}.",
                    "lmo is argmax of <g, z> over all of the set, the box included.",
                )


def support_is_the_value_of_lmo(case: Case) -> None:
    """support = <a, lmo(a)>, and rounding="up" is never below."""
    for dtype in _TYPES:
        x0 = case.x0(dtype)
        rows = torch.stack([case.directions(x0, j) for j in range(2)], 1)
        nearest, up = case.set.support(x0, rows), case.set.support(x0, rows, rounding="up")
        require(nearest.shape == (ROWS, 2), f"support has shape {tuple(nearest.shape)}, not (b, m).", "Sum per row.")
        for j in range(2):
            value = _inner(rows[:, j], case.set.lmo(x0, rows[:, j]))
            gap = float((nearest[:, j].double() - value).abs().max())
            require(gap <= _SLACK[dtype], f"support and <a, lmo(a)> differ by {gap:.3g}.", "One of the two is wrong.")
            require(
                bool((up[:, j].double() >= value).all()),
                'support(rounding="up") lies below a value that is reached.',
                "Compute in float64 and add the rounding bound.",
            )


def hull_encloses(case: Case) -> None:
    """Every known point lies in the hull; where there is an inner hull, its corners lie in the set."""
    for dtype in _TYPES:
        x0 = case.x0(dtype)
        lower, upper = case.set.hull(x0)
        for z in case.known(x0):
            require(bool(((lower <= z) & (z <= upper)).all()), "a point of the set leaves hull().", "Round it outward.")
        try:
            corners = case.set.hull(x0, rounding="in")
        except NotAvailable:
            continue
        for z in corners:
            _inside(case, x0, z.expand_as(case.like(x0)), 'hull(rounding="in")')


def sizes_are_nested_and_gauge_agrees(case: Case) -> None:
    """A point is in the set of its gauge, in every larger one and in none smaller."""
    s, x0 = case.set, case.x0()
    own = torch.as_tensor(float(s.size) if not isinstance(s.size, Tensor) else s.size, dtype=torch.float64)
    s.resized(float(own.reshape(-1)[0]))  # sets of one size refuse here
    for z in case.samples(x0):
        gauge = s.gauge(x0, z)
        require(gauge.shape == (ROWS,) and gauge.dtype == torch.float64, "gauge is not float64 (b,).", "One per row.")
        require(bool((gauge <= own * (1 + 1e-9)).all()), "a sample's gauge exceeds the size.", "See sample and gauge.")
        remedy = "gauge is the smallest size whose set holds x, rounded up."
        require(bool(s.resized(gauge).contains(x0, z).all()), "a point is not in the set of its gauge.", remedy)
        require(bool(s.resized(2 * own).contains(x0, z).all()), "a larger set lost a point.", "Sets nest in size.")
        moved = gauge > 0
        smaller = s.resized(gauge * (1 - 1e-6)).contains(x0, z)
        require(not bool(smaller[moved].any()), "a point lies in a set smaller than its gauge.", remedy)


def size_zero_is_x0(case: Case) -> None:
    """At size 0 every map returns x0."""
    s, x0 = case.set.resized(0), case.x0()
    like = case.like(x0)
    for name, make in (
        ("project", lambda: s.project(x0, case.cloud(x0))),
        ("lmo", lambda: s.lmo(x0, case.directions(x0))),
        ("sample", lambda: s.sample(x0, case.draws())),
    ):
        try:
            z = make()
        except NotAvailable:
            continue
        require(torch.equal(z, like), _most(f"{name} moves x0 at size 0", z - like), "Size 0 leaves x0 alone.")


def maps_change_nothing_they_are_given(case: Case) -> None:
    """Arguments stay as they are, and no global generator moves."""
    x0 = case.x0()
    x, g, before = case.cloud(x0), case.directions(x0), torch.get_rng_state()
    kept = x0.clone(), x.clone(), g.clone()
    for make in (
        lambda: case.set.contains(x0, case.like(x0)),
        lambda: case.set.project(x0, x),
        lambda: case.set.lmo(x0, g),
        lambda: case.set.gauge(x0, case.like(x0)),
        lambda: case.set.hull(x0),
        lambda: case.set.sample(x0, case.draws()),
    ):
        try:
            make()
        except NotAvailable:
            continue
    same = all(torch.equal(a, b) for a, b in zip((x0, x, g), kept, strict=True))
    require(same, "an argument was written to.", "Make new tensors: torch.clamp, not clamp_.")
    require(torch.equal(before, torch.get_rng_state()), "the global generator moved.", "Draw from `draws` only.")


def rows_do_not_look_at_each_other(case: Case) -> None:
    """A row's answer is the same whoever else is in the batch."""
    x0, order = case.x0(), torch.tensor([2, 0])
    x, g, s, few = case.cloud(x0), case.directions(x0), case.set, case.set.rows(order)
    for name, whole, part in (
        ("project", lambda: s.project(x0, x), lambda: few.project(x0[order], x[order])),
        ("lmo", lambda: s.lmo(x0, g), lambda: few.lmo(x0[order], g[order])),
        (
            "sample",
            lambda: s.sample(x0, case.draws()),
            lambda: few.sample(x0[order], case.draws().take(order)),
        ),
    ):
        try:
            a, b = whole()[order], part()
        except NotAvailable:
            continue
        require(
            torch.allclose(a, b, rtol=0, atol=1e-6),
            _most(f"{name} of a row depends on its batch", a - b),
            "Reduce over a row's own axes: flatten(1).sum(1).",
        )


def sizes_may_differ_by_row(case: Case) -> None:
    """resized((b,)) gives every row its own size, and rows(index) selects them."""
    s, x0 = case.set, case.x0()
    own = float(s.size) if not isinstance(s.size, Tensor) else float(s.size[0])
    sizes = torch.tensor([0.0, 0.4, 1.0, 1.7], dtype=torch.float64) * own
    many = s.resized(sizes)
    x = case.cloud(x0)
    for i in range(ROWS):
        row = slice(i, i + 1)
        alone, index = s.resized(sizes[row]), torch.tensor([i])
        same = torch.equal(many.contains(x0, x)[row], alone.contains(x0[row], x[row]))
        require(same, "contains mixes the sizes of rows.", "Broadcast with core.arithmetic.per_row(size, x).")
        try:
            whole, one, picked = many.project(x0, x)[row], alone.project(x0[row], x[row]), many.rows(index)
        except NotAvailable:
            continue
        fine = torch.allclose(whole, one, rtol=0, atol=1e-6)
        fine = fine and torch.allclose(picked.project(x0[row], x[row]), one, rtol=0, atol=1e-6)
        require(fine, "project mixes the sizes of rows.", "Broadcast with core.arithmetic.per_row; rows() selects.")


PROMISES: tuple[Promise[Case], ...] = (
    it_is_a_set,
    x0_lies_inside_and_nonsense_does_not,
    samples_lie_inside,
    projection_is_feasible_and_idempotent,
    projection_is_the_nearest_point,
    lmo_lies_inside_and_beats_every_point,
    support_is_the_value_of_lmo,
    hull_encloses,
    sizes_are_nested_and_gauge_agrees,
    size_zero_is_x0,
    maps_change_nothing_they_are_given,
    rows_do_not_look_at_each_other,
    sizes_may_differ_by_row,
)


def _inside(case: Case, x0: Tensor, z: Tensor, name: str) -> None:
    like = case.like(x0)
    require(
        z.shape == like.shape and z.dtype == like.dtype,
        f"{name} returns {tuple(z.shape)} {z.dtype}, wanted {tuple(like.shape)} {like.dtype}.",
        "Keep the shape and dtype of the points.",
    )
    outside = int((~case.set.contains(x0, z, slack=0)).sum())
    require(
        outside == 0,
        f"{name} leaves the set in {outside} of {len(z)} rows ({z.dtype}).",
        "Points that leave a set pass contains(slack=0): pull them in by a rounding, and into the box.",
    )


def _hardest(case: Case, x0: Tensor, direction: Tensor) -> list[Tensor]:
    """The maximiser of <v − Pv, ·>: the hardest point for a projection."""
    try:
        return [case.set.lmo(x0, direction)]
    except NotAvailable:
        return []


def _far_along(case: Case, x0: Tensor, g: Tensor) -> list[Tensor]:
    """The projection of a point far along g: a strong rival of lmo(g)."""
    try:
        return [case.set.project(x0, case.like(x0) + 9 * g)]
    except NotAvailable:
        return []


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).flatten(1).sum(1)


def _most(what: str, difference: Tensor) -> str:
    return f"{what}, by up to {float(difference.abs().max()):.3g}."
