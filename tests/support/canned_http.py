"""An HTTP server with answers that a test gives it: it looks at nothing that is requested."""

import socket
import threading
from contextlib import contextmanager


def answer(body, status="200 OK", *more):
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{''.join(more)}\r\n"
    return head.encode() + body


@contextmanager
def serving(*connections):
    """Serve connections one after the other: of each, a list of answers, then it is closed."""
    requests = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for answers in connections:
            with listener.accept()[0] as connection:
                for each in answers:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65536)
                    requests.append(head.decode())
                    connection.sendall(each)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        thread.join(10)
        listener.close()
