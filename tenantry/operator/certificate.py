"""Certificates of verify keys: what makes workers believe a record in the bucket `keys`.

Any process of the mesh that gets bytes of its choice into that bucket could else add a key of its
own, or bring back one that was revoked. So the whole of a record is signed by the root of the
context keys, whose public half every worker has from its own credentials.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from tenantry.errors import SetupError
from tenantry.messages import VerifyKey
from tenantry.operator.keys import KeyPair, verify

_PURPOSE = b"tenantry-verify-key\n"
"""So that what the root signs for another purpose can never be taken for a verify key."""

_decode = msgspec.json.Decoder(VerifyKey).decode


def certify(key: VerifyKey, root: KeyPair) -> VerifyKey:
    """The record with its certificate."""
    payload = msgspec.json.encode(msgspec.structs.replace(key, certificate=""))
    signature = root.sign(_PURPOSE + payload)
    text = f"{_b64(payload)}.{_b64(signature)}"
    return msgspec.structs.replace(key, certificate=text)


def certified(record: VerifyKey, root: str) -> VerifyKey:
    """What the certificate says, whatever stands beside it. Raises SetupError without a good one.

    `root` is the root's public key.
    """
    try:
        payload, signature = (_unb64(part) for part in record.certificate.split("."))
        genuine = verify(root, _PURPOSE + payload, signature)
        key = _decode(payload)
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise SetupError(f"the verify key {record.kid!r} has no certificate") from error
    if not genuine:
        raise SetupError(f"the certificate of the verify key {record.kid!r} is not of our root")
    return msgspec.structs.replace(key, certificate=record.certificate)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text, altchars=b"-_", validate=True)
