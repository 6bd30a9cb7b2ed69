"""Every reference model loads into its built-in architecture and keeps its measured clean accuracy."""

import json

import numpy as np
import pytest
import torch

from paths import SHARED
from saddlepoint import adapters, data
from saddlepoint.adapters.architectures import build, canonical_shape, names
from saddlepoint.core.errors import InputError

ARCH = {
    "mnist_wk17_certified_eps0.1": "wk17",
    "fashion_wk17_certified_eps0.1": "wk17",
    "mnist_cnn_a_adv_eps0.3": "cnn-a",
    "mnist_eran_mlp6x100_standard": "mlp-6x100",
    "mnist_mlp_300_100_standard": "mlp-300-100",
    "mnist_lenet5_standard": "lenet5",
    "mnist_lenet5_pgd_eps0.3": "lenet5",
    "cifar10_cnn_a_adv_2_255": "cnn-a",
    "cifar10_eran_conv_small_pgd": "cnn-small-eran",
    "cifar10_oval_base_certified_2_255": "oval-base",
    "cifar10_wk18_small_certified_8_255": "wk17",
    "cifar10_resnet20_standard": "resnet20",
    "cifar10_resnet2b_adv_2_255": "resnet2b",
    "imagenet_mobilenet_v1_0.75_224": "mobilenet-v1-0.75",
}
# what 10,000 images cost decides how many are looked at
PART = {"lenet5": 1000, "resnet20": 500}
WHOLE = [n for n, a in ARCH.items() if n.startswith(("mnist", "cifar10")) and a not in PART]


def reference(name):
    about = json.loads((SHARED / "models" / f"{name}.json").read_text())
    how = about["input"]["normalise"]
    options = adapters.LoadOptions(domain=(0, 1), arch=ARCH[name], mean=how["mean"], std=how["std"])
    return adapters.load(str(SHARED / "models" / f"{name}.pt"), options), about


@pytest.fixture(scope="module")
def images():
    return {
        "mnist": data.load(f"{SHARED / 'mnist.npz'}:test"),
        "cifar10": data.load(str(SHARED / "cifar10" / "cifar10_test.npz")),
    }


def correct(model, samples, n):
    total = 0
    with torch.no_grad():
        for start in range(0, n, 500):
            batch = samples.take(slice(start, min(n, start + 500)))
            total += int((model(batch.x).argmax(1) == batch.y).sum())
    return total


def test_every_reference_model_has_its_architecture():
    files = (SHARED / "models").iterdir()
    assert {p.stem for p in files if p.suffix == ".pt"} == set(ARCH)


@pytest.mark.parametrize("name", WHOLE)
def test_clean_accuracy_is_the_measured_one(name, images):
    model, about = reference(name)
    k = correct(model, images[about["dataset"]], 10_000)
    # kernels round apart, so one image on the boundary may flip
    assert abs(k - about["measured"]["clean_correct"]) <= 1


@pytest.mark.parametrize("name", [n for n, a in ARCH.items() if a in PART])
def test_clean_accuracy_of_the_first_images(name, images):
    model, about = reference(name)
    n, p = PART[ARCH[name]], about["measured"]["clean_accuracy"]
    k = correct(model, images[about["dataset"]], n)
    assert abs(k / n - p) <= 3 * (p * (1 - p) / n) ** 0.5


def test_mobilenet_knows_photos():
    from PIL import Image

    model, _ = reference("imagenet_mobilenet_v1_0.75_224")
    rows = (SHARED / "imagenet_sample" / "labels.csv").read_text().splitlines()[1:17]
    pixels, labels = [], []
    for row in rows:
        file, label = row.split(",")[:2]
        with Image.open(SHARED / "imagenet_sample" / "images" / file) as image:
            pixels.append(np.asarray(image.convert("RGB"))[16:240, 16:240])
        labels.append(int(label))
    samples = data.from_arrays(np.stack(pixels), labels)
    assert samples.shape == (3, 224, 224)
    # measured top-1 is 0.839 on 1000 photos; below 9 of 16 has probability 1e-3
    assert correct(model, samples, 16) >= 9


@pytest.mark.parametrize("name", names())
def test_each_builds_and_runs(name):
    shape, classes = canonical_shape(name)
    if shape[1] > 32:
        shape = (3, 64, 64)
    net = build(name, shape, classes).eval()
    assert net(torch.rand(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize("name", ["cnn-s", "lenet5", "wk17", "resnet20", "mlp:64-64", "resnet2b"])
def test_digits_fit_the_small_ones(name):
    assert build(name, (1, 8, 8), 10).eval()(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_resnet_4b_has_the_published_number_of_relus():
    # beta-CROWN's table: 14,436 ReLU neurons; counted from the shapes that pass through the blocks
    net, sizes = build("resnet4b").eval(), []
    for block in [net.conv1, *net.layer1, *net.layer2, net.linear1]:
        block.register_forward_hook(lambda m, i, o: sizes.append(o[0].numel()))
    net(torch.zeros(1, 3, 32, 32))
    first, *blocks, last = sizes
    assert first + 2 * sum(blocks) + last == 14_436


def test_resnet_depths():
    for depth in (20, 32, 56):
        convolutions = [m for m in build(f"resnet{depth}").modules() if isinstance(m, torch.nn.Conv2d)]
        assert len(convolutions) + 1 == depth  # and one linear layer


@pytest.mark.parametrize(
    ("name", "shape", "classes", "says"),
    [
        ("resnet21", None, None, "resnet20"),
        ("mlp:64-x", None, None, "mlp:64-64"),
        ("wk17", (7,), None, "images"),
        ("wk17", (1, 28, 28), 1, "2 classes"),
        ("mobilenet-v1-0.75", (3, 100, 100), None, "multiples of 32"),
        ("mlp:8", (0,), None, "positive"),
    ],
)
def test_bad_architectures_are_refused_with_the_remedy(name, shape, classes, says):
    with pytest.raises(InputError, match=says):
        build(name, shape, classes)
