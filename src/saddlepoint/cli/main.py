"""`saddlepoint VERB …`: the verbs, and how an ending becomes an exit code.

3 CONTRADICTION · 2 usage or input error · 1 policy or doctor failed · 4 open beyond what the policy allows · 0 done
130 interrupted, resumable
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from saddlepoint import __version__
from saddlepoint.core.errors import Contradiction, SaddlepointError

_VERBS = {
    "demo": "The main job on embedded data: two trainings, one report.",
    "check": "Load a model and data, say what they are and what each plan would cost; attacks nothing.",
    "run": "Evaluate a model on data under threats; the same command again resumes.",
    "doctor": "Is this evaluation broken? Findings about a ledger and its models, each with its remedy.",
    "report": "A ledger as HTML, JSON, JUnit or SARIF.",
    "gate": "Judge a ledger by a policy; the exit code is the answer.",
    "replay": "Check every witness and proof of a ledger again.",
    "merge": "The union of ledgers.",
    "train": "Train a network against an adversary; the same command again resumes; ends with a bracket.",
    "lab": "Experiments that anybody can run: soundness.",
    "verify": "Does a network keep a VNN-LIB specification? sat, unsat, unknown or timeout.",
}

app = App(
    name="saddlepoint",
    help="Worst-case machine learning: attacks and certificates as evidence, folded into an honest bracket.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
for _verb, _help in _VERBS.items():
    # a text, not a function: a verb's imports are paid for when it is called
    app.command(f"saddlepoint.cli.{_verb}:{_verb}", name=_verb, help=_help)


def run_app(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        return _say(f"{error}", 2, hint="See saddlepoint --help.")
    except Contradiction as error:
        return _say(f"CONTRADICTION: {error}", 3)
    except SaddlepointError as error:
        return _say(f"{type(error).__name__}: {error}", 2)
    except KeyboardInterrupt:
        return _say("interrupted; the same command again resumes.", 130)
    except BrokenPipeError:  # the reader of our output has left: nothing to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _say(f"{error}", 2)
    except Exception:  # a bug of ours must not look like a failed policy (1)
        traceback.print_exc()
        return _say("this is a bug in saddlepoint; please report it with the lines above.", 2)


def main() -> None:
    """Entry point of the `saddlepoint` command."""
    sys.exit(run_app())


def _say(text: str, code: int, hint: str = "") -> int:
    print(f"saddlepoint: {text} {hint}".rstrip(), file=sys.stderr)
    return code
