"""The command line as a person meets it: verbs, the JSON contract, exit codes, and what wrong input is told."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saddlepoint.adapters import save_weights
from saddlepoint.adapters.architectures import build
from saddlepoint.cli.main import run_app
from saddlepoint.cli.threats import parse_threat
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L0, L1, L2, Linf, Patch, RotationTranslation
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Method
from tests_support import digits_weights

MODEL = str(digits_weights())


def call(*arguments, expect=0):
    """Run a command in this process and return its exit code."""
    code = run_app([str(a) for a in arguments])
    assert code == expect
    return code


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One finished run with two threats."""
    folder = tmp_path_factory.mktemp("run")
    path, out = folder / "a.ledger", folder / "a.json"
    threats = ("--threat", "linf:0.04", "--threat", "spatial:rot=20,shift=1")
    call("run", MODEL, "--data", "digits:test", "--n", 24, *threats, "--plan", "quick", "--ledger", path, "--json", out)
    return path, json.loads(out.read_text())


def test_run_json_is_the_contract(ran):
    result = ran[1]
    assert {"schema", "n", "clean", "threats", "cost", "doctor", "versions", "seed"} <= set(result)
    assert (result["schema"], result["n"]) == (1, 24)
    assert set(result["clean"]) == {"k", "n", "ci95"}
    assert {"seconds", "forwards", "backwards"} <= set(result["cost"])
    assert [t["threat"] for t in result["threats"]] == ["linf:0.04", "spatial:rot=20,shift=1"]
    for threat in result["threats"]:
        bracket, verdicts = threat["bracket"], threat["verdicts"]
        names = {"CERTIFIED", "BROKEN", "OPEN", "MISCLASSIFIED", "NOT_RUN", "ERROR", "CONTRADICTION"}
        assert set(verdicts) == names
        assert sum(verdicts.values()) == len(threat["samples"]) == 24
        assert bracket["certified"] == verdicts["CERTIFIED"] / 24
        assert bracket["attacked"] == pytest.approx(1 - (verdicts["BROKEN"] + verdicts["MISCLASSIFIED"]) / 24)
        assert bracket["ci95"][0] <= bracket["certified"] <= bracket["attacked"] <= bracket["ci95"][1]
        wanted = {"id", "label", "verdict", "lower", "upper", "by", "seconds", "forwards", "backwards"}
        assert all(wanted <= set(sample) for sample in threat["samples"])
    assert "bracket" not in result  # two threats: no top-level bracket


def test_one_threat_stands_at_the_top_level(tmp_path):
    out = tmp_path / "a.json"
    base = ("run", MODEL, "--data", "digits:test", "--n", 10, "--threat", "linf:0.01", "--plan", "quick")
    call(*base, "--ledger", tmp_path / "a.ledger", "--json", out)
    result = json.loads(out.read_text())
    assert result["bracket"] == result["threats"][0]["bracket"]
    assert result["threat"] == "linf:0.01"


def test_report_in_every_form(ran, tmp_path, capsys):
    names = {kind: tmp_path / f"r.{kind}" for kind in ("html", "json", "junit", "sarif")}
    call("report", ran[0], *(part for kind, path in names.items() for part in (f"--{kind}", path)))
    page = names["html"].read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")  # it opens offline
    assert page.count("<img") + page.count("<svg") > 3
    assert json.loads(names["json"].read_text())["schema"] == 1
    assert json.loads(names["sarif"].read_text())["version"] == "2.1.0"
    assert b"<testsuite" in names["junit"].read_bytes()
    assert "n = 24" in capsys.readouterr().out
    call("report", ran[0], "--html", tmp_path / "bare.html", "--no-images")
    assert len((tmp_path / "bare.html").read_text()) < len(page)


def test_replay_confirms(ran, capsys):
    call("replay", ran[0])
    assert "0 refuted, 0 not checked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ('threat = "linf:0.04"\nmetric = "robust_accuracy"\nat_least = 0.01\nsamples = 24', 0),
        ('metric = "clean_accuracy"\nat_least = 0.5', 0),
        ('threat = "spatial:rot=20,shift=1"\nmetric = "robust_accuracy"\nat_least = 0.9', 1),
        ('threat = "linf:0.04"\nmetric = "robust_accuracy"\nat_least = 0.5\nsamples = 500', 4),
        ('threat = "linf:0.5"\nmetric = "robust_accuracy"\nat_least = 0.5', 4),
        ('threat = "linf:0.04"\nmetric = "robust_acuracy"\nat_least = 0.5', 2),
        ('threat = "linf:0.04"\nmetric = "robust_accuracy"\nat_lest = 0.5', 2),
        ("this is no TOML", 2),
    ],
)
def test_gate_exit_codes(ran, tmp_path, policy, code):
    path = tmp_path / "policy.toml"
    path.write_text(f"[[require]]\n{policy}\n")
    call("gate", ran[0], "--policy", path, "--junit", tmp_path / "j.xml", expect=code)


def test_merge_and_contradiction(ran, tmp_path):
    merged = tmp_path / "m.ledger"
    call("merge", ran[0], ran[0], "-o", merged)
    with Ledger(merged) as book, Ledger(ran[0]) as one:
        assert [repr(c) for c in book.claims()] == [repr(c) for c in one.claims()]
    call("merge", ran[0], "-o", merged, expect=2)


def test_check_attacks_nothing(capsys, tmp_path):
    before = list(tmp_path.iterdir())
    call("check", MODEL, "--data", "digits:test", "--n", 50, "--threat", "linf:0.1")
    out = capsys.readouterr().out
    for word in ("GRAPH", "domain    [0, 1]", "classes 10", "n = 50", "plan      standard", "forwards"):
        assert word in out
    assert list(tmp_path.iterdir()) == before


WRONG = [
    (("run", "nothing.onnx", "--data", "digits", "--threat", "linf:0.1"), "no file"),
    (("run", MODEL, "--data", "digits", "--threat", "linf:huge"), "not a number"),
    (("run", MODEL, "--data", "digits", "--threat", "linf:-1"), "negative"),
    (("run", MODEL, "--data", "digits", "--threat", "l7:1"), "linf:8/255"),
    (("run", MODEL, "--data", "digits", "--threat", "linf:1", "--threat", "linf:1.0"), "twice"),
    (("run", MODEL, "--data", "nowhere.npz", "--threat", "linf:1"), "nowhere.npz"),
    (("run", MODEL, "--data", "digits", "--threat", "linf:0.1", "--n", "0"), "n = 0"),
    (("run", MODEL, "--data", "digits", "--threat", "linf:0.1", "--n", "999999"), "999999"),
    (("run", MODEL, "--data", "digits", "--threat", "linf:0.1", "--workers", "none"), "--workers"),
    (("run", MODEL, "--data", "digits", "--threat", "linf:0.1", "--budget", "soon"), "90s"),
    (("run", MODEL, "--data", "digits", "--threat", "linf:0.1", "--device", "toaster"), "--device"),
    (("run", MODEL, "--data", "digits", "--threat", "l0:3", "--plan", "autoattack"), "AutoAttack is defined"),
    (("run", MODEL, "--data", "digits"), "threat"),
    (("report", "nothing.ledger"), "no ledger"),
    (("replay", "nothing.ledger"), "no ledger"),
    (("gate", "nothing.ledger", "--policy", "nothing.toml"), "nothing.toml"),
    (("conquer", "the", "world"), "conquer"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda v: v if isinstance(v, str) else None)
def test_wrong_input_is_told_what_and_how(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call(*arguments, expect=2)
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.ledger"))  # nothing is begun on wrong input


def test_pickles_and_normalised_images_are_refused_with_the_remedy(tmp_path, capsys):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"a": 1}))
    call("run", tmp_path / "m.pkl", "--data", "digits", "--threat", "linf:0.1", expect=2)
    assert "skops" in capsys.readouterr().err
    data = tmp_path / "d.npz"
    rng = np.random.default_rng(0)
    np.savez(data, x=rng.normal(size=(20, 1, 8, 8)).astype(np.float32), y=np.arange(20) % 10)
    call("run", MODEL, "--data", data, "--threat", "linf:0.1", "--ledger", tmp_path / "l.ledger", expect=2)
    assert "--mean" in capsys.readouterr().err


def test_changed_weights_are_refused(tmp_path, capsys):
    meta = {"arch": "mlp:8", "shape": [1, 8, 8], "classes": 10, "domain": [0.0, 1.0]}
    path, ledger = tmp_path / "m.safetensors", tmp_path / "l.ledger"
    options = ("--n", 10, "--threat", "linf:0.01", "--plan", "quick", "--ledger", ledger)
    for expect in (0, 2):
        save_weights(path, build("mlp:8", (1, 8, 8), 10), meta)
        call("run", path, "--data", "digits:test", *options, expect=expect)
    assert "another --ledger" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "threat"),
    [
        ("linf:8/255", Linf("8/255")),
        ("L2:0.5", L2("0.5")),
        ("l1:10", L1(10)),
        ("l0:20", L0(20)),
        ("spatial:rot=30,shift=3", RotationTranslation("30", "3")),
        ("spatial:rot=30", RotationTranslation("30", "0")),
        ("patch:5x4@any", Patch(5, 4)),
        ("patch:5x4@1,2", Patch(5, 4, (1, 2))),
    ],
)
def test_threats_as_typed(text, threat):
    assert parse_threat(text).set.canonical() == threat.canonical()


@pytest.mark.parametrize("text", ["", "linf", "linf:", "spatial:angle=3", "spatial:rot", "patch:5", "patch:5x5@top"])
def test_threats_that_are_none(text):
    with pytest.raises(InputError, match=r"linf:8/255|patch:5x5"):
        parse_threat(text)


def test_a_process_interrupted_says_so_and_resumes(tmp_path):
    """The real command, the real signal: exit code 130, a valid ledger, and the rest on the second call."""
    ledger = tmp_path / "a.ledger"
    command = [sys.executable, "-m", "saddlepoint", "run", MODEL, "--data", "digits:test", "--threat", "linf:0.06"]
    command += ["--batch", "1", "--n", "300", "--ledger", str(ledger)]  # long enough to be met in its middle
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not _has_rows(ledger) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 130, said
    assert "resumes" in said
    assert "Traceback" not in said
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    with Ledger(ledger) as book:
        assert [run.interrupted for run in book.runs()] == [True, False]


def _has_rows(path: Path) -> bool:
    if not path.exists():
        return False
    with Ledger(path) as book:
        return any(True for pair in book.threats() for _ in book.evidence(*pair))


def test_models_come_back_untouched():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    call("check", MODEL, "--data", "digits:test", "--n", 20)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_contradiction_is_exit_code_3_everywhere(ran, tmp_path, capsys):
    forged, policy = tmp_path / "forged.ledger", tmp_path / "policy.toml"
    call("merge", ran[0], "-o", forged)
    with Ledger(forged) as book:
        model, threat = book.threats()[0]
        broken = next(e for e in book.evidence(model, threat) if e.side == "upper" and e.proof and e.value <= 0)
        lie = replace(broken, side="lower", value=1.0, proof="", method=Method("interval"), details="{}")
        with book.transaction():
            book.add([lie])
    policy.write_text('[[require]]\nthreat = "linf:0.04"\nmetric = "robust_accuracy"\nat_least = 0.0\n')
    call("gate", forged, "--policy", policy, expect=3)
    call("merge", ran[0], forged, "-o", tmp_path / "m.ledger", expect=3)
    again = ("run", MODEL, "--data", "digits:test", "--n", 24, "--threat", "linf:0.04", "--plan", "quick")
    call(*again, "--ledger", forged, expect=3)  # nothing is left to run, and still nothing is believed
    call("replay", forged, expect=3)  # the checker refutes the lie, and says that something was refuted
    assert "interval: the proof shows less" in capsys.readouterr().out
    call("gate", forged, "--policy", policy)  # what was refuted no longer counts
    call(*again, "--ledger", forged)
