"""Which weights a name means: a base model, or one that a job trained.

Accepted wherever the command line takes a model: what `engines.models.resolve` accepts (folder, hub id, built-in
name), a job id (its best checkpoint), an `ft:` name as the API gives it (a job's result or checkpoint), the name of a
trained model under `AGENTRFT_HOME/models`, and the folder of a checkpoint or of any PEFT adapter.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentrft.engines.models import resolve
from agentrft.errors import UserError
from agentrft.home import home
from agentrft.jobs.names import ModelName, is_trained
from agentrft.train.checkpoint import checkpoint_name

CARD = "agentrft.json"
"""Beside a trained model's weights: `{base_model, job, step, reward}`."""
JOB_FILE = "job.json"
"""In a job's folder: what its checkpoints were made from (`base_model`), and the name of its `result`."""

_ADAPTER, _ADAPTER_CONFIG, _FULL = "adapter_model.safetensors", "adapter_config.json", "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model folder, and what to load over it."""

    name: str
    """As the user would type it again."""
    folder: Path
    """Base model: config, tokenizer, safetensors."""
    trained: Path | None = None
    """Folder with an adapter or full weights to load over the base; None for the base model itself."""
    rank: int | None = None
    """Of the adapter in `trained`; None when there is none (full weights, or nothing)."""
    alpha: float | None = None
    bundle: str | None = None
    """Hash of the agent that `trained` was trained with; None where its card does not say."""

    @property
    def is_full(self) -> bool:
        """`trained` holds all weights rather than an adapter."""
        return self.trained is not None and self.rank is None


def find_weights(
    name: str, *, base_dir: Path | None = None, find_job: Callable[[ModelName], str] | None = None
) -> Weights:
    """The weights that `name` means; raises UserError when nothing of that name can be found.

    Relative paths start at `base_dir` (a job file's folder), then at the current folder. `find_job` gives the id of the
    job behind an `ft:` name, or raises UserError; jobs on this machine's disk are looked through when it is left out.
    """
    if is_trained(name):
        return _of_name(name, find_job or _job_on_disk)
    if name.startswith("ftjob-"):
        return _of_job(name)
    for candidate in _candidates(name, base_dir):
        if (candidate / _ADAPTER_CONFIG).is_file():
            return _adapter(name, candidate)
        if (candidate / _FULL).is_file() and not (candidate / "tokenizer.json").is_file():
            return Weights(name=name, folder=_base_of(candidate), trained=candidate, bundle=_bundle_of(candidate))
    return Weights(name=name, folder=resolve(name, base=base_dir))


def published_step(job_id: str) -> int:
    """The optimiser step whose weights a finished job published; raises UserError when it has none."""
    trained = _of_job(job_id).trained
    assert trained is not None, job_id
    return _read_json(trained / CARD)["step"]


def publish(trained: Path, target: Path, card: dict[str, Any], *, base: Path) -> Path:
    """Copy what a user loads elsewhere (no optimiser state) from a checkpoint to `target`, with its card; returns it.

    A full model gets its base's tokenizer, so that the folder stands alone.
    """
    draft = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for source in (trained / name for name in (_ADAPTER, _ADAPTER_CONFIG, _FULL, "config.json")):
        if source.is_file():
            shutil.copy2(source, draft)
    if (draft / _FULL).is_file():
        for source in (base / name for name in TOKENIZER_FILES):
            if source.is_file():
                shutil.copy2(source, draft)
    (draft / CARD).write_text(json.dumps(card, indent=2) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return target


def _candidates(name: str, base_dir: Path | None) -> list[Path]:
    folders = [Path(name).expanduser(), home() / "models" / name]
    return folders if base_dir is None else [base_dir / name, *folders]


def _of_job(job_id: str) -> Weights:
    folder = home() / "jobs" / job_id
    result = _read_json(folder / JOB_FILE).get("result") if (folder / JOB_FILE).is_file() else None
    if result:
        return replace(find_weights(result), name=job_id)
    known = "has no finished result yet" if folder.is_dir() else f"is not known under {folder.parent}"
    raise UserError(
        f"model {job_id!r}: the job {known}; expected a job that has succeeded. `agentrft jobs list` shows them",
        param="model",
        code="model_not_found",
    )


def _of_name(name: str, find_job: Callable[[ModelName], str]) -> Weights:
    parsed = ModelName.parse(name)
    job_id = find_job(parsed)
    if parsed.step is None:
        return replace(_of_job(job_id), name=name)
    folder = home() / "jobs" / job_id / "checkpoints" / checkpoint_name(parsed.step)
    if not folder.is_dir():
        saved = sorted(int(path.name[len("step-") :]) for path in folder.parent.glob("step-*"))
        raise UserError(
            f"model {name!r}: job {job_id} keeps no checkpoint of step {parsed.step}; expected one of "
            f"{', '.join(map(str, saved)) or 'none'}. Take one of these, or the job's result",
            param="model",
            code="model_not_found",
        )
    return replace(find_weights(str(folder)), name=name)


def _job_on_disk(name: ModelName) -> str:
    """The one job whose folder under `AGENTRFT_HOME/jobs` is of that name."""
    found = [path.parent.name for path in (home() / "jobs").glob(f"ftjob-{name.job_prefix}*/{JOB_FILE}")]
    named = [job_id for job_id in found if _is_named(home() / "jobs" / job_id, name)]
    if len(named) == 1:
        return named[0]
    got = "more than one job is of that name" if named else f"no job under {home() / 'jobs'} is of that name"
    raise UserError(
        f"model {str(name)!r}: {got}; expected the result or a checkpoint of a job. `agentrft jobs list` shows them",
        param="model",
        code="model_not_found",
    )


def _is_named(folder: Path, name: ModelName) -> bool:
    # The base is left out: a job that was asked for by an operator's alias is called by it, and trains what it means.
    its_own = ModelName.of_job({"id": folder.name, **_read_json(folder / JOB_FILE)})
    return (its_own.job_prefix, its_own.suffix, its_own.org) == (name.job_prefix, name.suffix, name.org)


def _adapter(name: str, folder: Path) -> Weights:
    config = _read_json(folder / _ADAPTER_CONFIG)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise UserError(
            f"{folder / _ADAPTER_CONFIG} is no LoRA configuration: expected `r` and `lora_alpha`, got {rank!r} and "
            f"{alpha!r}; give an adapter that agentrft or PEFT saved",
            param="model",
            code="model_not_found",
        )
    base, bundle = _base_of(folder), _bundle_of(folder)
    return Weights(name=name, folder=base, trained=folder, rank=rank, alpha=float(alpha), bundle=bundle)


def _bundle_of(folder: Path) -> str | None:
    """The bundle that a published model's card or a checkpoint's manifest names."""
    found = (_read_json(path).get("bundle") for name in (CARD, "manifest.json") if (path := folder / name).is_file())
    return next((bundle for bundle in found if isinstance(bundle, str)), None)


def _base_of(folder: Path) -> Path:
    """The base model of trained weights: from their card, their job, or PEFT's own field."""
    places = ((folder / CARD, "base_model"), (folder.parent.parent / JOB_FILE, "base_model"))
    for path, key in (*places, (folder / _ADAPTER_CONFIG, "base_model_name_or_path")):
        base = _read_json(path).get(key) if path.is_file() else None
        if base:
            return resolve(base)
    raise UserError(
        f"{folder} holds trained weights but does not say of which base model; expected `base_model` in {CARD}, or "
        f"`base_model_name_or_path` in {_ADAPTER_CONFIG}; add it",
        param="model",
        code="model_not_found",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", param="model", code="model_not_found") from None
    return document if isinstance(document, dict) else {}
