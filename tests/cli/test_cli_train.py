"""`saddlepoint train`: what its file carries, the same command again, and wrong commands in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from saddlepoint.adapters import load
from saddlepoint.cli.main import run_app

BASE = ["train", "digits:train", "--arch", "mlp:16", "--threat", "linf:0.05", "--no-bracket", "--epochs", "1"]


def test_the_file_says_what_it_is_and_the_same_command_again_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "net.safetensors"
    command = [*BASE, "--objective", "fgsm", "-o", str(output)]
    assert run_app(command) == 0
    assert "epoch 1/1" in capsys.readouterr().err
    model = load(str(output))  # no --arch, no --domain
    assert tuple(model.shape) == (1, 8, 8)
    assert [float(end) for ends in (model.domain.lower, model.domain.upper) for end in ends] == [0.0, 1.0]
    written, when = output.read_bytes(), output.stat().st_mtime_ns
    assert run_app(command) == 0
    assert (output.read_bytes(), output.stat().st_mtime_ns) == (written, when)
    capsys.readouterr()
    assert run_app([*command, "--seed", "1"]) == 2
    told = capsys.readouterr().err.strip()
    assert "other settings" in told
    assert "\n" not in told
    assert output.read_bytes() == written


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--objective", "pdg"], "there is no objective 'pdg'"),
        (["--objective", "pgd:step=3"], "has no option 'step=3'"),
        (["--objective", "pgd", "--rate", "-1"], "no step sizes"),
        (["--objective", "pgd", "--schedule", "linear"], "linear"),
        (["--objective", "pgd", "--threat", "linf:0.1"], "takes one set"),
        (["--objective", "pgd", "--n", "0"], "trains on nothing"),
        (["--objective", "pgd", "--test", "nofile.npz"], "nofile.npz"),
    ],
)
def test_wrong_commands_get_one_line_and_write_nothing(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "net.safetensors"
    assert run_app([*BASE, "-o", str(output), *words]) == 2
    said = capsys.readouterr().err.strip()
    assert told in said
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []
