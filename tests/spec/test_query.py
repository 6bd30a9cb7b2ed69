"""Queries and strict atoms: what holds at 0, which roundings are allowed, what is refused."""

from fractions import Fraction

import pytest
import torch

from saddlepoint.core.errors import InputError
from saddlepoint.spec import Atom, Property, Query

F64 = torch.float64


def test_a_strict_atom_holds_at_zero_and_a_plain_one_does_not():
    x, z = torch.zeros(3, 1), torch.tensor([[-1.0], [0.0], [1.0]])
    assert Property(((Atom(z=(1.0,)),),)).violated(x, z).tolist() == [True, True, False]
    assert Property(((Atom(z=(1.0,), strict=True),),)).violated(x, z).tolist() == [True, False, False]


def test_a_clause_is_violated_when_all_its_atoms_are():
    z = torch.tensor([[-1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]])
    either = Property(((Atom(z=(1.0, 0.0)), Atom(z=(0.0, 1.0), strict=True)), (Atom(b=1.0),)))
    assert either.violated(torch.zeros(3, 1), z).tolist() == [False, True, False]
    assert either(torch.zeros(3, 1), z).tolist() == [1.0, -1.0, 1.0]


def test_nan_violates_nothing():
    for strict in (False, True):
        nan = Property(((Atom(z=(1.0,), strict=strict),),)).violated(torch.zeros(1, 1), torch.tensor([[torch.nan]]))
        assert nan.tolist() == [False]


def test_strictness_and_exact_constants_change_the_digest_and_plain_atoms_keep_theirs():
    plain = Property(((Atom(z=(1.0,)),),))
    assert plain.clauses[0][0].described() == [[1.0], [], 0.0]
    strict = Property(((Atom(z=(1.0,), strict=True),),))
    exact = Property(((Atom(z=(1.0,), exact=Fraction(1, 10**20)),),))
    assert len({plain.digest, strict.digest, exact.digest}) == 3


def test_a_constant_rounded_up_is_refused():
    above = 0.1  # the float64 nearest to 1/10 lies above it
    with pytest.raises(InputError, match="Round b down"):
        Atom(b=above, exact=Fraction(1, 10))
    assert (
        Atom(
            b=torch.nextafter(torch.tensor(above, dtype=F64), torch.tensor(0.0, dtype=F64)).item(),
            exact=Fraction(1, 10),
        ).b
        < above
    )


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        (torch.zeros(2), torch.ones(2), "float64"),
        (torch.zeros(2, dtype=F64), torch.ones(3, dtype=F64), "shape"),
        (torch.zeros(2, dtype=F64), torch.tensor([1.0, torch.inf], dtype=F64), "input 1 is inf"),
        (torch.zeros(2, dtype=F64), torch.tensor([1.0, torch.nan], dtype=F64), "input 1 is nan"),
        (torch.tensor([0.0, 2.0], dtype=F64), torch.ones(2, dtype=F64), "above its upper limit"),
    ],
)
def test_boxes_that_are_none_are_refused(lower, upper, message):
    with pytest.raises(InputError, match=message):
        Query(lower, upper, Property(((Atom(b=1.0),),)))


def test_a_witness_keeps_the_inner_limits_without_tolerance():
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    inside = torch.nextafter(ends, 0.5 * torch.ones(2, dtype=F64))
    query = Query(ends[:1], ends[1:], Property(((Atom(b=1.0),),)), (inside[:1], inside[1:]))
    points = torch.stack([ends[:1], inside[:1], inside[1:], ends[1:], torch.tensor([torch.nan], dtype=F64)])
    assert query.admits(points).tolist() == [False, True, True, False, False]
    assert Query(ends[:1], ends[1:], query.property).admits(points).tolist() == [True, True, True, True, False]


def test_the_digest_tells_boxes_and_formulas_apart():
    zero, one = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    holds, fails = Property(((Atom(b=1.0),),)), Property(((Atom(b=-1.0),),))
    digests = {Query(zero, one, holds).digest, Query(zero, one, fails).digest, Query(zero, zero, holds).digest}
    assert len(digests) == 3
    assert Query(zero, one, holds).digest in digests
