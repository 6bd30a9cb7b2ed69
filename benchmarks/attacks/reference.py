"""The reference models of ../shared/data with their data, as the benchmarks of attacks use them.

Every robust model is attacked at the size for which it was trained or certified.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from saddlepoint.adapters import LoadOptions, load
from saddlepoint.data import load as load_data
from saddlepoint.spec import Model

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian package dataset-fashion-mnist


@dataclass(frozen=True)
class Reference:
    """A model of the material: its architecture by name, its data, and the ℓ∞ size it is robust at."""

    name: str
    arch: str
    size: str

    @property
    def data(self) -> str:
        """What `data.load` takes."""
        if self.name.startswith("mnist"):
            return f"{SHARED / 'mnist.npz'}:test"
        if self.name.startswith("fashion"):
            return str(FASHION / "t10k-images-idx3-ubyte.gz")
        return str(SHARED / "cifar10" / "cifar10_test.npz")

    def model(self) -> Model:
        """The model in raw input units."""
        card = json.loads((SHARED / "models" / f"{self.name}.json").read_text())
        scale = card["input"]["normalise"]
        options = LoadOptions(domain=(0, 1), arch=self.arch, mean=scale["mean"], std=scale["std"])
        return load(str(SHARED / "models" / card["file"]), options)

    def samples(self, count: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """The first `count` test images, their labels and ids."""
        batch = load_data(self.data).take(list(range(count)))
        return batch.x, batch.y, batch.ids


ROBUST = (
    Reference("mnist_lenet5_pgd_eps0.3", "lenet5", "0.3"),
    Reference("mnist_cnn_a_adv_eps0.3", "wk17", "0.3"),
    Reference("mnist_wk17_certified_eps0.1", "wk17", "0.1"),
    Reference("fashion_wk17_certified_eps0.1", "wk17", "0.1"),
    Reference("cifar10_cnn_a_adv_2_255", "cnn-a", "2/255"),
    Reference("cifar10_eran_conv_small_pgd", "cnn-small-eran", "2/255"),
    Reference("cifar10_oval_base_certified_2_255", "oval-base", "2/255"),
    Reference("cifar10_resnet2b_adv_2_255", "resnet2b", "2/255"),
    Reference("cifar10_wk18_small_certified_8_255", "cnn-a", "8/255"),
)
RESNET20 = Reference("cifar10_resnet20_standard", "resnet20", "1/255")
LENET5 = ROBUST[0]


def machine() -> dict[str, object]:
    """What a timing depends on, without naming a machine."""
    import platform

    return {"processor": platform.machine(), "system": platform.system(), "threads": torch.get_num_threads()}
