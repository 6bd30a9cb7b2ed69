"""Certified training: the loss that is minimised is an upper bound of the worst-case loss (DualLoss' with random
projections: an estimate of one)."""

from saddlepoint.training.certified.crown_ibp import CrownIBP as CrownIBP
from saddlepoint.training.certified.ibp import IBP as IBP
from saddlepoint.training.certified.mtl_ibp import MTLIBP as MTLIBP
from saddlepoint.training.certified.sabr import SABR as SABR
from saddlepoint.training.certified.warmup import interval_initialised as interval_initialised
from saddlepoint.training.certified.wong_kolter import DualLoss as DualLoss
