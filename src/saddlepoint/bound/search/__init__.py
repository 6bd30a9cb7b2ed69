"""Complete search: does a property hold on a box? With a certificate, and at any time the best bound so far."""

from saddlepoint.bound.search.run import Settings as Settings
from saddlepoint.bound.search.run import search as search
from saddlepoint.bound.search.task import Found as Found
