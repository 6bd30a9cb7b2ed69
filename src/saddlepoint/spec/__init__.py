"""The nouns: what is attacked, what is allowed, what is claimed, and how claims fold."""

from saddlepoint.spec.access import Access as Access
from saddlepoint.spec.bracket import Bracket as Bracket
from saddlepoint.spec.bracket import Verdict as Verdict
from saddlepoint.spec.bracket import fold as fold
from saddlepoint.spec.evidence import Cost as Cost
from saddlepoint.spec.evidence import Evidence as Evidence
from saddlepoint.spec.evidence import Method as Method
from saddlepoint.spec.evidence import Subject as Subject
from saddlepoint.spec.finding import Finding as Finding
from saddlepoint.spec.goal import Targeted as Targeted
from saddlepoint.spec.goal import Untargeted as Untargeted
from saddlepoint.spec.goal import margin as margin
from saddlepoint.spec.goal import margin_matrix as margin_matrix
from saddlepoint.spec.model import Model as Model
from saddlepoint.spec.model import Smoothing as Smoothing
from saddlepoint.spec.noise import Noise as Noise
from saddlepoint.spec.property import Atom as Atom
from saddlepoint.spec.property import Property as Property
from saddlepoint.spec.property import margin_property as margin_property
from saddlepoint.spec.query import Query as Query
from saddlepoint.spec.threat import Threat as Threat
