"""What an episode's process does: make the tools, answer calls, one after the other or side by side.

Standard library only; `process_forker` loads it by its path, because the package imports far more than tools need. A
frame is a 4-byte big-endian length and JSON. A request is `{id, op, slot, …}`: `open` puts a function or a new object
into a slot, `call` calls it (or a method of it), `drop` forgets it. An answer is `{id}` with `text`, or with `fault`
(what happened, to be read after the tool's name), and with `mistake` beside it when that was a ValueError or TypeError.

Synchronous code runs while no event loop does, so that a tool may use `asyncio.run`. What waits runs on one loop, which
turns whenever nothing else is to be done.
"""

import asyncio
import inspect
import json
import os
import struct
import traceback

LENGTH = struct.Struct(">I")
MAX_CALL_BYTES = 1_000_000
"""Of the arguments of a call, and of its output (UTF-8)."""
MAX_FRAME_BYTES = 64_000_000
"""Of the fields of an item, and of a snapshot, as ASCII JSON."""
_MAX_MESSAGE_CHARS = 2000


class Worker:
    """Serves one connection until it closes."""

    def __init__(self, channel, modules):
        self.channel = channel
        self.modules = modules
        self.pid = os.getpid()
        self.slots = {}
        self.received = bytearray()
        self.waiting = set()
        self.loop = asyncio.new_event_loop()

    def serve(self):
        asyncio.set_event_loop(self.loop)
        self.loop.add_reader(self.channel, self.read)
        while True:
            self.loop.run_forever()  # until `read` has something
            while (request := self.next_request()) is not None:
                self.answer(request)

    def read(self):
        data = self.channel.recv(1 << 16)
        if not data:
            os._exit(0)
        self.received += data
        self.loop.stop()

    def next_request(self):
        if len(self.received) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self.received)[0]
        if len(self.received) < end:
            return None
        request = json.loads(self.received[LENGTH.size : end])
        del self.received[:end]
        return request

    def answer(self, request):
        try:
            value = self.begin(request)
            if inspect.isawaitable(value):
                task = self.loop.create_task(self.finish(value, request))
                self.waiting.add(task)
                task.add_done_callback(self.waiting.discard)
                return
            found = shown(value, request)
        except BaseException as error:
            found = failure(error)
        self.send(request, found)

    def begin(self, request):
        """The value that the request asks for, or something to wait for."""
        op, slot = request["op"], request["slot"]
        if op == "drop":
            return self.slots.pop(slot, None) and None
        if op == "open":
            target = getattr(self.modules[request["module"]], request["name"])
            self.slots[slot] = target if request["fields"] is None else target(request["fields"])
            return None
        owner = self.slots[slot]
        method = request["method"]
        if request["optional"] and getattr(owner, method, None) is None:
            return None
        function = owner if method is None else getattr(owner, method)
        return function(*request["positional"], **request["named"])

    async def finish(self, value, request):
        try:
            found = shown(await value, request)
        except BaseException as error:
            found = failure(error)
        self.send(request, found)

    def send(self, request, found):
        if os.getpid() != self.pid:  # a tool forked, and its child came back from the call
            os._exit(0)
        data = json.dumps({"id": request["id"], **found}).encode()
        if len(data) > MAX_FRAME_BYTES:
            large = f"gave {len(data)} bytes, at most {MAX_FRAME_BYTES}"
            data = json.dumps({"id": request["id"], "fault": large}).encode()
        self.channel.sendall(LENGTH.pack(len(data)) + data)


def shown(value, request):
    """The value as the answer to the request: `output` of a tool, `str`, `json`, or `nothing` of it."""
    form = request["form"]
    if value is None and request["optional"]:
        return {"text": None}
    if form == "output":
        return output(value)
    if form == "str":
        return {"text": str(value)}
    if form == "json":
        try:
            return {"text": json.dumps(value, allow_nan=False)}
        except (TypeError, ValueError) as error:
            return {"fault": f"returned {type(value).__name__}, which is not JSON: {error}"}
    return {"text": None}


def output(value):
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        return {"fault": f"returned {type(value).__name__}, expected a string or JSON: {message_of(error)}"}
    n_bytes = len(text.encode("utf-8", "replace"))
    if n_bytes > MAX_CALL_BYTES:
        large = f"the output has {n_bytes} bytes, at most {MAX_CALL_BYTES} can be returned; ask for less"
        return {"fault": large, "mistake": large}
    return {"text": text}


def failure(error):
    """What a call raised, with the innermost line of code that was running; it may be hostile to being shown."""
    try:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""  # noqa: PTH119
    except BaseException:
        place = ""
    message = message_of(error)
    found = {"fault": f"raised {type(error).__name__}: {message}{place}"}
    if isinstance(error, (ValueError, TypeError)):
        found["mistake"] = message or type(error).__name__
    return found


def message_of(error):
    try:
        text = str(error)
    except BaseException:
        return "(its message cannot be shown)"
    return text if len(text) <= _MAX_MESSAGE_CHARS else text[:_MAX_MESSAGE_CHARS] + "…"
