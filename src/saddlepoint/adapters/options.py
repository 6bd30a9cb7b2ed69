"""What the caller knows about a model beside the model itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

from saddlepoint.core.arithmetic import exact
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import Box

Scalar = int | float | str | Fraction
Bound = Scalar | Sequence[Scalar]
Domain = Box | tuple[Bound, Bound] | list[Bound]


@dataclass(frozen=True)
class LoadOptions:
    """Options of `load`: `--domain --mean --std --arch --device --classes --shape --eot --smooth`."""

    domain: Domain | None = None
    mean: Sequence[float] | float | None = None
    std: Sequence[float] | float | None = None
    arch: str | None = None
    device: str = "cpu"
    classes: int | None = None
    shape: tuple[int, ...] | None = None
    outputs: str = "auto"
    """What the model's outputs are: "auto" (found out), "logits" or "probabilities"."""
    eot: int | None = None
    """Of a random model, the mean of so many draws is loaded (adapters/averaging.py)."""
    smooth: str | None = None
    """The smoothed model is loaded: "sigma=0.25,n0=100,n=10000,alpha=0.001" (adapters/smoothing.py)."""


@contextmanager
def quiet() -> Iterator[None]:
    """Deprecation warnings inside other packages' loaders are not the user's concern; their errors are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def as_box(domain: Domain | None, name: str) -> Box:
    """The domain as a Box. Raises InputError where it is unknown or empty."""
    if domain is None:
        raise InputError(
            f"The domain of {name} is unknown: nothing in it says which inputs are legal.",
            "Give domain=(0, 1) (--domain 0,1), in raw input units.",
        )
    if isinstance(domain, Box):
        return domain
    if len(domain) != 2:
        raise InputError(f"domain={domain!r} has {len(domain)} entries.", "Give (lower, upper), e.g. (0, 1).")
    lower, upper = (_bound(v) for v in domain)
    return Box(lower, upper)


def _bound(value: Bound) -> float | tuple[float, ...]:
    if isinstance(value, (int, float, str, Fraction)):
        return float(exact(value))
    return tuple(float(exact(v)) for v in value)
