"""Contract suites for authors: is my own attack, set or bound method what the house expects? Answers in seconds.

    sp.testing.check_attack(MyAttack())      sp.testing.check_set(MySet())      sp.testing.check_bound(MyBound())

Each tries every promise, and raises ContractBroken with a readable report (which promise, what was seen, the remedy) or
returns it. No test framework is needed.
"""

from __future__ import annotations

from saddlepoint.testing.attacks import check_attack as check_attack
from saddlepoint.testing.bounds import check_bound as check_bound
from saddlepoint.testing.report import ContractBroken as ContractBroken
from saddlepoint.testing.report import Finding as Finding
from saddlepoint.testing.report import Report as Report
from saddlepoint.testing.sets import check_set as check_set
