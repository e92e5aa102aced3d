"""`run_code(code, tests)` for graders: model-written code runs in a second child, the tests stay in the first.

The second child gets the code and the arguments, never what is expected of it, and only JSON comes back; the
comparison is made by the grader's child with exact types. So overriding `__eq__`, patching the test runner or leaving
early changes nothing but the code's own values. What it does not stop: code that looks the expected values up by the
arguments it sees.
"""

import json
import os
import struct

_MAX_REQUEST_BYTES = 1_000_000
_REPLY = struct.Struct(">cI")


class Runner:
    """The function `run_code` as graders see it; speaks to the worker over the child's own channel."""

    def __init__(self, send, channel):
        self._send = send
        self._channel = channel

    def __call__(self, code, tests, *, timeout_s=10.0):
        """Calls functions that `code` defines; one dict for each test: `passed`, `value`, `error`.

        A test is `{"function": name, "arguments": [...], "expected": value}`, all JSON-able. A test passes when the
        value came back as JSON equal to the expected one, True and 1 told apart. Death and timeout of the code fail
        every test. Raises TypeError or ValueError for tests that are not such, or too large.
        """
        calls = [(test["function"], list(test["arguments"])) for test in tests]
        expected = [json.loads(json.dumps(test["expected"])) for test in tests]
        request = json.dumps({"source": code, "filename": "<code>", "calls": calls}).encode()
        if not calls or len(request) > _MAX_REQUEST_BYTES:
            raise ValueError(
                f"expected at least one test, and code and arguments of at most {_MAX_REQUEST_BYTES} bytes"
            )
        self._send(b"r", struct.pack(">I", len(calls)) + request, int(timeout_s * 1000))
        found = self._receive(len(calls))
        return [_verdict(result, wanted) for result, wanted in zip(found, expected, strict=True)]

    def _receive(self, n_calls):
        results = []
        while len(results) < n_calls:
            kind, length = _REPLY.unpack(exactly(self._channel, _REPLY.size))
            body = exactly(self._channel, length)
            if kind == b"f":
                results += [{"error": body.decode()}] * (n_calls - len(results))
            else:
                results.append(_read(body))
        return results


def exactly(channel, count):
    """So many bytes of the file descriptor; raises EOFError when the worker at its other end is gone."""
    data = bytearray()
    while len(data) < count:
        chunk = os.read(channel, count - len(data))
        if not chunk:
            raise EOFError("the sandbox's worker is gone")
        data += chunk
    return data


def _read(body):
    """A result of the second child, which the code may have forged: anything else than a result is an error."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not ({"value", "error"} & found.keys()):
        return {"error": "it answered with something that is not a result"}
    return found


def _verdict(result, expected):
    error = result.get("error")
    if error is not None:
        return {"passed": False, "value": None, "error": str(error)}
    value = result.get("value")
    has_json_form = value is not None or result.get("type") == "builtins.NoneType"
    return {"passed": has_json_form and _same(value, expected), "value": value, "error": None}


def _same(value, expected):
    if isinstance(expected, list):
        is_list = isinstance(value, list) and len(value) == len(expected)
        return is_list and all(map(_same, value, expected))
    if isinstance(expected, dict):
        is_dict = isinstance(value, dict) and value.keys() == expected.keys()
        return is_dict and all(_same(value[key], expected[key]) for key in expected)
    return isinstance(value, bool) == isinstance(expected, bool) and value == expected
