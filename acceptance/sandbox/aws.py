"""AWS's API on this machine: moto's, which each caller reaches by a listener of its own."""

import html
import io
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import parse_qsl

from moto.ec2.models import ec2_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request, Response

from acceptance.sandbox.ec2 import ACCOUNT, CALLER_HEADER, REGION, Backend
from acceptance.sandbox.faults import Caller, Faults
from acceptance.sandbox.network import drop_connection
from acceptance.sandbox.permissions import Permissions, Tags
from acceptance.sandbox.prices import get_products
from acceptance.sandbox.quotas import get_service_quota
from tests.requests_checked import refusal_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


HOLD_SECONDS = 50
"""How long an answer to an instance is held back at most; its clients of S3 wait for 60 s."""


class Call(NamedTuple):
    """A call of the API, such as `RunInstances`, with its parameters as they were sent."""

    action: str
    params: dict[str, str]


@dataclass(frozen=True)
class _Awaited:
    """What is to be done as soon as an instance has stored an object with a text in its key, or in it if a message."""

    text: str
    do: Callable[[str], None]


class Api:
    """moto's API, as its callers see it.

    What it adds: calls that do not fit AWS's models are refused, and fail the test that runs; calls are noted, and
    refused or left without an answer as the faults say; calls of EC2 come in one at a time, for moto's data is not made
    for several threads, and hypervisor and moto must agree; on-demand prices and the values of quotas, which moto has
    not; and if wished, the policies of the callers' roles.
    """

    def __init__(self, faults: Faults, lock: threading.RLock, permissions: Permissions | None = None):
        self._faults, self._ec2_lock, self._permissions = faults, lock, permissions
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._awaited: list[_Awaited] = []

    @property
    def calls(self) -> list[Call]:
        """The calls of launchers, in order, also those that were refused."""
        with self._lock:
            return list(self._calls)

    def on_put(self, text: str, do: Callable[[str], None]) -> None:
        """Do something once, with the id of the instance, when one has stored an object with a text in its key, or in
        it if it is a message. The instance gets its answer when that is done, or after `HOLD_SECONDS`."""
        with self._lock:
            self._awaited.append(_Awaited(text, do))

    def app_for(self, caller: Caller, instance_id: str = "") -> "WSGIApplication":
        """The API as an app for one caller."""

        def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            environ["HTTP_" + CALLER_HEADER.upper().replace("-", "_")] = caller
            return self._answer(caller, instance_id, environ, start_response)

        return app

    def _answer(
        self, caller: Caller, instance_id: str, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if self._faults.cuts(instance_id) or (instance_id and not self._reaches(instance_id)):
            drop_connection(environ)
        if misfit := refusal_of(environ):
            return misfit(environ, start_response)
        request = Request(environ)
        service = _service(request)
        call = _call(service, request)
        if caller == "launcher":
            with self._lock:
                self._calls.append(call)
        if caller != "operator" and (refusal := self._faults.refuses(caller, call.action)):
            request.get_data()  # what was not read would be taken for the next request
            return _error(service, refusal)(environ, start_response)
        if caller == "instance" and self._faults.role_is_new():
            request.get_data()
            return _denied(service, request)(environ, start_response)
        permissions = self._permissions if caller != "operator" and not _is_of_no_bucket(service, call) else None
        asked = (caller, service, call.action, call.params)
        if permissions and (denied := permissions.denied(*asked, self._tags_of, _key_of, _owner_of)):
            request.get_data()
            return _denied(service, request, denied[0].action)(environ, start_response)
        if own := self._own_answer(service, request):
            return own(environ, start_response)
        with self._ec2_lock if service == "ec2" else nullcontext():
            body, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
        missing = service == "s3" and status.startswith("404")
        if permissions and missing and permissions.hides(caller, call.action, call.params["Bucket"]):
            return _denied(service, request)(environ, start_response)
        if caller == "instance" and call.action == "PutObject" and status.startswith("200"):
            self._note_stored(instance_id, call.params["Bucket"], call.params["Key"])
        if self._faults.loses_answer(caller, call.action) or self._faults.cuts(instance_id):
            drop_connection(environ)
        start_response(status, headers.to_wsgi_list())
        return body

    def _own_answer(self, service: str, request: Request) -> Response | None:
        """The answer of a service that moto does not play, or not as AWS has it; None of the others."""
        if service == "pricing":
            return _json(get_products(json.loads(request.get_data()), REGION))
        if service == "servicequotas":
            answer = get_service_quota(json.loads(request.get_data()), self._faults.vcpus)
            none = {"__type": "NoSuchResourceException", "message": "The specified resource does not exist."}
            return _json(none, 400) if answer is None else _json(answer)
        return None

    @staticmethod
    def _reaches(instance_id: str) -> bool:
        """Whether an instance has a way to the API."""
        backend = cast(Backend, ec2_backends[ACCOUNT][REGION])
        return backend.hypervisor.find(instance_id).reaches_s3

    def _tags_of(self, name: str) -> Tags:
        """The tags of what has an id of EC2's; none of an instance that EC2 does not know yet."""
        backend = cast(Backend, ec2_backends[ACCOUNT][REGION])
        launched = [instance for instance in backend.hypervisor.instances if instance.id == name]
        if any(self._faults.hides(instance.age) for instance in launched):
            return {}
        return dict(backend.tags.get(name, {}))

    def _note_stored(self, instance_id: str, bucket: str, key: str) -> None:
        """Do what awaits an object that an instance has stored."""
        stored = s3_backends[ACCOUNT]["aws"].get_object(bucket, key) if "/messages/" in key else None
        message = stored.value.decode() if stored else ""
        with self._lock:
            due = [awaited for awaited in self._awaited if awaited.text in key or awaited.text in message]
            self._awaited = [awaited for awaited in self._awaited if awaited not in due]
        for awaited in due:
            thread = threading.Thread(target=awaited.do, args=(instance_id,), daemon=True)
            thread.start()
            # The job is not beyond it before it is done; not for ever, as it may be the end of the machine that asks.
            thread.join(timeout=HOLD_SECONDS)


def _service(request: Request) -> str:
    """The service that a request is for, which its signature names; only S3 takes unsigned ones."""
    # "AWS4-HMAC-SHA256 Credential=KEY/20260101/us-east-1/ec2/aws4_request, …"
    scope = request.headers.get("Authorization", "").split(",")[0].split("/")
    return scope[3] if len(scope) == 5 else "s3"


def _call(service: str, request: Request) -> Call:
    """The action of a request, and its parameters."""
    if target := request.headers.get("X-Amz-Target"):
        body = request.get_data()
        request.environ["wsgi.input"] = io.BytesIO(body)  # for moto reads it as well
        texts = {name: value for name, value in json.loads(body or "{}").items() if isinstance(value, str)}
        return Call(target.rpartition(".")[2], texts)
    if service != "s3":
        body = request.get_data()
        request.environ["wsgi.input"] = io.BytesIO(body)  # for moto reads it as well
        params = dict(parse_qsl(body.decode(), keep_blank_values=True))
        return Call(params.pop("Action", ""), params)
    bucket, _, key = request.path.lstrip("/").partition("/")
    action, named = _s3_action(request, key), {"Bucket": bucket, "Key": key}
    if action == "DeleteObjects":
        body = request.get_data()
        request.environ["wsgi.input"] = io.BytesIO(body)
        named["Keys"] = "\n".join(html.unescape(key) for key in re.findall("<Key>(.*?)</Key>", body.decode()))
    return Call(action, {**named, **request.args})


def _is_of_no_bucket(service: str, call: Call) -> bool:
    """Whether a call is for a bucket that does not exist, which S3 says to everybody."""
    return service == "s3" and call.params["Bucket"] not in s3_backends[ACCOUNT]["aws"].buckets


def _key_of(bucket: str) -> str:
    """The ARN of the KMS key of the account's own by which a bucket encrypts; empty if it does not."""
    found = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    rule = ((found and found.encryption) or {}).get("Rule", {}).get("ApplyServerSideEncryptionByDefault", {})
    return str(rule.get("KMSMasterKeyID", "")) if rule.get("SSEAlgorithm", "").startswith("aws:kms") else ""


def _owner_of(image: str) -> str:
    """The owner of an image, as `ec2:Owner` has it: AWS's alias where the owner has one, and not the account's id."""
    found = ec2_backends[ACCOUNT][REGION].amis.get(image)
    return str(found.owner_alias or found.owner_id) if found else ""


def _s3_action(request: Request, key: str) -> str:
    """The name of an S3 request, of which the common ones are told apart."""
    asked = request.args
    if key:
        if request.method == "POST":
            return "CreateMultipartUpload" if "uploads" in asked else "CompleteMultipartUpload"
        if request.method == "PUT" and "partNumber" in asked:
            return "UploadPart"
        if request.method == "DELETE" and "uploadId" in asked:
            return "AbortMultipartUpload"
        return f"{request.method.title()}Object"
    if request.method == "GET" and "encryption" in asked:
        return "GetBucketEncryption"
    if request.method == "POST" and "delete" in asked:
        return "DeleteObjects"
    if request.method == "GET" and "uploads" in asked:
        return "ListMultipartUploads"
    return "ListObjectsV2" if request.method == "GET" and "list-type" in asked else f"{request.method.title()}Bucket"


def _denied(service: str, request: Request, action: str = "") -> Response:
    """What a caller is answered who may not make a request.

    Args:
        service: The service that is asked.
        request: The request.
        action: What may not be done, which S3 names if it is done to a KMS key.
    """
    if service == "ec2":
        xml = "<Error><Code>UnauthorizedOperation</Code><Message>You are not authorized.</Message></Error>"
        body = f"<Response><Errors>{xml}</Errors><RequestID>sandbox</RequestID></Response>"
        return Response(body, 403, mimetype="text/xml")
    if service != "s3":
        return _json({"__type": "AccessDeniedException", "message": "not authorized"}, 400)
    said = "Access Denied"
    if action.startswith("kms:"):
        said = (
            f"User is not authorized to perform: {action} because no identity-based policy allows the {action} action"
        )
    xml = f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>"
    return Response("" if request.method == "HEAD" else xml, 403, mimetype="application/xml")


def _error(service: str, kind: str) -> Response:
    """A refusal, as a service words it. Real ones have another wording for each cause; SDKs look at code and status."""
    if service == "s3":
        # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
        xml = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        return Response(xml, 503, mimetype="application/xml")
    if service == "ec2":
        # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
        code, message, status = {
            "throttle": ("RequestLimitExceeded", "Request limit exceeded.", 503),
            "server_error": ("InternalError", "An internal error has occurred", 500),
        }[kind]
        xml = f"<Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        return Response(f"<Response>{xml}<RequestID>sandbox</RequestID></Response>", status, mimetype="text/xml")
    code, status = {"throttle": ("ThrottlingException", 400), "server_error": ("InternalServerError", 500)}[kind]
    return _json({"__type": code, "message": code}, status)


def _json(answer: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(answer), status, mimetype="application/x-amz-json-1.1")
