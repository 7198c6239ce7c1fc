"""`tenantry replay` and `tenantry recover`, on the shop's ledger."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.cli import Cli, soon
from tests.acceptance.test_terminal import on_terminal

_numbers = itertools.count(1)

SLEEPER = """
from tenantry import Context, Service

service = Service("sleeper", version="1.0.0")

@service.command("doze", public=True, replayable=True)
async def doze(ctx: Context) -> None:
    pass
"""


@dataclass
class Shop:
    """A tenant that has corrected its books three times: by 1, by 10, by 100 cents."""

    cli: Cli
    tenant: str
    seqs: list[int]

    @property
    def cents(self) -> int:
        done = self.cli("request", self.tenant, "ledger.total")
        return int(done.json["cents"]) if done.code == 0 else 0

    def correct(self, cents: int) -> int:
        """Correct the books; returns the sequence in the journal."""
        done = self.cli.ok("publish", self.tenant, "ledger.correct", f'{{"cents": {cents}}}')
        return int(done.out)

    def replay(self, *arguments: str) -> Any:
        """A replay by the ledger, as JSON."""
        return self.cli.ok(
            "replay", self.tenant, "--service", "ledger", "--yes", "-o", "json", *arguments
        ).json

    def recover(self, *arguments: str) -> str:
        return self.cli.ok("recover", self.tenant, "--service", "ledger", *arguments).out

    def refused(self, *arguments: str) -> str:
        return self.cli.fails("replay", self.tenant, "--service", "ledger", "--yes", *arguments)


@pytest.fixture
def books(mesh: Cli) -> Shop:
    name = f"books{next(_numbers)}"
    mesh.ok("tenants", "create", name)
    books = Shop(mesh, name, [])
    books.seqs = [books.correct(cents) for cents in (1, 10, 100)]
    soon(lambda: books.cents == 111)
    return books


# --- replay ---------------------------------------------------------------------------------------


def test_a_replay_handles_the_journal_once_more(books: Shop) -> None:
    done = books.replay()
    assert (done["state"], done["handled"], books.cents) == ("done", 3, 111)


def test_a_replay_of_a_range_without_a_message(books: Shop) -> None:
    first, second, third = books.seqs
    done = books.replay(
        "--since", f"{first}", "--until", f"{third}", "--skip", f"{second}", "--reset"
    )
    assert (done["handled"], done["passed"], books.cents) == (1, 1, 1)


def test_a_replay_says_what_it_did(books: Shop) -> None:
    done = books.cli.ok("replay", books.tenant, "--service", "ledger", "--yes")
    assert done.out.startswith("done: 3 handled, 0 passed over")


def test_a_dry_run_counts_and_does_nothing(books: Shop) -> None:
    counts = books.replay("--dry-run")
    assert {"action": "ledger.correct", "messages": 3, "replayable": True} in counts
    assert books.cli.ok("replay", "list", books.tenant, "-o", "json").json == []


def test_the_list_says_who_asked(books: Shop) -> None:
    books.replay()
    (row,) = books.cli.ok("replay", "list", books.tenant, "-o", "json").json
    assert (row["state"], row["handled"], "@" in row["by"]) == ("done", 3, True)


def test_a_replay_that_runs_is_cancelled(books: Shop) -> None:
    books.replay("--rate", "0.2", "--detach")
    cancelled = books.cli.ok(
        "replay", "cancel", books.tenant, "--service", "ledger", "-o", "json"
    ).json
    assert cancelled[0]["state"] == "cancelled"
    assert "under way" in books.cli.fails("replay", "cancel", books.tenant, "--service", "ledger")


def test_one_replay_at_a_time(books: Shop) -> None:
    books.replay("--rate", "0.2", "--detach")
    assert "under way" in books.refused()
    books.cli.ok("replay", "cancel", books.tenant, "--service", "ledger")


def test_a_replay_is_followed_to_its_end(books: Shop) -> None:
    books.replay("--rate", "20", "--detach")
    followed = books.cli.ok("replay", "follow", books.tenant, "--service", "ledger")
    assert followed.out.startswith("done: 3 handled")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--since", "5", "--until", "3"), "from 5 until 3 there is nothing"),
        (("--since", "99999999"), "from 99999999 on there is nothing"),
        (("--until", "99999999"), "has not come to 99999999 yet"),
        (("--skip", "99999999"), "no message of"),
        (("--actions", "ledger.nothing"), "ledger can't replay ledger.nothing"),
    ],
)
def test_a_replay_that_makes_no_sense(
    books: Shop, dry: tuple[str, ...], arguments: tuple[str, ...], why: str
) -> None:
    assert why in books.refused(*arguments, *dry)


def test_the_message_of_another_tenant_cannot_be_left_out(books: Shop, mesh: Cli) -> None:
    other = int(mesh.ok("publish", "acme", "ledger.correct", '{"cents": 0}').out)
    assert f"no message of {books.tenant} at {other}" in books.refused("--skip", f"{other}")


def test_a_service_that_is_not_known(books: Shop) -> None:
    error = books.cli.fails("replay", books.tenant, "--service", "nothing", "--yes")
    assert error.startswith("not_found: no service nothing is known")


def test_a_service_without_replayable_handlers(books: Shop) -> None:
    error = books.cli.fails("replay", books.tenant, "--service", "orders", "--yes")
    assert "declares nothing replayable" in error


def test_without_a_terminal_a_reset_wants_a_yes(books: Shop) -> None:
    assert "give --yes" in books.cli.misused("replay", books.tenant, "--service", "ledger")
    assert books.cli.ok("replay", "list", books.tenant, "-o", "json").json == []


@pytest.mark.parametrize(
    "command",
    [
        ("replay", "nobody", "--service", "ledger", "--yes"),
        ("replay", "list", "nobody"),
        ("recover", "nobody", "--until", "2", "--yes"),
        ("recover", "nobody", "--back"),
    ],
)
def test_a_tenant_that_does_not_exist(mesh: Cli, command: tuple[str, ...]) -> None:
    assert mesh.fails(*command).startswith("not_found: no tenant 'nobody'")


def test_a_tenant_that_was_deleted_is_not_replayed(books: Shop) -> None:
    books.cli.ok("replay", books.tenant, "--service", "ledger", "--yes")
    books.cli.ok("tenants", "delete", books.tenant, "--yes")
    for command in (("replay", books.tenant), ("recover", books.tenant, "--until", "2")):
        error = books.cli.fails(*command, "--service", "ledger", "--yes")
        assert error.startswith(f"conflict: tenant {books.tenant} was deleted")


def test_that_the_journal_has_nothing_more_is_told(books: Shop) -> None:
    books.cli.ok("tenants", "suspend", books.tenant)
    books.cli.ok("journal", "erase", books.tenant, "--yes")
    done = books.cli("replay", books.tenant, "--service", "ledger")
    assert done.code == 2
    assert f"the journal holds nothing of {books.tenant} any more" in done.err


def test_a_service_that_does_not_run(books: Shop, shop: Cli) -> None:
    shop.write("sleeper.py", SLEEPER)
    with shop.foreground("run", "sleeper:service") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
    arguments = ("--service", "sleeper", "--yes")
    assert "sleeper does not run" in books.cli.fails("replay", books.tenant, *arguments)
    assert "sleeper does not run" in books.cli.fails(
        "recover", books.tenant, "--until", "2", *arguments
    )
    assert books.cli.ok("replay", "list", books.tenant, "-o", "json").json == []


def test_a_replay_of_a_service_that_hangs_is_cancelled_once_it_wakes(
    books: Shop, shop: Cli
) -> None:
    books.replay("--rate", "0.2", "--detach")
    soon(lambda: state(books) == "running")
    hung = shop.child("ledger")["pid"]
    os.kill(hung, signal.SIGSTOP)
    try:
        done = books.cli.ok("replay", "cancel", books.tenant, "--service", "ledger")
    finally:
        os.kill(hung, signal.SIGCONT)
    assert done.err == "ledger does not run: this ends as soon as it does\n"
    soon(lambda: state(books) == "cancelled")


def state(books: Shop) -> str:
    (row,) = books.cli.ok("replay", "list", books.tenant, "-o", "json").json
    return str(row["state"])


# --- recovery -------------------------------------------------------------------------------------


def test_a_recovery_shows_the_difference_and_swaps(books: Shop) -> None:
    out = books.recover("--until", f"{books.seqs[2]}", "--yes")
    assert '"cents":111' in out
    assert '"cents":11}' in out
    assert books.cents == 11


def test_a_recovery_leaves_one_message_out(books: Shop) -> None:
    books.recover("--skip", f"{books.seqs[1]}", "--yes")
    assert books.cents == 101


def test_after_a_recovery_one_can_go_back(books: Shop) -> None:
    books.recover("--until", f"{books.seqs[2]}", "--yes")
    assert "is back in its former state" in books.recover("--back")
    assert books.cents == 111


def test_without_a_recovery_there_is_no_way_back(books: Shop) -> None:
    error = books.cli.fails("recover", books.tenant, "--back")
    assert "no former state" in error


def test_without_a_yes_nothing_is_swapped(books: Shop) -> None:
    done = books.cli("recover", books.tenant, "--service", "ledger", "--until", f"{books.seqs[2]}")
    assert (done.code, books.cents) == (2, 111)
    assert '"cents":11}' in done.out
    assert "give --yes" in done.error


def test_a_no_at_the_terminal_swaps_nothing(books: Shop, shop: Cli) -> None:
    code, out = on_terminal(
        shop,
        "recover",
        books.tenant,
        "--service",
        "ledger",
        "--until",
        f"{books.seqs[2]}",
        typed="n\n",
    )
    assert (code, books.cents) == (2, 111)
    assert "nothing was done" in out
    (row,) = books.cli.ok("replay", "list", books.tenant, "-o", "json").json
    assert row["state"] == "cancelled"


def test_a_recovery_that_is_interrupted_is_called_off(books: Shop, shop: Cli) -> None:
    code, said = interrupted(books, shop, "recover", "--until", f"{books.seqs[2]}")
    assert (code, said) == (130, "")
    assert (state(books), books.cents) == ("cancelled", 111)


def test_a_replay_whose_command_is_interrupted_goes_on(books: Shop, shop: Cli) -> None:
    code, said = interrupted(books, shop, "replay", "--yes")
    assert (code, state(books)) == (130, "running")
    assert said.startswith(f"it goes on; `tenantry replay cancel {books.tenant} --service ledger`")
    books.cli.ok("replay", "cancel", books.tenant, "--service", "ledger")


def interrupted(books: Shop, shop: Cli, command: str, *options: str) -> tuple[int, str]:
    """Press Ctrl-C while a command waits for a slow replay: its exit code and what it said."""
    arguments = (books.tenant, "--service", "ledger", "--rate", "0.001", *options)
    with shop.foreground(command, *arguments) as process:
        soon(lambda: "running" in books.cli.ok("replay", "list", books.tenant).out)
        process.send_signal(signal.SIGINT)
        return process.wait(60), process.communicate()[1]


def test_a_recovery_until_when(mesh: Cli) -> None:
    assert "until when, or without what?" in mesh.misused("recover", "acme")


def test_a_recovery_until_what_has_not_come(books: Shop) -> None:
    error = books.cli.fails("recover", books.tenant, "--until", "99999999", "--yes")
    assert "has not come to 99999999 yet" in error


def test_without_a_mesh(alone: Cli) -> None:
    assert "start a mesh here" in alone.fails("replay", "acme", "--service", "ledger", "--yes")
