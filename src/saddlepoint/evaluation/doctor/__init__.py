"""Is this evaluation broken? Questions to a model and to a ledger, each answered by a finding with its remedy."""

from saddlepoint.evaluation.doctor.case import Effort as Effort
from saddlepoint.evaluation.doctor.diagnose import Diagnosis as Diagnosis
from saddlepoint.evaluation.doctor.diagnose import diagnose as diagnose
from saddlepoint.evaluation.doctor.examine import examine as examine
