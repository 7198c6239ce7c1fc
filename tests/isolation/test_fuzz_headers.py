"""Header blocks from outside: what goes on inside says only what the router itself says."""

from __future__ import annotations

import nats.errors
from hypothesis import given
from hypothesis import strategies as st

from tenantry.bus import Bus
from tenantry.bus.message import Message, fields
from tenantry.bus.protocol import publication
from tenantry.errors import Rejection
from tenantry.wire import headers as names
from tenantry.wire import trace
from tenantry_workers.router.admission import Admission, Forward
from tenantry_workers.router.directory import Directory
from tests.isolation.cases import Layer, can, cannot
from tests.unit.router.admitting import ACTIONS, INBOX, STANDARD, admission_of, tenant, verified

OF_THE_MESH = [
    *[names.CONTEXT, names.DEADLINE, names.ONLY, names.MESSAGE_ID, names.FENCE, names.COMMAND],
    *[names.TIMEOUT, names.MSG_ID, names.TTL, names.SCHEDULE, names.SCHEDULE_TARGET, names.DUE],
    *["Nats-Request-Info", "Nats-Rollup", "Nats-Expected-Last-Subject-Sequence", "Nats-Trace-Dest"],
    *["Status", "Description", "baggage", names.TRACEPARENT, names.TRACESTATE, names.RATE],
    *[names.ERROR, names.ERROR_CODE, "Tenant-Dead-Reason", "Tenant-Stored", "Tenant-Source"],
]
RESERVED = ("nats-", "tenant-")
SET_BY_THE_ROUTER = {
    *("tenant-context", "tenant-deadline", "tenant-timeout"),
    *("nats-msg-id", "nats-ttl"),
}


@st.composite
def spelt(draw: st.DrawFn) -> bytes:
    """A name of the mesh's, in some spelling."""
    name = draw(st.sampled_from(OF_THE_MESH))
    how = draw(st.sampled_from([str, str.lower, str.upper, str.title, str.swapcase]))
    around = st.sampled_from(["", "", "", " ", "\t", "\0", "\x0b", "\u200b", "\u00a0", "\ufeff"])
    return f"{draw(around)}{how(name)}{draw(around)}".encode()


lines = st.builds(
    lambda name, colon, value: name + colon + value,
    st.one_of(spelt(), st.binary(max_size=8), st.just(b"X-Own")),
    st.sampled_from([b": ", b":", b" : ", b"::", b"", b" "]),
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"7", b"forged", b"globex", b"a\nTenant-Context: b", b"\rNats-TTL: 1"]),
    ),
)
blocks = st.builds(
    lambda first, parts, end, last: first + end + b"".join(part + end for part in parts) + last,
    st.sampled_from([b"NATS/1.0", b"NATS/1.0 503 x", b"NATS/1.0\0", b"nats/1.0", b"", b"\xff"]),
    st.lists(lines, max_size=8),
    st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n\r\n"]),
    st.sampled_from([b"\r\n", b"", b"\r\n\r\n"]),
)


def admission() -> Admission:
    """The router's rules, with two tenants."""
    directory = Directory(Bus([]))
    directory.plans.rows["standard"] = STANDARD
    for name in ("acme", "globex"):
        directory.tenants.rows[name] = tenant(name)
    directory.actions |= ACTIONS
    return admission_of(directory)


def admitted(action: str, block: bytes) -> Forward | None:
    """What the router makes of it, as it does; None where it is refused."""
    message = Message(f"edge.acme.{action}", INBOX, b"{}", block)
    incoming = message.headers or {}
    hop = trace.extract(incoming) or trace.new()
    try:
        return admission().admit(message.subject, INBOX, incoming, 2, hop.child())
    except Rejection:
        return None


def on_the_wire(forward: Forward) -> bytes | None:
    """The header block as nats-server gets it; None where it can't be sent."""
    try:
        data = publication(forward.subject, b"{}", INBOX, forward.headers, 1 << 20)
    except nats.errors.BadHeaderError:
        return None
    line, rest = data.split(b"\r\n", 1)
    assert line.startswith(f"HPUB {forward.subject} {INBOX} ".encode())
    return rest[: int(line.split()[-2])]


def every_header(layer: Layer):  # type: ignore[no-untyped-def]
    """A try of each case of a header."""

    def mark(test):  # type: ignore[no-untyped-def]
        for case in (25, 26, 28, 29, 30, 33):
            test = cannot(case, layer)(test)
        return test

    return mark


@every_header(Layer.ROUTER)
@given(st.sampled_from(["orders.place", "orders.import"]), blocks)
def test_inside_only_the_router_says_what_the_mesh_goes_by(action: str, block: bytes) -> None:
    if (forward := admitted(action, block)) is None:
        return
    assert forward.subject.split(".")[1] == "acme"
    if (sent := on_the_wire(forward)) is None:
        return
    assert sent.startswith(b"NATS/1.0\r\n")
    assert sent.endswith(b"\r\n\r\n")
    inner = sent[len(b"NATS/1.0\r\n") : -4].split(b"\r\n")
    # A line is a line to everybody: none hides in a value, none comes twice, however it is spelt.
    assert all(not set(line) & set(b"\r\n") and b":" in line for line in inner)
    lower = [line.partition(b":")[0].decode().lower() for line in inner]
    assert len([name for name in lower if name in SET_BY_THE_ROUTER]) == len(
        {name for name in lower if name in SET_BY_THE_ROUTER}
    )
    assert {name for name in lower if name.startswith(RESERVED)} <= SET_BY_THE_ROUTER
    found = fields(sent) or {}
    assert verified(found[names.CONTEXT]).tenant == "acme"
    assert found.get(names.MSG_ID, "acme.e.").startswith("acme.e.")
    assert "baggage" not in lower
    assert lower.count("traceparent") == 1
    assert trace.extract(found) is not None


@can(25)
@can(26)
@can(28)
@can(29)
@can(33)
@given(st.dictionaries(st.from_regex(r"x-[a-z0-9]{1,9}", fullmatch=True), st.text("ab c;=/")))
def test_a_programs_own_headers_pass_as_they_are(own: dict[str, str]) -> None:
    block = "".join(f"{name}: {value}\r\n" for name, value in own.items())
    forward = admitted("orders.place", f"NATS/1.0\r\n{block}\r\n".encode())
    assert forward is not None
    kept = {name: value for name, value in forward.headers.items() if name.startswith("x-")}
    assert kept == {name: value.strip() for name, value in own.items()}
