# SPDX-License-Identifier: Apache-2.0
#
# The store of a test of the objstore device: a directory, or the S3 server that
# tests/store/s3_served.sh has started, behind a proxy that counts requests. Either can be away for
# a while.

import collections
import json
import os
import socket
import threading
import urllib.parse


class Proxy:
    """Passes HTTP on to an endpoint, one thread for each direction of each connection."""

    def __init__(self, endpoint):
        self.to = urllib.parse.urlsplit(endpoint)
        self.requests = collections.Counter()
        self.away = False
        self.lock = threading.Lock()
        self.open = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            if self.away:
                client.close()
                continue
            try:
                server = socket.create_connection((self.to.hostname, self.to.port))
            except OSError:
                client.close()
                continue
            with self.lock:
                self.open |= {client, server}
            threading.Thread(target=self.pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, False), daemon=True).start()

    def pump(self, source, target, counts):
        parser = RequestCounter(self.requests) if counts else None
        try:
            while data := source.recv(1 << 18):
                if parser:
                    parser.feed(data)
                target.sendall(data)
        except OSError:
            pass
        with self.lock:
            self.open -= {source, target}
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def set_away(self, away):
        """Connections break, and new ones end at once."""
        self.away = away
        with self.lock:
            broken = list(self.open) if away else []
        for one in broken:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class RequestCounter:
    """Counts the requests of one connection by method."""

    def __init__(self, counts):
        self.counts = counts
        self.head = b""
        self.body = 0

    def feed(self, data):
        while data:
            if self.body:
                passed = min(self.body, len(data))
                self.body -= passed
                data = data[passed:]
                continue
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            self.head = b""
            lines = head.split(b"\r\n")
            self.counts[lines[0].split(b" ")[0].decode("ascii")] += 1
            self.body = content_length(lines[1:])


def content_length(lines):
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


class DirectoryStore:
    """In ./store. There is nothing to count."""

    def __init__(self):
        os.makedirs("store", exist_ok=True)
        self.path = os.path.abspath("store")
        self.container = "bucket"

    def options(self):
        return ("-objstore-kind=local", f"-objstore-cfg={json.dumps({'path': self.path})}")

    def set_away(self, away):
        """It takes nothing, as one that is not reached."""
        folder = os.path.join(self.path, self.container)
        if away:
            os.rename(f"{folder}/.usbd", f"{folder}/.away")
            with open(f"{folder}/.usbd", "w", encoding="ascii"):
                pass
        else:
            os.remove(f"{folder}/.usbd")
            os.rename(f"{folder}/.away", f"{folder}/.usbd")


class S3Store:
    """A bucket of its own on the server that USBD_S3_ENDPOINT names."""

    made = 0

    def __init__(self):
        S3Store.made += 1
        self.container = f"bucket-{S3Store.made}"
        self.proxy = Proxy(os.environ["USBD_S3_ENDPOINT"])

    def options(self):
        config = {"access_key_id": os.environ["USBD_S3_KEY"], "endpoint": self.proxy.endpoint,
                  "secret_key": os.environ["USBD_S3_SECRET"]}
        return (f"-objstore-cfg={json.dumps(config)}",)

    def set_away(self, away):
        self.proxy.set_away(away)


def new_store():
    return S3Store() if os.environ.get("USBD_S3_ENDPOINT") else DirectoryStore()
