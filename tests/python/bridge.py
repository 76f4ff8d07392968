"""A plain bridge from MQTT to Kafka, as one would write it with the usual clients: bench's peer of `doseline bridge`.

Usage: bridge.py MQTT_PORT KAFKA_BOOTSTRAP TOPIC
"""

import sys
import time

import paho.mqtt.client as mqtt
from confluent_kafka import Producer
from paho.mqtt.enums import CallbackAPIVersion


def main() -> None:
    port, bootstrap, topic = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "partitioner": "murmur2_random",
        }
    )
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="python-bridge", protocol=mqtt.MQTTv5, manual_ack=True)

    def on_connect(client, userdata, flags, reason, properties):
        client.subscribe("$share/python/doseline/v1/+/+/+/report", qos=1)

    def on_subscribe(client, userdata, mid, reasons, properties):
        print("ready", flush=True)

    def on_message(client, userdata, message):
        _, _, tenant, _, device, _ = message.topic.split("/")

        def confirmed(error, record):
            if error is None:
                client.ack(message.mid, message.qos)

        producer.produce(
            topic,
            key=f"{tenant}/{device}",
            value=message.payload,
            headers=[("topic", message.topic), ("received_at", str(time.time_ns() // 1000))],
            on_delivery=confirmed,
        )
        producer.poll(0)

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    client.connect("127.0.0.1", port)
    while True:
        client.loop(timeout=0.01)
        producer.poll(0)


main()
