"""The interface as it describes itself, against the server."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS
from starlette.testclient import TestClient

import mien
from mien.server.keys import KeyFile
from mien.server.problems import Refusal

from .test_load import process

schemathesis = pytest.importorskip("schemathesis", reason="properties are tested by schemathesis")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a server with a gallery and a person, and a key for it."""
    folder = tmp_path_factory.mktemp("server")
    key = KeyFile(folder / "keys.json").add("admin", ())
    (folder / "galleries").mkdir()
    mien.open_gallery(folder / "galleries" / "staff.mien").close()
    with process(folder, "--rate", "1000000") as (address, _):
        yield address, f"Bearer {key}"


def test_replies_are_what_is_described(running: tuple[str, str]) -> None:
    """No status, media type or shape that is not announced, no way in without a key, no 500."""
    address, key = running
    described = schemathesis.openapi.from_url(f"{address}/openapi.json")
    # what makes text a picture, or names a gallery that exists, no schema can say
    accepted = CHECKS.get_one("positive_data_acceptance")
    operations = [result.ok() for result in described.get_all_operations()]
    assert len(operations) >= 29
    for operation in operations:

        @settings(
            max_examples=20, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def holds(case: "schemathesis.Case") -> None:
            reply = case.call(headers={"Authorization": key})
            if reply.status_code == 503 and "NoOperatingPoint" in reply.text:
                return  # an error rate below all that was measured
            case.validate_response(reply, excluded_checks=[accepted])

        holds()


def test_every_route_of_the_contract_is_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    there = {(method, path) for path, methods in paths.items() for method in methods}
    gallery, subject = "/v1/galleries/{gallery}", "/v1/galleries/{gallery}/subjects/{subject}"
    assert there >= {
        *(
            ("post", f"/v1/{verb}")
            for verb in ("detect", "embed", "verify", "analyze", "classify/{head}")
        ),
        *((method, gallery) for method in ("get", "put", "delete")),
        *((method, subject) for method in ("get", "put", "delete")),
        ("post", f"{subject}/images"),
        ("delete", f"{subject}/templates/{{template}}"),
        ("post", f"{gallery}/identify"),
        ("post", f"{gallery}/search"),
        *(("get", path) for path in ("/v1/models", "/healthz", "/readyz", "/metrics")),
    }


def test_everything_described_has_words(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), (method, path)
    for name, shape in schema["components"]["schemas"].items():
        assert shape.get("description"), name


REST_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rest.md"


def test_the_page_of_routes_is_whole(client: TestClient) -> None:
    rows = re.findall(r"^\| (GET|PUT|POST|DELETE|WS) \| `([^`]+)` \|", REST_PAGE.read_text(), re.M)
    described = client.get("/openapi.json").json()["paths"]
    there = {(method.upper(), path) for path, methods in described.items() for method in methods}
    assert {row for row in rows if row[0] != "WS"} == there


def test_the_page_of_errors_is_whole() -> None:
    names = set(re.findall(r"`(\w+)`", REST_PAGE.read_text().partition("## Errors")[2]))
    ours = {kind.__name__: kind for kind in Refusal.__subclasses__()}
    assert names >= ours.keys()
    for line in REST_PAGE.read_text().partition("## Errors")[2].splitlines():
        for name in set(re.findall(r"`(\w+)`", line)) & ours.keys():
            assert str(ours[name].status) in line, name
