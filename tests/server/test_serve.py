"""`mien serve`: which galleries it opens, and what it says when something is missing."""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

import mien
from mien.errors import InputError
from mien.gallery import Entry
from mien.server import Galleries, create_app
from mien.server.galleries import file_name, name_of
from mien.server.keys import KeyFile
from mien.server.problems import Conflict, UnknownGallery
from mien.server.running import configured, require_loopback
from mien.types import Embedding

from .conftest import MIEN
from .test_load import free_port, process, wait_for


def test_without_the_extra_it_says_how_to_install_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from mien.cli import main; sys.argv = ['mien', 'serve']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        env={"MIEN_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 3
    assert "pip install 'mien[server]'" in done.stderr


def test_keys_need_no_web_framework(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('fastapi', 'starlette', 'pydantic', 'uvicorn'): sys.modules[name] = None\n"
        "from mien.cli import main\n"
        f"sys.argv = ['mien', 'serve', 'keys', 'add', '--role', 'read', '--keys', "
        f"{str(tmp_path / 'k.json')!r}]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mien_")


def test_importing_mien_imports_no_web_framework() -> None:
    code = (
        "import sys, mien, mien.cli, mien.cli.serve\n"
        "print([n for n in ('fastapi', 'pydantic', 'uvicorn') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "faces.example.org", ""])
def test_other_machines_need_keys(host: str) -> None:
    with pytest.raises(InputError, match="without keys"):
        require_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    require_loopback(host)


def test_galleries_made_by_the_command_line_are_served(tmp_path: Path) -> None:
    mien.open_gallery(tmp_path / "Staff.mien").close()
    galleries = Galleries(tmp_path)
    assert galleries.names() == ["Staff"]
    assert galleries.create("Staff") is False
    with galleries.use("Staff") as gallery:
        assert len(gallery) == 0
    galleries.delete("Staff")
    assert list(tmp_path.iterdir()) == []


def test_a_large_gallery_is_deleted_with_its_index(tmp_path: Path) -> None:
    galleries = Galleries(tmp_path)
    galleries.create("crowd")
    vectors = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with galleries.use("crowd") as gallery:
        gallery.add([Entry(f"p{n}", Embedding(v, "c"), "x", 1.0) for n, v in enumerate(vectors)])
        gallery.search(Embedding(vectors[0], "c"))
    assert (tmp_path / "crowd.mien-index").is_dir()
    galleries.delete("crowd")
    assert list(tmp_path.iterdir()) == []


def test_a_server_for_one_gallery_makes_and_deletes_none(tmp_path: Path) -> None:
    galleries = Galleries(None, {"people": str(tmp_path / "people.mien")})
    assert galleries.names() == ["people"]
    with galleries.use("people") as gallery:
        assert len(gallery) == 0
    with pytest.raises(Conflict):
        galleries.create("others")
    with pytest.raises(Conflict):
        galleries.delete("people")
    with pytest.raises(UnknownGallery), galleries.use("others"):
        pass
    galleries.close()


def test_a_server_is_not_ready_with_a_damaged_gallery(tmp_path: Path) -> None:
    galleries = Galleries(None, {"people": str(tmp_path / "people.mien")})
    galleries.check()
    galleries.close()
    (tmp_path / "people.mien").write_bytes(b"not a gallery" * 1000)
    with pytest.raises(mien.GalleryUnavailable):
        galleries.check()


def test_nobody_is_believed_about_who_is_behind_a_proxy(
    recognizer: mien.Recognizer, tmp_path: Path
) -> None:
    app = create_app(recognizer, Galleries(tmp_path))
    assert configured(app, "127.0.0.1", 0).proxy_headers is False
    believed = configured(app, "127.0.0.1", 0, proxies="10.0.0.1")
    assert (believed.proxy_headers, believed.forwarded_allow_ips) == (True, "10.0.0.1")
    app.state.service.close()


@pytest.mark.parametrize(
    ("options", "logged"), [((), "127.0.0.1"), (("--proxies", "127.0.0.1"), "203.0.113.7")]
)
def test_the_log_has_the_address_that_is_believed(
    tmp_path: Path, options: tuple[str, ...], logged: str
) -> None:
    with process(tmp_path, *options) as (address, server):
        asked = Request(f"{address}/v1/models", headers={"X-Forwarded-For": "203.0.113.7"})
        urlopen(asked, timeout=30).close()
        server.terminate()
        server.wait(30)
    lines = [json.loads(line) for line in (tmp_path / "printed").read_text().splitlines()
             if line.startswith("{")]  # fmt: skip
    clients = [line["log"]["client"] for line in lines if line["log"]["route"] == "/v1/models"]
    assert clients == [logged]


def test_tls_by_files(tmp_path: Path) -> None:
    x509 = pytest.importorskip("cryptography.x509", reason="the certificate is made with it")
    pytest.importorskip("httpx2", reason="and tried by the client")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, secret.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (tmp_path / "chain.pem").write_bytes(made.public_bytes(encoding))
    (tmp_path / "key.pem").write_bytes(
        secret.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key = KeyFile(tmp_path / "keys.json").add("admin", ())
    port = free_port()
    command = [
        *MIEN, "serve", "--gallery", f"{tmp_path / 'galleries'}/", "--port", str(port),
        "--certificate", str(tmp_path / "chain.pem"), "--private-key", str(tmp_path / "key.pem"),
    ]  # fmt: skip
    trust = ssl.create_default_context(cafile=str(tmp_path / "chain.pem"))
    with (
        subprocess.Popen(
            command, env=os.environ | {"MIEN_HOME": str(tmp_path)}, stderr=subprocess.DEVNULL
        ) as server,
        mien.Client(f"https://localhost:{port}", key, verify=trust) as client,
        mien.Client(f"https://localhost:{port}", key) as careful,
    ):
        try:
            for _ in range(600):
                assert server.poll() is None
                with contextlib.suppress(mien.ServerUnreachable):
                    assert client.galleries() == []
                    break
                time.sleep(0.05)
            assert client.gallery("staff").create() is True
            with pytest.raises(mien.ServerUnreachable, match=r"(?i)certificate"):
                careful.galleries()
        finally:
            server.terminate()


def test_names_become_files_one_to_one() -> None:
    names = ["staff", "Staff", "STAFF", "a.b", "a%2Eb", "..", "/", "ü", "u\u0308", "a b", "a_b"]
    files = [file_name(name) for name in names]
    assert len({file.casefold() for file in files}) == len(names)
    assert [name_of(Path(file)) for file in files] == names
    assert all("/" not in file and "\\" not in file for file in files)
    with pytest.raises(InputError, match="too long"):
        file_name("长" * 100)


def test_the_first_start_prints_a_key_and_later_ones_do_not(tmp_path: Path) -> None:
    keys, port = KeyFile(tmp_path / "keys.json"), free_port()
    command = [*MIEN, "serve", "--gallery", f"{tmp_path / 'galleries'}/", "--port", str(port)]
    printed = []
    for _ in range(2):
        with subprocess.Popen(
            command, env=os.environ | {"MIEN_HOME": str(tmp_path)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as server:  # fmt: skip
            wait_for(f"http://127.0.0.1:{port}", server)
            server.terminate()
            printed.append(server.communicate(timeout=60)[0])
    key = keys.find(printed[0].strip())
    assert key is not None
    assert (key.role, key.galleries) == ("admin", ("*",))
    assert printed[1] == ""
    assert len(keys.listed()) == 1
