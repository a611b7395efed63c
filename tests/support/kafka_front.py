"""What stands in front of a broker in tests: breaks connections, speaks TLS, demands a password.

Tansu keeps its users where it keeps its topics, in memory, so that there are none when it starts.
Sources: the Kafka protocol guide (SaslHandshake, SaslAuthenticate), RFC 5802, RFC 4616, RFC 7628.
"""

import asyncio
import base64
import hashlib
import hmac
import struct
from contextlib import asynccontextmanager

from support.kafka_broker import answering, kafka_broker

API_VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36
REFUSED = 58
ROUNDS = 4096


class Front:
    """Passes bytes on to a broker, and can break all connections.

    Attributes:
        port: Where it listens, and where the broker says that it is.
        users: Name → password, if clients have to authenticate; by OAUTHBEARER, token → anything.
    """

    def __init__(self, users=None):
        self.target = None
        self.port = 0
        self.up = True
        self.users = users
        self._writers = set()
        self.tasks = set()

    def cut(self):
        self.up = False
        for writer in self._writers:
            writer.transport.abort()

    async def accept(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        if not self.up:
            writer.transport.abort()
            return
        broker = await asyncio.open_connection("127.0.0.1", self.target)
        pair = {writer, broker[1]}
        self._writers |= pair
        try:
            if self.users is not None and not await _authenticated(self, reader, writer, broker):
                return
            await asyncio.gather(_pass(reader, broker[1]), _pass(broker[0], writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()


@asynccontextmanager
async def fronted(folder, users=None, tls=None):
    """Run a broker behind a front."""
    front = Front(users)
    server = await asyncio.start_server(front.accept, "127.0.0.1", 0, ssl=tls)
    front.port = server.sockets[0].getsockname()[1]
    async with server:
        with kafka_broker(folder, advertised=front.port) as front.target:
            await answering(front.target)
            yield front
            front.cut()
            await asyncio.gather(*front.tasks)


async def _pass(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.transport.abort()


async def _frame(reader):
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _framed(data):
    return struct.pack(">i", len(data)) + data


async def _authenticated(front, reader, writer, broker):
    """Serve the requests up to the end of the authentication; return whether it went well."""
    steps = None
    while True:
        frame = await _frame(reader)
        api, version, number, name = struct.unpack(">hhih", frame[:10])
        body = frame[10 + max(name, 0) :]
        if api == API_VERSIONS:
            broker[1].write(_framed(frame))
            writer.write(_framed(await _frame(broker[0])))
        elif api == HANDSHAKE:
            steps = _MECHANISMS[body[2:].decode()](front.users)
            steps.send(None)
            writer.write(_framed(struct.pack(">ihi", number, 0, 1) + body))
        elif api == AUTHENTICATE and steps is not None:
            answer = steps.send(body[4:])
            code = 0 if answer is not None else REFUSED
            text = b"" if code == 0 else b"wrong user or password"
            data = answer[0] if code == 0 else b""
            reply = struct.pack(">ihh", number, code, len(text)) + text
            reply += struct.pack(">i", len(data)) + data + (b"\0" * 8 if version else b"")
            writer.write(_framed(reply))
            await writer.drain()
            if code or answer[1]:
                return code == 0
        else:
            return False


def _plain(users):
    given = yield
    _, name, password = given.decode().split("\0")
    yield (b"", True) if users.get(name) == password else None


def _bearer(users):
    given = yield
    token = given.split(b"Bearer ")[1].split(b"\x01")[0].decode()
    yield (b"", True) if token in users else None


def _scram(algorithm):
    def steps(users):
        first = (yield).decode().removeprefix("n,,")
        fields = dict(each.split("=", 1) for each in first.split(","))
        salt = b"salt of a test"
        sent = f"r={fields['r']}server,s={base64.b64encode(salt).decode()},i={ROUNDS}"
        last = (yield sent.encode(), False).decode()
        without, _, proof = last.rpartition(",p=")
        password = users.get(fields["n"], "").encode()
        salted = hashlib.pbkdf2_hmac(algorithm, password, salt, ROUNDS)
        key = hmac.digest(salted, b"Client Key", algorithm)
        text = f"{first},{sent},{without}".encode()
        mask = hmac.digest(hashlib.new(algorithm, key).digest(), text, algorithm)
        wanted = bytes(one ^ other for one, other in zip(key, mask, strict=True))
        signature = hmac.digest(hmac.digest(salted, b"Server Key", algorithm), text, algorithm)
        good = password and base64.b64decode(proof) == wanted
        yield (b"v=" + base64.b64encode(signature), True) if good else None

    return steps


_MECHANISMS = {
    "PLAIN": _plain,
    "OAUTHBEARER": _bearer,
    "SCRAM-SHA-256": _scram("sha256"),
    "SCRAM-SHA-512": _scram("sha512"),
}
