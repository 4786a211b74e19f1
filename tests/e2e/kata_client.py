#!/usr/bin/python3 -B
"""A client of Kata's VM cache protocol, written from the protocol alone.

It shares nothing with the service but the wire: gRPC is Debian's python3-grpcio, the rest is in
kata_wire.py. What the service gets wrong in its messages or its JSON shows here, not in a runtime.

Each run prints one JSON object. What goes wrong is one sentence on stderr and exit code 1. Every
wait has a time limit.
"""

import argparse
import json
import os
import sys
import time

import grpc

from kata_wire import (
    CONFIG, VM, Agent, AgentError, Failure, Qmp, decode, decode_status, pack_bytes, pack_number,
    read_json, require)

RPC_TIMEOUT = 120.0   # seconds, for one call of the service
GUEST_TIMEOUT = 60.0  # for the guest to find what was plugged
CLOCK_TOLERANCE = 5.0
MIB = 1 << 20
ADDED_MEMORY = 128 * MIB
UNIMPLEMENTED = 12


# --- The service.


class Service:
    def __init__(self, path, timeout):
        self.timeout = timeout
        self.channel = grpc.insecure_channel("unix:" + os.path.abspath(path))

    def call(self, method):
        """The reply's bytes; the request is google.protobuf.Empty, which is none."""
        stub = self.channel.unary_unary(
            "/cache.CacheService/" + method,
            request_serializer=lambda request: request,
            response_deserializer=lambda reply: reply)
        try:
            return stub(b"", timeout=self.timeout)
        except grpc.RpcError as error:
            raise Failure(f"{method}: {error.code().name}: {error.details()}") from error

    def config(self):
        return decode(CONFIG, self.call("Config"))

    def take(self):
        return decode(VM, self.call("GetBaseVM"))


# --- The take-over, step by step as Kata's runtime does it.


def check_truth(qmp, vm):
    """What the reply says is what QEMU has."""
    hypervisor = vm["hypervisor"]
    require(hypervisor["ID"] == vm["id"], f"ID {hypervisor['ID']} is not {vm['id']}")
    vcpus = len(qmp.execute("query-cpus-fast"))
    require(vcpus == vm["cpu"], f"cpu is {vm['cpu']}, QEMU has {vcpus}")
    sizes = qmp.execute("query-memory-size-summary")
    memory = (sizes["base-memory"] + sizes.get("plugged-memory", 0)) // MIB
    require(memory == vm["memory"], f"memory is {vm['memory']} MiB, QEMU has {memory}")
    smp = hypervisor["QemuSMP"]
    require(smp["Sockets"] * smp["Cores"] * smp["Threads"] == smp["MaxCPUs"], f"SMP {smp}")
    slots = len(qmp.execute("query-hotpluggable-cpus"))
    require(slots == smp["MaxCPUs"], f"MaxCPUs is {smp['MaxCPUs']}, QEMU has {slots} slots")
    added = [cpu["ID"] for cpu in hypervisor["State"]["HotpluggedVCPUs"] or []]
    require(smp["CPUs"] + len(added) == vcpus, f"{smp['CPUs']} CPUs and {added} are not {vcpus}")
    bridges = [bridge["ID"] for bridge in hypervisor["State"]["Bridges"]]
    require(bridges, "there is no bridge")
    names = [entry["name"] for entry in qmp.execute("qom-list", {"path": "/machine/peripheral"})]
    for name in bridges + added + ["scsi0", "rng0"]:
        require(name in names, f"QEMU has no device {name}, only {names}")


def add_vcpu(qmp, hypervisor):
    taken = len(hypervisor["State"]["HotpluggedVCPUs"] or [])
    free = [slot for slot in qmp.execute("query-hotpluggable-cpus") if "qom-path" not in slot]
    require(free, "there is no free CPU slot")
    # QEMU lists the highest first. An emulated guest stands still for 12 s when its second CPU is
    # not in the second slot.
    slot = free[-1]
    props = slot["props"]
    wanted = ("socket-id", "die-id", "core-id", "thread-id")
    qmp.execute("device_add", {
        "driver": slot["type"],
        "id": f"cpu-{taken}",
        **{name: props[name] for name in wanted if name in props},
    })


def add_memory(qmp):
    used = [device["data"]["slot"] for device in qmp.execute("query-memory-devices")]
    memory = f"mem{max(used, default=-1) + 1}"
    qmp.execute("object-add", {"qom-type": "memory-backend-ram", "id": memory,
                               "size": ADDED_MEMORY})
    qmp.execute("device_add", {"driver": "pc-dimm", "id": "dimm" + memory, "memdev": memory})


def devices_below(buses, bridge):
    """The devices of query-pci's answer that are behind a bridge."""
    for bus in buses:
        for device in bus["devices"]:
            below = device.get("pci_bridge", {})
            if device.get("qdev_id") == bridge:
                return below.get("devices", [])
            found = devices_below([below] if "devices" in below else [], bridge)
            if found:
                return found
    return []


def add_device(qmp, hypervisor):
    """One that takes nothing of the host's, where Kata plugs its NICs and disks."""
    bridge = hypervisor["State"]["Bridges"][0]
    slot = next(n for n in range(1, bridge["MaxCapacity"] + 1) if str(n) not in bridge["Devices"])
    qmp.execute("object-add", {"qom-type": "rng-random", "id": "random-kata",
                               "filename": "/dev/urandom"})
    qmp.execute("device_add", {"driver": "virtio-rng-pci", "id": "rng-kata", "rng": "random-kata",
                               "bus": bridge["ID"], "addr": f"{slot:02x}"})
    below = devices_below(qmp.execute("query-pci"), bridge["ID"])
    found = [device["slot"] for device in below if device.get("qdev_id") == "rng-kata"]
    require(found == [slot], f"rng-kata is at {found} of {bridge['ID']}, not at {slot}: {below}")


def wait_for(what, look):
    """What `look` gives once it gives something."""
    deadline = time.monotonic() + GUEST_TIMEOUT
    while True:
        found = look()
        if found:
            return found
        require(time.monotonic() < deadline, f"{what}: not in {GUEST_TIMEOUT:.0f} s")
        time.sleep(0.05)


def pci_devices(agent):
    return set(agent.run("ls", "/sys/bus/pci/devices").split())


def use(vm, end):
    """Takes the VM over, uses it and ends it; what was seen on the way."""
    hypervisor = vm["hypervisor"]
    qmp = Qmp(hypervisor["QmpChannelpath"])
    run_state = qmp.execute("query-status")["status"]
    require(run_state == "paused", f"the VM is {run_state}, not paused")
    check_truth(qmp, vm)
    qmp.execute("cont")
    agent = Agent(vm["proxyURL"])

    agent.call("grpc.AgentService", "ReseedRandomDev", pack_bytes(2, os.urandom(512)))
    now = time.time()
    agent.call("grpc.AgentService", "SetGuestDateTime",
               pack_number(1, int(now)) + pack_number(2, int(now % 1 * 1e6)))
    before = agent.details()
    apart = abs(before["time_unix_ns"] / 1e9 - time.time())
    require(apart < CLOCK_TOLERANCE, f"the guest's clock is {apart:.1f} s off")
    require(before["online_vcpus"] == vm["cpu"] - vm["cpuDelta"],
            f"the guest has {before['online_vcpus']} CPUs online of {vm['cpu']}, "
            f"and cpuDelta is {vm['cpuDelta']}")
    agent.expect_error("grpc.AgentService", "ReseedRandomDev", b"")
    agent.expect_error("grpc.AgentService", "CreateSandbox", b"", UNIMPLEMENTED)
    agent.expect_error("grpc.NoService", "Check", b"", UNIMPLEMENTED)

    on_bus = pci_devices(agent)
    add_vcpu(qmp, hypervisor)
    add_memory(qmp)
    add_device(qmp, hypervisor)
    agent.call("grpc.AgentService", "OnlineCPUMem",
               pack_number(1, 1) + pack_number(2, vm["cpuDelta"] + 1))
    vcpus = agent.details()["online_vcpus"]
    require(vcpus == vm["cpu"] + 1, f"the guest has {vcpus} CPUs online, not {vm['cpu'] + 1}")
    memory = before["online_memory_bytes"] + ADDED_MEMORY
    wait_for("128 MiB more in the guest", lambda: agent.details()["online_memory_bytes"] == memory)
    wait_for("the new device in the guest", lambda: pci_devices(agent) - on_bus)
    after = agent.details()

    if end == "poweroff":
        agent.call("hatchery.agent.v1.Guest", "PowerOff")
    elif end == "quit":
        qmp.execute("quit")
    if end != "none":
        qmp.wait_closed()
    agent.close()
    qmp.close()
    return {"run_state": run_state, "before": before, "after": after, "ended": end}


def hold():
    """Lives on, and with it the lease, until nobody can write to its stdin any more."""
    sys.stdin.buffer.read()


# --- Commands. Each returns what is printed.


def command_config(options):
    return Service(options.socket, options.timeout).config()


def command_status(options):
    return decode_status(Service(options.socket, options.timeout).call("Status"))


def command_quit(options):
    reply = Service(options.socket, options.timeout).call("Quit")
    require(reply == b"", f"Quit answers {reply!r}, not an empty message")
    return {}


def command_take(options):
    service = Service(options.socket, options.timeout)
    vms = []
    for _ in range(options.count):
        vms.append(service.take())
        if options.end:
            qmp = Qmp(vms[-1]["hypervisor"]["QmpChannelpath"])
            qmp.execute("quit")
            qmp.wait_closed()
    return {"pid": os.getpid(), "vms": vms}


def command_use(options):
    return use(read_json(options.vm), options.end)


def command_takeover(options):
    service = Service(options.socket, options.timeout)
    config = service.config()
    for name in ("Data", "AgentConfig"):
        read_json(config[name])
    vm = service.take()
    return {"pid": os.getpid(), "config": config, "vm": vm, **use(vm, options.end)}


def parse_arguments():
    parser = argparse.ArgumentParser(description="A client of Kata's VM cache protocol")
    parser.add_argument("--timeout", type=float, default=RPC_TIMEOUT, help="of a call, in seconds")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name, function, help_text, first="socket"):
        command = commands.add_parser(name, help=help_text)
        command.add_argument(first)
        command.set_defaults(function=function, hold=False)
        return command

    add("config", command_config, "what Config answers")
    add("status", command_status, "what Status answers")
    add("quit", command_quit, "call Quit")
    command = add("take", command_take, "call GetBaseVM")
    command.add_argument("--count", type=int, default=1, help="so many times")
    command.add_argument("--end", action="store_true", help="end each VM before the next is taken")
    command.add_argument("--hold", action="store_true", help="live on until stdin is closed")
    ends = {"choices": ("quit", "poweroff", "none"), "default": "quit"}
    command = add("use", command_use, "take over a VM that was taken before", first="vm")
    command.add_argument("--end", **ends)
    command = add("takeover", command_takeover, "take a VM over, use it and end it")
    command.add_argument("--end", **ends)
    command.add_argument("--hold", action="store_true", help="live on until stdin is closed")
    return parser.parse_args()


def main():
    options = parse_arguments()
    try:
        result = options.function(options)
    except (Failure, AgentError, OSError, ValueError) as error:
        print(f"kata_client: {error}", file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"kata_client: an answer has no {error}", file=sys.stderr)
        return 1
    print(json.dumps(result), flush=True)
    if options.hold:
        hold()
    return 0


if __name__ == "__main__":
    sys.exit(main())
