"""VNN-LIB specifications: text -> forms -> branches -> queries."""

from saddlepoint.adapters.vnnlib.read import Specification as Specification
from saddlepoint.adapters.vnnlib.read import parse as parse
from saddlepoint.adapters.vnnlib.read import read_vnnlib as read_vnnlib
