"""Produces three records with kafka-python, then reads a topic as a group from its beginning and prints the values.

Usage: kafka_python.py ADDRESS TOPIC COUNT
"""

import sys

from kafka import KafkaConsumer, KafkaProducer

address, topic, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
producer = KafkaProducer(bootstrap_servers=address, acks="all", compression_type="gzip")
for number in range(3):
    producer.send(topic, value=f"kafka-python {number}".encode()).get(timeout=30)
producer.close()

consumer = KafkaConsumer(
    topic, bootstrap_servers=address, group_id="kafka-python", auto_offset_reset="earliest", consumer_timeout_ms=60_000
)
for record in consumer:
    print(record.value.decode())
    count -= 1
    if count == 0:
        break
consumer.commit()
consumer.close()
