"""Data: labelled samples with stable ids, read batch by batch in constant memory."""

from saddlepoint.data.assemble import from_arrays
from saddlepoint.data.load import load
from saddlepoint.data.samples import Batch, Data, Samples

__all__ = ["Batch", "Data", "Samples", "from_arrays", "load"]
