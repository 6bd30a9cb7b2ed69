"""`check_set` and `check_bound`: the house's own pass, and each planted bug breaks the promise that is about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import saddlepoint as sp
from saddlepoint.bound import CROWN, LP, Bounds, Interval, Lipschitz, WongKolter
from saddlepoint.geometry import L0, L1, L2, Box, Linf, Mask, Patch, PerturbationSet, RotationTranslation
from saddlepoint.testing import ContractBroken, check_bound, check_set

UNIT = Box(0, 1)
HALF = torch.arange(64).reshape(8, 8) % 2 == 0
SETS: dict[str, tuple[PerturbationSet, tuple[str, ...]]] = {
    "linf": (Linf("8/255"), ()),
    "l2": (L2("0.8"), ()),
    "l1": (L1(2), ()),
    "l0": (L0(3), ()),
    "spatial": (RotationTranslation(20, 1), ()),
    "mask": (Mask(HALF), ("sizes_are_nested_and_gauge_agrees", "size_zero_is_x0", "sizes_may_differ_by_row")),
    "patch": (Patch(2, 3), ("sizes_are_nested_and_gauge_agrees", "size_zero_is_x0", "sizes_may_differ_by_row")),
    "union": (
        Linf("0.05") | L2("0.5"),
        ("sizes_are_nested_and_gauge_agrees", "size_zero_is_x0", "sizes_may_differ_by_row"),
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_the_houses_sets_pass_and_what_they_lack_is_listed(name: str) -> None:
    threat, skipped = SETS[name]
    report = check_set(threat)
    assert report.broken == ()
    assert report.skipped == skipped


def test_another_shape_and_box() -> None:
    assert check_set(L2("0.5"), shape=(7,)).broken == ()
    assert check_set(Linf("0.3"), shape=(2, 5, 4), box=Box((-0.5, 0.1), (1.0, 2.0))).broken == ()


class Radial(L1):
    """Rescales in place of projecting (trap 16)."""

    def project(self, x0: Tensor, x: Tensor) -> Tensor:
        d = (x - x0).flatten(1)
        shrink = (float(self.size) / d.abs().sum(1).clamp_min(1e-12)).clamp(max=1)[:, None]
        inside = super().project(x0, x0 + 0.999 * (d * shrink).reshape(x.shape))
        return torch.where(self.contains(x0, x)[:, None, None, None], x, inside)


class Overshoots(Linf):
    """x0 + clamp(x − x0): a rounding over ε (trap 2)."""

    def project(self, x0: Tensor, x: Tensor) -> Tensor:
        return (x0 + (x - x0).clamp(-float(self.size), float(self.size))).clamp(0, 1)


class ForgetsTheBox(Linf):
    def lmo(self, x0: Tensor, g: Tensor) -> Tensor:
        return x0 + 0.9 * float(self.size) * g.sign()


class WeakLmo(L2):
    def lmo(self, x0: Tensor, g: Tensor) -> Tensor:
        best = super().lmo(x0, g)
        return self.project(x0, x0 + 0.9 * (best - x0))


class WrongSupport(Linf):
    def support(self, x0: Tensor, a: Tensor, *, rounding: Any = "nearest") -> Tensor:
        return super().support(x0, a, rounding=rounding) - 0.01


class RoundsDown(L2):
    def support(self, x0: Tensor, a: Tensor, *, rounding: Any = "nearest") -> Tensor:
        return super().support(x0, a, rounding="nearest").double() - (1e-5 if rounding == "up" else 0)


class TightHull(L2):
    def hull(self, x0: Tensor, *, rounding: Any = "out") -> Any:
        lower, upper = super().hull(x0, rounding=rounding)
        return lower + 0.2 * (x0 - lower), upper - 0.2 * (upper - x0)


class SmallGauge(Linf):
    def gauge(self, x0: Tensor, x: Tensor) -> Tensor:
        return 0.9 * super().gauge(x0, x)


class LargeGauge(Linf):
    def gauge(self, x0: Tensor, x: Tensor) -> Tensor:
        return super().gauge(x0, x).clamp_min(float(self.size) if isinstance(self.size, Tensor) is False else 0)


class HoldsNan(Linf):
    def contains(self, x0: Tensor, x: Tensor, *, slack: float | int = 0.0) -> Tensor:
        return ~((x - x0).abs() > float(self.size) + 1e-7).flatten(1).any(1)


class WholeBatch(L2):
    """One norm for all rows."""

    def project(self, x0: Tensor, x: Tensor) -> Tensor:
        d = x - x0
        return super().project(x0, x0 + d * min(1.0, float(self.size) / float(d.norm())))


class WritesIntoX(Linf):
    def project(self, x0: Tensor, x: Tensor) -> Tensor:
        return super().project(x0, x.mul_(1.01))


class GlobalSample(Linf):
    def sample(self, x0: Tensor, draws: Any) -> Tensor:
        return self.project(x0, x0 + torch.randn_like(x0))


class FirstSize(L2):
    """All rows get the first row's size."""

    def project(self, x0: Tensor, x: Tensor) -> Tensor:
        first = float(self.size[0]) if isinstance(self.size, Tensor) else float(self.size)
        return L2(first, self.box).project(x0, x)


class Nameless(Linf):
    def canonical(self) -> dict[str, Any]:
        return {"kind": "linf", "size": float("nan")}


@dataclass(frozen=True, init=False, eq=False)
class Excludes(Linf):
    """An annulus: x0 itself is no member."""

    kind: ClassVar[str] = "annulus"

    def contains(self, x0: Tensor, x: Tensor, *, slack: float | int = 0.0) -> Tensor:
        return super().contains(x0, x, slack=slack) & (x != x0).flatten(1).any(1)


PLANTED: list[tuple[PerturbationSet, str, str]] = [
    (Radial(2), "projection_is_the_nearest_point", "not a rescaling"),
    (Overshoots("8/255"), "projection_is_feasible_and_idempotent", "leaves the set"),
    (ForgetsTheBox("0.1"), "lmo_lies_inside_and_beats_every_point", "leaves the set"),
    (WeakLmo("0.8"), "lmo_lies_inside_and_beats_every_point", "larger by"),
    (WrongSupport("0.1"), "support_is_the_value_of_lmo", "differ by"),
    (RoundsDown("0.8"), "support_is_the_value_of_lmo", "below"),
    (TightHull("0.3"), "hull_encloses", "outward"),
    (SmallGauge("0.1"), "sizes_are_nested_and_gauge_agrees", "not in the set of its gauge"),
    (LargeGauge("0.1"), "sizes_are_nested_and_gauge_agrees", "smaller than its gauge"),
    (HoldsNan("0.1"), "x0_lies_inside_and_nonsense_does_not", "NaN"),
    (WholeBatch("0.8"), "rows_do_not_look_at_each_other", "depends on its batch"),
    (WritesIntoX("0.1"), "maps_change_nothing_they_are_given", "written to"),
    (GlobalSample("0.1"), "samples_lie_inside", "another sample"),
    (GlobalSample("0.1"), "maps_change_nothing_they_are_given", "generator moved"),
    (FirstSize("0.8"), "sizes_may_differ_by_row", "mixes the sizes"),
    (Nameless("0.1"), "it_is_a_set", "JSON"),
    (Excludes("0.1"), "x0_lies_inside_and_nonsense_does_not", "x0 is outside"),
]


@pytest.mark.parametrize(("threat", "promise", "words"), PLANTED, ids=lambda v: type(v).__name__)
def test_a_planted_bug_breaks_its_promise(threat: PerturbationSet, promise: str, words: str) -> None:
    with pytest.raises(ContractBroken) as caught:
        check_set(threat)
    report = caught.value.report
    assert promise in report.broken
    (finding,) = [f for f in report.findings if f.promise == promise]
    assert words in str(finding)
    assert finding.remedy


@dataclass(frozen=True, eq=False)
class Dimmed(PerturbationSet):
    """(1 − c) x0, 0 ≤ c ≤ 0.1: contains and sample only."""

    kind: ClassVar[str] = "dimmed"

    def canonical(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def within(self, box: Box) -> PerturbationSet:
        return self

    def contains(self, x0: Tensor, x: Tensor, *, slack: float | int = 0.0) -> Tensor:
        a, b = x0.double().flatten(1), x.double().flatten(1)
        factor = (a * b).sum(1) / (a * a).sum(1)
        off = (b - factor[:, None] * a).abs().amax(1)
        return (off <= 1e-6 + slack) & (factor >= 0.9 - slack - 1e-6) & (factor <= 1 + slack + 1e-6)

    def sample(self, x0: Tensor, draws: Any) -> Tensor:
        return x0 * (1 - 0.1 * draws.uniform((1, 1, 1), dtype=x0.dtype))


def test_a_set_with_few_maps_is_checked_on_those() -> None:
    report = check_set(Dimmed())
    assert report.broken == ()
    assert set(report.skipped) == {
        "projection_is_feasible_and_idempotent",
        "projection_is_the_nearest_point",
        "lmo_lies_inside_and_beats_every_point",
        "support_is_the_value_of_lmo",
        "hull_encloses",
        "sizes_are_nested_and_gauge_agrees",
        "size_zero_is_x0",
        "sizes_may_differ_by_row",
    }


def test_what_is_no_set_is_refused_at_once() -> None:
    with pytest.raises(ContractBroken, match="is no PerturbationSet"):
        check_set("linf:0.1")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "method", [Interval(upper=True), CROWN(), CROWN(intermediate="interval")], ids=lambda m: m.name
)
@pytest.mark.parametrize("threat", [None, L2("0.1")], ids=["linf", "l2"])
def test_the_houses_bounds_pass(method: Any, threat: PerturbationSet | None) -> None:
    report = check_bound(method, threat)
    assert (report.broken, report.skipped) == ((), ())


@pytest.mark.parametrize("method", [WongKolter(), LP(), Lipschitz()], ids=lambda m: m.name)
def test_other_bounds_of_the_house_pass_too(method: Any) -> None:
    report = check_bound(method)
    assert report.broken == ()


@dataclass(frozen=True)
class Wrong:
    """CROWN's bounds, changed by one line."""

    how: str
    name: ClassVar[str] = "mine"

    def __call__(self, graph: Any, set: PerturbationSet, x: Tensor, C: Tensor | None = None) -> Bounds:
        if self.how == "smaller set":
            set = set.resized(float(set.size) / 2)
        found = CROWN()(graph, set, x, C)
        if self.how == "optimist":
            found = replace(found, lower=found.lower + 0.1)
        if self.how == "batch":
            found = replace(found, lower=found.lower.amin(0, keepdim=True).expand_as(found.lower))
        if self.how == "nan":
            found = replace(found, lower=found.lower * torch.nan)
        if self.how == "noise":
            found = replace(found, lower=found.lower - torch.rand(()))
        return found


@pytest.mark.parametrize(
    ("how", "promise"),
    [
        ("smaller set", "no_attack_reaches_below"),
        ("optimist", "no_attack_reaches_below"),
        ("batch", "bounds_do_not_depend_on_the_batch"),
        ("nan", "it_answers_in_form"),
        ("noise", "nothing_is_changed"),
    ],
)
def test_a_wrong_bound_is_caught(how: str, promise: str) -> None:
    with pytest.raises(ContractBroken) as caught:
        check_bound(Wrong(how))
    assert promise in caught.value.report.broken


def test_a_right_bound_of_ones_own_is_told_what_its_evidence_is_worth() -> None:
    report = check_bound(Wrong("right"))
    assert report.skipped == ("proofs_are_accepted",)
    assert "claimed" in str(report)


def test_the_checks_are_one_import_away() -> None:
    assert sp.testing.check_set is check_set
    assert {"check_attack", "check_bound", "check_set"} <= set(dir(sp.testing))
