"""Clients of the LDAP bridge that do it no good: `hostile.py KIND TIMES` and `hostile.py binds THREADS SECONDS NAME`.

The first opens TIMES connections, sends what KIND says on each, prints "open", and then, when the bridge has closed all of
them, standard input has ended or two minutes are over, how many it has closed. The second reads a password, and binds again and again with many
threads. It prints "begun" and then the number of answers by their result code, as JSON.
"""

import json
import resource
import socket
import sys
import threading
import time

BRIDGE = ("127.0.0.1", 3890)


def element(tag, *parts):
    content = b"".join(parts)
    return bytes([tag, 0x84]) + len(content).to_bytes(4, "big") + content


def bind(name, password):
    return element(0x30, b"\x02\x01\x01", element(0x60, b"\x02\x01\x03", element(4, name), element(0x80, password)))


def deep(count):
    return b"".join(bytes([0x30, 0x84]) + (6 * (count - i - 1)).to_bytes(4, "big") for i in range(count))


FIRST = {
    "silent": b"",
    "half": b"\x30\x20\x02",
    "drip": b"\x30\x84\0\0\x80\0",
    "deep": deep(10_000),
    "filter": element(0x30, b"\x02\x01\x01", element(0x63, b"x" * 65_536)),
}


def attack(kind, times):
    streams = []
    for _ in range(times):
        stream = socket.create_connection(BRIDGE)
        try:
            stream.sendall(FIRST[kind])
        except OSError:
            pass  # The bridge has closed it already.
        stream.setblocking(False)
        streams.append(stream)
    print("open", flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    left, end = list(streams), time.monotonic() + 120
    while left and not ended.is_set() and time.monotonic() < end:
        time.sleep(0.3)
        left = [stream for stream in left if is_open(stream, kind)]
    print(times - len(left), flush=True)


def is_open(stream, kind):
    try:
        if kind == "drip":
            stream.sendall(b"\0")
        while stream.recv(4096):
            pass
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def binds(threads, seconds, name):
    message = bind(name.encode(), sys.stdin.readline().rstrip("\n").encode())
    codes, lock, end = {}, threading.Lock(), time.monotonic() + seconds

    def work():
        while True:
            code = answer(message)
            with lock:
                codes[code] = codes.get(code, 0) + 1
            if time.monotonic() >= end:
                return

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    print("begun", flush=True)
    for worker in workers:
        worker.join()
    print(json.dumps(codes), flush=True)


def answer(message):
    """Returns the result code of a bind on a connection of its own, or the error's name."""
    try:
        with socket.create_connection(BRIDGE, timeout=60) as stream:
            stream.sendall(message)
            text = stream.recv(4096)
            # SEQUENCE, the number, [APPLICATION 1], ENUMERATED; all lengths are short, or the text's is of two bytes.
            at = text.index(b"\x0a\x01") if b"\x0a\x01" in text else -1
            return str(text[at + 2]) if at > 0 else "closed"
    except OSError as error:
        return type(error).__name__


resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
if sys.argv[1] == "binds":
    binds(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
else:
    attack(sys.argv[1], int(sys.argv[2]))
