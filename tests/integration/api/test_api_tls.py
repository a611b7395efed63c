"""TLS by certificate files."""

import socket
import ssl

import pytest
from anyio import to_thread
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pubsubflow.api import ApiSettings
from pubsubflow.api.server.tls import Certificate
from pubsubflow.errors import ConfigError
from support.api import api_on
from support.certificates import Authority

pytestmark = pytest.mark.anyio


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def shaken(api, context):
    """Shake hands; return the version of TLS and the names of the certificate that is shown."""
    port = int(api.url.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        shown = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True))
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return secure.version(), names.get_values_for_type(x509.DNSName)


async def test_it_answers_by_tls_1_2_and_up_and_takes_renewed_files(serve, harness, authority):
    cert, key = authority.sign("localhost", "old.example")
    trusting = ssl.create_default_context(cafile=authority.path)
    async with serve(ApiSettings(port=0, tls_cert=cert, tls_key=key)) as (api, _):
        assert api.url.startswith("https://127.0.0.1:")
        url = api.url.replace("127.0.0.1", "localhost")
        async with harness.session.get(f"{url}/healthz", ssl=trusting) as response:
            assert response.headers["Strict-Transport-Security"].startswith("max-age=")
        version, names = await to_thread.run_sync(shaken, api, trusting)
        assert version == "TLSv1.3"
        assert "old.example" in names
        older = ssl.create_default_context(cafile=authority.path)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await to_thread.run_sync(shaken, api, older))[0] == "TLSv1.2"
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_1
        older.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await to_thread.run_sync(shaken, api, older)
        certificate = api._certificate
        authority.sign("localhost", "new.example", key="other.pem")  # the key is not there yet
        assert not certificate.renew()
        assert "old.example" in (await to_thread.run_sync(shaken, api, trusting))[1]
        authority.path.with_name("other.pem").replace(key)
        assert certificate.renew()
        assert not certificate.renew()
        assert "new.example" in (await to_thread.run_sync(shaken, api, trusting))[1]


async def test_a_link_to_renewed_files_is_followed(authority, tmp_path):
    authority.sign("a.example", cert="a.pem", key="a.key")
    authority.sign("b.example", cert="b.pem", key="b.key")
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.symlink_to("a.pem")
    key.symlink_to("a.key")
    certificate = Certificate(cert, key)
    for link, target in ((cert, "b.pem"), (key, "b.key")):
        link.unlink()
        link.symlink_to(target)
    assert certificate.renew()


def test_key_and_certificate_may_share_a_file(authority, tmp_path):
    cert, key = authority.sign("localhost")
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    assert Certificate(both).context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_files_that_do_not_fit_are_named_with_what_to_do(authority, tmp_path):
    cert, key = authority.sign("localhost")
    with pytest.raises(ConfigError, match=r"nothing.pem cannot be read .*--tls-cert"):
        Certificate(tmp_path / "nothing.pem", key)
    with pytest.raises(ConfigError, match=r"nothing.key cannot be read .*--tls-key"):
        Certificate(cert, tmp_path / "nothing.key")
    other, _ = authority.sign("localhost", cert="other.pem", key="other.key")
    with pytest.raises(ConfigError, match=r"does not belong to the certificate in .*other\.pem"):
        Certificate(other, key)
    with pytest.raises(ConfigError, match="in PEM"):
        Certificate(cert)  # no key in it
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    with pytest.raises(ConfigError, match=r"rubbish\.pem .*in PEM"):
        Certificate(rubbish, key)
    locked = serialization.BestAvailableEncryption(b"secret")
    sealed = authority.sign("localhost", cert="c.pem", key="c.key", encryption=locked)
    with pytest.raises(ConfigError, match="passphrase"):
        Certificate(*sealed)


async def test_a_key_alone_is_a_mistake(manager, database, bus, authority):
    _, key = authority.sign("localhost")
    with pytest.raises(ConfigError, match="--tls-cert"):
        api_on(manager, database, bus, ApiSettings(port=0, tls_key=key))
