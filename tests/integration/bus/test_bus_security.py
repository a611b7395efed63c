"""NATS over TLS, and every kind of credentials."""

import anyio
import pytest

from pubsubflow.bus import Bus, BusSettings
from pubsubflow.errors import BusUnavailable, ConfigError
from support.certificates import Authority
from support.nkeys import ACCOUNT, OPERATOR, USER, Nkey

pytestmark = pytest.mark.anyio

ANY = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
STORE = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def serve(free_ports, start_nats):
    """Start a nats-server with these lines in its configuration; return its port."""

    def serving(*lines):
        (port,) = free_ports(1)
        start_nats(port, lines)
        return port

    return serving


def tls(authority, *, verify=False):
    certificate, key = authority.sign("localhost", "127.0.0.1")
    more = f', ca_file: "{authority.path}", verify: true' if verify else ""
    return f'tls {{ cert_file: "{certificate}", key_file: "{key}"{more} }}'


async def works(**settings):
    """Connect, make the streams, and say something over them."""
    async with Bus.connect(BusSettings(**settings)) as bus:
        await bus.ensure_streams()
        await bus.publish_durable("psf.in.event.0", b"hello")
        await bus.flush()


async def refused(match, **settings):
    with pytest.raises(ConfigError, match=match) as caught:
        await works(**settings)
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(BusSettings(**settings))


USERS = 'authorization { users: [ { user: "ann", password: "hush-hush" } ] }'


async def test_tls_with_a_password_from_a_file(serve, authority, tmp_path):
    port = serve(tls(authority), USERS)
    (tmp_path / "password").write_text("hush-hush\n")
    settings = {"tls_ca_file": authority.path, "user": "ann"}
    url = f"tls://localhost:{port}"
    await works(url=url, **settings, password_file=str(tmp_path / "password"))
    await works(url=f"nats://127.0.0.1:{port}", **settings, password="hush-hush")
    await works(url=f"tls://ann:hush-hush@localhost:{port}", tls_ca_file=authority.path)
    await refused("check the token, password or key", url=url, **settings, password="hush")
    await refused(
        "password.*cannot be read", url=url, **settings, password_file="/nowhere/password"
    )


async def test_a_server_that_is_not_trusted_is_not_told_who_we_are(serve, authority, tmp_path):
    port = serve(tls(authority), USERS)
    other = Authority(tmp_path, "other")
    account = {"user": "ann", "password": "hush-hush"}
    url = f"tls://localhost:{port}"
    await refused("not trusted.*check nats.tls_ca_file", url=url, tls_ca_file=other.path, **account)
    await refused("not trusted", url=url, **account)
    await refused("cannot be used", url=url, tls_ca_file=str(tmp_path / "nowhere"), **account)


async def test_a_server_of_another_name_is_not_trusted(serve, authority):
    certificate, key = authority.sign("nats.example.com")
    port = serve(f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}')
    await refused("not trusted", url=f"tls://localhost:{port}", tls_ca_file=authority.path)


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_a_server_without_tls_will_not_do_when_tls_is_asked_for(serve, authority, scheme):
    port = serve(USERS)
    more = {"tls_ca_file": authority.path} if scheme == "nats" else {}
    url = f"{scheme}://ann:hush-hush@localhost:{port}"
    await refused("offers no TLS", url=url, **more)


async def test_our_own_certificate_says_who_we_are(serve, authority):
    port = serve(tls(authority, verify=True))
    certificate, key = authority.sign("ann")
    settings = {"url": f"tls://localhost:{port}", "tls_ca_file": authority.path}
    await works(**settings, tls_cert_file=certificate, tls_key_file=key)
    with pytest.raises((BusUnavailable, ConfigError)):
        await works(**settings, connect_seconds=5)


async def test_an_nkey(serve, tmp_path):
    user, stranger = Nkey(USER), Nkey(USER)
    port = serve(f"authorization {{ users: [ {{ nkey: {user.public} }} ] }}")
    for name, key in (("ours", user), ("strange", stranger)):
        (tmp_path / name).write_text(f"{key.seed}\n")
    url = f"nats://localhost:{port}"
    await works(url=url, nkey_file=str(tmp_path / "ours"))
    await refused("check the token", url=url, nkey_file=str(tmp_path / "strange"))
    (tmp_path / "bad").write_text(user.public)
    await refused("bad does not contain the seed", url=url, nkey_file=str(tmp_path / "bad"))


async def test_a_creds_file(serve, authority, tmp_path):
    operator, account, user = Nkey(OPERATOR), Nkey(ACCOUNT), Nkey(USER)
    system = Nkey(ACCOUNT)
    about = {"type": "operator", "version": 2, "system_account": system.public}
    operator_jwt = operator.jwt(operator.public, "op", **about)
    system_jwt = operator.jwt(system.public, "SYS", type="account", version=2, limits=ANY)
    limits = ANY | STORE | {"wildcards": True}
    account_jwt = operator.jwt(account.public, "acc", type="account", version=2, limits=limits)
    port = serve(
        tls(authority),
        f"operator: {operator_jwt}",
        "resolver: MEMORY",
        f"resolver_preload: {{ {account.public}: {account_jwt}, {system.public}: {system_jwt} }}",
    )
    free = {"subs": -1, "data": -1, "payload": -1}
    path = tmp_path / "ann.creds"
    path.write_text(creds(account.jwt(user.public, "ann", type="user", version=2, **free), user))
    settings = {"url": f"tls://localhost:{port}", "tls_ca_file": authority.path}
    await works(**settings, credentials_file=str(path))
    stranger = Nkey(ACCOUNT)
    path.write_text(creds(stranger.jwt(user.public, "ann", type="user", version=2, **free), user))
    await refused("check the token, password", **settings, credentials_file=str(path))
    path.write_text(user.seed)
    await refused("has no user JWT", **settings, credentials_file=str(path))


def creds(jwt, user):
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )


async def test_a_token_that_is_rotated_in_its_file_is_used_for_the_next_connection(
    tmp_path, free_ports, start_nats
):
    (port,) = free_ports(1)
    token = tmp_path / "token"
    token.write_text("hush-1\n")
    server = start_nats(port, ['authorization { token: "hush-1" }'])
    settings = BusSettings(url=f"nats://localhost:{port}", token_file=str(token))
    async with Bus.connect(settings) as bus:
        back = anyio.Event()
        bus.on_reconnect(back.set)
        server.kill()
        token.write_text("hush-2")
        start_nats(port, ['authorization { token: "hush-2" }'])
        with anyio.fail_after(30):
            await back.wait()
        await bus.flush()
