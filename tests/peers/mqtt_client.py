"""An MQTT client by paho, driven by JSON lines on standard input, reporting events on standard output.

    {"do": "subscribe", "filter": "telemetry/#", "qos": 1}
    {"do": "publish", "topic": "a/b", "payload": "42", "qos": 1, "retain": false,
     "correlation": "c1", "response_topic": "r/1"}
    {"do": "stream", "topic": "a/b", "interval": 0.05}    numbered payloads without end, QoS 1

Subscriptions are renewed whenever the broker has no session for the client. Events: `connected`
with the reason, `refused`, `disconnected`, `subscribed` and `published` with reason codes, `message`.
"""

import argparse
import json
import ssl
import subprocess
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from events import emit

SESSION_EXPIRY_S = 3600
# Streamed messages without an acknowledgement, at most.
STREAM_WINDOW = 20
# How a zstd frame begins; such payloads are shown as the program `zstd` unpacks them.
ZSTD = bytes.fromhex("28b52ffd")


class Client:
    def __init__(self, arguments):
        self.filters = {}
        self.pending = {}
        # Never held while paho is called: paho holds locks of its own while it calls us.
        self.lock = threading.Lock()
        self.arguments = arguments
        self.v5 = arguments.protocol == "5"
        session = {} if self.v5 else {"clean_session": not arguments.persistent}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=arguments.client_id,
            protocol=mqtt.MQTTv5 if self.v5 else mqtt.MQTTv311,
            **session,
        )
        self.paho.reconnect_delay_set(min_delay=1, max_delay=1)
        self.paho.on_connect = self.on_connect
        self.paho.on_connect_fail = lambda *_: emit("refused", reason="no connection")
        self.paho.on_disconnect = self.on_disconnect
        self.paho.on_subscribe = self.on_subscribe
        self.paho.on_publish = self.on_publish
        self.paho.on_message = self.on_message
        if arguments.ca:
            self.paho.tls_set(
                ca_certs=arguments.ca,
                certfile=arguments.cert,
                keyfile=arguments.key,
                tls_version=ssl.PROTOCOL_TLS_CLIENT,
            )
        if arguments.username:
            self.paho.username_pw_set(arguments.username, arguments.password)

    def start(self):
        extra = {}
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            if self.arguments.persistent:
                properties.SessionExpiryInterval = SESSION_EXPIRY_S
            extra = {"clean_start": not self.arguments.persistent, "properties": properties}
        self.paho.connect_async(self.arguments.host, self.arguments.port, keepalive=10, **extra)
        # Paho's own thread: only so does paho know that others must not write beside it, which a
        # TLS session does not survive. It connects again whenever the connection ends.
        self.paho.loop_start()

    def on_connect(self, _client, _userdata, flags, reason, _properties):
        if reason.is_failure:
            emit("refused", reason=str(reason), code=reason.value)
            return
        emit("connected", session=flags.session_present)
        if not flags.session_present:
            for name, qos in list(self.filters.items()):
                self.subscribe(name, qos)

    def on_disconnect(self, _client, _userdata, _flags, reason, _properties):
        emit("disconnected", reason=str(reason), code=reason.value)

    def settle(self, kind, mid, **half):
        """Join what was sent with its answer, whichever is known first, into one event."""
        with self.lock:
            whole = self.pending.setdefault((kind, mid), {})
            whole.update(half)
            settled = "sent" in whole and "answer" in whole
            if settled:
                del self.pending[kind, mid]
        if settled:
            emit(kind, **whole["sent"], **whole["answer"])

    def subscribe(self, name, qos):
        _, mid = self.paho.subscribe(name, qos)
        self.settle("subscribed", mid, sent={"filter": name})

    def on_subscribe(self, _client, _userdata, mid, reasons, _properties):
        self.settle("subscribed", mid, answer={"codes": [reason.value for reason in reasons]})

    def publish(self, do):
        properties = None
        if self.v5:
            properties = Properties(PacketTypes.PUBLISH)
            if "correlation" in do:
                properties.CorrelationData = do["correlation"].encode()
            if "response_topic" in do:
                properties.ResponseTopic = do["response_topic"]
        info = self.paho.publish(
            do["topic"], do["payload"], do.get("qos", 1), do.get("retain", False), properties
        )
        sent = {"topic": do["topic"], "payload": do["payload"]}
        self.settle("published", info.mid, sent=sent)

    def on_publish(self, _client, _userdata, mid, reason, _properties):
        self.settle("published", mid, answer={"code": reason.value})

    def stream(self, do):
        for number in range(1, sys.maxsize):
            while len(self.pending) >= STREAM_WINDOW or not self.paho.is_connected():
                time.sleep(do["interval"])
            self.publish({"topic": do["topic"], "payload": str(number)})
            time.sleep(do["interval"])

    def on_message(self, _client, _userdata, message):
        payload = message.payload
        compressed = payload.startswith(ZSTD)
        if compressed:
            payload = subprocess.run(["zstd", "-dc"], input=payload, capture_output=True, check=True).stdout
        properties = message.properties.json() if message.properties else {}
        emit(
            "message",
            topic=message.topic,
            payload=payload.decode("utf-8", "replace"),
            compressed=compressed,
            qos=message.qos,
            retain=message.retain,
            dup=message.dup,
            properties=properties,
        )

    def do(self, line):
        if line["do"] == "subscribe":
            self.filters[line["filter"]] = line.get("qos", 1)
            self.subscribe(line["filter"], line.get("qos", 1))
        elif line["do"] == "publish":
            self.publish(line)
        elif line["do"] == "stream":
            threading.Thread(target=self.stream, args=(line,), daemon=True).start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--client-id", required=True)
    parser.add_argument("--protocol", choices=("3.1.1", "5"), default="5")
    parser.add_argument("--persistent", action="store_true")
    for name in ("--ca", "--cert", "--key", "--username", "--password"):
        parser.add_argument(name)
    client = Client(parser.parse_args())
    client.start()
    for line in sys.stdin:
        client.do(json.loads(line))


main()
