"""`from_http`: a remote classifier. JSON in, scores, probabilities or labels out.

    POST {"inputs": [[…], …]}   ->   {"scores" | "logits" | "probabilities" | "labels": [[…], …] | […]}

A bare JSON list is read as one of these too (integers per row: labels). Nothing of the address beyond
scheme, host and path is kept anywhere: not in notes, digest, names or errors.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.adapters.callables import from_callable
from saddlepoint.adapters.options import Domain
from saddlepoint.adapters.urls import redact
from saddlepoint.core.errors import InputError, UnsupportedModel
from saddlepoint.core.extras import require
from saddlepoint.spec import Model

_SCORES = ("scores", "logits", "probabilities", "probs", "outputs", "predictions")
_LABELS = ("labels", "label", "classes")
_RETRIED = (429, 502, 503, 504)


@dataclass(frozen=True)
class Endpoint:
    """A remote function: tensor in, tensor out, one request per `batch` rows."""

    address: str = field(repr=False)
    """With its secrets; never shown."""
    timeout: float = 30.0
    retries: int = 2
    batch: int = 256

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return redact(self.address)

    def __call__(self, x: Float[Tensor, "b ..."]) -> Tensor:
        """Raw outputs of the service for x, on x's device. Raises UnsupportedModel or InputError."""
        parts = [self._one(part) for part in x.detach().cpu().split(self.batch)]
        return torch.cat(parts).to(x.device)

    def _one(self, x: Tensor) -> Tensor:
        answer = self._post({"inputs": x.tolist()})
        values, labels = _read(answer, self.shown)
        try:
            tensor = torch.tensor(values, dtype=torch.int64 if labels else torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UnsupportedModel(
                f"{self.shown} answers with something that is no rectangle of numbers ({error}).", _ANSWER
            ) from error
        if len(tensor) != len(x):
            raise UnsupportedModel(f"{self.shown} answers {len(tensor)} rows to {len(x)} inputs.", _ANSWER)
        return tensor if labels else tensor.float()

    def _post(self, body: dict[str, Any]) -> Any:
        httpx = require("httpx")
        failure = ""
        for attempt in range(self.retries + 1):
            try:
                # a user and password in the address become an Authorization header inside httpx
                reply = httpx.post(self.address, json=body, timeout=self.timeout)
            except httpx.HTTPError as error:
                failure = f"cannot be reached ({type(error).__name__})"  # its text may hold the address
            else:
                if reply.status_code < 400:
                    return self._decoded(reply.text)
                failure = f"answers with status {reply.status_code}"
                if reply.status_code not in _RETRIED:
                    break
            if attempt < self.retries:
                time.sleep(0.1 * 2**attempt)
        # no cause is chained: its text may hold the address with its secrets
        raise InputError(f"{self.shown} {failure}.", "Check that the service runs and takes POST requests.") from None

    def _decoded(self, text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise UnsupportedModel(f"{self.shown} does not answer with JSON.", _ANSWER) from None


_ANSWER = 'Answer {"scores": [[…], …]} (one row per input) or {"labels": […]}.'


def _read(answer: Any, shown: str) -> tuple[Any, bool]:
    """The values in an answer, and whether they are labels."""
    if isinstance(answer, list):
        return answer, all(isinstance(v, int) for v in answer)
    if isinstance(answer, dict):
        for key in _SCORES:
            if key in answer:
                values = answer[key]
                return values, isinstance(values, list) and all(isinstance(v, int) for v in values)
        for key in _LABELS:
            if key in answer:
                return answer[key], True
        raise UnsupportedModel(f"{shown} answers with the keys {sorted(answer)}.", _ANSWER)
    raise UnsupportedModel(f"{shown} answers with {type(answer).__name__}.", _ANSWER)


def from_http(
    url: str,
    domain: Domain | None,
    *,
    shape: tuple[int, ...] | None,
    classes: int | None = None,
    outputs: str = "auto",
    timeout: float = 30.0,
) -> Model:
    """A model behind an address; access SCORES, or LABEL where only labels come back (give `classes`).

    Needs the extra `http`. About 60 queries are spent on finding out what it is.
    """
    endpoint = Endpoint(url, timeout)
    return from_callable(
        endpoint, domain, shape=shape, classes=classes, outputs=outputs, backend="torch", name=endpoint.shown
    )
