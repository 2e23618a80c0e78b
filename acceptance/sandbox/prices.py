"""What instances cost: moto has no price list, and says 0.00001 of every spot instance.

The prices are made up, but near the real ones: c5, m5 and r5 on demand within a tenth.
"""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

_CHANGE = timedelta(hours=6)  # how often a spot price changes
_HISTORY = timedelta(days=2)  # what is told if a request does not say since when; AWS tells 90 days
_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)


def on_demand_price(instance_type: str) -> float:
    """Dollars an hour, from cores and memory."""
    facts = INSTANCE_TYPES[instance_type]
    gibibytes = facts["MemoryInfo"]["SizeInMiB"] / 1024
    return float(round(0.037 * facts["VCpuInfo"]["DefaultVCpus"] + 0.00275 * gibibytes, 4))


def spot_price_history(
    region: str,
    instance_types: Iterable[str] = (),
    zone: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[dict[str, Any]]:
    """The changes of spot prices, newest first, as DescribeSpotPriceHistory has them.

    As on AWS, the price that was valid at `since` is among them, with the earlier time at which it began.
    """
    until = until or datetime.now(timezone.utc)
    since = min(since or until - _HISTORY, until)
    wanted = set(instance_types)
    offered = [
        (offering["InstanceType"], offering["Location"])
        for offering in INSTANCE_TYPE_OFFERINGS["availability-zone"][region]
        if (not wanted or offering["InstanceType"] in wanted) and zone in (None, offering["Location"])
    ]
    changes = range((since - _EPOCH) // _CHANGE, (until - _EPOCH) // _CHANGE + 1)
    return [
        {
            "InstanceType": instance_type,
            "ProductDescription": "Linux/UNIX",
            "SpotPrice": f"{on_demand_price(instance_type) * _spot_share(place, change):.6f}",
            "AvailabilityZone": place,
            "Timestamp": _EPOCH + change * _CHANGE,
        }
        for change in reversed(changes)
        for instance_type, place in offered
    ]


def _spot_share(zone: str, change: int) -> float:
    """The spot price's share of the on-demand price: about a third, other in each zone, and moving."""
    return 0.30 + 0.02 * (ord(zone[-1]) % 8) + 0.005 * (change % 4)


def get_products(request: dict[str, Any], region: str) -> dict[str, Any]:
    """Answer the pricing API's GetProducts for instances, in its shape: a list of JSON texts.

    https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html
    """
    wanted = {filter_["Field"]: filter_["Value"] for filter_ in request.get("Filters", [])}
    types = [wanted["instanceType"]] if "instanceType" in wanted else sorted(INSTANCE_TYPES)
    products = [
        product
        for instance_type in types
        if request.get("ServiceCode") == "AmazonEC2" and instance_type in INSTANCE_TYPES
        for product in _products(instance_type, region)
        if all(product["product"]["attributes"].get(field) == value for field, value in wanted.items())
    ]
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(p) for p in products[: request.get("MaxResults", 100)]]}


def _products(instance_type: str, region: str) -> list[dict[str, Any]]:
    """What AWS sells of a type: also with Windows, and against a capacity reservation, which is paid apart."""
    linux = on_demand_price(instance_type)
    cores = INSTANCE_TYPES[instance_type]["VCpuInfo"]["DefaultVCpus"]
    return [
        _product(instance_type, region, "Linux", "RunInstances", "Used", linux),
        _product(instance_type, region, "Linux", "RunInstances", "AllocatedCapacityReservation", 0),
        _product(instance_type, region, "Windows", "RunInstances:0002", "Used", linux + 0.046 * cores),
    ]


def _product(
    instance_type: str, region: str, system: str, operation: str, capacity_status: str, price: float
) -> dict[str, Any]:
    sku = f"{instance_type}-{system}-{capacity_status}".upper()
    offer, rate = f"{sku}.JRTCKXETXF", f"{sku}.JRTCKXETXF.6YS6EN2CT7"  # the codes of on demand, and of an hour
    usage = "BoxUsage" if capacity_status == "Used" else "Reservation"
    return {
        "product": {
            "productFamily": "Compute Instance",
            "attributes": {
                "servicecode": "AmazonEC2",
                "regionCode": region,
                "locationType": "AWS Region",
                "instanceType": instance_type,
                "operatingSystem": system,
                "operation": operation,
                "tenancy": "Shared",
                "preInstalledSw": "NA",
                "licenseModel": "No License required",
                "capacitystatus": capacity_status,
                "marketoption": "OnDemand",
                "usagetype": f"{usage}:{instance_type}",
                "vcpu": str(INSTANCE_TYPES[instance_type]["VCpuInfo"]["DefaultVCpus"]),
            },
            "sku": sku,
        },
        "serviceCode": "AmazonEC2",
        "terms": {
            "OnDemand": {
                offer: {
                    "priceDimensions": {
                        rate: {
                            "unit": "Hrs",
                            "beginRange": "0",
                            "endRange": "Inf",
                            "description": f"${price} per On Demand {system} {instance_type} Instance Hour",
                            "appliesTo": [],
                            "rateCode": rate,
                            "pricePerUnit": {"USD": f"{price:.10f}"},
                        }
                    },
                    "sku": sku,
                    "effectiveDate": "2026-01-01T00:00:00Z",
                    "offerTermCode": "JRTCKXETXF",
                    "termAttributes": {},
                }
            }
        },
        "version": "20260101000000",
        "publicationDate": "2026-01-01T00:00:00Z",
    }
