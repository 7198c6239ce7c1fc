"""What each role may do in the end: its template with the tags of a user filled in.

    python -m tests.isolation.permissions > tests/isolation/permissions.txt

writes the list that `test_roles.py` holds the code against. Look at the difference before you
commit it: what a role gains, whoever takes over one of its processes gains too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tenantry.operator import roles
from tenantry.operator.claims import Template

LISTING = Path(__file__).with_suffix(".txt")
SERVICES = ("ledger", "orders")


def effective(template: Template, tags: Mapping[str, tuple[str, ...]]) -> list[str]:
    """`pub`, `sub`, `not pub` or `not sub` and a subject in each line, sorted."""
    lines = []
    for word, permission in (("pub", template.pub), ("sub", template.sub)):
        for kind, subjects in ((word, permission.allow), (f"not {word}", permission.deny)):
            for subject in subjects:
                lines += [f"{kind} {each}" for each in _filled(subject, tags)]
    return sorted(set(lines))


def listing() -> str:
    """All roles, those of services with two of them."""
    parts: list[str] = []
    tables = {
        **{f"MESH {name}": template for name, template in roles.MESH_ROLES.items()},
        "SYS sys": roles.SYSTEM,
        "EDGE tenant": roles.TENANT,
    }
    for name, template in sorted(tables.items()):
        of = f" of {' and '.join(SERVICES)}" if name == "MESH service" else ""
        lines = effective(template, {"service": SERVICES, "tenant": ("acme",)})
        parts.append("\n".join([f"# {name}{of}", *lines]))
    return "\n\n".join(parts) + "\n"


def _filled(subject: str, tags: Mapping[str, tuple[str, ...]]) -> list[str]:
    for tag in re.findall(r"\{\{tag\((\w+)\)\}\}", subject):
        return [subject.replace(f"{{{{tag({tag})}}}}", value) for value in tags[tag]]
    return [subject.replace("{{subject()}}", "<own key>")]


if __name__ == "__main__":
    print(listing(), end="")
