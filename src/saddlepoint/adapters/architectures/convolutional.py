"""Plain convolutional networks: CNN-S, LeNet-5, and the verification benchmarks' nets.

Sources: Xiao et al., "Training for faster adversarial robustness verification via inducing ReLU
stability" (ICLR 2019) for CNN-S; Wong & Kolter, "Provable defenses against adversarial examples via the
convex outer adversarial polytope" (ICML 2018), §4.1: two 4x4 convolutions with stride 2 and 16, 32
filters, one hidden layer of 100; the same layers are called CNN-A by Dathathri et al. (2020) and
Wang et al. (beta-CROWN, 2021).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from saddlepoint.adapters.architectures.shapes import convolved, features, image_shape


def cnn_s(shape: tuple[int, ...], classes: int) -> nn.Module:
    """CNN-S (Xiao et al. 2019): 5x5 convolutions with stride 2 (16, 32), padding 2, hidden layer of 100.

    The symmetric padding lets it take 8x8 digits as well as 28x28 ones.
    """
    channels, height, width = image_shape("cnn-s", shape, 2)
    rows, columns = (convolved(convolved(n, 5, 2, 2), 5, 2, 2) for n in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * rows * columns, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def lenet5(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two 3x3 convolutions (32, 64), each with 2x2 max pooling, hidden layer of 200."""
    channels, height, width = image_shape("lenet5", shape, 4)
    layers = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(channels, 32, 3, padding=1),
        relu1=nn.ReLU(),
        maxpool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(32, 64, 3, padding=1),
        relu2=nn.ReLU(),
        maxpool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear1=nn.Linear(features((64, height // 4, width // 4)), 200),
        relu3=nn.ReLU(),
        linear2=nn.Linear(200, classes),
    )
    return nn.Sequential(layers)


def two_convolutions(shape: tuple[int, ...], classes: int, filters: tuple[int, int], *, padding: int) -> nn.Module:
    """4x4 convolutions with stride 2, ReLU, hidden layer of 100 (wk17, cnn-a, oval-base, cnn-small-eran)."""
    channels, height, width = image_shape("this convolutional net", shape, 10 if padding == 0 else 4)
    rows, columns = (convolved(convolved(n, 4, 2, padding), 4, 2, padding) for n in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, filters[0], 4, stride=2, padding=padding),
        nn.ReLU(),
        nn.Conv2d(filters[0], filters[1], 4, stride=2, padding=padding),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(filters[1] * rows * columns, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )
