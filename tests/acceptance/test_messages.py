"""`tenantry request` and `tenantry publish`."""

from __future__ import annotations

import json

from tests.acceptance.cli import Cli

ORDER = '{"sku": "A-1"}'


def test_an_answer_in_a_pipe_is_one_line(shop: Cli) -> None:
    out = shop.ok("request", "acme", "orders.place", ORDER).out
    assert out.count("\n") == 1
    assert json.loads(out)["total"] == 1250


def test_a_body_comes_from_stdin(shop: Cli) -> None:
    assert shop.ok("request", "acme", "orders.place", "-", stdin=ORDER).json["sku"] == "A-1"


def test_a_body_comes_from_a_file(mesh: Cli) -> None:
    mesh.write("order.json", ORDER)
    assert mesh.ok("request", "acme", "orders.place", "@order.json").json["sku"] == "A-1"


def test_a_rejection_of_the_service_is_its_own_line(mesh: Cli) -> None:
    error = mesh.fails("request", "acme", "orders.place", '{"sku": "Z-9"}')
    assert error.startswith("not_found: no article 'Z-9' (try A-1, B-2, C-3) [trace ")


def test_a_body_that_does_not_fit_is_told_with_its_path(mesh: Cli) -> None:
    error = mesh.fails("request", "acme", "orders.place", '{"sku": "A-1", "quantity": 0}')
    assert error.startswith("bad_message: Expected `int` >= 1")
    assert "$.quantity" in error


def test_an_unknown_action_is_told(mesh: Cli) -> None:
    assert mesh.fails("request", "acme", "orders.burn").startswith("unknown_action: ")


def test_a_body_that_is_no_json_is_told_with_its_place(mesh: Cli) -> None:
    assert mesh.fails("request", "acme", "orders.place", '{"sku" "A-1"}').startswith(
        "bad_message: the body is not JSON: Expecting ':' delimiter, line 1 column 8"
    )


def test_a_file_that_is_no_json_is_told_with_its_name(mesh: Cli) -> None:
    mesh.write("bad.json", '{\n  "sku": A-1\n}')
    assert mesh.fails("request", "acme", "orders.place", "@bad.json") == (
        "bad_message: bad.json is not JSON: Expecting value, line 2 column 10"
    )


def test_a_file_that_is_not_there_is_told(mesh: Cli) -> None:
    assert mesh.fails("request", "acme", "orders.place", "@none.json") == (
        "setup: none.json can't be read: No such file or directory"
    )


def test_a_publish_tells_its_number_and_a_repeat_that_it_is_one(mesh: Cli) -> None:
    command = ("publish", "acme", "orders.import", '{"orders": []}', "--id", "one", "-o", "json")
    first, again = mesh.ok(*command).json, mesh.ok(*command).json
    assert first == {"stream": "JOURNAL", "seq": first["seq"], "duplicate": False}
    assert again == {**first, "duplicate": True}


def test_a_request_that_is_published_is_told_to_be_one(mesh: Cli) -> None:
    assert mesh.fails("publish", "acme", "orders.place", ORDER) == (
        "conflict: orders.place is a request: it was carried out, and nothing was stored "
        "(ask with a request instead, and do not repeat this one)"
    )


def test_a_tenant_without_credentials_is_told_what_to_do(mesh: Cli) -> None:
    assert mesh.fails("request", "globex", "orders.place", ORDER) == (
        "setup: no credentials of the tenant globex: globex.creds is missing (give --creds FILE, "
        "or make some with `tenantry tenants create globex` or `tenantry tenants credentials "
        "issue globex`)"
    )


def test_credentials_of_another_tenant_are_refused_here(mesh: Cli) -> None:
    assert mesh.fails("request", "globex", "orders.place", ORDER, "--creds", "acme.creds") == (
        "setup: acme.creds holds credentials of the tenant acme, not of the tenant globex "
        "(give --creds globex.creds)"
    )


def test_credentials_of_the_mesh_are_refused_here(mesh: Cli) -> None:
    path = str(mesh.state / "operator" / "creds" / "control.creds")
    assert "holds credentials of the mesh" in mesh.fails(
        "request", "acme", "orders.place", ORDER, env={"TENANTRY_CREDS": path}
    )


def test_a_file_that_holds_no_credentials_is_told(mesh: Cli) -> None:
    mesh.write("odd.creds", "hello")
    error = mesh.fails("request", "acme", "orders.place", "--creds", "odd.creds")
    assert error.startswith("setup: odd.creds: not a NATS credentials file")


def test_a_tenant_that_can_not_be_one_is_told(mesh: Cli) -> None:
    assert mesh.fails("request", "Acme!", "orders.place").startswith("bad_subject: 'Acme!'")


def test_an_action_that_can_not_be_one_is_told(mesh: Cli) -> None:
    assert mesh.fails("request", "acme", "orders").startswith("bad_subject: 'orders'")


def test_credentials_beside_the_state_folder_serve_from_elsewhere(mesh: Cli, alone: Cli) -> None:
    total = ("request", "acme", "orders.place", ORDER, "--state", str(mesh.state))
    assert alone.ok(*total).json["total"] == 1250


def test_no_mesh_to_ask_is_told_what_to_do(mesh: Cli, alone: Cli) -> None:
    creds = str(mesh.folder / "acme.creds")
    assert alone.fails(
        "request", "acme", "orders.place", "--creds", creds, env={"TENANTRY_URL": "nats://[::1]:1"}
    ).startswith("connection_failed: can't connect to NATS: nats://[::1]:1: ")


def test_a_timeout_that_the_router_would_refuse_is_a_usage_error(alone: Cli) -> None:
    assert "86400" in alone.misused("request", "acme", "orders.place", "--timeout", "86400")


def test_the_longest_timeout_is_taken(mesh: Cli, tenant: str) -> None:
    mesh.ok("request", tenant, "orders.place", '{"sku": "A-1"}', "--timeout", "86399")
