"""`train` as a person meets it: one command trains, resumes and ends with a bracket; wrong input gets one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from saddlepoint.cli.main import run_app
from saddlepoint.data import load
from saddlepoint.ledger import Ledger
from saddlepoint.report.learning import learning_curves

BASE = ("train", "digits:test", "--arch", "mlp:16", "--objective", "pgd:steps=2", "--threat", "linf:0.05")
SHORT = ("--epochs", "2", "--batch", "32")


def call(*arguments) -> int:
    return run_app([str(a) for a in arguments])


def test_it_trains_judges_on_held_out_data_and_says_what_it_did(tmp_path, capsys) -> None:
    out = tmp_path / "m.safetensors"
    assert call(*BASE, *SHORT, "-o", out, "--bracket", "12", "--plan", "quick") == 0
    said = capsys.readouterr()
    assert "robust accuracy in [" in said.out
    assert "n = 12" in said.out
    assert "epoch 2/2" in said.err
    assert "robust 0." in said.err
    with safe_open(out, "pt") as file:
        carried = file.metadata()
    assert carried["arch"] == '"mlp:16"'
    assert carried["domain"] == "[0.0, 1.0]"
    for word in ("Adversarial", "linf", "1/20", '"seed": 0', '"inner mode": "eval"'):
        assert word in carried["x-training"]
    with Ledger(tmp_path / "m.ledger") as book:
        assert [event["epoch"] for event in book.events() if event["kind"] == "epoch"] == [1, 2]
    assert not (tmp_path / "m.safetensors.checkpoint").exists()
    # the weights load without options, and a bracket is not made twice
    assert call("check", out, "--data", "digits:test") == 0
    before = out.read_bytes()
    assert call(*BASE, *SHORT, "-o", out, "--bracket", "12", "--plan", "quick") == 0
    assert "trained already" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_warning_is_printed_and_kept(tmp_path, capsys) -> None:
    out = tmp_path / "m.safetensors"
    typed = (*BASE[:4], "--objective", "alp:steps=1", *BASE[6:], *SHORT, "-o", out, "--no-bracket")
    assert call(*typed, "--precision", "full") == 0
    assert "warning: ALP masks gradients" in capsys.readouterr().err
    with safe_open(out, "pt") as file:
        carried = file.metadata()
    assert "ALP masks gradients" in carried["x-training"]
    assert carried["x-searches"] == '"float32"'
    with Ledger(tmp_path / "m.ledger") as book:
        (curve,) = learning_curves(list(book.events()))
    assert any(note.startswith("warning: ALP masks gradients") for note in curve.notes)


def test_one_epoch_reaches_the_whole_set_step_by_step(tmp_path, capsys) -> None:
    out = tmp_path / "m.safetensors"
    rest = ("--epochs", "1", "--batch", "16", "-o", out, "--no-bracket")
    assert call("train", "digits:train", "--arch", "mlp:64", *BASE[4:], *rest) == 0
    said = capsys.readouterr().err
    assert float(said.split("clean ")[1].split()[0]) > 0.5  # a tenth is what a collapse leaves
    with safe_open(out, "pt") as file:
        assert '"warm_up": 0.5' in file.metadata()["x-training"]


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_weights_can_be_read_by_whom_the_umask_lets(tmp_path) -> None:
    out, other = tmp_path / "m.safetensors", tmp_path / "other"
    assert call(*BASE, *SHORT, "-o", out, "--no-bracket") == 0
    other.touch()
    assert out.stat().st_mode == other.stat().st_mode


def test_other_settings_do_not_overwrite_an_output(tmp_path, capsys) -> None:
    out = tmp_path / "m.safetensors"
    assert call(*BASE, *SHORT, "-o", out, "--no-bracket") == 0
    assert call(*BASE, *SHORT, "-o", out, "--no-bracket", "--rate", "0.1") == 2
    assert "other settings (rate)" in capsys.readouterr().err
    assert call(*BASE, *SHORT, "-o", out, "--no-bracket", "--seed", "1") == 2
    foreign = tmp_path / "foreign.safetensors"
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, foreign)
    assert call(*BASE, *SHORT, "-o", foreign, "--no-bracket") == 2
    assert "no output of train" in capsys.readouterr().err


def test_interrupted_and_typed_again_it_ends_with_the_same_weights(tmp_path) -> None:
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    long = ("--epochs", "60", "--batch", "32", "--no-bracket")
    command = [sys.executable, "-m", "saddlepoint", *BASE, *long, "-o", str(cut)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("epoch 2/"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "same command again resumes" in said
    assert not cut.exists()
    begun = time.monotonic()
    assert call(*BASE, *long, "-o", cut) == 0
    assert time.monotonic() - begun < 60
    assert call(*BASE, *long, "-o", whole) == 0
    a, b = load_file(whole), load_file(cut)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (("--objective", "pgdd"), "there is no objective 'pgdd'"),
        (("--objective", "pgd:stepz=3"), "no option 'stepz=3'"),
        (("--objective", "pgd:steps=many"), "'many' is not a number"),
        (("--objective", "pgd:steps=1.5"), "no whole number"),
        (("--objective", "pgd:steps=0"), "steps=0"),
        (("--threat", "linf"), "no threat"),
        (("--arch", "resnet-9000"), "No built-in architecture"),
        (("--arch", "nowhere:net"), "cannot be imported"),
        (("--epochs", "0"), "epochs=0"),
        (("--rate", "nan"), "rate=nan"),
        (("--optimiser", "lion"), "adamw"),
        (("--n", "0"), "trains on nothing"),
        (("--device", "cuda:99"), "not there"),
        (("--bracket", "0"), "show nothing"),
        (("--test", "nowhere.npz"), "no file nowhere.npz"),
        (("--domain", "0,0.5"), "the domain is [0, 0.5]"),
        (("--mean", "0.1,0.2,0.3"), "3 entries"),
        (("--init", "nowhere.safetensors"), "There is no file"),
        (("-o", "model.pt"), "written as .safetensors"),
        (("--plan", "weak"), "weak"),
        (("--epochs", "1.5"), "1.5 is no whole number"),
        (("--seed", "0.5"), "0.5 is no whole number"),
        (("--device", "meta"), "no numbers"),
        (("--objective", "trades:beta=1e400"), "beyond all floating-point numbers"),
        (("--arch", "torch.nn:Linear"), "raised TypeError"),
        (("--arch", "torch.nn:Identity"), "no trainable weights"),
        (("--domain", "-1,-0.5"), "the domain is [-1, -0.5]"),
        (("-o", "m.safetensors/"), "is a folder"),
    ],
)
def test_wrong_input_gets_one_line_and_leaves_nothing(typed, answer, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    if typed[1].endswith("/"):
        (tmp_path / typed[1]).mkdir()
    given = {"--arch": "mlp:16", "--objective": "pgd:steps=2", "--threat": "linf:0.05", "-o": "m.safetensors"}
    given |= dict([typed])
    words = [word for pair in given.items() for word in pair]
    assert call("train", "digits:test", *words, "--no-bracket" if typed[0] not in ("--bracket",) else "--seed=0") == 2
    said = capsys.readouterr()
    assert answer in said.err
    assert said.err.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_objectives_that_need_a_set_or_one_set_say_so(tmp_path, capsys) -> None:
    end = ("--arch", "mlp:16", "-o", tmp_path / "m.safetensors", "--no-bracket")
    assert call("train", "digits:test", *end) == 2
    assert "Give --threat" in capsys.readouterr().err
    assert call("train", "digits:test", *end, "--threat", "linf:0.1", "--threat", "l2:0.5") == 2
    assert "max, average or msd" in capsys.readouterr().err


def archive(path, n=120, seed=0, **changes) -> str:
    """Digits as FILE.npz with a train and a test part, and what a test does to them."""
    batch = load("digits:train").take(range(n))
    members = {"x_train": batch.x.numpy(), "y_train": batch.y.numpy()}
    half = load("digits:test").take(range(60))
    members |= {"x_test": half.x.numpy(), "y_test": half.y.numpy()} | changes
    np.savez(path, **{name: values for name, values in members.items() if values is not None})
    return f"{path}:train"


def with_value(x: np.ndarray, row: int, value: float) -> np.ndarray:
    x = x.copy()
    x[row].flat[0] = value
    return x


DIGITS = load("digits:test").take(range(60))


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"x_test": with_value(DIGITS.x.numpy(), 7, np.nan)}, "holds nan"),
        ({"x_test": with_value(DIGITS.x.numpy(), 59, 9.0)}, "Sample 59 of"),
        ({"y_test": DIGITS.y.numpy()[:50]}, "50"),
        ({"y_test": None}, "no member 'y_test'"),
        ({"y_test": np.full(60, 3)}, "one class"),
        ({"y_test": np.arange(60) % 12}, "labels up to 11"),
        ({"x_train": with_value(load("digits:train").take(range(120)).x.numpy(), 119, -3.0)}, "Sample 119 of"),
    ],
)
def test_data_that_would_end_the_run_at_its_end_are_refused_at_its_beginning(
    changes, answer, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = archive("d.npz", **changes)
    assert call("train", spec, *BASE[2:], *SHORT, "-o", "m.safetensors", "--bracket", "60") == 2
    said = capsys.readouterr().err
    assert answer in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["d.npz"]


def test_it_says_which_samples_judge(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    end = ("--bracket", "10", "--plan", "quick")
    assert call("train", archive("d.npz"), *BASE[2:], *SHORT, *end, "-o", "a.safetensors") == 0
    assert "the first 10 of 60 samples of d.npz:test" in capsys.readouterr().err
    alone = archive("e.npz", x_test=None, y_test=None)
    assert call("train", alone, *BASE[2:], *SHORT, *end, "-o", "b.safetensors") == 0
    assert "the first 10 of 12 samples held out of e.npz:train" in capsys.readouterr().err


def test_a_ledger_holds_one_training_of_a_name(tmp_path, capsys) -> None:
    out, other, shared = tmp_path / "m.safetensors", tmp_path / "other" / "m.safetensors", tmp_path / "shared.ledger"
    other.parent.mkdir()
    assert call(*BASE, *SHORT, "-o", out, "--no-bracket") == 0
    out.rename(tmp_path / "moved.safetensors")
    assert call(*BASE, "--epochs", "3", "-o", out, "--no-bracket") == 2
    assert "tells of another training of m.safetensors" in capsys.readouterr().err
    assert not out.exists()
    assert call(*BASE, *SHORT, "-o", out, "--no-bracket", "--ledger", shared) == 0
    assert call(*BASE, "--epochs", "3", "-o", other, "--no-bracket", "--ledger", shared) == 2
    with Ledger(shared) as book:
        (curve,) = learning_curves(list(book.events()))
    assert curve.epochs == 2


def test_weights_begun_with_bring_their_normalisation_and_are_remembered(tmp_path, capsys) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    plain = ("train", "digits:test", "--arch", "mlp:16", "--objective", "standard", "--no-bracket", *SHORT)
    assert call(*plain, "--mean", "0.3", "--std", "0.05", "-o", first) == 0
    go_on = (*plain, "--init", first, "-o", second)
    assert call(*go_on) == 0
    with safe_open(second, "pt") as file:
        assert (file.metadata()["mean"], file.metadata()["std"]) == ("0.3", "0.05")
    capsys.readouterr()
    assert call(*go_on) == 0
    assert "trained already" in capsys.readouterr().err
    first.unlink()
    (tmp_path / "a.ledger").unlink()
    assert call(*plain, "--mean", "0.3", "--std", "0.05", "--seed", "1", "-o", first) == 0
    assert call(*go_on) == 2
    assert "other settings (begun with)" in capsys.readouterr().err


def test_a_network_of_ones_own_may_have_outputs_to_spare(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "wide_net.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 15))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "m.safetensors"
    typed = ("train", "digits:test", "--arch", "wide_net:net", *BASE[4:], *SHORT, "-o", out)
    assert call(*typed, "--bracket", "10", "--plan", "quick") == 0
    assert "n = 10" in capsys.readouterr().out
    assert call("check", out, "--data", "digits:test") == 0


def test_a_ledger_without_brackets_is_reported(tmp_path, capsys) -> None:
    out = tmp_path / "m.safetensors"
    assert call("train", "digits:test", "--arch", "mlp:16", "--objective", "standard", *SHORT, "-o", out) == 0
    files = {kind: tmp_path / f"r.{kind}" for kind in ("html", "json", "junit", "sarif")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    assert call("report", tmp_path / "m.ledger", *options) == 0
    assert all(path.stat().st_size for path in files.values())
    assert 'tests="0"' in files["junit"].read_text()
