"""Connections of type kafka: passwords, certificates, and what `connections test` says."""

import ssl

import pytest
from pubsubflow_triggers import KafkaMessage
from trigger_rig import fired

from pubsubflow.errors import ConfigError, TriggerError
from pubsubflow.hooks.kafka import check, kafka_options
from pubsubflow.model.api.connection_types import CONNECTION_TYPES, misfits
from pubsubflow.model.connections import make_connection
from support.certificates import Authority
from support.kafka_broker import free_port, make_topic, producing
from support.kafka_front import fronted

pytestmark = pytest.mark.anyio


def connection(port, user="", **fields):
    host = f"{user}@127.0.0.1" if user else "127.0.0.1"
    made = make_connection("shop", uri=f"kafka://{host}:{port}", **fields)
    assert misfits(made, CONNECTION_TYPES["kafka"]) == []
    return made


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


async def test_a_broker_with_a_certificate_of_its_own_authority(authority, tmp_path):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path)
    context.load_cert_chain(*authority.sign("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    certificate, key = authority.sign("client")
    given = {"tls": True, "ca": authority.path.read_text(), "certificate": certificate.read_text()}
    async with fronted(tmp_path, tls=context) as front:
        good = connection(front.port, extra=given, secrets={"private_key": key.read_text()})
        assert await check(good) == f"Kafka, 1 broker: 127.0.0.1:{front.port}"
        options = kafka_options(good)
        await make_topic(front.port, "orders", **options)
        async with producing(front.port, **options) as producer:
            await producer.send_and_wait("orders", b"1", partition=0)
        trigger = KafkaMessage(url="connection:shop", topic="orders", deliver="all")
        (event,) = await fired(trigger, connections={"shop": good})
        assert event.payload["value"] == 1
        strange = connection(front.port, extra={"tls": True})
        with pytest.raises(ConfigError, match="certificate verify failed"):
            await check(strange)
        with pytest.raises(TriggerError, match="certificate verify failed"):
            await fired(trigger, connections={"shop": strange})


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
async def test_who_the_client_is(mechanism, tmp_path):
    def made(secret):
        if mechanism == "OAUTHBEARER":
            return connection(front.port, secrets={"token": secret})
        extra = {"mechanism": mechanism}
        return connection(front.port, "ann", extra=extra, secrets={"password": secret})

    users = {"ann": "hush-hush", "hush-hush": ""}
    async with fronted(tmp_path, users=users) as front:
        assert await check(made("hush-hush")) == f"Kafka, 1 broker: 127.0.0.1:{front.port}"
        with pytest.raises(ConfigError, match="wrong user or password") as refused:
            await check(made("else-where"))
        assert "else-where" not in str(refused.value)
        trigger = KafkaMessage(url="connection:shop", topic="orders")
        with pytest.raises(TriggerError, match=r"Kafka refuses: .*wrong user or password"):
            await fired(trigger, connections={"shop": made("else-where")})


async def test_nothing_listens():
    with pytest.raises(ConfigError, match="Connect call failed"):
        await check(connection(free_port()))


def test_options_of_a_connection(authority):
    certificate, key = authority.sign("client")
    mutual = connection(
        9093,
        "ann",
        extra={
            "brokers": "b:9094, [::1]:9095, c",
            "mechanism": "PLAIN",
            "tls": True,
            "certificate": certificate.read_text(),
            "timeout": 3,
        },
        secrets={"password": "p", "private_key": key.read_text()},
    )

    found = kafka_options(mutual)
    assert found["bootstrap_servers"] == ["127.0.0.1:9093", "b:9094", "[::1]:9095", "c:9092"]
    assert (found["security_protocol"], found["sasl_mechanism"]) == ("SASL_SSL", "PLAIN")
    assert (found["sasl_plain_username"], found["request_timeout_ms"]) == ("ann", 3000)
    token = kafka_options(connection(1, secrets={"token": "t"}))
    assert (token["security_protocol"], token["sasl_mechanism"]) == (
        "SASL_PLAINTEXT",
        "OAUTHBEARER",
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"extra": {"mechanism": "GSSAPI"}}, "mechanism is one of PLAIN, SCRAM-SHA-256"),
        ({"extra": {"mechanism": "PLAIN"}}, "needs a user in the uri and the secret password"),
        ({"extra": {"mechanism": "OAUTHBEARER"}}, "needs the secret token"),
        ({"extra": {"brokers": "a:b"}}, "brokers is host:port"),
        ({"extra": {"tls": True, "ca": "hush-hush"}}, "is not PEM"),
        ({"extra": {"tls": True, "certificate": "x"}}, "is not PEM"),
    ],
)
def test_what_does_not_fit_is_named(fields, text):
    with pytest.raises(ConfigError, match=text) as refused:
        kafka_options(connection(9092, **fields))
    assert "hush-hush" not in str(refused.value)
    with pytest.raises(ConfigError, match="has no broker"):
        kafka_options(make_connection("shop", kind="kafka", secrets={"token": "t"}))
