"""Plans as files: what they may say, one's own methods among it, and what they are told when they are wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from saddlepoint.attack import APGD, PGD
from saddlepoint.bound import CROWN
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation import plan_named
from saddlepoint.evaluation.stages import Stage
from saddlepoint.geometry import Linf
from saddlepoint.spec import Threat

OWN = '''
from dataclasses import dataclass
from typing import ClassVar

from saddlepoint.attack import PGD, Attack, Ask
from saddlepoint.bound import Interval
from saddlepoint.spec import Access


@dataclass(frozen=True)
class Half(PGD):
    """PGD, with steps of half the size."""

    name: ClassVar[str] = "half"
    widths: tuple[float, ...] = (0.5,)
    share: float = 0.5


@dataclass(frozen=True)
class Plain(Interval):
    name: ClassVar[str] = "plain"


@dataclass(frozen=True)
class Impostor(PGD):
    """Files its evidence under the house's name."""


class Unfinished(Attack):
    name = "unfinished"


class Nothing:
    name = "nothing"


READY = Half(steps=3)


def make():
    return Half()
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A folder with the author's module, under a name of its own for each test, as the current folder."""
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("raise RuntimeError('half-written')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / f"{name}.py"


def stages(text: str, folder: Path) -> list[Stage]:
    (folder / "plan.toml").write_text(text)
    return plan_named(str(folder / "plan.toml")).stages(Threat(Linf("0.1")))[1:]


def stage(body: str) -> str:
    return f"[[stage]]\n{body}\n"


def test_names_parameters_and_near(tmp_path: Path) -> None:
    text = stage('method = "apgd"\nsteps = 7\nloss = "dlr"\nnear = 1') + stage('method = "crown"\nstop_above = 1')
    first, second = stages(text, tmp_path)
    assert first == Stage(APGD(steps=7, loss="dlr"), near=1.0)
    assert second.config == CROWN(stop_above=1.0)
    assert isinstance(second.config, CROWN)
    assert isinstance(second.config.stop_above, float)  # 1 and 1.0 are one method, so they are one text
    assert json.loads(second.method(0).parameters)["stop_above"] == 1.0


def test_ones_own_methods_by_import_path(here: Path) -> None:
    own = here.stem
    text = stage(f'method = "{own}:Half"\nwidths = [0.5, 0.25]\nshare = 1\nsteps = 3') + stage(
        f'method = "{own}:Plain"'
    )
    half, plain, ready = stages(text + stage(f'method = "{own}:READY"'), here.parent)
    assert ready.config.steps == 3  # pyright: ignore[reportAttributeAccessIssue]
    assert (half.name, half.side) == ("half", "upper")
    assert half.config.widths == (0.5, 0.25)  # pyright: ignore[reportAttributeAccessIssue]
    assert hash(half.config)
    assert type(half.config.share) is float  # pyright: ignore[reportAttributeAccessIssue]
    assert (plain.name, plain.side) == ("plain", "lower")
    assert str(here.parent) not in sys.path


WRONG = [
    (
        'method = "sqare"',
        r"stage 1 \(sqare\): there is no method 'sqare'. Did you mean square\? Choose pgd, .*package.module:Class",
    ),
    ("steps = 3", "it has no method. Choose pgd"),
    ("method = 3", "method = 3 is no text"),
    ('method = "pgd"\nstep = 3', r"\(pgd\): it has no parameter 'step'. It has steps, restarts, .*near"),
    ('method = "pgd"\nsteps = "forty"', "steps = 'forty' is str, wanted int"),
    ('method = "pgd"\nsteps = 4.5', "steps = 4.5 is float, wanted int"),
    ('method = "pgd"\nsteps = true', "steps = True is bool, wanted int"),
    ('method = "pgd"\nsteps = [10, 20]', r"steps = \[10, 20\] is list, wanted int"),
    ('method = "pgd"\nrandom_start = 1', "wanted bool"),
    ('method = "pgd"\nstep_size = "a"', "step_size = 'a' is str, wanted float or NoneType"),
    ('method = "pgd"\nsteps = 0', r"stage 1 \(pgd\): 0 steps and 1 restarts must be at least 1"),
    ('method = "apgd"\nloss = "hinge"', "there is no loss 'hinge'. Known: ce"),
    ('method = "crown"\nintermediate = "sideways"', "intermediate = 'sideways'"),
    ('method = "pgd"\nnear = -1', "near = -1"),
    ('method = "pgd"\nnear = "close"', "near = 'close'"),
    ('method = "crown"\nnear = 0.5', "near is for attacks"),
    ('method = "no_such_module:Attack"', "'no_such_module' cannot be imported .*Run in the folder"),
    ('method = "OWN:Missing"', "has no 'Missing'. It has: .*Half"),
    ('method = "broken:Attack"', "its import raised RuntimeError: half-written"),
    ('method = "OWN:Nothing"', "Nothing is neither an attack nor a bound method"),
    ('method = "OWN:Unfinished"', "cannot be made: TypeError: .*abstract"),
    ('method = "OWN:make"', "it is a function, no class"),
    ('method = "OWN:Impostor"', "its name 'pgd' is taken"),
    ('method = "OWN:Half"\nwidht = 3', "no parameter 'widht'"),
    ('method = "OWN:READY"\nsteps = 3', "no parameter 'steps'"),
]


@pytest.mark.parametrize(("body", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_what_is_wrong_is_said_with_its_place_and_remedy(body: str, words: str, here: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        stages(stage(body.replace("OWN", here.stem)), here.parent)
    assert "plan.toml" in str(caught.value)
    assert caught.value.remedy or "at least 1" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stage = 3", "A plan is a list"),
        ("stage = [1, 2]", r"\[\[stage\]\] tables"),
        ("", "A plan is a list"),
        ('name = "x"\n[[stage]]\nmethod = "pgd"', "keys"),
        ("[[stage]", "is not TOML"),
    ],
)
def test_what_is_no_plan_is_said(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        stages(text, tmp_path)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_line_finds_ones_own_attack_in_the_current_folder(tmp_path: Path, workers: str) -> None:
    """As the console script runs it: the current folder is on no path, in this process or in the workers'."""
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "net.py").write_text(
        "import torch\n\n\ndef make():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    (tmp_path / "plan.toml").write_text(stage('method = "mine:Half"\nsteps = 3'))
    command = [sys.executable, "-P", "-m", "saddlepoint", "run", "net:make", "--data", "digits", "--domain", "0,1"]
    command += ["--threat", "linf:0.05", "--n", "6", "--plan", "plan.toml", "--workers", workers, "--json", "o.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    samples = json.loads((tmp_path / "o.json").read_text())["samples"]
    assert len(samples) == 6
    assert {s["verdict"] for s in samples} <= {"BROKEN", "OPEN", "MISCLASSIFIED"}
    assert any(s["by"] == "half" for s in samples)


def test_pgd_by_two_paths_is_one_method(tmp_path: Path) -> None:
    """The house's class by import path files evidence as the house's."""
    (one,) = stages(stage('method = "saddlepoint.attack:PGD"\nsteps = 3'), tmp_path)
    assert one == Stage(PGD(steps=3))
