"""A Sparkplug B 3.0 host application by paho, which reads payloads with Eclipse Tahu's own descriptors (PyPI `tahu`).

It knows a metric only by its birth, and reports as `violation` whatever an edge node may not do. Lines on standard input:

    {"do": "state", "online": true}
    {"do": "rebirth"}
    {"do": "dcmd", "device": "tank-1", "metrics": [{"name": "valve", "type": "Boolean", "value": true}]}

`alias` in the place of `name` looks the alias up. Events: `connected`, `NBIRTH` and `DBIRTH` with metrics by name, `NDATA` and
`DDATA` with a list of metrics, `NDEATH` with `bd_seq`, `DDEATH`, `violation`.
"""

import argparse
import json
import ssl
import sys
import time

import paho.mqtt.client as mqtt
from tahu.sparkplug_b import MetricDataType as DataType
from tahu.sparkplug_b_pb2 import Payload

from events import emit

TYPE_NAMES = {number: name for name, number in vars(DataType).items() if isinstance(number, int)}
SIGNED = {DataType.Int8: 8, DataType.Int16: 16, DataType.Int32: 32, DataType.Int64: 64}
# Births may name these without an alias; commands do.
WITHOUT_ALIAS = {"bdSeq", "Node Control/Rebirth"}
QUALITIES = {0, 192, 500}


def now_ms():
    return int(time.time() * 1000)


def value_of(metric, datatype):
    field = metric.WhichOneof("value")
    if field is None:
        return None
    value = getattr(metric, field)
    if datatype in SIGNED:
        bits = SIGNED[datatype]
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value
    return list(value) if isinstance(value, bytes) else value


class Host:
    def __init__(self, arguments):
        self.prefix = ["spBv1.0", arguments.group]
        self.node = arguments.node
        self.state_topic = f"spBv1.0/STATE/{arguments.id}"
        self.seq = None
        self.bd_seq = None
        # By device, the node's under "": alias to name and type.
        self.alive = {}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=arguments.id, protocol=mqtt.MQTTv5
        )
        self.paho.tls_set(
            ca_certs=arguments.ca,
            certfile=arguments.cert,
            keyfile=arguments.key,
            tls_version=ssl.PROTOCOL_TLS_CLIENT,
        )
        self.paho.on_connect = self.on_connect
        self.paho.on_subscribe = lambda *_: emit("connected")
        self.paho.on_message = self.on_message
        self.paho.connect_async("127.0.0.1", arguments.port, keepalive=10)
        self.paho.loop_start()

    def on_connect(self, *_):
        self.paho.subscribe("/".join(self.prefix) + "/#", 1)

    def wrong(self, what, topic):
        emit("violation", what=what, topic=topic)

    def on_message(self, _client, _userdata, message):
        levels = message.topic.split("/")
        kind, device = levels[2], "/".join(levels[4:])
        if kind not in ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"):
            return
        if levels[:2] != self.prefix or levels[3] != self.node:
            self.wrong("another node's topic", message.topic)
        if (kind[0] == "D") != bool(device):
            self.wrong("a device where there is none, or none where there is one", message.topic)
        if message.retain or message.qos != (1 if kind == "NDEATH" else 0):
            self.wrong(f"QoS {message.qos}, retain {message.retain}", message.topic)
        payload = Payload.FromString(message.payload)
        if kind == "NDEATH":
            self.node_death(payload, message.topic)
            return
        self.in_order(kind, payload, message.topic)
        if kind.endswith("BIRTH"):
            self.birth(kind, device, payload, message.topic)
        elif kind.endswith("DATA"):
            self.data(kind, device, payload, message.topic)
        elif self.alive.pop(device, None) is None:
            self.wrong("the death of what was not alive", message.topic)
        else:
            emit(kind, device=device)

    def in_order(self, kind, payload, topic):
        if not payload.HasField("timestamp") or not payload.HasField("seq"):
            self.wrong("no timestamp or no seq", topic)
        expected = 0 if kind == "NBIRTH" or self.seq is None else (self.seq + 1) % 256
        if payload.seq != expected:
            self.wrong(f"seq {payload.seq} instead of {expected}", topic)
        self.seq = payload.seq

    def node_death(self, payload, topic):
        if payload.HasField("seq") or [metric.name for metric in payload.metrics] != ["bdSeq"]:
            self.wrong("more than bdSeq", topic)
        if payload.metrics[0].long_value != self.bd_seq:
            self.wrong(f"bdSeq {payload.metrics[0].long_value} instead of {self.bd_seq}", topic)
        self.alive.clear()
        emit("NDEATH", bd_seq=payload.metrics[0].long_value)

    def birth(self, kind, device, payload, topic):
        if kind == "NBIRTH":
            self.alive.clear()
            rebirth = [m for m in payload.metrics if m.name == "Node Control/Rebirth"]
            if len(rebirth) != 1 or rebirth[0].datatype != DataType.Boolean or rebirth[0].boolean_value:
                self.wrong("no Node Control/Rebirth that is false", topic)
            bd_seq = [m for m in payload.metrics if m.name == "bdSeq"]
            if len(bd_seq) != 1 or bd_seq[0].datatype != DataType.Int64:
                self.wrong("no bdSeq", topic)
            self.bd_seq = bd_seq[0].long_value
        elif "" not in self.alive:
            self.wrong("a device's birth before its node's", topic)
        declared, metrics = {}, {}
        taken = {alias for known in self.alive.values() for alias in known}
        for metric in payload.metrics:
            if not metric.name or not metric.datatype:
                self.wrong("a metric without name or type", topic)
            if (metric.WhichOneof("value") is None) != metric.is_null:
                self.wrong(f"{metric.name} is neither null nor has a value", topic)
            if metric.HasField("alias") == (metric.name in WITHOUT_ALIAS):
                self.wrong(f"the alias of {metric.name}", topic)
            if metric.HasField("alias"):
                if metric.alias in declared or (kind == "NBIRTH" and metric.alias in taken):
                    self.wrong(f"alias {metric.alias} twice", topic)
                declared[metric.alias] = (metric.name, metric.datatype)
            metrics[metric.name] = {
                "alias": metric.alias,
                "type": TYPE_NAMES[metric.datatype],
                "value": value_of(metric, metric.datatype),
                "time": metric.timestamp,
            }
        self.alive[device] = declared
        emit(kind, device=device, bd_seq=self.bd_seq, metrics=metrics)

    def data(self, kind, device, payload, topic):
        known = self.alive.get(device)
        if known is None:
            self.wrong("data of what was not born", topic)
            return
        metrics = []
        for metric in payload.metrics:
            if metric.HasField("name") or metric.HasField("datatype"):
                self.wrong("more than an alias", topic)
            if metric.alias not in known:
                self.wrong(f"alias {metric.alias} was not declared", topic)
                continue
            name, datatype = known[metric.alias]
            for key, value in zip(metric.properties.keys, metric.properties.values):
                if key == "Quality" and (value.type != DataType.Int32 or value.int_value not in QUALITIES):
                    self.wrong(f"the quality of {name}", topic)
            metrics.append(
                {
                    "name": name,
                    "value": value_of(metric, datatype),
                    "time": metric.timestamp,
                    "historical": metric.is_historical,
                }
            )
        emit(kind, device=device, metrics=metrics)

    def command(self, topic, metrics, qos=0):
        payload = Payload()
        payload.timestamp = now_ms()
        for wanted in metrics:
            metric = payload.metrics.add()
            metric.timestamp = now_ms()
            if "alias" in wanted:
                aliases = {name: alias for known in self.alive.values() for alias, (name, _) in known.items()}
                metric.alias = aliases[wanted["alias"]]
            else:
                metric.name = wanted["name"]
            metric.datatype = getattr(DataType, wanted["type"])
            if wanted["type"] == "Boolean":
                metric.boolean_value = wanted["value"]
            else:
                metric.int_value = wanted["value"]
        self.paho.publish("/".join(topic), payload.SerializeToString(), qos)

    def do(self, line):
        if line["do"] == "state":
            state = json.dumps({"online": line["online"], "timestamp": now_ms()})
            self.paho.publish(self.state_topic, state, qos=1, retain=True)
        elif line["do"] == "rebirth":
            rebirth = {"name": "Node Control/Rebirth", "type": "Boolean", "value": True}
            self.command([*self.prefix, "NCMD", self.node], [rebirth])
        elif line["do"] == "dcmd":
            self.command([*self.prefix, "DCMD", self.node, line["device"]], line["metrics"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    for name in ("--id", "--group", "--node", "--ca", "--cert", "--key"):
        parser.add_argument(name, required=True)
    host = Host(parser.parse_args())
    for line in sys.stdin:
        host.do(json.loads(line))


main()
