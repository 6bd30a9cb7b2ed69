"""Attacks on a model that is not at hand: examples made on surrogates, and what makes them transfer."""

from __future__ import annotations

from saddlepoint.attack.measure import Rate as Rate
from saddlepoint.attack.transfer.ensemble import ensemble as ensemble
from saddlepoint.attack.transfer.filters import Nesterov as Nesterov
from saddlepoint.attack.transfer.filters import Smoothed as Smoothed
from saddlepoint.attack.transfer.score import Matrix as Matrix
from saddlepoint.attack.transfer.score import Transfer as Transfer
from saddlepoint.attack.transfer.score import transfer as transfer
from saddlepoint.attack.transfer.score import transfer_matrix as transfer_matrix
from saddlepoint.attack.transfer.through import Through as Through
from saddlepoint.attack.transfer.views import Diverse as Diverse
from saddlepoint.attack.transfer.views import Scaled as Scaled
