"""The ways in which building an image can fail."""


class BuildFailed(Exception):
    """No image was made.

    Attributes:
        builder: The id of the builder, if there was one. It is ended.
        log: Where its log is, if it has one.
    """

    def __init__(self, what: str, builder: str | None = None, log: str | None = None):
        self.builder = builder
        self.log = log
        facts = ", ".join(f"{name} {value}" for name, value in {"builder": builder, "log": log}.items() if value)
        super().__init__(f"{type(self).__name__}: {what}" + (f" [{facts}]" if facts else ""))


class NoBaseImage(BuildFailed):
    """There is no Debian image to begin with."""


class BuilderSilent(BuildFailed):
    """The builder stopped and left no status: it did not come as far as provisioning."""


class BuilderLost(BuildFailed):
    """The builder was ended by somebody, or by AWS."""


class ProvisioningFailed(BuildFailed):
    """The provisioning script failed."""


class ImageDenied(BuildFailed):
    """Whoever builds may not make an image of the builder; it was asked before the builder was provisioned."""


class BuildOverdue(BuildFailed):
    """The build took longer than it may."""


class ImageFailed(BuildFailed):
    """AWS could not make an image of the builder."""
