"""A training that is killed, stopped or resumed ends with the weights of one that ran through, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import saddlepoint as sp
from saddlepoint.adapters.checkpoint_file import CheckpointFile
from saddlepoint.core.errors import InputError, RefusedFile
from saddlepoint.data import load
from saddlepoint.training import Adversarial, Epoch, Free, Standard, Trainer, epochs, fresh, train

BALL = sp.Linf("0.05", box=sp.Box(0.0, 1.0))
RUNS = {
    "pgd, adam, ema": (Adversarial(BALL, steps=2), Trainer(epochs=3, batch=64, averaging="ema", warm_up=1)),
    "free, sgd": (Free(BALL, replays=2), Trainer(epochs=2, batch=64, optimiser="sgd", rate=0.05)),
    "standard, adamw, swa": (Standard(), Trainer(epochs=4, optimiser="adamw", averaging="swa", average_from=0.25)),
}
SCRIPT = """
import sys
import torch
torch.set_num_threads(int(sys.argv[3]))  # equal weights are promised for an equal number of threads
from saddlepoint.adapters.checkpoint_file import CheckpointFile
from saddlepoint.data import load
from saddlepoint.training import epochs
from test_checkpoints import RUNS, network
objective, trainer = RUNS[sys.argv[1]]
for event in epochs(network(), load("digits:test"), objective, trainer, keeper=CheckpointFile(sys.argv[2], 0.0)):
    pass
"""


def network() -> nn.Module:
    layers = (
        *(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)),
    )
    return fresh(nn.Sequential(*layers), 0)


class Stopping(CheckpointFile):
    """Asks the run to stop in the middle of it, after so many checkpoints."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path, 0.0)
        self._left = after

    def write(self, tensors, facts) -> None:
        super().write(tensors, facts)
        self._left -= 1
        self.stopping = self._left == 0


@pytest.fixture(scope="module")
def digits():
    return load("digits:test")


def _through(name: str, digits) -> dict[str, torch.Tensor]:
    objective, trainer = RUNS[name]
    net = network()
    for _ in epochs(net, digits, objective, trainer):
        pass
    return net.state_dict()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_stopped_in_mid_epoch_goes_on_bit_for_bit(name: str, digits, tmp_path) -> None:
    objective, trainer = RUNS[name]
    with pytest.raises(KeyboardInterrupt):
        list(epochs(network(), digits, objective, trainer, keeper=Stopping(tmp_path / "c", 8)))
    facts = CheckpointFile(tmp_path / "c").read()[1]
    assert facts["position"]["batch"] > 0  # it did stop within an epoch
    net = network()
    events = list(epochs(net, digits, objective, trainer, keeper=CheckpointFile(tmp_path / "c")))
    assert [e.epoch for e in events if isinstance(e, Epoch)] == list(range(1, trainer.epochs + 1))
    for key, expected in _through(name, digits).items():
        assert torch.equal(net.state_dict()[key], expected), key


def test_kill_9_in_mid_epoch_and_resume_gives_the_same_weights_bit_for_bit(digits, tmp_path) -> None:
    name, path = "pgd, adam, ema", tmp_path / "c"
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, name, str(path), str(torch.get_num_threads())], env=environment
    )
    while process.poll() is None and not (path.exists() and CheckpointFile(path).read()[1]["position"]["batch"] >= 2):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it had not ended by itself
    objective, trainer = RUNS[name]
    net = network()
    list(epochs(net, digits, objective, trainer, keeper=CheckpointFile(path)))
    for key, expected in _through(name, digits).items():
        assert torch.equal(net.state_dict()[key], expected), key


def test_a_checkpoint_of_other_settings_is_refused_by_name(digits, tmp_path) -> None:
    objective, trainer = RUNS["standard, adamw, swa"]
    train(network(), digits, objective, trainer, keeper=CheckpointFile(tmp_path / "c"))
    with pytest.raises(InputError, match=r"other settings \(rate\)"):
        train(
            network(),
            digits,
            objective,
            Trainer(**{**vars(trainer), "rate": 0.1}),
            keeper=CheckpointFile(tmp_path / "c"),
        )
    with pytest.raises(InputError, match="objective"):
        train(network(), digits, Adversarial(BALL), trainer, keeper=CheckpointFile(tmp_path / "c"))


def test_a_run_says_where_the_precision_of_its_searches_changed(digits, tmp_path, monkeypatch) -> None:
    kind = "saddlepoint.training.precision._processor_has_bfloat16"
    objective, trainer = Adversarial(BALL, steps=1), Trainer(epochs=2, batch=64)
    monkeypatch.setattr(kind, lambda: True)
    with pytest.raises(KeyboardInterrupt):
        train(network(), digits, objective, trainer, guards=None, keeper=Stopping(tmp_path / "c", 3))
    assert CheckpointFile(tmp_path / "c").read()[1]["searches"] == "bfloat16"
    monkeypatch.setattr(kind, lambda: False)
    (note,) = train(network(), digits, objective, trainer, guards=None, keeper=CheckpointFile(tmp_path / "c")).notes
    assert note.guard == "precision"
    assert "bfloat16 until here, and are in float32" in note.text
    assert CheckpointFile(tmp_path / "c").read()[1]["searches"] == "float32"


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path) -> None:
    (tmp_path / "c").write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(RefusedFile, match="no checkpoint"):
        CheckpointFile(tmp_path / "c").read()


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path) -> None:
    keeper = CheckpointFile(tmp_path / "c")
    keeper.write({"a": torch.ones(2)}, {"k": 1})
    (tmp_path / "c.part").mkdir()  # the neighbour cannot be written
    with pytest.raises((InputError, IsADirectoryError, PermissionError)):
        keeper.write({"a": torch.zeros(2)}, {"k": 2})
    assert keeper.read()[1] == {"k": 1}
    assert torch.equal(load_file(tmp_path / "c")["a"], torch.ones(2))


def test_a_network_that_begins_with_other_weights_or_layers_is_no_resumption(tmp_path) -> None:
    data, trainer = load("digits:test"), Trainer(epochs=1)
    keeper = CheckpointFile(tmp_path / "run.checkpoint", 0.0)
    train(network(), data, Standard(), trainer, keeper=keeper)
    with pytest.raises(InputError, match="initial weights"):
        train(fresh(network(), 1), data, Standard(), trainer, keeper=keeper)
    other = network()
    other[3] = nn.Tanh()
    with pytest.raises(InputError, match="network"):
        train(other, data, Standard(), trainer, keeper=keeper)
