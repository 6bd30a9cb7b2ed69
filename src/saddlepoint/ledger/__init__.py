"""Evidence on disk: one SQLite file of rows and content-addressed blobs; merge, query."""

from saddlepoint.ledger.claims import Claim as Claim
from saddlepoint.ledger.claims import Exhibit as Exhibit
from saddlepoint.ledger.claims import MethodRow as MethodRow
from saddlepoint.ledger.claims import ModelRow as ModelRow
from saddlepoint.ledger.claims import RunRow as RunRow
from saddlepoint.ledger.claims import SampleResult as SampleResult
from saddlepoint.ledger.store import Ledger as Ledger
