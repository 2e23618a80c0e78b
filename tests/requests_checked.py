"""Every request to AWS is checked by `request_models`: those of clients in this process before they are sent, and those
of other processes where moto's server gets them.
"""

import functools
import io
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from tests.request_models import misfits_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

# What AWS would have refused, since it was last asked: a test fails by it, whoever has caught the error.
found: list[str] = []

_SERVICES = {"servicequotas": "service-quotas"}  # that sign by another name
_OF_MOTO = ("/moto-api", "/latest/", "/favicon.ico")  # no service of AWS's
_SERVER = "moto.moto_server.threaded_moto_server"


_is_on = True


class MisfitRequest(AssertionError):
    """A request is not such as AWS takes it."""


def refuse_misfit(operation: Any, params: dict[str, Any]) -> None:
    """Refuse a request that does not fit the model of its operation.

    Raises:
        MisfitRequest: It doesn't.
    """
    misfits = misfits_of(operation, params) if _is_on else []
    if misfits:
        found.extend(misfits)
        raise MisfitRequest("; ".join(misfits))


@contextmanager
def requests_unchecked() -> Iterator[None]:
    """Let requests pass that AWS refuses, for tests of what then refuses them."""
    with mock.patch.dict(globals(), _is_on=False):
        yield


@contextmanager
def every_request_checked() -> Iterator[None]:
    """Check the requests of all clients of botocore in this process, and those that its servers of moto's get."""
    from botocore.client import BaseClient

    serialize = BaseClient._convert_to_request_dict  # type: ignore[attr-defined]

    @functools.wraps(serialize)
    def checked(client: Any, api_params: dict[str, Any], operation_model: Any, *more: Any, **named: Any) -> Any:
        request = serialize(client, api_params, operation_model, *more, **named)  # which checks what botocore does
        refuse_misfit(operation_model, api_params)
        return request

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(BaseClient, "_convert_to_request_dict", checked))
        # It takes a second to import, and test modules that use it have been imported by now.
        if server := sys.modules.get(_SERVER):
            apps = server.DomainDispatcherApplication
            patches.enter_context(
                mock.patch.object(server, "DomainDispatcherApplication", lambda create: _checked_app(apps(create)))
            )
        yield


def _checked_app(app: "WSGIApplication") -> "WSGIApplication":
    def checked(environ: "WSGIEnvironment", start_response: Any) -> Any:
        refusal = refusal_of(environ)
        return (refusal or app)(environ, start_response)

    return checked


def refusal_of(environ: "WSGIEnvironment") -> "WSGIApplication | None":
    """What AWS answers to a request that does not fit its model; None if it fits, or is for no service of AWS's."""
    from moto.core.request import Request
    from moto.core.routing import get_service_router
    from werkzeug.exceptions import NotFound

    request = Request(environ, populate_request=False)
    service = _service(request)
    if request.path.startswith(_OF_MOTO):
        return None
    if service != "s3":  # whose objects are not read twice; all else in a request of S3's is small
        environ["wsgi.input"] = io.BytesIO(request.get_data())
    try:
        operation, of_path = get_service_router(service).match(request)
    except NotFound:
        return None  # which moto answers
    try:
        refuse_misfit(operation, _params(operation, of_path, request))
    except MisfitRequest as misfit:
        request.get_data()  # what was not read would be taken for the next request
        return _refusal(service, str(misfit))
    return None


def _service(request: Any) -> str:
    """The service that a request is for, which its signature names; only S3 takes unsigned ones."""
    # "AWS4-HMAC-SHA256 Credential=KEY/20260101/us-east-1/ec2/aws4_request, …"
    scope = request.headers.get("Authorization", "").split(",")[0].split("/")
    name = scope[3] if len(scope) == 5 else "s3"
    return _SERVICES.get(name, name)


def _params(operation: Any, of_path: dict[str, Any], request: Any) -> dict[str, Any]:
    """The parameters of a request, by the names that its model gives them."""
    from moto.core.parse import PROTOCOL_PARSERS
    from moto.core.request import determine_request_protocol

    body = b""
    if not operation.has_streaming_input:
        body = request.get_data()
        request.environ["wsgi.input"] = io.BytesIO(body)
    parser = PROTOCOL_PARSERS[determine_request_protocol(operation.service_model, request.content_type)]
    asked = {
        "method": request.method,
        "values": request.values if operation.service_model.service_name != "s3" else request.args,
        "headers": request.headers,
        "body": body,
        "url_path": request.path,
        "url_params": of_path,
    }
    parsed: dict[str, Any] = parser(operation).parse(asked)
    return parsed


def _refusal(service: str, why: str) -> "WSGIApplication":
    """A refusal in the form of a service's errors."""
    from werkzeug.wrappers import Response

    error = f"<Error><Code>ValidationError</Code><Message>{why.translate(_IN_XML)}</Message></Error>"
    if service == "s3":
        return Response(error, 400, mimetype="application/xml")
    if service in ("ec2", "iam", "sts", "sns"):
        of_ec2 = f"<Response><Errors>{error}</Errors><RequestID>checked</RequestID></Response>"
        of_others = f"<ErrorResponse>{error}<RequestId>checked</RequestId></ErrorResponse>"
        return Response(of_ec2 if service == "ec2" else of_others, 400, mimetype="text/xml")
    answer = json.dumps({"__type": "ValidationException", "message": why})
    return Response(answer, 400, mimetype="application/x-amz-json-1.1")


_IN_XML = str.maketrans({"<": "&lt;", "&": "&amp;"})
