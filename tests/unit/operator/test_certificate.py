from __future__ import annotations

import base64

import msgspec
import pytest

from tenantry.errors import SetupError
from tenantry.messages import VerifyKey
from tenantry.operator import certificate
from tenantry.operator.keys import KeyPair, Kind

ROOT = KeyPair.generate(Kind.ACCOUNT)
KEY = VerifyKey(kid="k1", key="A" * 43, created=1.0, active=2.0, serial=3)


def certified(record: VerifyKey, root: KeyPair = ROOT) -> VerifyKey:
    return certificate.certified(record, root.public_key)


def with_certificate(text: str) -> VerifyKey:
    return msgspec.structs.replace(KEY, certificate=text)


def test_what_was_certified_is_read() -> None:
    assert certified(certificate.certify(KEY, ROOT)) == certificate.certify(KEY, ROOT)


def test_what_is_certified_anew_has_no_former_certificate_inside() -> None:
    once = certificate.certify(KEY, ROOT)
    assert certificate.certify(once, ROOT) == once


@pytest.mark.parametrize("change", [{"kid": "k2"}, {"key": "B" * 43}, {"revoked": 5.0}])
def test_what_stands_beside_the_certificate_is_not_read(change: dict[str, object]) -> None:
    record = msgspec.structs.replace(certificate.certify(KEY, ROOT), **change)
    assert certified(record) == certificate.certify(KEY, ROOT)


def test_the_certificate_of_another_root_is_refused() -> None:
    with pytest.raises(SetupError, match="not of our root"):
        certified(certificate.certify(KEY, KeyPair.generate(Kind.ACCOUNT)))


@pytest.mark.parametrize("root", ["", "A", "garbage", "A" * 56])
def test_what_is_no_root_certifies_nothing(root: str) -> None:
    with pytest.raises(SetupError):
        certificate.certified(certificate.certify(KEY, ROOT), root)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b", "AAAA", "AAAA.AAAA", "é.é", "e30=.AAAA"])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(SetupError):
        certified(with_certificate(text))


def test_a_changed_payload_breaks_the_signature() -> None:
    payload, signature = certificate.certify(KEY, ROOT).certificate.split(".")
    changed = base64.urlsafe_b64decode(payload).replace(b'"serial":3', b'"serial":4')
    text = f"{base64.urlsafe_b64encode(changed).decode()}.{signature}"
    with pytest.raises(SetupError, match="not of our root"):
        certified(with_certificate(text))


def test_what_the_root_signs_for_another_purpose_is_no_certificate() -> None:
    payload = msgspec.json.encode(KEY)
    parts = (base64.urlsafe_b64encode(each).decode() for each in (payload, ROOT.sign(payload)))
    with pytest.raises(SetupError, match="not of our root"):
        certified(with_certificate(".".join(parts)))
