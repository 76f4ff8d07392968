"""Reads a generated table of JSON reports with Google's own implementation (protobuf's json_format) and prints one JSON object a
line: the report, and the protobuf bytes that it becomes, or null where it is refused.

Usage: json_format_table.py PROTO_FOLDER SCRATCH_FOLDER
"""

import itertools
import json
import sys

from google.protobuf import json_format

from independent_client import compile_proto

# Every form of a number, bare and in quotes.
NUMBERS = [
    "0", "-0", "1", "7", "-1", "1.0", "-3.0", "1.5", "1.50", "4e3", "4E3", "4e+3", "40e-1", "45e-1", "1.7e15", "19870.0", "0.0",
    "0.5e1", "1e0", "1e400", "1e-400", "2147483647", "2147483648", "-2147483648", "-2147483649", "4294967295", "4294967296",
    "9007199254740992", "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "-9223372036854775809", "18446744073709551615", "18446744073709551616", "1e19", "1e20", "NaN", "Infinity", "-Infinity",
    "01", "1.", ".5", "1e", "0x1", "--1", "",
]
NUMBER_FIELDS = [
    '{"bootId":%s}', '{"boot_id":%s}', '{"baseUnixUs":%s}', '{"events":[{"injection":{"targetNl":%s}}]}',
    '{"events":[{"injection":{"shot":%s}}]}', '{"events":[{"injection":{"pressure_pa":%s}}]}',
    '{"events":[{"calibration":{"points":[{"target":%s}]}}]}', '{"clock":%s}',
    '{"events":[{"consumableMounted":{"reusable":%s}}]}', '{"context":{"model":%s}}', '{"context":%s}', '{"events":%s}',
]
MESSAGE_FIELDS = ['{"context":%s}', '{"events":%s}']
WORDS = ["true", "false", "null", "[]", "{}", "[1]", '"true"', '"1"', '"CLOCK_SYNCED"', '"clock_synced"', '"CLOCK_QUANTUM"', '"x"']
BYTES = ["", "AAECAwQFBgcICQoLDA0ODw==", "AAECAwQFBgcICQoLDA0ODw", "_-8=", "/+8=", "_-8", "***", "A"]
TEXTS = ["", "a", "\u00e9", "\u0000", "\u001b[2J", "L1\r", "\U0001f489", 'say "1.5"', "back\\slash 2.5", "{1.5e3}"]
WHOLE = [
    "{}", "[]", "1", "null", '{"bootId":1,"boot_id":2}', '{"bootId":1,"nobody":{"a":[1.5,null,"x"]}}', '{"events":[null]}',
    '{"events":[{"injection":{},"fault":{}}]}', '{"events":[{"injection":null}]}', '{"lost":[{"firstSeq":"1","last_seq":2.0}]}',
    '{"firstSeq":1}x', '{"firstSeq":1,}', "{'firstSeq':1}", ' { "firstSeq" : 1 } ',
]


def table():
    for field, number in itertools.product(NUMBER_FIELDS, NUMBERS):
        yield field % number
        # Python takes the letters of a text for names of fields.
        if field not in MESSAGE_FIELDS:
            yield field % json.dumps(number)
    for field, word in itertools.product(NUMBER_FIELDS, WORDS):
        if field not in MESSAGE_FIELDS or not word.startswith('"'):
            yield field % word
    yield from ('{"context":{"sessionId":%s}}' % json.dumps(text) for text in BYTES)
    for text, name in itertools.product(TEXTS, ["operatorId", "operator_id"]):
        yield '{"context":{"%s":%s}}' % (name, json.dumps(text))
        yield '{"context":{"%s":%s}}' % (name, json.dumps(text, ensure_ascii=False).replace("\u007f", ""))
    yield from WHOLE


def main(proto, scratch):
    pb = compile_proto(proto, scratch)
    for text in table():
        try:
            wire = json_format.Parse(text, pb.Report(), ignore_unknown_fields=True).SerializeToString().hex()
        except (json_format.ParseError, UnicodeError):
            wire = None
        print(json.dumps({"json": text, "wire": wire}))


if __name__ == "__main__":
    main(*sys.argv[1:])
