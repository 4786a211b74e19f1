"""The wire of a Kata client, by hand: protobuf's encoding, QMP's lines, ttrpc's frames.

Nothing here is generated or shared with the service, so that a mistake in the project's own .proto
files shows. Every wait has a time limit.
"""

import json
import socket
import struct
import time

QMP_TIMEOUT = 60.0    # seconds, for one answer of QEMU, or its end
AGENT_TIMEOUT = 60.0  # for one answer of the agent
MAX_FRAME = 4 << 20


class Failure(Exception):
    """What went wrong, in a sentence."""


def require(condition, sentence):
    if not condition:
        raise Failure(sentence)


# --- protobuf: tag = field number << 3 | wire type; 0 is a varint, 2 is length and bytes. Fields
# that have their type's default are not sent.


def pack_varint(value):
    value &= (1 << 64) - 1  # a negative number is its two's complement of 64 bits
    packed = bytearray()
    while value >= 0x80:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def pack_number(field, value):
    return pack_varint(field << 3) + pack_varint(value) if value else b""


def pack_bytes(field, value):
    return pack_varint(field << 3 | 2) + pack_varint(len(value)) + value if value else b""


def unpack_varint(data, at):
    value = shift = 0
    while True:
        require(at < len(data) and shift < 70, "a varint does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & (1 << 64) - 1, at


def unpack(data):
    """[(field number, int or bytes)], in the order of the wire."""
    fields, at = [], 0
    while at < len(data):
        tag, at = unpack_varint(data, at)
        kind = tag & 7
        require(kind in (0, 1, 2, 5), f"wire type {kind} is none")
        if kind == 0:
            value, at = unpack_varint(data, at)
        else:
            size, at = unpack_varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            require(at + size <= len(data), f"field {tag >> 3} is cut off")
            value, at = data[at:at + size], at + size
        fields.append((tag >> 3, value))
    return fields


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def text(value):
    return value.decode("utf-8")


def read_json(value):
    try:
        return json.loads(value)
    except ValueError as error:
        raise Failure(f"{value!r} is not JSON: {error}") from error


# A message's fields: number -> (name, type, what to make of it). Absent: type().
CONFIG = {1: ("Data", bytes, text), 2: ("AgentConfig", bytes, text)}
VM = {
    1: ("id", bytes, text),
    2: ("hypervisor", bytes, read_json),
    3: ("proxyPid", int, signed),
    4: ("proxyURL", bytes, text),
    5: ("cpu", int, int),
    6: ("memory", int, int),
    7: ("cpuDelta", int, int),
}
VM_STATUS = {1: ("pid", int, signed), 2: ("cpu", int, int), 3: ("memory", int, int)}
GUEST_DETAILS = {
    1: ("agent_version", bytes, text),
    2: ("kernel_release", bytes, text),
    3: ("hostname", bytes, text),
    4: ("boot_id", bytes, text),
    5: ("machine_id", bytes, text),
    6: ("online_vcpus", int, int),
    7: ("online_memory_bytes", int, int),
    8: ("memory_block_bytes", int, int),
    9: ("time_unix_ns", int, signed),
}


def decode(schema, data):
    found = {number: kind() for number, (_, kind, _) in schema.items()}
    for number, value in unpack(data):
        if number in schema:
            name, kind, _ = schema[number]
            require(isinstance(value, kind), f"{name} has the wrong wire type")
            found[number] = value
    return {name: convert(found[number]) for number, (name, _, convert) in schema.items()}


def decode_status(data):
    fields = unpack(data)
    return {
        "pid": next((signed(value) for number, value in fields if number == 1), 0),
        "vmstatus": [decode(VM_STATUS, value) for number, value in fields if number == 2],
    }


# --- QMP: a JSON object per line, on a unix socket.


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(QMP_TIMEOUT)
        try:
            self.socket.connect(path)
        except OSError as error:
            raise Failure(f"QMP socket {path}: {error}") from error
        self.rest = b""
        require("QMP" in self._next("the greeting"), "QEMU does not greet")
        self.execute("qmp_capabilities")

    def _next(self, what):
        while b"\n" not in self.rest:
            try:
                received = self.socket.recv(1 << 16)
            except TimeoutError as error:
                raise Failure(f"QMP: no answer to {what} in {QMP_TIMEOUT:.0f} s") from error
            require(received, f"QMP: closed before {what} was answered")
            self.rest += received
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def execute(self, command, arguments=None):
        message = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self.socket.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._next(command)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failure(f"QMP: {command} {arguments or ''}: {answer['error']['desc']}")
            # An event; nothing here waits for one.

    def wait_closed(self):
        """Until QEMU has gone."""
        deadline = time.monotonic() + QMP_TIMEOUT
        while time.monotonic() < deadline:
            try:
                if not self.socket.recv(1 << 16):
                    return
            except ConnectionResetError:
                return
            except TimeoutError:
                break
        raise Failure(f"QEMU has not ended in {QMP_TIMEOUT:.0f} s")

    def close(self):
        self.socket.close()


# --- ttrpc: u32 length, u32 stream id, u8 type (1 request, 2 response), u8 flags, then the message.


class AgentError(Exception):
    def __init__(self, code, message):
        super().__init__(f"code {code}: {message}")
        self.code = code


class Agent:
    def __init__(self, url):
        scheme, _, address = url.partition("://")
        if scheme == "unix":
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            where = address
        elif scheme == "vsock":
            cid, _, port = address.partition(":")
            require(cid.isdigit() and port.isdigit(), f"proxyURL '{url}' is not vsock://CID:PORT")
            self.socket = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
            where = (int(cid), int(port))
        else:
            raise Failure(f"proxyURL '{url}' is neither unix:// nor vsock://")
        self.socket.settimeout(AGENT_TIMEOUT)
        try:
            self.socket.connect(where)
        except OSError as error:
            raise Failure(f"agent at {url}: {error}") from error
        self.stream = -1

    def _read(self, size, what):
        data = b""
        while len(data) < size:
            try:
                received = self.socket.recv(size - len(data))
            except TimeoutError as error:
                raise Failure(f"agent: no answer to {what} in {AGENT_TIMEOUT:.0f} s") from error
            require(received, f"agent: closed before {what} was answered")
            data += received
        return data

    def call(self, service, method, payload=b""):
        self.stream += 2  # a client's are odd, and grow
        name = f"{service}/{method}"
        request = (pack_bytes(1, service.encode()) + pack_bytes(2, method.encode()) +
                   pack_bytes(3, payload) + pack_number(4, int(AGENT_TIMEOUT * 1e9)))
        self.socket.sendall(struct.pack(">IIBB", len(request), self.stream, 1, 0) + request)
        while True:
            size, stream, kind, _ = struct.unpack(">IIBB", self._read(10, name))
            require(size <= MAX_FRAME, f"agent: a frame of {size} bytes")
            response = unpack(self._read(size, name))
            if (stream, kind) == (self.stream, 2):
                break
        status = dict(unpack(dict(response).get(1, b"")))
        if status.get(1, 0) != 0:
            raise AgentError(status[1], f"{name}: {text(status.get(2, b''))}")
        return dict(response).get(2, b"")

    def expect_error(self, service, method, payload, code=None):
        try:
            self.call(service, method, payload)
        except AgentError as error:
            require(code in (None, error.code), f"{service}/{method}: {error}, not code {code}")
            return
        raise Failure(f"{service}/{method} succeeds, and must not")

    def details(self):
        return decode(GUEST_DETAILS, self.call("hatchery.agent.v1.Guest", "Details"))

    def run(self, *argv):
        """A command's stdout."""
        reply = self.call("hatchery.agent.v1.Guest", "Exec",
                          b"".join(pack_bytes(1, argument.encode()) for argument in argv))
        fields = dict(unpack(reply))
        require(fields.get(1, -1) == 0, f"{argv} ends with {fields}")
        return text(fields.get(4, b""))

    def close(self):
        self.socket.close()
