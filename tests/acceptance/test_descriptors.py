"""Commands and workers with standard streams that are closed, full, unread or not UTF-8."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenantry.cli import keyfile
from tenantry.cli.app import app
from tenantry.control import Control
from tenantry.errors import SetupError
from tenantry.local import notify
from tenantry.messages import Tenant, TenantRef
from tenantry.operator.creds import public_key_of
from tests.acceptance.cli import PATIENCE, Cli, soon
from tests.acceptance.test_terminal import leaves

pytestmark = pytest.mark.slow

CONDITIONS = (
    *("stdin closed", "stdout closed", "stderr closed", "all closed"),
    *("stdout full", "stderr full", "stdout without reader", "stderr without reader"),
    *("latin-1", "no working directory"),
)

FORKING = """
import json, os, sys, tempfile
from tenantry.cli import main
from tenantry.cli import keyfile
from tenantry.cli.app import app
from tenantry.control import Control
from tenantry.errors import SetupError
from tenantry.local import notify
from tenantry.messages import Tenant, TenantRef
from tenantry.operator.creds import public_key_of

condition, folder, *_ = sys.argv[1:]

def load(tree):
    for name in tree:
        if not name.startswith("-"):
            load(tree[name])

load(app)  # once, not in each fork

def broken():
    reading, writing = os.pipe()
    os.close(reading)
    return writing

def prepare(out, err):
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    if condition == "latin-1":
        for handle, name in ((1, "stdout"), (2, "stderr")):
            setattr(sys, name, open(handle, "w", encoding="latin-1", closefd=False))
    elif condition == "no working directory":
        os.chdir(gone := tempfile.mkdtemp())
        os.rmdir(gone)
    name, _, state = condition.partition(" ")
    for handle, stream in enumerate(("stdin", "stdout", "stderr")):
        if name in (stream, "all"):
            if state == "closed":
                os.close(handle)
                setattr(sys, stream, None)  # as Python does it where it is closed at the start
            elif state == "full":
                os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
            elif state == "without reader":
                os.dup2(broken(), handle)

results = []
for command in json.load(sys.stdin):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            prepare(out.fileno(), err.fileno())
            code = main(command)
            try:
                sys.stdout.flush(), sys.stderr.flush()  # as Python does it at its end
            except (OSError, ValueError):
                code = 120
            os._exit(code)  # without Python's own end, which takes longer than most commands
        _, status = os.waitpid(child, 0)
        out.seek(0), err.seek(0)
        text = [each.read().decode("latin-1") for each in (out, err)]
        results.append([command, os.waitstatus_to_exitcode(status), *text])
print(json.dumps(results))
"""

ARGUMENTS: dict[str, str] = {
    "up": "--port 0",  # in use
    "down": "--state other",
    "demo": "--seconds 0",
    "tenants create": "made-{n} --creds-file made-{n}.creds",
    "tenants credentials issue": "acme --name more-{n}",
    "tenants credentials list": "acme",
    "tenants credentials revoke": "nobody --all",
    "tenants show": "acme",
    "tenants suspend": "nobody",
    "tenants resume": "nobody",
    "tenants set-plan": "nobody standard",
    "tenants delete": "nobody --yes",
    "plans show": "standard",
    "plans diff": "no.toml",
    "plans apply": "no.toml",
    "plans override": "nobody rate=1",
    "quota": "acme",
    "request": "acme orders.place {{}}",
    "publish": "acme orders.import {{}}",
    "journal read": "acme",
    "journal export": "acme out-{n}.jsonl",
    "journal import": "no.jsonl",
    "journal erase": "nobody --yes",
    "replay start": "nobody ledger --yes",
    "replay follow": "nobody ledger",
    "replay cancel": "nobody ledger",
    "recover": "nobody --until 1 --yes",
    "dead show": "1",
    "dead redrive": "1 --yes",
    "dead drop": "1 --yes",
    "schedules show": "none",
    "schedules cancel": "none",
    "run": "no.such:service",
    "nats init": "made-{n}",
    "nats creds": "control --home .tenantry/operator --out control-{n}.creds",
    "keys rotate": "context --home no",
    "keys revoke": "context none --home no",
    "keys upgrade": "--home no",
    "backup": "no/such/folder",
    "restore": "no/such/folder",
    "schemas": "Plan",
}
"""What to call a command with, so that it comes as far as is harmless."""


def commands(number: int) -> list[list[str]]:
    called = [["--version"], ["--help"], []]
    for names in leaves(app):
        if not [each for each in app[names[0]] if len(names) == 1 and not each.startswith("-")]:
            arguments = ARGUMENTS.get(" ".join(names), "").format(n=number)
            called.append([*names, *arguments.split()])
    return called


def wrong(code: int, out: str, err: str) -> bool:
    """A traceback, a signal, or a code that is none of ours (120: Python failed at its end)."""
    return "Traceback" in out + err or "Error ignored" in err or code not in {0, 1, 2, 141}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_command_ends_in_good_order(shop: Cli, condition: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, condition, str(shop.folder)],
        cwd=Path(__file__).parents[2],
        env=shop.env,
        input=json.dumps(commands(CONDITIONS.index(condition))),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [result for result in json.loads(done.stdout) if wrong(*result[1:])] == []


def test_without_room_on_the_disk_no_tenant_is_created(shop: Cli) -> None:
    done = subprocess.run(
        [
            "bash",
            "-c",
            'ulimit -f 1; exec "$0" -m tenantry tenants create roomless',
            sys.executable,
        ],
        cwd=shop.folder,
        env=shop.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "tenantry: setup: roomless.creds can't be written: File too large"
    )
    assert not (shop.folder / "roomless.creds").exists()
    assert "not_found" in shop.fails("tenants", "show", "roomless")


async def test_credentials_that_cannot_be_written_are_revoked(shop: Cli) -> None:
    def full(_text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with Control(await shop.control()) as mesh:
        before, text = await mesh.issue("acme", name="lost")
        with pytest.raises(SetupError, match="No space left on device; they are revoked"):
            await keyfile.keep(mesh, "acme", text, full)
        after = await mesh.call("show", TenantRef(id="acme"), Tenant)
    key = public_key_of(text)
    assert [each.revoked for each in before.credentials if each.public_key == key] == [None]
    assert None not in [each.revoked for each in after.credentials if each.public_key == key]


FAILING = """
from tenantry import Context, Service

service = Service("failing", version="1.0.0")

@service.request("fail", public=True)
async def fail(ctx: Context) -> None:
    ctx.log.info("fails now")
    raise ValueError("broken")

@service.request("work", public=True)
async def work(ctx: Context) -> str:
    ctx.log.info("works")
    return "done"
"""

STREAMS = {
    "closed": "<&- >&- 2>&-",
    "full": ">/dev/full 2>/dev/full",
    "without reader": "> >(:) 2> >(:)",
    "latin-1": ">/dev/null 2>/dev/null",
}


@contextmanager
def worker(cli: Cli, target: str, streams: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with these streams, once it is ready."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [
            "bash",
            "-c",
            f'exec "$0" -m tenantry run "$1" {STREAMS[streams]}',
            sys.executable,
            target,
        ],
        cwd=cli.folder,
        env=cli.env
        | {notify.VARIABLE: str(writing)}
        | ({"PYTHONIOENCODING": "latin-1"} if streams == "latin-1" else {}),
        pass_fds=(writing,),
    )
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            assert notify.read(pipe.readline()) == (True, target)
        yield process
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("target", ["router", "tenants"])
def test_a_shipped_worker_becomes_ready_and_ends(shop: Cli, target: str, streams: str) -> None:
    with worker(shop, target, streams):
        pass


@pytest.mark.parametrize("streams", STREAMS)
def test_a_request_that_fails_is_answered(shop: Cli, streams: str) -> None:
    shop.write("failing.py", FAILING)
    with worker(shop, "failing:service", streams):
        soon(lambda: shop("request", "acme", "failing.work").out == '"done"\n')
        assert "handler_failed" in shop.fails("request", "acme", "failing.fail")
        assert shop.ok("request", "acme", "failing.work").out == '"done"\n'
