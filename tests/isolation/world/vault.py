"""The services of the world: they keep, tell, log and fail, all with their tenants' secrets."""

from __future__ import annotations

from msgspec import Struct
from opentelemetry import trace

from tenantry import Context, Retry, Service


class Secret(Struct, frozen=True):
    """Something that only its tenant may know."""

    text: str
    name: str = "value"


class Kept(Struct, frozen=True):
    """All that is kept of the asker's tenant."""

    stored: tuple[str, ...] = ()
    followed: tuple[str, ...] = ()
    values: dict[str, str] = {}
    headers: dict[str, str] = {}


async def _append(ctx: Context, text: str) -> None:
    """Once, however often the message comes."""
    entry = await ctx.state.get("stored", Kept)
    before = entry.value.stored if entry else ()
    if text not in before:
        await ctx.state.put("stored", Kept((*before, text)))


vault = Service("vault", version="1.0.0", concurrency=64)
archived = vault.event("archived", Secret)


@vault.request("keep", public=True)
async def keep(ctx: Context, secret: Secret) -> Secret:
    """Keep a value under a name of the asker's choice, and say so in log and span."""
    await ctx.state.put(f"values.{secret.name}", secret)
    ctx.log.info("kept", text=secret.text)
    trace.get_current_span().set_attribute("vault.text", secret.text)
    ctx.emit(archived, secret)
    return secret


@vault.command("store", public=True)
async def store(ctx: Context, secret: Secret) -> None:
    """Append to what is stored, and tell the followers."""
    await _append(ctx, secret.text)
    ctx.emit(archived, secret)


@vault.command("poison", public=True, retry=Retry(tries=1))
async def poison(_ctx: Context, secret: Secret) -> None:
    """Fail with the secret in the exception's text: it becomes a dead letter."""
    raise RuntimeError(f"can't stand {secret.text}")


@vault.request("fail", public=True)
async def fail(_ctx: Context, secret: Secret) -> Secret:
    """Fail with the secret in the exception's text: nobody is told it."""
    raise RuntimeError(f"can't stand {secret.text}")


@vault.request("later", public=True)
async def later(ctx: Context, secret: Secret) -> Secret:
    """Store it when the world is long over."""
    ctx.send("vault.store", secret, after=86_400.0)
    return secret


@vault.request("read", public=True)
async def read(ctx: Context) -> Kept:
    """Everything that is kept of the asker's tenant."""
    stored = await ctx.state.get("stored", Kept)
    values: dict[str, str] = {}
    for name in await ctx.state.names():
        if name.startswith("values.") and (value := await ctx.state.get(name, Secret)):
            values[name.removeprefix("values.")] = value.value.text
    followed = await ctx.request("ledger.followed", {}, type=Kept)
    return Kept(stored.value.stored if stored else (), followed.stored, values, dict(ctx.headers))


ledger = Service("ledger", version="1.0.0", concurrency=64)


@ledger.on("vault.archived")
async def follow(ctx: Context, secret: Secret) -> None:
    """Remember what was archived."""
    await _append(ctx, secret.text)


@ledger.request("followed")
async def followed(ctx: Context) -> Kept:
    """What was archived, of the asker's tenant."""
    entry = await ctx.state.get("stored", Kept)
    return entry.value if entry else Kept()
