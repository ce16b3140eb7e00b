"""paho over WebSocket: subscribes, publishes to itself at every QoS, prints what comes back.

Arguments: port, path, protocol version, and with TLS the authority's file, certificate and key.
"""

import ssl
import sys

import paho.mqtt.client as mqtt

port, path, version, *tls = sys.argv[1:]
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    transport="websockets",
    protocol=mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311,
)
client.ws_set_options(path=path)
if tls:
    authority, *pair = tls
    client.tls_set(authority, *pair, tls_version=ssl.PROTOCOL_TLS_CLIENT)

# Longer than a frame's short lengths, and than what is read at once.
PAYLOADS = ["small", "m" * 300, "l" * 100_000]


def on_message(client, _userdata, message):
    print(message.qos, len(message.payload), message.payload[:1].decode(), flush=True)
    if message.qos == 2 and len(message.payload) == len(PAYLOADS[-1]):
        client.disconnect()


def on_subscribe(client, *_):
    for qos in range(3):
        for payload in PAYLOADS:
            client.publish("t", payload, qos)


client.on_connect = lambda client, *_: client.subscribe("t", 2)
client.on_subscribe = on_subscribe
client.on_message = on_message
client.connect("localhost", int(port))
client.loop_forever()
