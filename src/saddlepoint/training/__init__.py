"""Outer minimisation: min over θ of E max over S(x) of the loss. A short loop and the objectives it can be given."""

from saddlepoint.training.adversarial import Adversarial as Adversarial
from saddlepoint.training.adversarial import worst_points as worst_points
from saddlepoint.training.loop import Trained as Trained
from saddlepoint.training.loop import Trainer as Trainer
from saddlepoint.training.loop import epochs as epochs
from saddlepoint.training.loop import train as train
from saddlepoint.training.measure import Epoch as Epoch
from saddlepoint.training.measure import Measure as Measure
from saddlepoint.training.objective import Objective as Objective
from saddlepoint.training.objective import Standard as Standard
from saddlepoint.training.state import fresh as fresh
