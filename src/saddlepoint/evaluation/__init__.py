"""What to run, and running it: plans, the anytime schedule, resume, workers."""

from saddlepoint.evaluation.evaluate import evaluate as evaluate
from saddlepoint.evaluation.execute import Work as Work
from saddlepoint.evaluation.plan import Plan as Plan
from saddlepoint.evaluation.plan import plan_named as plan_named
from saddlepoint.evaluation.run import Prepared as Prepared
from saddlepoint.evaluation.run import Progress as Progress
from saddlepoint.evaluation.run import Request as Request
from saddlepoint.evaluation.run import prepare as prepare
from saddlepoint.evaluation.run import run as run
