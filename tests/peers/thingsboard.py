"""What the ThingsBoard gateway needs of its platform to send: thingsboard.py MQTT_PORT.

Connects to a broker that stands in for the platform, grants sessions without limits, and counts.
Each line on standard input is answered with {"values": N}, the values that came so far. Ends with
its standard input.
"""

import json
import sys

import paho.mqtt.client as mqtt

LIMITS = {
    "rateLimits": {"messages": "", "telemetryMessages": "", "telemetryDataPoints": ""},
    "gatewayRateLimits": {},
    "maxPayloadSize": 65536,
    "maxInflightMessages": 1000,
}


class Platform:
    def __init__(self, port):
        self.values = 0
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_connect = self.on_connect
        self.client.message_callback_add("v1/devices/me/rpc/request/+", self.on_request)
        self.client.message_callback_add("v1/gateway/telemetry", self.on_telemetry)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def on_connect(self, client, *_):
        client.subscribe([("v1/devices/me/rpc/request/+", 1), ("v1/gateway/telemetry", 1)])

    def on_request(self, client, _, message):
        number = message.topic.rsplit("/", 1)[1]
        client.publish(f"v1/devices/me/rpc/response/{number}", json.dumps(LIMITS), qos=1)

    def on_telemetry(self, _client, _, message):
        for series in json.loads(message.payload).values():
            self.values += sum(len(entry["values"]) for entry in series)


platform = Platform(int(sys.argv[1]))
for _ in sys.stdin:
    print(json.dumps({"values": platform.values}), flush=True)
