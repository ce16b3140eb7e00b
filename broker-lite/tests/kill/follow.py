"""paho with a lasting session at QoS 2: prints what it gets, and comes back whenever it is cut off.

Argument: the broker's port.
"""

import sys

import paho.mqtt.client as mqtt

client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id="foreign",
    clean_session=False,
    protocol=mqtt.MQTTv311,
)
client.reconnect_delay_set(0.1, 0.1)


def on_connect(client, _userdata, _flags, _reason, _properties):
    client.subscribe("t/#", 2)


def on_message(_client, _userdata, message):
    print(message.payload.decode(), flush=True)


client.on_connect = on_connect
client.on_message = on_message
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
