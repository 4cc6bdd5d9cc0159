"""Drive a robot behind a bridge with the standard library and msgpack alone: the push-T pusher to the middle.

python -m wm.envs.bridge --env pusht --port 5555 &
python docs/robot_client.py 5555
"""

import socket
import struct
import sys
import time

import msgpack


class Bridge:
    """One connection to a bridge."""

    def __init__(self, port, host="127.0.0.1"):
        self.sock = socket.create_connection((host, port), timeout=2.0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = 0

    def ask(self, kind, **fields):
        """Send a request and return its reply: 4 bytes of length, big-endian, then a msgpack map."""
        self.number += 1
        body = msgpack.packb({"version": 1, "type": kind, "id": self.number, **fields})
        self.sock.sendall(struct.pack(">I", len(body)) + body)
        (length,) = struct.unpack(">I", self.receive(4))
        reply = msgpack.unpackb(self.receive(length))
        if reply["type"] == "refused" or reply["id"] != self.number:
            raise RuntimeError(f"{kind}: {reply}")
        return reply

    def receive(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data


bridge = Bridge(int(sys.argv[1]))
action = bridge.ask("describe")["action"]
print("robot:", action["names"], "in units of", action["unit"])
bridge.ask("command")  # one client commands; refused while another does
bridge.ask("reset")  # clear a stop that a commander left; after anyone else's or the deadman's: force=True
for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 40):
    began = time.monotonic()
    seen = bridge.ask("observe")  # also: seen["image"], seen["side"], seen["stamp"], seen["sequence"]
    x, y = seen["proprio"][:2]
    bridge.ask("act", action=[max(-1.0, min(1.0, (256.0 - c) / 100.0)) for c in (x, y)])
    time.sleep(max(0.0, began + 1.0 / action["control_hz"] - time.monotonic()))
bridge.ask("release")  # brake and leave; leaving without it stops the robot as well, latched
print(f"pusher at {x:.0f} {y:.0f}")
