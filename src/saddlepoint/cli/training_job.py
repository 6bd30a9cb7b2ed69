"""What a `train` command means: its network, its three parts of data, its objective, and what its output will say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from torch import nn

from saddlepoint.adapters import LoadOptions
from saddlepoint.adapters.architectures import build
from saddlepoint.adapters.imports import import_object, is_import_path
from saddlepoint.adapters.options import as_box
from saddlepoint.adapters.snapshot import normaliser
from saddlepoint.adapters.weights import WeightsFile, read_weights
from saddlepoint.cli.training_data import check_domain, check_test, parts, validation
from saddlepoint.cli.whole import whole
from saddlepoint.core.digests import digest_tensors
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.data import Data
from saddlepoint.geometry import PerturbationSet
from saddlepoint.spec import Threat
from saddlepoint.training import Measure, Objective, Trainer, fresh
from saddlepoint.training.catalogue import Choice, entry, objective
from saddlepoint.training.certified import interval_initialised
from saddlepoint.training.checkpoint import described
from saddlepoint.training.fits import check_fits
from saddlepoint.training.precision import searched_in
from saddlepoint.training.settings import Averaging, Optimiser, Precision, Schedule
from saddlepoint.training.state import keyed_randomness

SETTINGS = "x-training"
# the rate that rises and falls (Wong, Rice, Kolter 2020, §5) ends with more robustness than a cosine of the same height
_COMMON: dict[str, Any] = {"epochs": 12, "warm_up": 4, "batch": 64, "rate": 3e-3, "schedule": "cyclic"}


@Parameter(name="*")
@dataclass(frozen=True)
class TrainerOptions:
    """Settings of the loop; what is left out is the objective's own default."""

    epochs: Annotated[
        int | None, Parameter(converter=whole, help="passes over the data (12; certified objectives more)")
    ] = None
    warm_up: Annotated[float | None, Parameter(help="epochs in which the set grows (4; half of a short run)")] = None
    batch: Annotated[
        int | None, Parameter(converter=whole, help="samples a step (64; n-fgsm and certified objectives 128)")
    ] = None
    rate: Annotated[float | None, Parameter(help="learning rate (0.003)")] = None
    weight_decay: Annotated[float | None, Parameter(help="of the optimiser")] = None
    optimiser: Annotated[Optimiser | None, Parameter(help="adam, adamw or sgd")] = None
    schedule: Annotated[Schedule | None, Parameter(help="cosine, cyclic, step or constant")] = None
    averaging: Annotated[Averaging | None, Parameter(help="of the weights: none, ema or swa")] = None
    clip: Annotated[float | None, Parameter(help="largest norm of a step's gradient")] = None
    accumulate: Annotated[
        int | None, Parameter(converter=whole, help="parts that a step's gradient is worked out in")
    ] = None
    precision: Annotated[Precision | None, Parameter(help="bfloat16: in searches (auto), never (full), …")] = None
    seed: Annotated[int, Parameter(converter=whole, help="of all random numbers")] = 0

    def trainer(self, wanted: dict[str, Any], sets: Sequence[PerturbationSet]) -> Trainer:
        """What was typed goes before what the objective wants, and that before the common defaults."""
        typed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        merged = {**_COMMON, **wanted, **typed}
        if "warm_up" not in typed:  # a short run must reach the whole set, and stay there for a while
            merged["warm_up"] = min(merged["warm_up"], merged["epochs"] / 2) if all(map(_grows, sets)) else 0
        return Trainer(**merged)


@Parameter(name="*")
@dataclass(frozen=True)
class Trainee:
    """What is trained, on which samples, and which others judge it."""

    arch: Annotated[str, Parameter(help="a built-in name, mlp:64-64, or package.module:factory")]
    init: Annotated[Path | None, Parameter(help="weights to begin with (.safetensors, .pt) in place of fresh ones")] = (
        None
    )
    n: Annotated[int | None, Parameter(converter=whole, help="train on the first n samples")] = None
    test: Annotated[str | None, Parameter(help="DATA of the bracket (default: DATA:test, or a part held out)")] = None
    domain: Annotated[str, Parameter(allow_leading_hyphen=True, help="legal inputs")] = "0,1"
    mean: Annotated[str | None, Parameter(allow_leading_hyphen=True, help="normalisation in front of the network")] = (
        None
    )
    std: Annotated[str | None, Parameter(allow_leading_hyphen=True, help="normalisation in front of the network")] = (
        None
    )


@dataclass(frozen=True)
class Job:
    """Everything that was typed, understood. `net` is to be saved; `whole` has the normalisation in front of it."""

    net: nn.Module
    whole: nn.Module
    train: Data
    validation: Measure
    test: Data
    objective: Objective
    trainer: Trainer
    metadata: dict[str, Any]
    judge: str
    """Where the samples of `test` come from, in words."""


def prepared(
    data: str,
    subject: Trainee,
    wanted: str,
    threats: Sequence[Threat],
    options: TrainerOptions,
    loading: LoadOptions,
    bracket: int | None,
) -> Job:
    """The job, with a bracket on so many samples at its end.

    Raises InputError and its children for whatever does not fit together; nothing is written before.
    """
    found = entry(wanted)
    box = as_box(loading.domain, "the network")
    sets = [threat.within(box).set for threat in threats]
    aim = objective(wanted, sets)
    trainer = options.trainer(dict(found.trainer), sets)
    rest, test, judge = parts(data, subject.n, subject.test, options.seed)
    train, held_out = validation(rest, options.seed)
    check_domain(rest, box, data)
    begun = _begun_with(subject)
    net = _network(subject, found, tuple(train.shape), train.classes, options.seed, begun).to(loading.device)
    mean, std = loading.mean, loading.std
    if mean is None and std is None and begun is not None:  # weights mean nothing without what stood in front of them
        mean, std = begun.metadata.get("mean"), begun.metadata.get("std")
    front = normaliser(mean, std, tuple(train.shape))
    whole = net if front is None else nn.Sequential(front.to(loading.device), net)
    outputs = check_fits(whole, train)
    if bracket is not None:
        check_test(test, min(bracket, len(test)), box, outputs)
    said = {
        "objective": described(aim),
        "threats": [s.canonical() for s in sets],
        "trainer": {k: v for k, v in described(trainer).items() if k != "kind"},
        "data": train.digest,
        "inner mode": getattr(aim, "inner", None),
        "begun with": None if begun is None else digest_tensors(begun.tensors),
        "warning": getattr(aim, "warning", None) or _unprepared(subject, found),
    }
    metadata = {
        "arch": subject.arch,
        "shape": list(train.shape),
        "classes": outputs,
        "domain": [_plain(box.lower), _plain(box.upper)],
        "mean": _plain(mean),
        "std": _plain(std),
        SETTINGS: said,
        # where this says bfloat16, a processor without it ends with other weights from the same seed
        "x-searches": searched_in(trainer.precision, train.take(slice(0, 1)).x.to(loading.device)),
    }
    measure = Measure(held_out, tuple(sets))
    return Job(net, whole, train, measure, test, aim, trainer, metadata, judge)


def finished(output: Path, metadata: dict[str, Any]) -> bool:
    """Whether the output is this very training's. Raises InputError where it is something else."""
    if not output.exists():
        return False
    before = read_weights(output).metadata
    if SETTINGS not in before:
        raise InputError(
            f"{output} exists and is no output of train.", "Give another -o, or move it and its ledger away."
        )
    old, new = ({**m[SETTINGS], **{k: m.get(k) for k in ("arch", "domain", "mean", "std")}} for m in (before, metadata))
    differing = [name for name in new if old.get(name) != new[name]]
    for name in list(differing):
        if isinstance(new[name], dict) and isinstance(old.get(name), dict):
            differing.remove(name)
            differing += [k for k in new[name] if old[name].get(k) != new[name][k]]
    if differing:
        raise InputError(
            f"{output} was trained with other settings ({', '.join(differing)}).",
            "Give another -o, or the settings of before.",
        )
    return True


def _grows(ball: PerturbationSet) -> bool:
    """Whether a set has other sizes, as a warm-up needs."""
    try:
        ball.resized(ball.size)
    except NotAvailable:
        return False
    return True


def _unprepared(subject: Trainee, found: Choice) -> str | None:
    """A warning where bounds will explode from ordinary weights."""
    if not found.interval_weights or not is_import_path(subject.arch) or subject.init is not None:
        return None
    return (
        f"{subject.arch} begins with the weights that it gives itself; interval bounds explode in deep networks of "
        "ordinary weights. Use saddlepoint.training.certified.interval_initialised on it, or a built-in --arch."
    )


def _begun_with(subject: Trainee) -> WeightsFile | None:
    if subject.init is None:
        return None
    if not subject.init.is_file():
        raise InputError(f"There is no file {subject.init}.", "Check --init.")
    return read_weights(subject.init)


def _network(
    subject: Trainee, found: Choice, shape: tuple[int, ...], classes: int, seed: int, begun: WeightsFile | None
) -> nn.Module:
    """The network with fresh or given weights."""
    if is_import_path(subject.arch):
        made = _made(subject.arch, seed)
    else:
        made = build(subject.arch, shape, classes)
        made = interval_initialised(made, seed) if found.interval_weights else fresh(made, seed)
    if begun is not None:
        try:
            made.load_state_dict(begun.tensors)
        except RuntimeError as error:
            said = " ".join(str(error).split()).rstrip(". ")  # torch's answer has many lines
            raise InputError(f"{subject.init} does not fit {subject.arch}: {said}.", "Check --arch.") from error
    return made


def _made(path: str, seed: int) -> nn.Module:
    """The network of one's own factory."""
    found = import_object(path)
    with keyed_randomness(seed, "weights"):
        try:
            made = found() if callable(found) and not isinstance(found, nn.Module) else found
        except Exception as error:  # the factory is the user's: whatever it raises is an answer
            raise InputError(
                f"{path}() raised {type(error).__name__}: {error}.",
                "Give a function without arguments that returns it.",
            ) from error
    if not isinstance(made, nn.Module):
        raise InputError(f"{path} gives {type(made).__name__}, not an nn.Module.", "Return the network.")
    return made


def _plain(value: Any) -> Any:
    """JSON of one number, or of one per channel."""
    if not isinstance(value, Sequence):
        return value
    return float(value[0]) if len(value) == 1 else [float(v) for v in value]
