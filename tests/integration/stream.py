"""A device's side of the protocol written a second time, from the documents alone: it checks that the
description is enough, and it can say things a real client never would."""
import hashlib
import json
import struct


def sized(data):
    return struct.pack(">I", len(data)) + data


def number(value):
    return sized(struct.pack(">q", value))


def operation_key(scope, op):
    """docs/protocol.md, "The key"."""
    salt = int(op["ctx"]["salt"], 16)
    nonce = int(op["nonce"], 16)
    fields = [sized(b"godwit-op-v1"), sized(scope.encode()), sized(op["origin"]["lineage"].encode()),
              number(op["origin"]["lsn"]), sized(struct.pack(">Q", nonce)), sized(op["operation"].encode()),
              sized(op["entityType"].encode()), sized(op["entityId"].encode()), number(op["ctx"]["$"]),
              sized(struct.pack(">Q", salt)), number(op["wallMs"]),
              sized(hashlib.sha256(op["payload"].encode()).digest()),
              sized(hashlib.sha256(op["base"].encode()).digest())]
    return hashlib.sha256(b"".join(fields)).hexdigest()


class Stream:
    """A registered device that makes its requests by hand."""

    def __init__(self, server, device="f" * 32, scope="field", lineage=None, register=True):
        self.server = server
        self.device = device
        self.lineage = lineage or device
        self.scope = scope
        self.seq = 0
        self.last_key = ""
        self.lsn = 0
        if register:
            answer = server.post("/v1/devices", {"deviceId": device, "lineage": self.lineage, "scopes": [scope]},
                                 token=server.token(scope=scope))
            assert answer.status == 200, answer

    def op(self, operation, entity, entity_id, payload, base=None, seq=None, group=None, ctx=0, lsn=None, **changes):
        self.lsn = lsn or self.lsn + 1
        made = {
            "id": f"op-{self.lsn}", "operation": operation, "entityType": entity, "entityId": entity_id,
            "sequenceNumber": seq, "group": group or {"first": seq, "size": 1},
            "ctx": {"$": ctx, "salt": "0" * 16, self.device: seq - 1}, "payload": json.dumps(payload),
            "base": json.dumps(base or {}), "wallMs": 1767323040000, "nonce": f"{self.lsn:016x}", "dependsOn": [],
            "origin": {"lineage": self.lineage, "lsn": self.lsn, "rekeyed": False}}
        made.update(changes)
        if "idempotencyKey" not in changes:
            made["idempotencyKey"] = operation_key(self.scope, made)
        return made

    def create(self, entity_id, seq, **payload):
        return self.op("create", "pins", entity_id, payload, seq=seq)

    def body(self, operations, first=None, prev=None, **fields):
        first = self.seq + 1 if first is None else first
        body = {"deviceId": self.device, "timestamp": "2026-01-02T03:04:05.678Z", "scope": self.scope,
                "firstSeq": first, "prevKey": self.last_key if prev is None else prev,
                "ackedSeq": min(self.seq, first - 1), "confirmedSeq": 0, "wallMs": 1767323045678,
                "operations": operations}
        body.update(fields)
        return body

    def push(self, operations, **fields):
        answer = self.server.post("/v1/sync/operations", self.body(operations, **fields),
                                  token=self.server.token(scope=self.scope))
        if answer.status == 200 and operations:
            last = operations[-1]
            if last["sequenceNumber"] > self.seq:
                self.seq, self.last_key = last["sequenceNumber"], last["idempotencyKey"]
        return answer
