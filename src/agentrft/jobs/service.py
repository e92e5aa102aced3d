"""Jobs in the store: created from a document, found again by id or unique prefix.

A job's id is a function of its document and of how many equal jobs the store already has: the first run of a job file
in a fresh `AGENTRFT_HOME` has the same id on every machine, and with it the same episode ids and random draws.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agentrft.errors import UserError
from agentrft.home import home
from agentrft.jobs.load import parse_job
from agentrft.jobs.models import JOB_FILE
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.vault import open_vault, seal_fields, unseal_fields
from agentrft.net.secrets import WITH_SECRETS
from agentrft.protocols import Store
from agentrft.store.schema import LOCAL_PROJECT
from agentrft.writing import write_whole

Kind = Literal["supervised", "dpo", "reinforcement", "evaluation"]

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_MOST_JOBS_SEARCHED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    """A job as the store has it."""

    id: str
    kind: Kind
    spec: JobSpec
    base_dir: Path
    """Where the paths in `spec` start."""
    start_from: str | None
    """Model that replaces the spec's, as `--from` gave it."""
    status: str
    fine_tuned_model: str | None
    """Name of the result under `AGENTRFT_HOME/models`, once there is one."""

    @property
    def model(self) -> str:
        """What training starts from."""
        return self.start_from or self.spec.model

    @property
    def folder(self) -> Path:
        """Checkpoints, journal and report of this job."""
        return job_folder(self.id)


def job_folder(job_id: str) -> Path:
    """`AGENTRFT_HOME/jobs/<id>`; not created."""
    return home() / "jobs" / job_id


def create_job(
    store: Store,
    spec: JobSpec,
    base_dir: Path,
    *,
    kind: Kind | None = None,
    start_from: str | None = None,
    extra: Mapping[str, Any] | None = None,
    fixed_id: str | None = None,
) -> StoredJob:
    """A new job in the store, `queued`; `kind` defaults to the document's method.

    `extra` are further keys of the stored job: `project_id`, `runner`, `status`, and the `request` of an API's client.
    Raises UserError (`job_exists`) where `fixed_id`, which replaces the id made of the document, is taken.
    """
    document = {
        "object": "fine_tuning.job",
        "kind": kind or spec.method.type,
        "model": spec.model,
        "start_from": start_from,
        "base_dir": str(base_dir),
        "fine_tuned_model": None,
        "spec": spec.model_dump(mode="json"),
    }
    # Only the store keeps secrets, sealed, so that the job can be resumed; neither the id nor job.json knows them.
    runnable, project = spec.model_dump(mode="json", context=WITH_SECRETS), (extra or {}).get("project_id")
    # The folder's own place on the disk is left out: the same files elsewhere are the same job.
    digested = {key: value for key, value in document.items() if key != "base_dir"}
    for copy in itertools.count():
        job_id = fixed_id or job_id_of(digested, copy)
        sealed = _sealed(runnable, document["spec"], _place(project, job_id))
        try:
            store.create_job({"id": job_id, "status": "queued", **document, "spec": sealed, **(extra or {})})
        except UserError as error:
            if error.code != "job_exists" or fixed_id:
                raise
        else:
            return stored_job(store, job_id)
    raise AssertionError("unreachable: itertools.count ends never")


def job_id_of(document: Mapping[str, Any], copy: int) -> str:
    """`ftjob-` and 24 letters or digits that depend on the document and on which copy of it this is."""
    text = json.dumps([document, copy], sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    return "ftjob-" + "".join(_ALPHABET[number // 36**place % 36] for place in range(24))


def stored_job(store: Store, job_id: str) -> StoredJob:
    """The job of that id; raises UserError when the store has none."""
    document = store.get_job(job_id)
    spec = parse_job(
        _unsealed(document["spec"], _place(document.get("project_id"), job_id)), source=f"stored job {job_id}"
    )
    if dtype := document.get("dtype"):
        spec = spec.model_copy(update={"training": spec.training.model_copy(update={"dtype": dtype})})
    return StoredJob(
        id=job_id,
        kind=document["kind"],
        spec=spec,
        base_dir=Path(document["base_dir"]),
        start_from=document.get("start_from"),
        status=document["status"],
        fine_tuned_model=document.get("fine_tuned_model"),
    )


def secrets_of(store: Store, job_id: str) -> dict[str, str]:
    """The job's secrets by their dotted places in its spec; raises UserError as `stored_job` does."""
    document = store.get_job(job_id)
    found: dict[str, str] = {}
    place = _place(document.get("project_id"), job_id)

    def unseal(sealed: str, path: str) -> str:
        return found.setdefault(path, open_vault().unseal(sealed, place + path))

    unseal_fields(document.get("spec"), unseal)
    return found


def _place(project: str | None, job_id: str) -> str:
    """What a sealed value is bound to, but for its path in the job's document."""
    return f"{project or LOCAL_PROJECT}|{job_id}|"


def _sealed(runnable: Any, masked: Any, place: str) -> Any:
    return seal_fields(runnable, masked, lambda value, path: open_vault().seal(value, place + path))


def _unsealed(spec: Any, place: str) -> Any:
    return unseal_fields(spec, lambda value, path: open_vault().unseal(value, place + path))


def find_job(store: Store, given: str) -> str:
    """The id of the one job whose id begins with `given` (the `ftjob-` may be left out).

    Raises UserError when there is none, or more than one.
    """
    prefix = given if given.startswith("ftjob-") else f"ftjob-{given}"
    with suppress(UserError):  # a whole id, however old the job
        return store.get_job(prefix)["id"]
    found = [job["id"] for job in store.list_jobs(limit=_MOST_JOBS_SEARCHED) if job["id"].startswith(prefix)]
    if len(found) == 1:
        return found[0]
    got = f"{len(found)} jobs begin with it ({', '.join(found[:3])} …)" if found else "no job begins with it"
    raise UserError(
        f"job {given!r}: {got}; expected the beginning of one job's id. `agentrft jobs list` shows them",
        param="job",
        code="job_not_found",
    )


def result_name(job: StoredJob) -> str:
    """Name of what the job trains, `[a-z0-9.-]+`: base model, suffix or method, and six characters of the job's id."""
    base = re.sub(r"[^a-z0-9.-]+", "-", Path(job.spec.model).name.lower()).strip("-.") or "model"
    suffix = re.sub(r"[^a-z0-9.-]+", "-", (job.spec.suffix or job.kind).lower())
    return f"{base}-{suffix}-{job.id.removeprefix('ftjob-')[:6]}"


def write_job_file(job: StoredJob, base_model: Path, result: str | None) -> None:
    """Keep beside the checkpoints what they were made from, so that they can be loaded without the store."""
    document = {
        "id": job.id,
        "base_model": str(base_model),
        "result": result,
        "base_dir": str(job.base_dir),
        "spec": job.spec.model_dump(mode="json"),
    }
    write_whole(job.folder / JOB_FILE, json.dumps(document, indent=2) + "\n")
