"""`saddlepoint verify` as typed: one word on stdout, the limit kept, wrong input said, batches resumed."""

import csv
import faulthandler
import gzip
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from onnx_nets import specification, write_mlp
from saddlepoint.cli.isolated import isolated
from saddlepoint.cli.main import run_app
from saddlepoint.cli.solving import Instance, solve
from saddlepoint.cli.verify_batch import read_instances
from saddlepoint.cli.words import told
from saddlepoint.core.errors import InputError, RefusedFile
from saddlepoint.spec.certificate import load

ABSOLUTE = [([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])]  # y = |x|


def typed(*arguments, **more):
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "saddlepoint", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **more)


@pytest.fixture
def files(tmp_path):
    """net.onnx, sat.vnnlib.gz and broken files."""
    write_mlp(tmp_path / "net.onnx", ABSOLUTE)
    (tmp_path / "sat.vnnlib.gz").write_bytes(gzip.compress(specification([("-1", "1")], 1, "(<= Y_0 0.25)").encode()))
    (tmp_path / "holds.vnnlib").write_text(specification([("0.5", "1")], 1, "(<= Y_0 0.25)"))
    (tmp_path / "bad.vnnlib").write_text(specification([("0", "1")], 1, "(<= Y_7 0)"))
    (tmp_path / "two.vnnlib").write_text(specification([("0", "1"), ("0", "1")], 1, "(<= Y_0 0)"))
    write_mlp(tmp_path / "sine.onnx", ABSOLUTE, last="Det")
    return tmp_path


def test_sat_is_one_word_and_the_witness_is_on_disk(files):
    done = typed(files / "net.onnx", files / "sat.vnnlib.gz", "--witness", files / "w.txt", "--timeout", "60")
    assert (done.returncode, done.stdout) == (0, "sat\n")
    assert "confirmed by the runtime" in done.stderr
    text = (files / "w.txt").read_text()
    values = dict(re.findall(r"\(([XY]_\d+) ([-+.e\d]+)\)", text))
    assert text.startswith("((X_0 ")
    assert text.endswith("))\n")
    assert set(values) == {"X_0", "Y_0"}
    assert abs(float(values["X_0"])) == float(values["Y_0"]) <= 0.25
    assert not (files / "w.txt.part").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.onnx", "sat.vnnlib.gz"), "none.onnx is not a file"),
        (("net.onnx", "none.vnnlib"), "none.vnnlib is not a file"),
        (("net.onnx",), "verify takes NET.onnx and SPEC.vnnlib"),
        ((), "verify takes NET.onnx and SPEC.vnnlib"),
        (("net.onnx", "sat.vnnlib.gz", "--timeout", "0"), "--timeout 0 is not a time"),
        (("net.onnx", "sat.vnnlib.gz", "--timeout", "-3"), "--timeout -3 is not a time"),
        (("net.onnx", "sat.vnnlib.gz", "--timeout", "nan"), "--timeout nan is not a time"),
        (("net.onnx", "sat.vnnlib.gz", "--timeout", "soon"), "soon"),
        (("net.onnx", "sat.vnnlib.gz", "--threads", "0"), "--threads 0"),
        (("net.onnx", "sat.vnnlib.gz", "-o", "r.csv"), "--batch instances.csv with -o"),
        (("net.onnx", "sat.vnnlib.gz", "--witness", "none/w.txt"), "none/w.txt cannot be written"),
        (("net.onnx", "sat.vnnlib.gz", "--proof", "."), "cannot be written"),
        (("--batch", "i.csv"), "--batch needs a place"),
        (("net.onnx", "--batch", "i.csv", "-o", "r.csv"), "--batch takes no other instance"),
        (("--batch", "i.csv", "-o", "r.csv"), "i.csv is not a file"),
        (("net.onnx", "sat.vnnlib.gz", "extra"), "extra"),
        (("net.onnx", "sat.vnnlib.gz", "--wittness", "w"), "wittness"),
    ],
)
def test_wrong_command_lines_say_what_is_wrong_and_print_no_word(files, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(files)
    assert run_app(["verify", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err


def test_a_limit_below_the_start_up_is_kept(files):
    begun = time.monotonic()
    done = typed(files / "net.onnx", files / "holds.vnnlib", "--timeout", "0.3")
    assert (done.returncode, done.stdout) == (0, "timeout\n")
    assert time.monotonic() - begun < 2.5  # of which the limit is 0.3 and the start of Python the rest


def test_an_interrupt_ends_the_work_and_prints_no_word(files):
    (files / "tie.vnnlib").write_text(specification([("-1", "1")], 1, "(< Y_0 0)"))  # |x| touches 0: never decided
    command = [sys.executable, "-m", "saddlepoint", "verify", str(files / "net.onnx"), str(files / "tie.vnnlib")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until, worker = time.monotonic() + 60, ""
    while not worker and time.monotonic() < until:
        ps = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
        )
        worker = ps.stdout.strip()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=60)
    assert (process.returncode, shown) == (130, ""), said
    with pytest.raises(ProcessLookupError):
        os.kill(int(worker), 0)


def test_weights_that_are_not_finite_are_unknown(files):
    write_mlp(files / "nan.onnx", [([[float("nan")]], [0.0])])
    answer = solve(Instance(files / "nan.onnx", files / "holds.vnnlib", time.monotonic() + 20))
    assert answer["word"] == "unknown"
    assert "NaN" in answer["reason"]


def test_a_proof_is_on_disk_before_the_word(files):
    proof = files / "proof.safetensors"
    answer = solve(Instance(files / "net.onnx", files / "holds.vnnlib", time.monotonic() + 20, proof=proof))
    assert answer["word"] == "unsat"
    (certificate,), _ = load(proof)
    assert certificate.lower.tolist() == [0.5]


def test_a_batch_gives_every_row_a_word_and_is_resumed(files):
    rows = [
        "net.onnx,sat.vnnlib.gz,60",
        "net.onnx,bad.vnnlib,60",
        "net.onnx,two.vnnlib,60",
        "sat.vnnlib.gz,sat.vnnlib.gz,60",
        "sine.onnx,sat.vnnlib.gz,60",
        "none.onnx,sat.vnnlib.gz,60",
        "net.onnx,sat.vnnlib.gz,soon",
        "net.onnx",
    ]
    (files / "i.csv").write_text("\n".join(rows[:5]) + "\n")
    out = files / "r.csv"
    first = typed("--batch", files / "i.csv", "-o", out, "--timeout", "30")
    assert (first.returncode, first.stdout) == (0, "")
    out.write_text(out.read_text() + "net.onnx,cut o")  # as a crash in the middle of a line would leave it
    before = out.read_text().splitlines()[:6]
    (files / "i.csv").write_text("\n".join(rows) + "\n")
    second = typed("--batch", files / "i.csv", "-o", out, "--timeout", "30")
    assert second.returncode == 0
    assert "sat 1" in second.stderr
    assert out.read_text().splitlines()[:6] == before
    found = {
        (r["onnx"], r["vnnlib"]): (r["verdict"], r["reason"]) for r in csv.DictReader(out.read_text().splitlines())
    }
    assert found[rows[0].split(",")[0], "sat.vnnlib.gz"][0] == "sat"
    for row, why in zip(
        rows[1:6], ["Y_7", "2 inputs and 1 outputs", "not an ONNX file", "Det", "none.onnx"], strict=True
    ):
        onnx, vnnlib, _ = row.split(",")
        assert found[onnx, vnnlib][0] == "unknown"
        assert why in found[onnx, vnnlib][1]
    assert "does not name" in found["net.onnx", ""][1]


def test_results_of_something_else_are_not_overwritten(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    (files / "i.csv").write_text("net.onnx,sat.vnnlib.gz,60\n")
    (files / "r.csv").write_text("my,own,table\n1,2,3\n")
    assert run_app(["verify", "--batch", "i.csv", "-o", "r.csv"]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (files / "r.csv").read_text() == "my,own,table\n1,2,3\n"


def test_instances_are_read_by_position_or_by_name(tmp_path):
    file = tmp_path / "i.csv"
    file.write_text("a.onnx,b.vnnlib,5\n\nc.onnx , d.vnnlib\n")
    assert [(r.onnx, r.vnnlib, r.seconds) for r in read_instances(file)] == [
        ("a.onnx", "b.vnnlib", 5.0),
        ("c.onnx", "d.vnnlib", None),
    ]
    file.write_text("benchmark,onnx,vnnlib,timeout_s\nx,a.onnx,b.vnnlib,7\n")
    assert [(r.onnx, r.vnnlib, r.seconds) for r in read_instances(file)] == [("a.onnx", "b.vnnlib", 7.0)]
    file.write_text("")
    with pytest.raises(InputError, match="no rows"):
        read_instances(file)


def test_a_small_verification_loads_nothing_it_does_not_need(files):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "import saddlepoint.cli.main\n"
        "assert not {'torch', 'numpy', 'onnx'} & set(sys.modules)\n"
        "from saddlepoint.cli.solving import Instance, solve\n"
        "assert not {'onnx', 'onnxruntime'} & set(sys.modules)\n"
        "answer = solve(Instance(Path('net.onnx'), Path('holds.vnnlib'), time.monotonic() + 60))\n"
        "heavy = {'matplotlib', 'sklearn', 'scipy', 'pandas', 'rich', 'sympy', 'jinja2', 'pydantic', 'highspy'}\n"
        "print(answer['word'], *sorted(heavy & set(sys.modules)), 'torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=files, capture_output=True, text=True, check=False)
    assert done.stdout == "unsat False\n", done.stderr


# --- the watchdog, without a network ---
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def ended(work, seconds=20.0):
    begun = time.monotonic()
    result = isolated(work, begun + seconds)
    return result, time.monotonic() - begun


@forks
def test_an_answer_comes_back():
    assert ended(lambda: {"word": "sat", "many": ["x" * 10**6]})[0].answer["word"] == "sat"


@forks
def test_work_that_never_ends_is_ended_at_the_limit():
    result, seconds = ended(lambda: time.sleep(60), 0.5)
    assert result.how == "timeout"
    assert 0.5 <= seconds < 1.5


@forks
def test_c_code_that_holds_the_interpreter_does_not_hold_the_limit():
    result, seconds = ended(lambda: {"n": len(re.findall("(a*)*b", "a" * 40))}, 0.5)
    assert result.how == "timeout"
    assert seconds < 1.5


@forks
def test_work_that_ignores_signals_and_stops_itself_is_ended_too():
    def stubborn():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGSTOP)

    result, seconds = ended(stubborn, 0.5)
    assert result.how == "timeout"
    assert seconds < 1.5


@forks
@pytest.mark.parametrize(("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "out of memory")])
def test_a_crash_is_told_with_its_signal(number, name):
    def dies():
        faulthandler.disable()
        os.kill(os.getpid(), number)

    result, seconds = ended(dies)
    assert result.how == "crash"
    assert name in result.text
    assert seconds < 5


@forks
def test_errors_keep_their_kind():
    def raises(error):
        raise error

    typed_error, _ = ended(lambda: raises(InputError("a value.", "a remedy.")))
    assert (typed_error.how, typed_error.kind, typed_error.text) == ("error", "InputError", "a value. a remedy.")
    with pytest.raises(RefusedFile, match="damaged"):
        told(ended(lambda: raises(RefusedFile("damaged.")))[0])
    bug, _ = ended(lambda: raises(AssertionError("3 is not 4")))
    assert bug.how == "crash"
    assert "AssertionError: 3 is not 4" in bug.text
    assert ended(lambda: raises(MemoryError()))[0].how == "crash"
    assert ended(lambda: os._exit(7))[0].text.startswith("the process ended with status 7")


@forks
def test_what_the_work_prints_does_not_reach_stdout(capfd):
    assert ended(lambda: os.write(1, b"unsat\n") and {"word": "unknown"})[0].answer == {"word": "unknown"}
    assert capfd.readouterr().out == ""


def test_work_ends_when_its_watchdog_is_killed(tmp_path):
    code = (
        "import os, sys, time\n"
        "from saddlepoint.cli.isolated import isolated\n"
        "def work():\n"
        "    open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "isolated(work, time.monotonic() + 60)\n"
    )
    note = tmp_path / "pid"
    watchdog = subprocess.Popen([sys.executable, "-c", code, str(note)])
    until = time.monotonic() + 20
    while time.monotonic() < until and not (note.exists() and note.read_text()):
        time.sleep(0.01)
    watchdog.kill()
    watchdog.wait()
    worker = int(note.read_text())
    while time.monotonic() < until:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(worker)], capture_output=True, text=True, check=False)
        if state.stdout.strip()[:1] in ("", "Z"):  # gone, or waiting for whoever adopts it
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the work went on without its watchdog")
