"""Plans: which methods, in which order. Cheapest evidence first.

    quick      a short attack, interval bounds, CROWN
    standard   + APGD on cross-entropy and on targeted DLR, or the exhaustive grid for rotation + translation
    strong     + more restarts and losses
    FILE.toml  one's own list: [[stage]] method = "apgd" (or "package.module:Class"), and its parameters

`autoattack` is refused until FAB and Square are here: a plan of that name without them would not be AutoAttack.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from saddlepoint.attack import APGD, FAB, PGD, APGDTargeted, Grid, RandomSearch, Square
from saddlepoint.attack.protocol import Attack
from saddlepoint.bound import CROWN, Interval
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation.stages import Clean, Stage
from saddlepoint.spec import Threat

METHODS: dict[str, type] = {
    "pgd": PGD,
    "apgd": APGD,
    "apgd-t": APGDTargeted,
    "fab-t": FAB,
    "random": RandomSearch,
    "grid": Grid,
    "square": Square,
    "interval": Interval,
    "crown": CROWN,
}


@dataclass(frozen=True)
class Plan:
    """A name, and the stages for a threat (the clean pass always comes first)."""

    name: str
    choose: Callable[[Threat], list[Any]]

    def stages(self, threat: Threat) -> list[Stage]:
        """Stages in order, the clean pass first."""
        chosen = (s if isinstance(s, Stage) else Stage(s) for s in self.choose(threat))
        return [Stage(Clean()), *chosen]


def plan_named(name: str) -> Plan:
    """A plan by name, or from a TOML file. Raises InputError with the known names, or with what the file says wrong."""
    if name in NAMED:
        return Plan(name, NAMED[name])
    path = Path(name)
    if not path.is_file():
        raise InputError(f"there is no plan {name!r}.", f"Choose {', '.join(NAMED)}, or give a TOML file.")
    stages = _read(path)
    return Plan(name, lambda threat: stages)


def _read(path: Path) -> list[Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}.", 'Write [[stage]] and method = "pgd".') from error
    entries = content.get("stage")
    if set(content) != {"stage"} or not isinstance(entries, list) or not entries:
        raise InputError(f"{path} has keys {sorted(content)}.", "A plan is a list of [[stage]] tables, nothing else.")
    return [_method(path, dict(entry)) for entry in entries]


def _method(path: Path, entry: dict[str, Any]) -> Any:
    name = entry.pop("method", None)
    kind = METHODS.get(name) if isinstance(name, str) else None
    if kind is None and isinstance(name, str) and ":" in name:
        kind = _imported(name)
    if kind is None:
        raise InputError(f"{path}: there is no method {name!r}.", f"Choose {', '.join(METHODS)}, or module:Class.")
    unknown = set(entry) - set(inspect.signature(kind).parameters)
    if unknown:
        raise InputError(
            f"{path}: {name} has no parameter {sorted(unknown)[0]!r}.",
            f"It has {', '.join(inspect.signature(kind).parameters) or 'none'}.",
        )
    return kind(**entry)


def _imported(name: str) -> type[Attack[Any]]:
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{name} cannot be imported: {error}.", "Is it installed, and spelled module:Class?"
        ) from error
