"""What an account may have at a time: moto has the quotas' names, and not their values."""

from collections.abc import Callable, Mapping
from typing import Any

from acceptance.sandbox.hypervisor import Market

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-resource-limits.html
_MARKETS: dict[tuple[str, str], Market] = {("ec2", "L-34B43A08"): "spot", ("ec2", "L-1216C47A"): "on-demand"}


def get_service_quota(request: Mapping[str, str], vcpus: Callable[[Market], int]) -> dict[str, Any] | None:
    """What AWS answers to GetServiceQuota; None for a quota that it does not have.

    https://docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_GetServiceQuota.html

    Args:
        request: The parameters.
        vcpus: Gives how many vCPUs the account may have at a time on a market.
    """
    market = _MARKETS.get((request["ServiceCode"], request["QuotaCode"]))
    if market is None:
        return None
    code = {"ServiceCode": request["ServiceCode"], "QuotaCode": request["QuotaCode"]}
    return {"Quota": {**code, "Value": float(vcpus(market)), "Unit": "None", "Adjustable": True, "GlobalQuota": False}}
