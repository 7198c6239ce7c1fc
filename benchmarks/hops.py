"""A bare responder that does more with a message's tenant context from variant to variant.

python -m benchmarks.hops URL SEED

`SEED` (hex) makes the key that the contexts are signed with. The variants are subjects
`<variant>.<tenant>.bench.echo`: see :data:`VARIANTS`. All decode the message and answer with it.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec
import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.echo import Echo
from tenantry.context.claims import Claims
from tenantry.context.token import KeyRing, Minter, Trusted
from tenantry.wire import headers

KID = "bench"
VARIANTS = {
    "plain": "no headers",
    "again": "no headers once more: the A/A control",
    "opaque": "a trace and a signed context, at which nobody looks",
    "unsigned": "the context is decoded each time and held against the subject, not verified",
    "signed": "it is verified as a worker does: once, and then remembered by its text",
    "fresh": "it is verified each time",
}


def mint(seed: bytes) -> str:
    """A context of the tenant `acme`, signed by this seed's key, that outlasts any run."""
    minter = Minter(KID, seed, lifetime=24 * 3600.0)
    return minter.mint(
        "acme", "standard", "program@acme.example", roles=("member",), retention=86_400
    )


def ring(seed: bytes) -> KeyRing:
    """What verifies the contexts that are signed with this seed's key."""
    keys = KeyRing()
    keys.replace({KID: Trusted(Minter(KID, seed).public_key)})
    return keys


def checks(seed: bytes) -> dict[str, Callable[[Msg], object]]:
    """What each variant does with a message besides the work."""
    keys, decode = ring(seed), msgspec.json.Decoder(Claims).decode

    def token(message: Msg) -> tuple[str, str]:
        return (message.headers or {})[headers.CONTEXT], message.subject.split(".", 2)[1]

    def unsigned(message: Msg) -> None:
        text, tenant = token(message)
        body = text.split(".")[1]
        if decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))).tenant != tenant:
            raise RuntimeError("the context is of another tenant")

    def signed(message: Msg) -> None:
        keys.verify(*token(message), time.time())

    def fresh(message: Msg) -> None:
        ring(seed).verify(*token(message), time.time())

    def nothing(_message: Msg) -> None:
        pass

    looks = {"unsigned": unsigned, "signed": signed, "fresh": fresh}
    return {name: looks.get(name, nothing) for name in VARIANTS}


async def serve(client: Client, seed: bytes) -> None:
    """One subscription for each variant."""
    decode = msgspec.json.Decoder(Echo).decode

    def echo(look: Callable[[Msg], object]) -> Callable[[Msg], Awaitable[None]]:
        async def answer(message: Msg) -> None:
            look(message)
            await client.publish(message.reply, msgspec.json.encode(decode(message.data)))

        return answer

    for name, look in checks(seed).items():
        await client.subscribe(f"{name}.*.bench.echo", cb=echo(look))


async def main(url: str, seed: str) -> None:
    """Serve until the process is ended."""
    client = await nats.connect(url)
    await serve(client, bytes.fromhex(seed))
    await client.flush()
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
