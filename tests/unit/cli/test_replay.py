"""What `tenantry replay` says when it can't follow a replay any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantry.cli import replay
from tenantry.cli.connection import Connection
from tenantry.errors import Unavailable
from tenantry.messages import Replay
from tenantry.operator import OperatorHome


def test_a_lost_connection_says_that_the_replay_goes_on(tmp_path: Path) -> None:
    home = OperatorHome.create(tmp_path / "operator")
    nowhere = Connection(url="nats://127.0.0.1:1", home=home.path)
    asked = Replay(id="1", tenant="acme", service="ledger", asked=0.0)
    with pytest.raises(Unavailable, match="but it goes on: ") as caught:
        replay._watch_one(nowhere, asked, "table")
    assert "`tenantry replay follow acme --service ledger` shows it" in (caught.value.hint or "")
