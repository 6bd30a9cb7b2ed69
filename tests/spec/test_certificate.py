"""A certificate on disk is the certificate: every number survives, and other files are refused."""

from fractions import Fraction

import pytest
import torch

from saddlepoint.core.errors import RefusedFile
from saddlepoint.spec.certificate import BoundSets, Certificate, Extra, Leaves, Lines, Tree, load, save
from saddlepoint.spec.property import Atom, Property


def some_certificate() -> Certificate:
    i32 = {"dtype": torch.int32}
    return Certificate(
        torch.tensor([0.1, -1.0], dtype=torch.float64),
        torch.tensor([1 / 3, 1e-30], dtype=torch.float64),
        Property(
            (
                (
                    Atom((1.0, -0.1), (), -0.1, strict=True, exact=Fraction(-1, 10) + Fraction(1, 10**19)),
                    Atom((0.0, 1 / 3), (0.1, 0.0)),
                ),
            )
        ),
        Tree(
            torch.tensor([-1, 0, 0], **i32),
            torch.tensor([-1, 0, 0], **i32),
            torch.tensor([-1, 1, 1], **i32),
            torch.tensor([0.0, 0.1, 0.1], dtype=torch.float64),
            torch.tensor([-1, 0, 1], dtype=torch.int8),
        ),
        BoundSets(*(torch.tensor([k], **i32) for k in (0, -1, 0)), torch.tensor([1], dtype=torch.uint8)),
        Lines(
            *(torch.tensor([k], **i32) for k in (0, 0, 0, 0)),
            torch.tensor([[0.5, 0.5]]),
            torch.zeros(0),
            torch.zeros(2, dtype=torch.int64),
        ),
        Leaves(torch.tensor([1, 2], **i32), torch.tensor([0, 0], **i32)),
        {2: torch.tensor([3], **i32)},
        {2: torch.tensor([[255]], dtype=torch.uint8)},
        (
            Extra(
                0,
                3,
                torch.tensor([1], **i32),
                torch.tensor([-1], dtype=torch.int8),
                {2: torch.tensor([[7]], dtype=torch.uint8)},
            ),
        ),
    )


def test_every_number_survives(tmp_path):
    written = some_certificate()
    save(tmp_path / "c.safetensors", [written, written], "digest")
    (read, again), graph = load(tmp_path / "c.safetensors")
    assert graph == "digest"
    assert read.property == written.property == again.property
    assert [(e.set, e.value) for e in read.extras] == [(0, 3)]
    for name, tensor in written.tensors().items():
        assert read.tensors()[name].dtype == tensor.dtype
        assert torch.equal(read.tensors()[name], tensor), name


@pytest.mark.parametrize("content", [b"", b"not a certificate", b"\x08\0\0\0\0\0\0\0{}      "])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(RefusedFile):
        load(tmp_path / "c")


def test_a_missing_tensor_is_refused(tmp_path):
    import json

    from safetensors.torch import save_file

    stated = json.dumps({"format": 1, "graph": "g", "clauses": [[[]]]})
    save_file({"0/lower": torch.zeros(1)}, tmp_path / "c", {"saddlepoint-certificate": stated})
    with pytest.raises(RefusedFile):
        load(tmp_path / "c")
