"""Data: labelled samples with stable ids, read batch by batch in constant memory."""

from saddlepoint.data.assemble import from_arrays
from saddlepoint.data.fit import check_against
from saddlepoint.data.load import load
from saddlepoint.data.part import PartOfData, split
from saddlepoint.data.samples import Batch, Data, Samples

__all__ = ["Batch", "Data", "PartOfData", "Samples", "check_against", "from_arrays", "load", "split"]
