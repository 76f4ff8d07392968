"""A device that shares nothing with doseline but /proto: publishes one report as hand-written JSON and the same as
protobuf, and checks the receipts of both; then something bad in both forms. Exits non-zero at the first difference.

BASE_US is the clock of the device at the base of its report, us since 1970.

Usage: independent_client.py HOST PORT PROTO_FOLDER SCRATCH_FOLDER BASE_US
"""

import base64
import hashlib
import importlib
import json
import queue
import sys

import paho.mqtt.client as mqtt
from grpc_tools import protoc
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WITHIN_S = 180
TOPIC = "doseline/v1/independent/clinic/{device}/{channel}"
BOOT = (3 << 32) | 0xC0FFEE

REPORT_JSON = """{
  "bootId": "12897550318",
  "firstSeq": "1",
  "baseUnixUs": "BASE_US",
  "baseUptimeUs": "60000000",
  "clock": "CLOCK_SYNCED",
  "context": {
    "model": "mesogun-2",
    "firmware": "2.5.0",
    "sessionId": "AAECAwQFBgcICQoLDA0ODw==",
    "mounts": [
      {"slot": "SLOT_NEEDLE", "mountId": "mount-1", "itemId": "needle 30G \\u00e9"},
      {"slot": "SLOT_SYRINGE", "mountId": "mount-2"}
    ],
    "doseCalibrationId": "cal-1",
    "operatorId": "op-7"
  },
  "events": [
    {"sessionStarted": {"courseId": "/wAB", "courseIndex": 2, "clientRef": "client 9",
                        "allergyResult": "ALLERGY_RESULT_NEGATIVE", "allergyUnixUs": "ALLERGY_US"}},
    {"offsetUs": "1000", "consumableMounted": {"slot": "SLOT_NEEDLE", "mountId": "mount-1", "itemId": "needle 30G \\u00e9",
                        "gauge": 30, "reusable": false, "packIntact": true, "expiry": "2028-02-29"}},
    {"offsetUs": "2500000", "injection": {"shot": 1, "injectionNo": "18000000001", "mode": "MODE_SINGLE",
                        "outcome": "OUTCOME_OK", "area": "AREA_FACE", "targetNl": "20000", "deliveredNl": "19985",
                        "doseSource": "DOSE_SOURCE_ENCODER", "targetUm": 1500, "measuredUm": 1483,
                        "depthSource": "DEPTH_SOURCE_OPTICAL", "angleMdeg": 90000, "durationUs": "81000",
                        "needleCount": 1, "peakForceMn": 2400, "pressurePa": -350, "vacuumPa": 0, "motorMa": 310}},
    {"offsetUs": "3500000", "injection": {"shot": 2, "injectionNo": 18000000002, "outcome": 2, "targetNl": 20000,
                        "deliveredNl": "0"}},
    {"offsetUs": "3600000", "fault": {"code": "E-17", "state": "FAULT_STATE_RAISED", "detail": "occlusion \\u2265 3 bar"}},
    {"offsetUs": "9000000", "sessionEnded": {"shots": 2, "deliveredNl": "19985", "reason": "done"}}
  ]
}"""


def compile_proto(folder, out):
    name = "doseline/telemetry/v1/telemetry.proto"
    if protoc.main(["protoc", f"-I{folder}", f"--python_out={out}", f"{folder}/{name}"]) != 0:
        sys.exit("the compiler refuses the contract")
    sys.path.insert(0, out)
    return importlib.import_module("doseline.telemetry.v1.telemetry_pb2")


def allergy_us(base_us):
    """Ten days before, and odd."""
    return base_us - 864_000_000_000 + 1


def report_json(base_us):
    return REPORT_JSON.replace("BASE_US", str(base_us)).replace("ALLERGY_US", str(allergy_us(base_us)))


def report_protobuf(pb, base_us):
    report = pb.Report(boot_id=BOOT, first_seq=1, base_unix_us=base_us, base_uptime_us=60_000_000,
                       clock=pb.CLOCK_SYNCED)
    context = report.context
    context.model, context.firmware, context.session_id = "mesogun-2", "2.5.0", bytes(range(16))
    context.mounts.add(slot=pb.SLOT_NEEDLE, mount_id="mount-1", item_id="needle 30G \u00e9")
    context.mounts.add(slot=pb.SLOT_SYRINGE, mount_id="mount-2")
    context.dose_calibration_id, context.operator_id = "cal-1", "op-7"
    report.events.add(session_started=pb.SessionStarted(
        course_id=b"\xff\x00\x01", course_index=2, client_ref="client 9",
        allergy_result=pb.ALLERGY_RESULT_NEGATIVE, allergy_unix_us=allergy_us(base_us)))
    report.events.add(offset_us=1_000, consumable_mounted=pb.ConsumableMounted(
        slot=pb.SLOT_NEEDLE, mount_id="mount-1", item_id="needle 30G \u00e9", gauge=30, reusable=False, pack_intact=True,
        expiry="2028-02-29"))
    report.events.add(offset_us=2_500_000, injection=pb.Injection(
        shot=1, injection_no=18_000_000_001, mode=pb.MODE_SINGLE, outcome=pb.OUTCOME_OK, area=pb.AREA_FACE,
        target_nl=20_000, delivered_nl=19_985, dose_source=pb.DOSE_SOURCE_ENCODER, target_um=1_500, measured_um=1_483,
        depth_source=pb.DEPTH_SOURCE_OPTICAL, angle_mdeg=90_000, duration_us=81_000, needle_count=1,
        peak_force_mn=2_400, pressure_pa=-350, vacuum_pa=0, motor_ma=310))
    report.events.add(offset_us=3_500_000, injection=pb.Injection(
        shot=2, injection_no=18_000_000_002, outcome=pb.OUTCOME_PARTIAL, target_nl=20_000, delivered_nl=0))
    report.events.add(offset_us=3_600_000, fault=pb.Fault(
        code="E-17", state=pb.FAULT_STATE_RAISED, detail="occlusion \u2265 3 bar"))
    report.events.add(offset_us=9_000_000, session_ended=pb.SessionEnded(shots=2, delivered_nl=19_985, reason="done"))
    return report.SerializeToString()


def expect(got, wanted, what):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")
    print(f"ok {what}")


class Device:
    """A device with a connection of its own, as the contract wants it: MQTT 5, QoS 1, receipts in the form it sends."""

    def __init__(self, host, port, name, channel):
        self.name, self.channel, self.receipts = name, channel, queue.Queue()
        subscribed = queue.Queue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
        self.client.on_message = lambda client, data, message: self.receipts.put((message.topic, message.payload))
        self.client.on_subscribe = lambda *told: subscribed.put(told)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        self.client.connect(host, port, clean_start=True, properties=properties)
        self.client.loop_start()
        self.receipt_topic = TOPIC.format(device=name, channel=channel.replace("report", "receipt"))
        self.client.subscribe(self.receipt_topic, qos=1)
        subscribed.get(timeout=WITHIN_S)

    def publish(self, payload):
        topic = TOPIC.format(device=self.name, channel=self.channel)
        self.client.publish(topic, payload, qos=1).wait_for_publish(WITHIN_S)
        topic, receipt = self.receipts.get(timeout=WITHIN_S)
        expect(topic, self.receipt_topic, f"{self.name}: topic of the receipt")
        return receipt

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def main():
    host, port, proto, scratch, base_us = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
    pb = compile_proto(proto, scratch)
    # The number that the JSON was written with by hand.
    expect(BOOT, 12897550318, "boot")

    device = Device(host, port, "by-protobuf", "report")
    receipt = pb.Receipt.FromString(device.publish(report_protobuf(pb, base_us)))
    wanted = pb.Receipt(boot_id=BOOT, code=pb.RECEIPT_CODE_STORED, ranges=[pb.SeqRange(first=1, last=6)])
    expect(receipt, wanted, "STORED receipt as protobuf")
    bad = b"\x08this is no report"
    receipt = pb.Receipt.FromString(device.publish(bad))
    wanted = pb.Receipt(code=pb.RECEIPT_CODE_REJECTED, reason="bad_protobuf", payload_sha256=hashlib.sha256(bad).digest())
    expect(receipt, wanted, "REJECTED receipt as protobuf")
    device.close()

    device = Device(host, port, "by-json", "report/json")
    receipt = json.loads(device.publish(report_json(base_us)))
    wanted = {"bootId": str(BOOT), "code": "RECEIPT_CODE_STORED", "ranges": [{"first": "1", "last": "6"}]}
    expect(receipt, wanted, "STORED receipt as JSON")
    receipt = json.loads(device.publish("{this is no report}"))
    # Base64 of the hash, as canonical JSON has it.
    hashed = base64.b64encode(hashlib.sha256(b"{this is no report}").digest()).decode()
    expect(receipt, {"code": "RECEIPT_CODE_REJECTED", "reason": "bad_json", "payloadSha256": hashed},
           "REJECTED receipt as JSON")
    device.close()


if __name__ == "__main__":
    main()
