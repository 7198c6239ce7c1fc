"""`tenantry demo`, as `make demo` runs it, only shorter."""

from __future__ import annotations

import pytest

from tests.acceptance.cli import Cli


@pytest.mark.slow
def test_the_demo_holds_its_claims(cli: Cli) -> None:
    out = cli.ok("demo", "--seconds", "4").out
    assert out.count("ok  ") == 5
    assert "kill -9 of orders-1" in out
    assert "2000 messages handled again" in out


def test_the_demo_says_what_is_missing(cli: Cli) -> None:
    error = cli.fails("demo", env={"TENANTRY_NATS_SERVER": "/nowhere/nats-server"})
    assert "/nowhere/nats-server" in error
