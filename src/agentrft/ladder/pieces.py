"""The pieces that a climb of the whole ladder is made of; each is played once and kept in the climb's folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentrft import build
from agentrft.jobs.bundle import bundle_hash
from agentrft.jobs.models import find_weights, published_step
from agentrft.jobs.rows import items_of
from agentrft.jobs.service import StoredJob, create_job, job_folder, stored_job
from agentrft.jobs.spec import JobSpec
from agentrft.ladder import measure
from agentrft.ladder.adopted import adopted_job
from agentrft.ladder.decided import decide_job
from agentrft.ladder.diagnosing import SPLIT, Sizes, diagnosis_request
from agentrft.ladder.measure import Measured
from agentrft.ladder.own_data import episodes_of, method_spec, same_episodes
from agentrft.ladder.rungs import KINDS, Method, Rung
from agentrft.ladder.searching import LEAST, search_edits
from agentrft.ladder.state import LadderState
from agentrft.ladder.stops import Halt, Stops
from agentrft.ladder.whole_plan import Watching, WholePlan
from agentrft.runtime.diagnose import Watching as DiagnosisWatching
from agentrft.runtime.diagnose import run_diagnosis
from agentrft.runtime.diagnosed import latest_diagnosis
from agentrft.runtime.inprocess import train_in
from agentrft.store import SqlStore
from agentrft.train.log import RunLog
from agentrft.writing import write_whole

Say = Callable[[str], None]


class Pieces:
    """What is done of one climb, and how the rest is done."""

    def __init__(
        self,
        plan: WholePlan,
        store: SqlStore,
        job: StoredJob,
        state: LadderState,
        watching: Watching,
        stops: Stops,
        load: build.LoadEngine | None,
    ) -> None:
        self.job = job
        """The climb's own: figures and report belong to it."""
        self.state = state
        self.optimisation: dict[str, Any] | None = None
        """Report of the search for edits, once there is one."""
        self.training_stopped: str | None = None
        """Why the last training ended early, where what it reached is measured all the same."""
        self._plan = plan
        self._store = store
        self._watching = watching
        self._stops = stops
        self._load = load

    def first_rung(self) -> Rung:
        """The job as it is."""
        spec = self._plan.spec
        return Rung(name="base", spec=spec, model=None, over=None, bundle=self._bundle(spec))

    async def measure(self, rung: Rung) -> dict[str, Measured]:
        """Figures of the rung on every split, of the very weights that it names."""
        step = self._step_of(rung)
        paths = {split: self.state.folder / f"{rung.name}-{split}.json" for split in self._plan.splits}
        found = {split: measure.read(path) for split, path in paths.items()}
        missing = [split for split, one in found.items() if one is None or one.best_step != step]
        if missing:
            if not self.training_stopped:
                self._check()
            with self._timed(f"measure {rung.name}"):
                await self._measure(rung, step, {split: paths[split] for split in missing})
        read = {split: measure.read(path) for split, path in paths.items()}
        self._count(f"measure {rung.name}", sum(len(one.item_ids) for one in read.values() if one) * self._plan.samples)
        return {split: one for split, one in read.items() if one is not None}

    async def decide(self, rung: Rung) -> dict[str, Any] | None:
        """Diagnose the rung and decide; None where the budget does not reach."""
        path, piece = self._decision_path(rung.name), f"diagnose {rung.name}"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        sizes = self._sizes().within(self._left())
        if sizes is None:
            return None
        self._check()
        request = diagnosis_request(
            rung.spec, self._plan.base_dir, rung.model or rung.spec.model, sizes, load=self._load
        )
        with (
            self._timed(piece),
            self._watching.episodes(f"diagnose {rung.name}", sizes.episodes) as move_to,
        ):
            told = DiagnosisWatching(
                episode=lambda _, done: move_to(done), should_stop=lambda: self._stops() is not None
            )
            outcome = await run_diagnosis(self._store, request, told)
        if outcome.document is None:
            raise Halt(self._stops() or "asked to stop")
        self._count(piece, outcome.planned)
        return self._decide(rung, outcome.document, path)

    def decided_again(self, rung: Rung) -> dict[str, Any]:
        """The decision from the same diagnosis, now that edits have been searched for."""
        path = self._decision_path(f"{rung.name}-searched")
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        assert rung.decision is not None
        diagnosis = latest_diagnosis(stored_job(self._store, rung.decision["diagnosis"]["job"]))
        assert diagnosis is not None
        return self._decide(rung, diagnosis, path)

    async def search(self, base: Rung, say: Say) -> dict[str, Any] | None:
        """Report of the search for edits; None where items or budget do not reach, which is said."""
        path = self.state.folder / "optimisation.json"
        if path.is_file():
            self.optimisation = json.loads(path.read_text(encoding="utf-8"))
            return self.optimisation
        # What is adopted is diagnosed again: that much is kept, where it can be.
        left, kept = self._left(), self._sizes().episodes
        budget = min(self._plan.search, left - kept if left - kept >= LEAST else left)
        if budget < LEAST:
            say(f"Edits were not searched for: {left} episodes are left of the budget, at least {LEAST} are needed.")
            return None
        self._check()
        task = replace(self._plan.task, spec=base.spec)
        with self._timed("optimise"), self._watching.episodes("search for edits", budget) as move_to:
            report = await search_edits(
                self._store, task, budget, check=self._check, move_to=move_to, tell=self._watching.tell, load=self._load
            )
        if isinstance(report, str):
            say(f"Edits were not searched for: {report}")
            return None
        self._count("optimise", report["spent"])
        _write(path, report)
        self.optimisation = report
        return report

    def edited_rung(self, base: Rung, report: Mapping[str, Any]) -> Rung:
        """The job with what the search adopted."""
        spec = adopted_job(self._plan.task, job_folder(report["id"]), self.state.folder)
        spec = spec.model_copy(update={"seed": self._plan.spec.seed})
        return Rung(
            name="optimised",
            spec=spec,
            model=None,
            over=base.name,
            job=report["id"],
            bundle=self._bundle(spec),
            episodes=report["spent"],
            wall_s=self.state.train_s.get("optimise", 0.0),
        )

    def training_job(self, method: Method, start: Rung, say: Say, *, compared: bool = False) -> StoredJob | None:
        """The job that trains by this method from that rung; None where there is nothing to train on, which is said."""
        known = self.state.jobs.get(method)
        if known and self._store.get_job(known)["status"] not in ("failed", "cancelled"):
            return stored_job(self._store, known)
        assert start.decision is not None
        diagnosis = start.decision["diagnosis"]
        records = episodes_of(self._store, diagnosis["job"])
        spec = method_spec(start.spec, self._plan.base_dir, method, records, self.state.folder / f"{method}.jsonl")
        if spec is None:
            what = "own success to imitate" if method == "rejection" else "pair of own episodes to compare"
            say(f"{method} was left out: there is no {what} among {len(records)} episodes.")
            return None
        if compared and method == "reinforcement":
            spec = same_episodes(spec, diagnosis["n_items"] * diagnosis["samples"])
        job = create_job(self._store, spec, self._plan.base_dir, start_from=start.model)
        self.state.jobs[method] = job.id
        self.state.save()
        return job

    async def trained(self, method: Method, job: StoredJob, start: Rung) -> Rung:
        """The rung that the job trains; raises Halt where it was stopped and there is nothing to measure."""
        piece = f"train {method}"
        model: str | None = job.fine_tuned_model
        if job.status != "succeeded":
            self._check()
            with self._timed(piece):
                model = await self._train(method, job)
            self._count(piece, len(episodes_of(self._store, job.id)))
        return Rung(
            name=method,
            spec=start.spec,
            model=model,
            over=start.name,
            job=job.id,
            bundle=self._bundle(start.spec),
            episodes=self.state.episodes.get(piece, 0),
            wall_s=self.state.train_s.get(piece, 0.0),
        )

    async def _train(self, method: Method, job: StoredJob) -> str | None:
        spec, base_dir = job.spec, self._plan.base_dir
        validation = None
        if spec.data.validation:
            validation = items_of(spec, base_dir, "validation")[: self._plan.validation_items]
        weights = find_weights(job.model, base_dir=base_dir)
        steps = spec.training.steps if KINDS[method] == "reinforcement" else 1
        async with build.open_job(spec, base_dir, weights, training=True, load=self._load) as live:
            with self._watching.training(method, steps) as watch:
                outcome = await train_in(
                    live, self._store, job, watch=watch, should_stop=self._stops, validation=validation
                )
        if not outcome.stopped:
            return outcome.model
        if method != "reinforcement" or self._stops.asked():
            raise Halt(outcome.stopped)
        self.training_stopped = outcome.stopped
        return str(outcome.result.best.path)

    async def _measure(self, rung: Rung, step: int | None, paths: Mapping[str, Path]) -> None:
        started, base_dir = time.monotonic(), self._plan.base_dir
        weights = find_weights(rung.model or rung.spec.model, base_dir=base_dir)
        async with build.open_job(rung.spec, base_dir, weights, training=False, load=self._load) as live:
            for split, path in paths.items():
                with self._watching.training(f"{rung.name} on {split.replace('_', ' ')}", None) as watch:
                    measured = await measure.play(
                        live,
                        RunLog(self._store, self.job.id, watch=watch),
                        items_of(rung.spec, base_dir, split)[: self._plan.n_items],
                        self._plan.samples,
                        measure.Place(stage=rung.name, split=split, best_step=step),
                    )
                measure.write(measured, path)
        self._stops.measuring_s = time.monotonic() - started

    def _decide(self, rung: Rung, diagnosis: dict[str, Any], path: Path) -> dict[str, Any]:
        _, document = decide_job(self._store, rung.spec, self._plan.base_dir, diagnosis, job=self._plan.typed)
        _write(path, document)
        self._watching.tell(f"decided after {rung.name}: {document['verdict']} ({document['why']})")
        return document

    def _step_of(self, rung: Rung) -> int | None:
        """Of the weights; None for a rung that nothing was trained for."""
        if rung.job is None or rung.model is None:
            return None
        if self.training_stopped:
            return int(Path(rung.model).name.rpartition("-")[2])
        return published_step(rung.job)

    def _bundle(self, spec: JobSpec) -> str:
        return bundle_hash(spec, self._plan.base_dir)

    def _decision_path(self, name: str) -> Path:
        return self.state.folder / f"decision-{name}.json"

    def _sizes(self) -> Sizes:
        found = len(items_of(self._plan.spec, self._plan.base_dir, SPLIT))
        return Sizes(items=min(self._plan.diagnose_items, found), samples=self._plan.diagnose_samples)

    def _left(self) -> int:
        """Episodes of the budget; what measures and trains is not counted in it."""
        counted = (n for piece, n in self.state.episodes.items() if piece == "optimise" or piece.startswith("diagnose"))
        return self._plan.episodes - sum(counted)

    def _count(self, piece: str, episodes: int) -> None:
        if self.state.episodes.get(piece) != episodes:
            self.state.episodes[piece] = episodes
            self.state.save()

    def _check(self) -> None:
        if reason := self._stops():
            raise Halt(reason)

    @contextmanager
    def _timed(self, piece: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.state.train_s[piece] = self.state.train_s.get(piece, 0.0) + time.monotonic() - started
            self.state.save()


def _write(path: Path, document: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(document, indent=1, allow_nan=False))
