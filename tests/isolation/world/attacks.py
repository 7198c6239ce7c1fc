"""Everything that a tenant with good credentials can try against another one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from tenantry.operator.keys import KeyPair, Kind
from tests.isolation.attacker import Wire, sign
from tests.isolation.world.customer import Customer

ACTIONS = ("vault.read", "vault.store", "vault.keep", "vault.poison", "vault.archived")
STREAMS = (
    "JOURNAL",
    "DEAD",
    "SCHEDULES",
    "TIMERS",
    "AUDIT",
    "KV_state",
    "KV_tenants",
    "KV_keys",
    "KV_checkpoints",
)
GROUPS = ("", "router", "vault")
_BODY = json.dumps({"text": "planted", "name": "planted"}).encode()


class Attacker:
    """One tenant's credentials in the wrong hands; counts what it tries, by kind."""

    def __init__(self, own: Customer, victim: str, trace: str) -> None:
        self.own = own
        self.victim = victim
        self.attempts: Counter[str] = Counter()
        self._trace = trace

    async def everything(self) -> None:
        """Try each way once."""
        async for kind, _ in self._all():
            self.attempts[kind] += 1

    async def _all(self) -> AsyncIterator[tuple[str, bool]]:
        for subject in self._listening():
            for group in GROUPS:
                yield "listen", await (await self._wire()).subscribe(subject, group)
        for subject, body in self._talking():
            reply = f"_INBOX.{self.own.tenant}.loot"
            yield "publish", await (await self._wire()).publish(subject, body, reply=reply)
        for reply in self._replies():
            for action in ACTIONS:
                yield "reply", await self._send(action, reply=reply)
        for block in self._headers():
            for action in ACTIONS:
                yield "headers", await self._send(action, block=block)
        for subject in self._beside():
            yield (
                "subject",
                await (await self._wire()).publish(
                    subject, _BODY, reply=f"_INBOX.{self.own.tenant}.loot"
                ),
            )
        for body in self._bodies():
            yield "body", await self._send("vault.keep", body=body)
        for jwt, seed in self._logins():
            yield "login", await self._login(jwt, seed)

    async def _wire(self) -> Wire:
        return await self.own.connected()

    async def _send(
        self, action: str, *, reply: str = "", block: str = "", body: bytes = _BODY
    ) -> bool:
        own = self.own.tenant
        return await (await self._wire()).publish(
            f"tenant.{own}.{action}",
            body,
            reply=reply or f"_INBOX.{own}.loot",
            block=f"NATS/1.0\r\n{block}\r\n".encode() if block else b"",
        )

    # --- ways --------------------------------------------------------------------------------

    def _listening(self) -> Iterator[str]:
        victim = self.victim
        yield from (">", "*", "*.>", "*.*.*.*", "_INBOX.>", "_INBOX.*.>", f"_INBOX.{victim}.>")
        yield from (f"_INBOX.{victim}", f"_INBOX.{self.own.tenant}*.>", "_INBOX.*.0")
        for root in ("tenant", "edge", "request", "journal", "dead", "schedule", "timer", "due"):
            yield from (
                f"{root}.>",
                f"{root}.{victim}.>",
                f"{root}.*.vault.*",
                f"{root}.*.{victim}.>",
            )
        yield from ("$JS.>", "$JS.EVENT.>", "$KV.>", f"$KV.state.{victim}.>", "$SYS.>", "$SRV.>")
        yield from ("_MESH.>", "platform.>", "stats.tenants", "audit.>", "$O.>", "_R_.>")

    def _talking(self) -> Iterator[tuple[str, bytes]]:
        victim = self.victim
        for action in ACTIONS:
            for root in ("tenant", "edge", "request", "journal.3"):
                yield f"{root}.{victim}.{action}", _BODY
        for stream in STREAMS:
            for verb in ("INFO", "PURGE", "DELETE", "UPDATE", "SNAPSHOT", "RESTORE", "MSG.GET"):
                yield f"$JS.API.STREAM.{verb}.{stream}", b'{"seq":1}'
            yield f"$JS.API.STREAM.MSG.DELETE.{stream}", b'{"seq":1}'
            yield f"$JS.API.DIRECT.GET.{stream}", b'{"seq":1}'
            yield f"$JS.API.DIRECT.GET.{stream}.journal.0.{victim}.vault.store", b""
            yield f"$JS.API.CONSUMER.LIST.{stream}", b""
            yield (
                f"$JS.API.CONSUMER.CREATE.{stream}.loot.>",
                b'{"stream_name":"JOURNAL","config":{}}',
            )
            yield f"$JS.API.CONSUMER.MSG.NEXT.{stream}.tenants-letters", b"1"
            yield f"$JS.ACK.{stream}.tenants-letters.1.1.1.1.0", b"+TERM"
        yield from (
            ("$JS.API.INFO", b""),
            ("$JS.API.STREAM.NAMES", b""),
            ("$JS.API.STREAM.LIST", b""),
        )
        yield "$JS.API.STREAM.CREATE.LOOT", b'{"name":"LOOT","sources":[{"name":"JOURNAL"}]}'
        yield f"$KV.state.{victim}.vault.values.value", _BODY
        yield f"$KV.tenants.{self.own.tenant}", b'{"plan":"business"}'
        yield "$KV.keys.context.deadbeef", b"{}"
        for action in ("list", "show", "delete", "issue_context", "issue_credentials", "suspend"):
            yield f"platform.tenants.{action}", json.dumps({"id": victim}).encode()
        yield "platform.router.renew_context", b'{"token":"x","seq":1}'
        yield from ((f"$SRV.{verb}", b"") for verb in ("PING", "INFO", "STATS", "INFO.vault"))
        yield from (
            ("stats.tenants", b"{}"),
            ("$SYS.REQ.SERVER.PING", b""),
            (f"_INBOX.{victim}.0", _BODY),
        )
        yield f"dead.{victim}.vault.1", _BODY
        yield f"schedule.{victim}.vault.{'0' * 32}", _BODY

    def _replies(self) -> Iterator[str]:
        victim = self.victim
        yield from (
            f"_INBOX.{victim}.0",
            f"_INBOX.{self.own.tenant}",
            f"_INBOX.{self.own.tenant}x.0",
        )
        yield from (f"tenant.{victim}.vault.store", f"request.{victim}.vault.keep")
        yield from (f"$KV.state.{victim}.vault.values.value", "$JS.API.STREAM.PURGE.JOURNAL")
        yield from ("$JS.API.STREAM.DELETE.KV_state", "_MESH.x.0", "_INBOX.>", f"_INBOX.{victim}.>")
        yield from ("platform.tenants.list", f"dead.{victim}.vault.1", "_R_.x", "$JS.ACK.JOURNAL.x")

    def _headers(self) -> Iterator[str]:
        victim, forged = self.victim, _forged(self.victim)
        for name in ("Tenant-Context", "tenant-context", "TENANT-CONTEXT", "Tenant-Context "):
            yield f"{name}: {forged}\r\n"
        yield f"Tenant-Context: x\r\nTenant-Context: {forged}\r\n"
        yield f"X: y\r\n Tenant-Context: {forged}\r\n"
        yield from (f"Nats-Msg-Id: {victim}.e.1\r\n", *(f"Nats-Msg-Id: {n}\r\n" for n in range(9)))
        yield from (f"Tenant-Only: {victim}\r\n", "Tenant-Fence: 99999999999999\r\n")
        yield from (
            "Tenant-Message-Id: journal:1\r\n",
            "Tenant-Source: x.1\r\n",
            "Nats-Rollup: all\r\n",
        )
        yield from (
            "Nats-TTL: 1s\r\n",
            "Nats-Expected-Last-Sequence: 0\r\n",
            "Nats-Stream: JOURNAL\r\n",
        )
        yield f'Nats-Request-Info: {{"acc":"MESH","user":"{victim}"}}\r\n'
        yield f"Nats-Trace-Dest: _INBOX.{self.own.tenant}.trace\r\nNats-Trace-Only: true\r\n"
        yield f"traceparent: 00-{self._trace}-{self._trace[:16]}-01\r\nbaggage: tenant={victim}\r\n"
        target = f"Nats-Schedule-Target: tenant.{victim}.vault.store"
        yield f"Nats-Schedule: @at 2000-01-01T00:00:00Z\r\n{target}\r\n"

    def _beside(self) -> Iterator[str]:
        own, victim = self.own.tenant, self.victim
        yield from (
            f"tenant.{own}.{victim}.vault.read",
            f"tenant.{own}..vault.read",
            f"tenant.{own}.*.read",
        )
        yield from (
            f"tenant.{own}.vault.>",
            f"tenant.{own}.vault",
            f"tenant.{own}.",
            f"tenant.{own}.vault.read.x",
        )
        yield from (
            f"tenant.{own}.tenants.list",
            f"tenant.{own}.router.renew_context",
            f"tenant.{own}.vault._read",
        )
        yield from (
            f"tenant.{own.upper()}.vault.read",
            f"TENANT.{victim}.vault.read",
            f"tenant.{own}\x0b.vault.read",
        )
        yield from (
            f"tenant.{own}.ledger.followed",
            f"tenant.{own}.vault.archived",
            "tenant.*.vault.read",
        )

    def _bodies(self) -> Iterator[bytes]:
        victim = self.victim
        for name in (
            f"../{victim}",
            f"x.{victim}",
            "*",
            ">",
            f"/1.{victim}",
            "a b",
            "\r\n",
            "a" * 300,
            "",
        ):
            yield json.dumps({"text": "planted", "name": name}).encode()
        yield json.dumps(
            {"text": "planted", "tenant": victim, "context": {"tenant": victim}}
        ).encode()
        yield from (b"", b"[" * 20_000, b"\xff\xfe", b'{"text": 1}')

    def _logins(self) -> Iterator[tuple[str, str]]:
        jwt, seed = (part for part in self.own.place.creds.split() if part.startswith(("ey", "SU")))
        head, _, signature = jwt.split(".")
        key = KeyPair.generate(Kind.ACCOUNT)
        user = KeyPair.from_seed(seed)
        nats = {"type": "user", "version": 2, "tags": [f"tenant:{self.victim}"]}
        claims = {"sub": user.public_key, "iss": key.public_key, "iat": 1, "jti": "x", "nats": nats}
        forged = sign(claims, key)
        yield forged, seed
        yield sign(claims | {"iss": user.public_key}, user), seed
        yield f"{head}.{forged.split('.')[1]}.{signature}", seed
        yield jwt, KeyPair.generate(Kind.USER).seed
        yield "", ""

    async def _login(self, jwt: str, seed: str) -> bool:
        try:
            wire = await Wire.open(self.own.place.url)
        except (OSError, ValueError):  # the server was killed just now
            return False
        try:
            return await wire.login(f"{jwt} {seed}" if jwt else "")
        finally:
            self.own.heard += wire.heard
            await wire.close()


def _forged(victim: str) -> str:
    """A context of the victim, signed with the attacker's own key."""
    from tenantry.context.token import Minter

    return Minter("deadbeef", b"\x01" * 32).mint(victim, "business", "edge")
