"""Networks as linear and mixed-integer programs, and HiGHS that solves them."""

from saddlepoint.bound.program.build import Built, Objective, build
from saddlepoint.bound.program.highs import Solved, Solver, safe_bound
from saddlepoint.bound.program.maps import Maps
from saddlepoint.bound.program.rows import Program

__all__ = ["Built", "Maps", "Objective", "Program", "Solved", "Solver", "build", "safe_bound"]
