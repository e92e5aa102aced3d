"""Jobs through the real SDK: created and checked, listed and steered; what a bad one is told, and what nobody may see.

No job runs here (`concurrency: 0`); tests/e2e runs them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from agentrft.jobs.job_object import EXTRA_FIELDS, EXTRA_REINFORCEMENT_FIELDS
from agentrft.jobs.service import stored_job
from agentrft.server.config import Network, ServerConfig

SECRET = "Bearer sk-canary-0123456789"
LOOK: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
EXACT: Any = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.meaning}}",
    "operation": "eq",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as the checks look at it: configuration and tokenizer, and weights that nobody loads."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["what does red mean"], trainer)
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer.save_pretrained(folder)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def service(home: Path, tiny: Path, live: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """service(allow=("host:port",)): a server that knows the model `tiny`, and may reach these addresses."""

    def start(**config: Any) -> Any:
        (home / "models").mkdir(parents=True, exist_ok=True)
        if not (home / "models" / "tiny").exists():
            (home / "models" / "tiny").symlink_to(tiny)
        network = Network(allow=config.pop("allow", ()))
        return live(ServerConfig(concurrency=0, aliases={"o4-mini": "tiny"}, network=network, **config))

    return start


def item(n: int, **more: Any) -> dict[str, Any]:
    row = {"messages": [{"role": "user", "content": f"What does red{n} mean?"}], "word": f"red{n}", "meaning": f"b{n}"}
    return {**row, **more}


def demonstration(n: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"red{n}?"}, {"role": "assistant", "content": f"b{n}"}]}


def pair(n: int) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": f"red{n}?"}]},
        "preferred_output": [{"role": "assistant", "content": f"b{n}"}],
        "non_preferred_output": [{"role": "assistant", "content": "no idea"}],
    }


def upload(client: OpenAI, rows: list[Any]) -> str:
    data = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return client.files.create(file=("rows.jsonl", io.BytesIO(data.encode())), purpose="fine-tune").id


def reinforcement(**more: Any) -> Any:
    return {"type": "reinforcement", "reinforcement": {"grader": EXACT, **more}}


def create_rft(client: OpenAI, rows: Callable[[int], Any] = item, **section: Any) -> FineTuningJob:
    train = upload(client, [rows(n) for n in range(12)])
    held_out = upload(client, [rows(n) for n in range(50, 62)])
    return client.fine_tuning.jobs.create(
        model="tiny", training_file=train, validation_file=held_out, method=reinforcement(**section)
    )


def refused(error: pytest.ExceptionInfo[openai.APIStatusError]) -> tuple[int, str | None, str | None, str]:
    body: Any = error.value.body
    assert body["type"] == "invalid_request_error"
    return error.value.status_code, body["param"], body["code"], body["message"]


def extras(model: Any, path: str = "") -> Iterator[str]:
    """Dotted names of every field that the SDK's type does not have."""
    yield from (f"{path}{name}" for name in model.model_extra or {})
    for name in type(model).model_fields:
        part = getattr(model, name)
        if hasattr(part, "model_extra"):
            yield from extras(part, f"{path}{name}.")


def missing(model: Any) -> set[str]:
    """Fields of the SDK's type that the answer did not have."""
    return set(type(model).model_fields) - model.model_fields_set


def test_a_supervised_job_is_as_the_sdk_expects_it(service: Callable[..., Any]) -> None:
    client = service().openai()
    train, held_out = (upload(client, [demonstration(n) for n in range(k, k + 12)]) for k in (0, 20))
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=train,
        validation_file=held_out,
        suffix="words",
        seed=7,
        metadata={"team": "search"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
    )
    assert (job.status, job.model, job.seed, job.training_file, job.validation_file) == (
        "queued",
        "tiny",
        7,
        train,
        held_out,
    )
    assert job.metadata == {"team": "search"}
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (2, 4)
    assert job.hyperparameters.learning_rate_multiplier == "auto"
    assert missing(job) == set()
    assert set(extras(job)) <= EXTRA_FIELDS
    assert client.fine_tuning.jobs.retrieve(job.id) == job
    assert [one.id for one in client.fine_tuning.jobs.list()] == [job.id]


def test_the_deprecated_hyperparameters_still_say_how_long(service: Callable[..., Any]) -> None:
    client = service().openai()
    train = upload(client, [demonstration(n) for n in range(12)])
    job = client.fine_tuning.jobs.create(model="o4-mini", training_file=train, hyperparameters={"n_epochs": 3})
    assert (job.model, job.hyperparameters.n_epochs) == ("o4-mini", 3)
    assert job.method is not None
    assert job.method.type == "supervised"


def test_a_preference_job_is_as_the_sdk_expects_it(service: Callable[..., Any]) -> None:
    client = service().openai()
    train = upload(client, [pair(n) for n in range(12)])
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=train, method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
    )
    assert job.method is not None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    assert job.method.dpo.hyperparameters.beta == 0.2
    assert missing(job) == set()
    assert set(extras(job)) <= EXTRA_FIELDS


def test_an_agent_rft_job_shows_its_tools_and_hides_their_secrets(
    service: Callable[..., Any], serve: Any, answer: Any
) -> None:
    tool = serve(lambda asked: answer(body={"output": "?"}))
    server = service(allow=(tool.url.removeprefix("http://"),))
    client = server.openai()
    job = create_rft(
        client,
        rows=lambda n: item(n, tools=[LOOK]),
        tools=[{"name": "look", "server_url": f"{tool.url}/look", "headers": {"Authorization": SECRET}}],
        max_episode_steps=6,
        response_format=None,
        hyperparameters={"n_epochs": 1, "batch_size": 4, "compute_multiplier": 0.5, "eval_samples": 1},
    )
    shown = job.model_dump_json()
    assert SECRET not in shown
    assert "**********" in shown
    assert job.method is not None
    assert job.method.reinforcement is not None
    section = job.method.reinforcement
    assert section.model_extra is not None
    assert section.model_extra["tools"][0]["name"] == "look"
    assert section.model_extra["max_episode_steps"] == 6
    allowed = EXTRA_FIELDS | {f"method.reinforcement.{name}" for name in EXTRA_REINFORCEMENT_FIELDS}
    assert set(extras(job)) <= allowed
    assert tool.asked == []  # somebody took a connection there; the tool itself was not called
    stored = stored_job(server.state.store, job.id)
    headers: Any = stored.spec.agent.tools[0].headers  # type: ignore[union-attr]
    assert headers["Authorization"].get_secret_value() == SECRET
    events = server.http().get(f"/v1/fine_tuning/jobs/{job.id}/events").text
    assert SECRET not in events
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in _database_files())


def _database_files() -> list[Path]:
    from agentrft.home import home

    return list(home().glob("store.db*"))


@pytest.mark.parametrize(
    ("section", "param", "words"),
    [
        ({"grader": {**EXACT, "reference": "{{item.answer}}"}}, "training_file", "answer"),
        ({"grader": {**EXACT, "operation": "neq"}}, "method.reinforcement.grader.operation", "eq"),
        (
            {"hyperparameters": {"compute_multiplier": 99}},
            "method.reinforcement.hyperparameters.compute_multiplier",
            "",
        ),
        ({"tools": [{"type": "python", "target": "tools.py:X"}]}, "method.reinforcement.tools.0", "not taken over"),
        ({"max_steps": 3}, "method.reinforcement.max_steps", "max_episode_steps"),
        ({"grader": {"type": "python", "name": "g", "source": "def grade(s, i"}}, "method.reinforcement.grader", ""),
        (
            {"grader": {"type": "python", "name": "g", "source": "def grade(s, i):\n    return i['nothing']"}},
            "method.reinforcement.grader",
            "KeyError",
        ),
    ],
)
def test_a_bad_job_is_refused_with_the_field_to_blame(
    service: Callable[..., Any], home: Path, section: dict[str, Any], param: str, words: str
) -> None:
    server = service()
    with pytest.raises(openai.BadRequestError) as error:
        create_rft(server.openai(), **section)
    status, got, code, message = refused(error)
    assert status == 400
    assert got is not None
    assert got.startswith(param)
    assert code
    assert words in message
    assert (
        "/" not in message.replace("docs/", "").replace("GET /v1", "").replace("and/or", "") or "inputs" not in message
    )
    assert server.state.store.list_jobs() == []


def test_errors_in_rows_name_the_file_and_the_line_and_no_place_on_the_server(
    service: Callable[..., Any], home: Path
) -> None:
    client = service().openai()
    rows: list[Any] = [demonstration(n) for n in range(12)]
    rows[6] = '{"messages": [{"role": "user", "content": "and then?"}'
    broken = upload(client, rows)
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.create(model="tiny", training_file=broken)
    _, param, code, message = refused(error)
    assert (param, code) == ("training_file", "invalid_row")
    assert f"{broken}.jsonl, line 7" in message
    assert str(home) not in message
    assert list((home / "inputs").iterdir()) == []  # nothing is left of it


def test_a_file_that_is_not_there_or_for_something_else(service: Callable[..., Any]) -> None:
    client = service().openai()
    with pytest.raises(openai.NotFoundError) as unknown:
        client.fine_tuning.jobs.create(model="tiny", training_file="file-doesnotexist")
    assert refused(unknown)[:3] == (404, "training_file", "not_found")
    data = io.BytesIO(b'{"a": 1}\n' * 12)
    other = client.files.create(file=("rows.jsonl", data), purpose="evals").id
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.create(model="tiny", training_file=other)
    assert refused(error)[:3] == (400, "training_file", "invalid_file_purpose")
    few = upload(client, [demonstration(n) for n in range(7)])
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.create(model="tiny", training_file=few)
    assert "has 7 example(s), but must have at least 10 examples" in refused(error)[3]
    assert refused(error)[1:3] == ("training_file", "invalid_n_examples")


@pytest.mark.parametrize("model", ["gpt-5", "../../etc", "/etc/passwd", "ftjob-aaaabbbbccccddddeeeeffff", "x/y"])
def test_a_model_that_is_not_served_is_refused(service: Callable[..., Any], model: str) -> None:
    client = service().openai()
    train = upload(client, [demonstration(n) for n in range(12)])
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.create(model=model, training_file=train)
    assert refused(error)[1] == "model"


def test_the_network_policy_decides_about_graders_and_tools(
    service: Callable[..., Any], serve: Any, answer: Any
) -> None:
    grader = serve(lambda asked: answer(body={"score": 0.5}))
    address = grader.url.removeprefix("http://")
    endpoint = {"type": "endpoint", "name": "judge", "url": f"{grader.url}/grade", "headers": {"x-key": SECRET}}
    with pytest.raises(openai.BadRequestError) as error:
        create_rft(service().openai(), grader=endpoint)
    assert refused(error)[1:3] == ("method.reinforcement.grader.url", "invalid_grader")
    assert grader.asked == []
    tool = {"name": "look", "server_url": grader.url}
    with pytest.raises(openai.BadRequestError) as error:
        create_rft(service().openai(), rows=lambda n: item(n, tools=[LOOK]), tools=[tool])
    assert refused(error)[1:3] == ("method.reinforcement.tools.0.server_url", "invalid_tool")
    # The same with the operator's leave: the positive control.
    job = create_rft(service(allow=(address,)).openai(), grader=endpoint)
    assert job.status == "queued"
    assert {asked.headers["x-key"] for asked in grader.asked} == {SECRET}


def test_services_that_are_down_are_found_before_the_job_is_made(service: Callable[..., Any], serve: Any) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    server = service(allow=(f"127.0.0.1:{port}",))
    tool = {"name": "look", "server_url": f"http://127.0.0.1:{port}/look"}
    with pytest.raises(openai.BadRequestError) as error:
        create_rft(server.openai(), rows=lambda n: item(n, tools=[LOOK]), tools=[tool])
    assert refused(error)[1:3] == ("method.reinforcement.tools.0.server_url", "tool_unreachable")
    endpoint = {"type": "endpoint", "name": "judge", "url": f"http://127.0.0.1:{port}/grade"}
    with pytest.raises(openai.BadRequestError) as error:
        create_rft(server.openai(), grader=endpoint)
    assert refused(error)[1:3] == ("method.reinforcement.grader", "grader_unreachable")


def test_one_intention_makes_one_job(service: Callable[..., Any]) -> None:
    server = service()
    client = server.openai()
    train = upload(client, [demonstration(n) for n in range(12)])
    headers = {"Idempotency-Key": "once-and-no-more"}

    def create() -> str:
        return client.fine_tuning.jobs.create(model="tiny", training_file=train, extra_headers=headers).id

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: create(), range(4)))
    assert len(made) == 1
    assert len(server.state.store.list_jobs()) == 1
    # Without a key, and without a lost answer, two requests are two jobs.
    again = client.fine_tuning.jobs.create(model="tiny", training_file=train)
    assert again.id not in made


def test_several_jobs_are_checked_at_once(service: Callable[..., Any]) -> None:
    server = service()
    client = server.openai()
    train = upload(client, [demonstration(n) for n in range(12)])

    def create(n: int) -> str:
        return client.fine_tuning.jobs.create(model="tiny", training_file=train, metadata={"n": str(n)}).id

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(create, range(6)))
    assert len(set(made)) == 6
    assert {job.id for job in client.fine_tuning.jobs.list()} == set(made)


def test_a_job_outlives_its_files(service: Callable[..., Any]) -> None:
    server = service()
    client = server.openai()
    train = upload(client, [demonstration(n) for n in range(12)])
    job = client.fine_tuning.jobs.create(model="tiny", training_file=train)
    client.files.delete(train)
    stored = stored_job(server.state.store, job.id)
    assert stored.spec.data.demonstrations is not None
    assert len((stored.base_dir / stored.spec.data.demonstrations).read_text().splitlines()) == 12
    assert client.fine_tuning.jobs.retrieve(job.id).training_file == train


def test_another_tenants_file_is_not_there(service: Callable[..., Any]) -> None:
    server = service()
    ours, theirs = server.openai(server.key("proj_a")), server.openai(server.key("proj_b"))
    train = upload(ours, [demonstration(n) for n in range(12)])
    with pytest.raises(openai.NotFoundError) as error:
        theirs.fine_tuning.jobs.create(model="tiny", training_file=train)
    assert refused(error)[1] == "training_file"
    reader = server.openai(server.key("proj_a", "jobs:read"))
    with pytest.raises(openai.PermissionDeniedError):
        reader.fine_tuning.jobs.create(model="tiny", training_file=train)
