"""Known vulnerabilities of what is installed in .venv: a step of `make check`.

Asks OSV (https://osv.dev) by pip-audit. Where it can't be reached this says so and passes, within a
few seconds. `.ci/advisories.toml` lists what does not concern us, why, and until when.
`TENANTRY_OSV_URL` names another OSV service.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

IGNORED = Path(__file__).with_name("advisories.toml")
URL = "https://api.osv.dev/v1/query"
_REACH = 4.0
_WHOLE = 120.0
_AWAY = ("ConnectionError", "Timeout", "ServiceError", "503 Server Error", "429 Client Error")


def ignored(path: Path, today: dt.date) -> tuple[list[str], list[str]]:
    """The ids that are ignored today, and what is wrong with the list."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("ignored", [])
    wrong = [
        f"{path.name}: {entry.get('id', 'an entry')} needs id, why and until (a date)"
        for entry in entries
        if not (entry.get("id") and entry.get("why") and isinstance(entry.get("until"), dt.date))
    ]
    wrong += [
        f"{path.name}: {entry['id']} was ignored until {entry['until']}: look again"
        for entry in entries
        if not wrong and entry["until"] < today
    ]
    return [entry["id"] for entry in entries if "id" in entry], wrong


def reachable(url: str) -> str:
    """Empty where the service answers, whatever it says; else why it does not."""
    try:
        urllib.request.urlopen(url, timeout=_REACH).close()  # noqa: S310  (our own constant)
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return ""


def findings(report: dict[str, Any]) -> list[str]:
    """One line for each vulnerability that a report of pip-audit names."""
    return [
        f"{package['name']} {package['version']}: {vulnerability['id']}"
        + (f", mended in {', '.join(fixed)}" if (fixed := vulnerability["fix_versions"]) else "")
        for package in report["dependencies"]
        for vulnerability in package.get("vulns", ())
    ]


def main(url: str, path: Path = IGNORED) -> int:
    """The exit code; what is wrong is printed."""
    ids, wrong = ignored(path, dt.datetime.now(dt.UTC).date())
    if wrong:
        print("\n".join(wrong))
        return 1
    if why := reachable(url):
        print(f"skipped: no network ({why})")
        return 0
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv"]
    command += ["--osv-url", url, "--format", "json", "--progress-spinner", "off"]
    command += ["--skip-editable", "--timeout", "10"]
    for each in ids:
        command += ["--ignore-vuln", each]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WHOLE, check=False)
        found = findings(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        print(f"skipped: no answer within {_WHOLE:g} s")
        return 0
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        if any(word in done.stderr for word in _AWAY):
            print(f"skipped: the service went away ({last})")
            return 0
        print(f"pip-audit failed: {last}")
        return 1
    for line in found:
        print(line)
    if found:
        print("update them, or list them with a reason in .ci/advisories.toml")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(os.environ.get("TENANTRY_OSV_URL", URL)))
