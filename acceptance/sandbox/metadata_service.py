"""The instance metadata service, version 2, of one instance.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
"""

import json
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request, Response

from acceptance.sandbox.hypervisor import Instance

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_TIME = "%Y-%m-%dT%H:%M:%SZ"


class MetadataService:
    """An app that answers the questions of one instance about itself."""

    def __init__(self, instance: Instance):
        self._instance = instance
        self._tokens: set[str] = set()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.method == "PUT" and request.path == "/latest/api/token":
            # A token must be asked for with its time to live.
            if "X-aws-ec2-metadata-token-ttl-seconds" not in request.headers:
                return Response(status=400)
            self._tokens.add(token := secrets.token_urlsafe(32))
            return Response(token)
        # Version 1, in which no token is needed, is switched off, as with HttpTokens=required.
        if request.headers.get("X-aws-ec2-metadata-token") not in self._tokens:
            return Response(status=401)
        said = self._said(request.path.removeprefix("/latest/").rstrip("/"))
        return Response(status=404) if said is None else Response(said)

    def _said(self, path: str) -> str | bytes | None:
        """What there is at a path; None for nothing."""
        about, role = self._instance.about, self._instance.role
        if path.startswith("meta-data/tags/instance"):
            # Only if the launch asked for it, with InstanceMetadataTags=enabled.
            tags = self._instance.tags if about.metadata_options.instance_metadata_tags == "enabled" else {}
            key = path.removeprefix("meta-data/tags/instance").lstrip("/")
            return tags.get(key) if key else "\n".join(tags) or None
        if role and path.startswith("meta-data/iam/security-credentials"):
            name = path.removeprefix("meta-data/iam/security-credentials").lstrip("/")
            return {"": role, role: self._credentials()}.get(name)
        notice = self._instance.notice
        said = {
            "dynamic/instance-identity/document": self._identity(),
            "user-data": self._instance.user_data,
            "meta-data/ami-id": about.image_id,
            "meta-data/hostname": about.private_dns_name,
            "meta-data/instance-id": self._instance.id,
            "meta-data/instance-type": self._instance.type,
            "meta-data/instance-life-cycle": self._instance.market,
            "meta-data/local-hostname": about.private_dns_name,
            "meta-data/local-ipv4": about.private_ip_address,
            "meta-data/placement/availability-zone": about.availability_zone,
            "meta-data/placement/region": about.region_name,
            # Until an interruption is announced there is nothing at these.
            "meta-data/spot/instance-action": notice
            and json.dumps({"action": "terminate", "time": notice.strftime(_TIME)}),
            "meta-data/spot/termination-time": notice and notice.strftime(_TIME),
        }
        return said.get(path)

    def _identity(self) -> str:
        about = self._instance.about
        return json.dumps(
            {
                "accountId": about.owner_id,
                "architecture": about.architecture,
                "availabilityZone": about.availability_zone,
                "imageId": about.image_id,
                "instanceId": about.id,
                "instanceType": about.instance_type,
                "pendingTime": about.launch_time.strftime(_TIME),
                "privateIp": about.private_ip_address,
                "region": about.region_name,
                "version": "2017-09-30",
            }
        )

    def _credentials(self) -> str:
        now = datetime.now(timezone.utc)
        return json.dumps(
            {
                "Code": "Success",
                "LastUpdated": now.strftime(_TIME),
                "Type": "AWS-HMAC",
                "AccessKeyId": "ASIASANDBOX000000000",
                "SecretAccessKey": "sandbox",
                "Token": "sandbox",
                "Expiration": (now + timedelta(hours=6)).strftime(_TIME),
            }
        )
