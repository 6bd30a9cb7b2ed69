"""The certificate of a query: numbers from which a checker reaches "holds" again, by itself.

    for all x in [lower, upper]:  every clause of the property holds at (x, f(x));  a clause is max over atoms > 0

**Values.** Value 0 is the graph's input, value i ≥ 1 is graph.nodes[i − 1]; entries count row-major.

**Tree.** Node k is a domain: the box, cut by the splits on the way from its root (parent −1; there may be several
roots, each stands for the whole box). The split that made node k is one closed half, of entry `entry` of value `value`:

    side 0:  v ≤ threshold        side 1:  v ≥ threshold

Children come after their parents. Two children of one parent *cover* it if they have the same value, entry and
threshold (compared exactly, in float64) and sides 0 and 1; a parent may have several such pairs. A node of side s whose
twin is missing is allowed and proves nothing about its parent.
A clause is **proven at a node** if a leaf says so, or if it is proven at both twins of a pair of its children.
It is **proven** if it is proven at some root. The certificate is complete if every clause is proven.

**Bound sets.** Set s states bounds of all values on the domain of tree node `node`. In the graph's order:

    1  the box of the node (splits of value 0 cut it), or a value's interval from its inputs' bounds;
    2  cut with the bounds of set `base` (−1: none; its node is the same or an ancestor);
    3  cut with the splits of that value on the node's path;
    4  effort 1, and the value is read by a nonlinear node: backward passes, with the lines of step 5 on the way,
       for entries where the enclosure is loose (as in check/proofs.py: first the side nearer to 0, then the other);
       then the rows of `Extra` for (s, value), whose lines have choices of their own (none without effort 1);
       effort 2: every value between two affine functions of the input (bound/forward.py), with the lines of step 5;
    5  a nonlinear node's lines come from the bounds of its inputs and from its choices.

Every step intersects, so its order and gaps can only weaken what follows; a checker may bound more tightly.

**Choices** say, per output entry of a nonlinear node, where in its sound range a lower line lies, 0..255 for 0..1
(`lower/NODE` of bound/base.py: for ReLU the
slope is choice/255). Row r of the table gives entries `free[i]` of nonlinear node i their number `choice[i][r]`.
What no table gives (row −1, an entry that is not free, a node without table) is the **ramp**: with l ≤ v ≤ u,

    Relu, LeakyRelu   clamp(1/2 + 8 (u + l) / (u − l), 0, 1)        continuous: rounding moves a bound a little
    Clip              clamp(1/2 + 8 ((u − p) − (p − l)) / (u − l), 0, 1),   p = max(l, lo)
    all others        the value 1/2

**Lines.** Line w holds on the domain of tree node `node`, with the bounds of set `set` (same node or an ancestor's)
cut with the splits between the two nodes (steps 1 and 3, without passing the cuts on to later values). It starts from

    Σ_a weight_a · atom_a  +  Σ_j β_j · (v_j − threshold_j  if side 0, else  threshold_j − v_j)        weight, β ≥ 0

over the atoms a of clause `clause` and the splits j of values other than 0 on the node's path, root first. On the
domain every β-term is ≤ 0, so this is at most Σ weight · atom ≤ (Σ weight) · max atom; pulled back through the lines of
the nonlinear nodes (choices row `choice`) it becomes ⟨A, x⟩ + c ≤ Σ weight · atom + (terms ≤ 0) for x in the domain.

**Leaves.** Leaf (node, line): on the box of `node` (the line's node or a descendant) the minimum of ⟨A, x⟩ + c is > 0.
Then some atom is > 0 there, so the clause holds: the leaf proves the line's clause at `node`. Many leaves may share a
line: parts of a box that one line decides need one backward pass. A leaf that is an all-split domain closed by linear
programming is no other case: with all ReLUs fixed the lines are exact and the β are the program's duals.

**Disk.** One safetensors file of many certificates (the boxes of one VNN-LIB file): tensors "K/FIELD", K counting from
0, and the metadata "saddlepoint-certificate" = JSON with format, graph digest and the clauses. `save` and `load`.
Everything is small integers and floats; nothing in it is believed beyond its meaning above.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saddlepoint.core.errors import InputError, RefusedFile
from saddlepoint.spec.property import Atom, Property

FORMAT = 1
KEY = "saddlepoint-certificate"
RAMP = 8.0  # steepness of the default choice


@dataclass(frozen=True, eq=False)
class Tree:
    """Domains. parent, value, entry int32 (n,), threshold float64 (n,), side int8 (n,); roots: parent −1."""

    parent: Tensor
    value: Tensor
    entry: Tensor
    threshold: Tensor
    side: Tensor


@dataclass(frozen=True, eq=False)
class BoundSets:
    """node, base, choice int32 (s,), effort uint8 (s,). A base comes before its heirs."""

    node: Tensor
    base: Tensor
    choice: Tensor
    effort: Tensor


@dataclass(frozen=True, eq=False)
class Extra:
    """More rows for the bounds of one value in one set: min of sign · v[entry] with the choices of row r.

    entry int32 (r,), sign int8 (r,) ±1, choice[i] uint8 (r, len(free[i])) for nonlinear nodes i before `value`.
    """

    set: int
    value: int
    entry: Tensor
    sign: Tensor
    choice: dict[int, Tensor]


@dataclass(frozen=True, eq=False)
class Lines:
    """node, set, clause, choice int32 (w,), weight float32 (w, most atoms), padded with 0.

    The β of line w are beta[start[w] : start[w + 1]], float32: one for each split of another value than 0 on the
    node's path, root first. start int64 (w + 1,).
    """

    node: Tensor
    set: Tensor
    clause: Tensor
    choice: Tensor
    weight: Tensor
    beta: Tensor
    start: Tensor


@dataclass(frozen=True, eq=False)
class Leaves:
    """node, line int32 (l,)."""

    node: Tensor
    line: Tensor


@dataclass(frozen=True, eq=False)
class Certificate:
    """What the module's docstring says. lower, upper float64 (d,): the box. free[i] int32, choice[i] uint8 (r, f)."""

    lower: Tensor
    upper: Tensor
    property: Property
    tree: Tree
    sets: BoundSets
    lines: Lines
    leaves: Leaves
    free: dict[int, Tensor] = field(default_factory=dict)
    choice: dict[int, Tensor] = field(default_factory=dict)
    extras: tuple[Extra, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """All numbers under the names they have on disk."""
        found = {"lower": self.lower, "upper": self.upper}
        for part in _PARTS:
            found |= {f"{part}.{f.name}": getattr(getattr(self, part), f.name) for f in fields(_PARTS[part])}
        found |= {f"free.{i}": t for i, t in self.free.items()}
        found |= {f"choice.{i}": t for i, t in self.choice.items()}
        for k, extra in enumerate(self.extras):
            head = f"extra.{k}"
            found |= {f"{head}.at": torch.tensor([extra.set, extra.value]), f"{head}.entry": extra.entry}
            found |= {f"{head}.sign": extra.sign, **{f"{head}.choice.{i}": t for i, t in extra.choice.items()}}
        return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in found.items()}


_PARTS: dict[str, type[Any]] = {"tree": Tree, "sets": BoundSets, "lines": Lines, "leaves": Leaves}


def save(path: Path, certificates: Sequence[Certificate], graph_digest: str) -> None:
    """Write certificates of one network, in the order of the queries."""
    import safetensors.torch

    stated = {"format": FORMAT, "graph": graph_digest, "clauses": [_plain(c.property) for c in certificates]}
    named = {f"{k}/{name}": t for k, c in enumerate(certificates) for name, t in c.tensors().items()}
    path.write_bytes(safetensors.torch.save(named, {KEY: json.dumps(stated)}))


def load(path: Path) -> tuple[tuple[Certificate, ...], str]:
    """The certificates of a file, and the digest of the graph they speak of. Raises RefusedFile for any other file."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stated = json.loads((file.metadata() or {})[KEY])
            named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if stated["format"] != FORMAT:
            raise RefusedFile(f"{path} has certificate format {stated['format']}, this version reads {FORMAT}.")
        every = [_read(named, k, clauses) for k, clauses in enumerate(stated["clauses"])]
        return tuple(every), str(stated["graph"])
    except RefusedFile:
        raise
    except (safetensors.SafetensorError, InputError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise RefusedFile(f"{path} is no certificate: {error}.", "It is damaged, or another kind of file.") from error


def _read(named: dict[str, Tensor], k: int, clauses: Any) -> Certificate:
    mine = {name.removeprefix(f"{k}/"): t for name, t in named.items() if name.startswith(f"{k}/")}
    formula = Property(tuple(tuple(_atom(atom) for atom in clause) for clause in clauses))
    return of_tensors(mine, formula)


def of_tensors(mine: Mapping[str, Tensor], formula: Property) -> Certificate:
    """The inverse of `Certificate.tensors`. Raises RefusedFile where a tensor is missing."""

    def numbered(head: str) -> dict[int, Tensor]:
        start = f"{head}."
        return {int(name.removeprefix(start)): t for name, t in mine.items() if name.startswith(start)}

    try:
        parts = {p: kind(**{f.name: mine[f"{p}.{f.name}"] for f in fields(kind)}) for p, kind in _PARTS.items()}
        extras = []
        while f"extra.{len(extras)}.at" in mine:
            head = f"extra.{len(extras)}"
            owner, value = mine[f"{head}.at"].tolist()
            extras.append(Extra(owner, value, mine[f"{head}.entry"], mine[f"{head}.sign"], numbered(f"{head}.choice")))
        tables = {"free": numbered("free"), "choice": numbered("choice"), "extras": tuple(extras)}
        return Certificate(mine["lower"], mine["upper"], formula, **parts, **tables)
    except KeyError as error:
        raise RefusedFile(f"a certificate lacks {error}.", "It is damaged.") from error


def _plain(formula: Property) -> list[Any]:
    """Clauses as JSON, every float in hexadecimal."""
    return [[{f.name: _hex(getattr(a, f.name)) for f in fields(a)} for a in clause] for clause in formula.clauses]


def _hex(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_hex(v) for v in value]
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    return float(value).hex() if isinstance(value, float) else value


def _atom(stated: dict[str, Any]) -> Atom:
    def read(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(read(v) for v in value)
        if isinstance(value, str):
            return Fraction(value) if "/" in value else float.fromhex(value)
        return value

    return Atom(**{name: read(value) for name, value in stated.items()})
