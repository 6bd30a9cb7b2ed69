"""Plans as TOML files: a list of methods, by name or by import path, one's own among them.

    [[stage]]
    method = "apgd"                      # a name, or "package.module:Class", found from the current folder too
    steps = 40                           # the method's parameters
    near = 0.5                           # attacks only: samples that came that close to falling (attack/cascade.py)

Everything is looked at before anything runs: names, parameters, their types, and that a class of one's own is an attack
or a bound method. Lists become tuples, whole numbers become floats where floats are meant.
"""

from __future__ import annotations

import difflib
import inspect
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from saddlepoint.adapters.imports import import_object, is_import_path
from saddlepoint.attack.protocol import Attack
from saddlepoint.bound.base import BoundMethod
from saddlepoint.bound.smoothing import RandomizedSmoothing
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation.stages import Stage
from saddlepoint.spec.bracket import CLEAN

_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class _Entry:
    """One [[stage]] table: where it stands, what it names, what else it says."""

    where: str
    name: str
    given: dict[str, Any]

    def wrong(self, what: str, remedy: str) -> InputError:
        """An error that says where."""
        return InputError(f"{self.where}: {what}", remedy)


def read_plan(path: Path, methods: Mapping[str, type]) -> list[Stage]:
    """The stages of a file. Raises InputError with the file, the stage, what is wrong there, and the remedy."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}.", 'Write [[stage]] and method = "pgd".') from error
    tables = content.get("stage")
    if set(content) != {"stage"} or not isinstance(tables, list) or not tables:
        raise InputError(f"{path} has keys {sorted(content)}.", "A plan is a list of [[stage]] tables, nothing else.")
    if not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: stage is a list of values.", "Write [[stage]] tables.")
    return [_stage(path, number, table, methods) for number, table in enumerate(tables, start=1)]


def _stage(path: Path, number: int, table: dict[str, Any], methods: Mapping[str, type]) -> Stage:
    given = dict(table)
    name, near = given.pop("method", None), given.pop("near", None)
    entry = _Entry(f"{path}, stage {number} ({name})", str(name), given)
    if not isinstance(name, str):
        what = "it has no method" if name is None else f"method = {name!r} is no text"
        raise entry.wrong(f"{what}.", f"Choose {', '.join(methods)}, or package.module:Class.")
    config = _configured(entry, _named(entry, methods))
    if near is not None:
        near = _near(entry, near, config)
    return Stage(config, near)


def _named(entry: _Entry, methods: Mapping[str, type]) -> Any:
    """The class behind the name."""
    if entry.name in methods:
        return methods[entry.name]
    if not is_import_path(entry.name):
        close = difflib.get_close_matches(entry.name, methods, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise entry.wrong(
            f"there is no method {entry.name!r}.", f"{hint}Choose {', '.join(methods)}, or package.module:Class."
        )
    try:
        found = import_object(entry.name)
    except InputError as error:
        raise entry.wrong(error.what, error.remedy) from error
    except Exception as error:  # whatever the author's module raises while it is imported
        raise entry.wrong(f"its import raised {type(error).__name__}: {error}.", "Mend the module.") from error
    if not inspect.isclass(found) and not isinstance(found, Attack):
        raise entry.wrong(
            f"it is a {type(found).__name__}, no class.", "Name the class that derives from saddlepoint.attack.Attack."
        )
    taken = {CLEAN, *(getattr(kind, "name", "") for kind in methods.values())}
    if found not in methods.values() and getattr(found, "name", None) in taken:
        raise entry.wrong(
            f"its name {getattr(found, 'name', None)!r} is taken by the house.",
            "Evidence is filed under the name: choose another.",
        )
    return found


def _configured(entry: _Entry, kind: Any) -> Any:
    """The method with its parameters, which must be an attack or a bound."""
    values = _values(entry, kind)
    try:
        config = kind if isinstance(kind, Attack) else kind(**values)
    except InputError as error:
        raise entry.wrong(error.what, error.remedy) from error
    except Exception as error:
        remedy = "Abstract? Write what is missing; sp.testing.check_attack tells more."
        raise entry.wrong(f"it cannot be made: {type(error).__name__}: {error}.", remedy) from error
    named = isinstance(getattr(config, "name", None), str)
    if not named or not isinstance(config, (Attack, BoundMethod, RandomizedSmoothing)):
        raise entry.wrong(
            f"{getattr(kind, '__name__', kind)} is neither an attack nor a bound method"
            f"{'' if named else ' (it has no name)'}.",
            "Derive from saddlepoint.attack.Attack, or see bound.BoundMethod; sp.testing checks both.",
        )
    return config


def _values(entry: _Entry, kind: Any) -> dict[str, Any]:
    """The parameters, each of the kind that its annotation asks for."""
    if isinstance(kind, Attack):
        known: list[str] = []
    else:
        known = list(inspect.signature(kind).parameters)
    for name in entry.given:
        if name not in known:
            raise entry.wrong(f"it has no parameter {name!r}.", f"It has {', '.join([*known, 'near']) or 'none'}.")
    hints = _hints(kind)
    return {name: _fitting(entry, name, value, hints.get(name)) for name, value in entry.given.items()}


def _hints(kind: Any) -> dict[str, Any]:
    try:
        return get_type_hints(kind if inspect.isclass(kind) else type(kind))
    except Exception:  # annotations that mean nothing at run time: the class itself decides
        return {}


def _fitting(entry: _Entry, name: str, value: Any, hint: Any) -> Any:
    """The value as its annotation wants it. Raises InputError where a plain annotation and the value disagree."""
    choices = _choices(hint)
    if isinstance(value, list) and (not choices or any(get_origin(c) is tuple or c is tuple for c in choices)):
        return _tuple(value)
    fits = [
        c for c in choices if (c in _PLAIN and type(value) is c) or (get_origin(c) is Literal and value in get_args(c))
    ]
    if fits or any(c not in _PLAIN and get_origin(c) not in (Literal, tuple) for c in choices) or not choices:
        return value
    if float in choices and type(value) is int:
        return float(value)
    wanted = " or ".join(getattr(c, "__name__", str(c)) if get_origin(c) is None else str(c) for c in choices)
    raise entry.wrong(f"{name} = {value!r} is {type(value).__name__}, wanted {wanted}.", "See the method's docstring.")


def _choices(hint: Any) -> tuple[Any, ...]:
    """int | None → (int, NoneType)."""
    if hint is None:
        return ()
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list) else value


def _near(entry: _Entry, near: Any, config: Any) -> float:
    if not isinstance(near, (int, float)) or isinstance(near, bool) or not near > 0:
        raise entry.wrong(f"near = {near!r}.", "A number above 0: 0.5 takes what half as much again would break.")
    if not isinstance(config, Attack):
        raise entry.wrong("near is for attacks.", "A bound looks at whatever is open: leave near out.")
    return float(near)
