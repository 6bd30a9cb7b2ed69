"""Linear models, exactly: the inner maximum in closed form, the outer minimum as a convex programme with its gap."""

from saddlepoint.training.linear.deletion import FeatureDeletion as FeatureDeletion
from saddlepoint.training.linear.monotone import MonotoneLinear as MonotoneLinear
from saddlepoint.training.linear.predictor import LinearFit as LinearFit
from saddlepoint.training.linear.robust import RobustLinear as RobustLinear
from saddlepoint.training.linear.subspace import SubspaceEnsemble as SubspaceEnsemble
from saddlepoint.training.linear.weighting import FeatureWeighting as FeatureWeighting
