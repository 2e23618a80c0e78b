"""What S3 answers to those who may use a bucket, but not the KMS key by which it encrypts.

To read an object takes `kms:Decrypt` on the key, to write one `kms:GenerateDataKey`, and to write one in parts both.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
"""

import re

WAY_OUT = (
    "The bucket encrypts by a KMS key of your own: allow kms:Decrypt and kms:GenerateDataKey on it to this role, as"
    " ami/iam/kms.json does, and allow the role in the key's own policy."
)


def is_denied(message: str) -> bool:
    """Whether it is the key that S3's caller may not use, by the message of S3's 403."""
    return re.search(r"\bkms:|\bciphertext refers to a customer master key\b", message) is not None
