"""`server.yaml`: what the operator decides. Unknown keys are errors; docs/server.md explains each one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from agentrft.errors import UserError
from agentrft.net.policy import NetworkPolicy

Loc = tuple[str | int, ...]


def _host(entry: str) -> str:
    if entry != "*" and not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", entry):
        raise ValueError(f"expected a host name without port, or `*`, got {entry!r}")
    return entry.lower()


def _origin(entry: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?", entry):
        raise ValueError(f"expected an origin such as https://host or http://host:3000, got {entry!r}")
    return entry.lower()


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(_Section):
    """What clients may send."""

    file_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    """Of a file in one request; OpenAI's is 512 MB."""
    upload_bytes: int = Field(default=8 * 1024**3, ge=1)
    """Of a file in parts; OpenAI's is 8 GB."""
    part_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Of one part."""
    project_bytes: int = Field(default=100 * 1024**3, ge=1)
    """Of all files of a project, parts of unfinished uploads included."""
    json_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Of a JSON body."""
    json_s: float = Field(default=30.0, gt=0, le=3600)
    """How long a JSON body may take to arrive."""
    progress_bytes: int = Field(default=1024, ge=1)
    """What has to arrive of a file within `progress_s`: a client that drips is cut off."""
    progress_s: float = Field(default=10.0, gt=0, le=3600)
    header_s: float = Field(default=10.0, gt=0, le=3600)
    """How long the head of a request may take to arrive."""
    connections: int = Field(default=1000, ge=1)
    """Open at once; later ones are closed at once."""
    concurrent_requests: int = Field(default=256, ge=1)
    """Answered at once, streams included; later ones get 503."""
    requests_per_minute: int = Field(default=6000, ge=1)
    """Of one key; later ones get 429."""


class Network(_Section):
    """Which services jobs may reach."""

    allow: tuple[str, ...] = Field(default=(), strict=False)
    """`host:port` and networks that may be reached although they are not public https (net/policy.py)."""


class Workers(_Section):
    """The processes that train."""

    nice: int = Field(default=19, ge=0, le=19)
    """Added to their niceness, so that answers come first: they get what is left."""
    threads: int | None = Field(default=None, ge=1)
    """That each may compute with; None for all cores. With `exact: true` weights depend on it."""


class Serving(_Section):
    """The process that plays models for chat."""

    models: int = Field(default=2, ge=1)
    """Base models in memory at once."""
    adapters: int = Field(default=32, ge=1)
    """Trained models in memory at once, for each base model."""
    threads: int | None = Field(default=None, ge=1)
    """That it may compute with; None for all cores."""
    nice: int = Field(default=8, ge=0, le=19)
    """Added to its niceness, so that everything else is answered first."""
    cache_mb: int | None = Field(default=None, ge=1)
    """Of keys and values, all models together; None for an eighth of the memory."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of weights; `float32` repeats a seed's answer most firmly."""


class ServerConfig(_Section):
    """The whole file; every key has a default."""

    aliases: dict[str, str] = Field(default_factory=dict)
    """Name that clients use → model that it means, e.g. `o4-mini: smollm2-135m-instruct`."""
    models: tuple[str, ...] | None = Field(default=None, strict=False)
    """Base models that may be trained and served; None for every one that this machine has."""
    network: Network = Field(default_factory=Network)
    limits: Limits = Field(default_factory=Limits)
    workers: Workers = Field(default_factory=Workers)
    serving: Serving = Field(default_factory=Serving)
    store: str | None = None
    """URL of the database, `postgresql+psycopg://…` where several servers share one; None for AGENTRFT_HOME's file."""
    hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = Field(default=(), strict=False)
    """Names in `Host` headers beside loopback's and the address that is listened on; `*` for any."""
    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(default=(), strict=False)
    """Web pages that may call the API from a browser."""
    concurrency: int = Field(default=1, ge=0)
    """Jobs that run at once; 0 for a server that only answers."""
    judge_urls: tuple[str, ...] = Field(default=(), strict=False)
    """`base_url`s of the APIs that model graders may ask, beside OPENAI_BASE_URL's."""
    min_examples: int = Field(default=10, ge=1)
    """Rows that a training file must have; OpenAI asks for 10."""
    idempotency_days: float = Field(default=1.0, gt=0, le=365)
    """How long an `Idempotency-Key` is remembered."""
    responses_days: float = Field(default=30.0, gt=0, le=3650)
    """How long a response of `/v1/responses` is kept; OpenAI's are for 30 days."""

    def policy(self) -> NetworkPolicy:
        """What tools, graders, judges and webhooks of jobs may reach."""
        return NetworkPolicy.public(self.network.allow, param="network.allow")

    def model_named(self, name: str) -> str:
        """The model that a client means by `name`."""
        return self.aliases.get(name, name)


_SECTIONS: dict[str, type[BaseModel]] = {
    "limits": Limits,
    "network": Network,
    "workers": Workers,
    "serving": Serving,
}


def load_config(path: Path | None) -> ServerConfig:
    """The file's options; all defaults for None. Raises UserError with the line of what is wrong."""
    if path is None:
        return ServerConfig()
    document, lines = _read(path)
    try:
        config = ServerConfig.model_validate(document)
    except ValidationError as error:
        problems = [_problem(path, lines, detail) for detail in error.errors(include_url=False)]
        raise UserError("\n".join(problems), param="config", code="invalid_config") from None
    config.policy()
    return config


def _read(path: Path) -> tuple[dict[str, object], dict[Loc, int]]:
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        document = {} if node is None else loader.construct_document(node)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); check --config", param="config", code="invalid_config"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML: {reason}", param="config", code="invalid_config") from None
    if not isinstance(document, dict):
        message = f"{path}: expected a mapping such as `concurrency: 2`, got {type(document).__name__}"
        raise UserError(message, param="config", code="invalid_config")
    return document, {} if node is None else dict(_lines(path, node, ()))


def _lines(path: Path, node: yaml.Node, loc: Loc) -> Iterator[tuple[Loc, int]]:
    """Key path → line, from 1; raises UserError for a key given twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                message = f"{path} line {line}: `{name}` is given twice; keep one of them"
                raise UserError(message, param="config", code="invalid_config")
            seen.add(name)
            yield (*loc, name), line
            yield from _lines(path, value, (*loc, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*loc, index), value.start_mark.line + 1


def _problem(path: Path, lines: dict[Loc, int], detail: ErrorDetails) -> str:
    loc, kind, text, given = detail["loc"], detail["type"], detail["msg"], detail["input"]
    line = next((lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in lines), None)
    where = f"{path} line {line}" if line else str(path)
    name = ".".join(map(str, loc))
    if kind == "extra_forbidden":
        known = ServerConfig.model_fields if len(loc) == 1 else _SECTIONS[str(loc[0])].model_fields
        return f"{where}: unknown key `{name}`; expected one of {', '.join(known)}"
    return f"{where}: `{name}`: {text.removeprefix('Value error, ')}, got {given!r}"
