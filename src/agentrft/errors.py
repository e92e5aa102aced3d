"""The exceptions agentrft raises on purpose.

    AgentrftError
    ├── UserError              a mistake that the user can mend: message, `param`, `code`; exit code 2, HTTP 400
    └── BoundaryError          an outside part failed: costs one episode (or pauses the job), is counted, never a bug
        ├── ToolFault          a tool is broken: it crashed, hung, or its process died
        │   └── ToolOutage     it could not be reached, or says that it cannot now: trying again may help
        ├── GraderFault        the service that a grader asks could not answer
        ├── EngineFault        the model engine, or a model behind an API, could not answer
        ├── SandboxFault       the confined process died or broke its protocol
        └── StoreFault         the store or the disk refused

Everything else is a bug and crashes. Extension authors need none of these: whatever their code raises is assigned to
its boundary where we call it.
"""

from __future__ import annotations


class AgentrftError(Exception):
    """Base of everything that agentrft raises on purpose."""


class UserError(AgentrftError):
    """The user asked for something that cannot be done; the message says what, got, expected and the next step."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """Dotted path of the offending field, as OpenAI's error body names it (`method.reinforcement.grader`)."""
        self.code = code
        """Stable machine-readable reason, listed in `docs/errors.md`."""


class BoundaryError(AgentrftError):
    """A part outside our control failed; recorded on the episode or the job, siblings survive."""

    boundary = "outside"


class ToolFault(BoundaryError):
    """A tool could not be reached or died; the episode is void, not wrong."""

    boundary = "tool"


class ToolOutage(ToolFault):
    """The tool could not be reached, or is not able to answer now; the same call may succeed a little later."""

    def __init__(self, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        """How long the tool asks to be left alone; None when it does not say."""


class GraderFault(BoundaryError):
    """What a grader asks could not be reached or failed: an outage, which says nothing about the episode."""

    boundary = "grader"


class EngineFault(BoundaryError):
    """The generator, the learner or a chat model could not answer."""

    boundary = "engine"


class SandboxFault(BoundaryError):
    """The confined process died, ran over its limits or broke its protocol."""

    boundary = "sandbox"


class StoreFault(BoundaryError):
    """The store refused: wrong version, stale fencing token, full disk."""

    boundary = "store"
