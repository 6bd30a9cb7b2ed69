"""Who carries out units: this process, worker processes, or a Ray cluster. Results come back in the order asked.

A worker loads the model once from its source (a text or a factory, never a pickled model) and gets samples with each
unit, so workers need no access to the data. A worker that dies (kill −9, out of memory) raises `WorkerDied`; what was
committed stays.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Protocol, runtime_checkable

import torch

from saddlepoint.core.errors import InputError, WorkerDied
from saddlepoint.core.extras import require
from saddlepoint.evaluation.execute import execute
from saddlepoint.evaluation.unit import Result, Unit, Work
from saddlepoint.spec import Model

Source = Callable[[], Model]


@runtime_checkable
class Pool(Protocol):
    """Maps units to results, in order."""

    def map(self, units: Iterable[Unit], work: Work) -> Iterator[tuple[Unit, Result]]:
        """Results in the order of the units."""
        ...


class Here:
    """This process, one unit after the other."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def map(self, units: Iterable[Unit], work: Work) -> Iterator[tuple[Unit, Result]]:
        """Results in the order of the units."""
        for unit in units:
            yield unit, execute(self.model, unit, work)


class Processes:
    """N worker processes, each with its share of the processor's threads."""

    def __init__(self, executor: ProcessPoolExecutor, ahead: int) -> None:
        self.executor, self.ahead = executor, ahead

    def map(self, units: Iterable[Unit], work: Work) -> Iterator[tuple[Unit, Result]]:
        """Results in the order of the units; a bounded number is under way, so memory stays constant."""
        waiting: deque[tuple[Unit, Future[Result]]] = deque()
        try:
            for unit in units:
                waiting.append((unit, self.executor.submit(_work, unit, work)))
                if len(waiting) >= self.ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a worker process ended before its answer (killed, or out of memory).",
                "Nothing committed is lost: run the same command again, with fewer --workers or a smaller batch.",
            ) from error
        finally:
            for _, future in waiting:
                future.cancel()


class Rays:
    """Tasks on a Ray cluster."""

    def __init__(self, ray: Any, source: Source, work_threads: int) -> None:
        self.ray = ray
        self.actors = [
            ray.remote(_Actor).remote(source, work_threads) for _ in range(max(1, int(ray.cluster_resources()["CPU"])))
        ]

    def map(self, units: Iterable[Unit], work: Work) -> Iterator[tuple[Unit, Result]]:
        """Results in the order of the units."""
        waiting: deque[tuple[Unit, Any]] = deque()
        for i, unit in enumerate(units):
            waiting.append((unit, self.actors[i % len(self.actors)].execute.remote(unit, work)))
            if len(waiting) >= 2 * len(self.actors):
                first, answer = waiting.popleft()
                yield first, self.ray.get(answer)
        for first, answer in waiting:
            yield first, self.ray.get(answer)


@contextmanager
def open_pool(model: Model, source: Source | None, workers: int | str, deterministic: bool) -> Iterator[Pool]:
    """A pool for `workers` (a number, or "ray"); closed, and its processes ended, on the way out.

    Raises InputError for several workers without a source to load the model from.
    """
    if workers == 1:
        with _threads(1 if deterministic else None):
            yield Here(model)
        return
    if source is None:
        raise InputError(
            f"workers = {workers}, but a worker cannot load this model by itself.",
            "Give the model as text (a file, package.module:factory), or use workers=1.",
        )
    if workers == "ray":
        ray = require("ray")
        ray.init(ignore_reinit_error=True, log_to_driver=False)
        yield Rays(ray, source, 1)
        return
    if not isinstance(workers, int) or workers < 1:
        raise InputError(f"workers = {workers!r}.", 'Give a number from 1, or "ray".')
    threads = 1 if deterministic else max(1, (os.cpu_count() or 1) // workers)
    executor = ProcessPoolExecutor(workers, get_context("spawn"), _start, (source, threads, os.getcwd()))
    try:
        with _deaf():  # children inherit it: Ctrl-C is for the parent, which ends the workers in order
            for _ in range(workers):
                executor.submit(_ready)
        yield Processes(executor, ahead=workers + 1)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Another number of threads changes the order of sums; put back on the way out."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore Ctrl-C for a moment; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Actor:
    """A Ray actor: the model stays loaded between units."""

    def __init__(self, source: Source, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = source()

    def execute(self, unit: Unit, work: Work) -> Result:
        return execute(self.model, unit, work)


_MODEL: list[Model] = []  # one per worker process, filled when the worker starts


def _ready() -> None:
    """Nothing: asked of each worker once, so that all start together."""


def _start(source: Source, threads: int, folder: str) -> None:
    torch.set_num_threads(threads)
    if folder not in sys.path:
        sys.path.append(folder)  # methods arrive by import path, which is looked up in the current folder too
    _MODEL[:] = [source()]


def _work(unit: Unit, work: Work) -> Result:
    return execute(_MODEL[0], unit, work)
