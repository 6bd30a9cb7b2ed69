"""Does the verifier ever give a wrong answer? Networks whose answer is known exactly, and what it says about them."""

from saddlepoint.lab.soundness.run import Report as Report
from saddlepoint.lab.soundness.run import self_test as self_test
