"""Answers of AWS's that moto does not give."""

from collections.abc import Callable
from typing import Any

import botocore.client
import pytest
from botocore.exceptions import ClientError

from tests.requests_checked import refuse_misfit

Answer = Callable[[dict[str, Any]], Any]


class Answers:
    """What requests are answered in moto's place, by their operations; the requests are kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.made: list[tuple[str, dict[str, Any]]] = []
        self._given: dict[str, Answer] = {}
        by_moto = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined]

        def call(client: Any, operation: str, request: dict[str, Any]) -> Any:
            self.made.append((operation, request))
            answer = self._given.get(operation)
            if answer is None:
                return by_moto(client, operation, request)
            refuse_misfit(client.meta.service_model.operation_model(operation), request)
            return answer(request)

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)

    def give(self, operation: str, answer: Answer | dict[str, Any]) -> None:
        self._given[operation] = answer if callable(answer) else lambda _: answer

    def refuse(self, operation: str, code: str, message: str, status: int = 400, **headers: str) -> None:
        self._given[operation] = lambda _: refuse(operation, code, message, status, **headers)


def refuse(operation: str, code: str, message: str, status: int = 400, **headers: str) -> None:
    facts: Any = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    raise ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": facts}, operation)
