"""What an instance costs, in dollars an hour. An estimate: volumes, requests and traffic are not in it."""

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_SECONDS_AN_HOUR = 3600


class Price:
    """The price of an instance, or why it is not known."""

    def __init__(self, dollars_an_hour: float | None, unknown: str = ""):
        self.dollars_an_hour = dollars_an_hour
        self.unknown = unknown

    def of(self, seconds: float) -> float | None:
        """Dollars for so many seconds; None if the price is not known."""
        return None if self.dollars_an_hour is None else self.dollars_an_hour * seconds / _SECONDS_AN_HOUR


def price_of(ec2: "EC2Client", instance_type: str, zone: str, market: str) -> Price:
    """The price of an instance type in a zone, on the market `spot` or `on-demand`. It raises no error of AWS's."""
    try:
        dollars = _spot(ec2, instance_type, zone) if market == "spot" else _on_demand(ec2, instance_type)
    except (BotoCoreError, ClientError) as error:
        return Price(None, f"AWS gives no price: {error}")
    except (LookupError, ValueError) as error:
        return Price(None, f"AWS's answer has no price of {instance_type}: {error!r}")
    return Price(dollars)


def _spot(ec2: "EC2Client", instance_type: str, zone: str) -> float:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html"""
    history = ec2.describe_spot_price_history(
        InstanceTypes=[instance_type],  # type: ignore[list-item]
        AvailabilityZone=zone,
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.now(timezone.utc),  # that is, the price that is valid now
    )["SpotPriceHistory"]
    return float(max(history, key=lambda entry: entry["Timestamp"])["SpotPrice"])


def _on_demand(ec2: "EC2Client", instance_type: str) -> float:
    """https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html"""
    import boto3  # takes its time, which command lines have not
    from botocore.config import Config

    # The price list is served in few regions only, of which this is one, for all of them.
    # Nobody waits long for it.
    config = Config(retries={"total_max_attempts": 2}, connect_timeout=2, read_timeout=5)
    pricing = boto3.client("pricing", region_name="us-east-1", config=config)
    facts = {
        "regionCode": ec2.meta.region_name,
        "instanceType": instance_type,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    answer = pricing.get_products(
        ServiceCode="AmazonEC2",
        Filters=[{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in facts.items()],
    )
    (terms,) = json.loads(answer["PriceList"][0])["terms"]["OnDemand"].values()
    (dimension,) = terms["priceDimensions"].values()
    return float(dimension["pricePerUnit"]["USD"])
