"""The step of `make check` that asks for known vulnerabilities, against a service on loopback."""

from __future__ import annotations

import datetime as dt
import http.server
import importlib.util
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
ENTRY = '[[ignored]]\nid = "{id}"\nwhy = "not reached"\nuntil = {until}\n'
FAR = "2999-01-01"


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Service(http.server.BaseHTTPRequestHandler):
    """Speaks as OSV does; it knows of one vulnerability, in msgspec."""

    def do_POST(self) -> None:
        ask = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known: dict[str, Any] = {}
        if ask["package"]["name"] == "msgspec":
            affected = {"package": {"name": "msgspec", "ecosystem": "PyPI"}, "ranges": []}
            known = {"vulns": [{"id": "GHSA-test-test-test", "affected": [affected]}]}
        body = json.dumps(known).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "advisories.toml"
    path.write_text("")
    return path


def test_a_known_vulnerability_fails(
    audit: ModuleType, service: str, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(service, listed) == 1
    assert "GHSA-test-test-test" in capsys.readouterr().out


def test_one_that_is_ignored_with_a_reason_does_not(
    audit: ModuleType, service: str, listed: Path
) -> None:
    listed.write_text(ENTRY.format(id="GHSA-test-test-test", until=FAR))
    assert audit.main(service, listed) == 0


def test_without_a_network_it_is_skipped(
    audit: ModuleType, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main("http://127.0.0.1:1/v1/query", listed) == 0
    assert capsys.readouterr().out.startswith("skipped: no network")


@pytest.mark.parametrize(
    "text",
    [
        ENTRY.format(id="GHSA-a", until="2000-01-01"),
        '[[ignored]]\nid = "GHSA-a"\n',
        '[[ignored]]\nid = "GHSA-a"\nwhy = "x"\nuntil = "soon"\n',
    ],
)
def test_an_entry_without_a_reason_or_over_its_end_fails(
    audit: ModuleType, listed: Path, text: str
) -> None:
    listed.write_text(text)
    assert audit.main("http://127.0.0.1:1/v1/query", listed) == 1


def test_our_own_list_is_in_order(audit: ModuleType) -> None:
    assert audit.ignored(audit.IGNORED, dt.datetime.now(dt.UTC).date())[1] == []
