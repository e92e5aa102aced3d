"""Make the environments of the peers that the benchmarks compare with; idempotent.

    python benchmarks/environments.py            # both
    python benchmarks/environments.py trl        # one
    python benchmarks/environments.py --show     # where they are, how large, how long they took

Each is a virtual environment of its own under AGENTRFT_BENCH_CACHE (default ~/.cache/agentrft-bench), with every
package pinned in `peers/NAME.txt` and the same torch as ours, CPU build. The benchmarks call `python_of` themselves;
run this first to keep downloads out of their time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TORCH = "2.13.0"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
PINS = Path(__file__).resolve().parent / "peers"
PEERS = ("trl", "vllm")
TCMALLOC = "libtcmalloc-minimal4"
"""vLLM's manual wants it preloaded on a CPU; it is a system package, so it is unpacked beside the environment."""


def cache() -> Path:
    """Folder of everything that benchmarks keep between runs."""
    return Path(os.environ.get("AGENTRFT_BENCH_CACHE") or Path.home() / ".cache" / "agentrft-bench").expanduser()


def pins_of(peer: str) -> Path:
    """The file with every package of one peer, pinned. Raises ValueError for a peer we do not know."""
    if peer not in PEERS:
        raise ValueError(f"no such peer {peer!r}; expected one of {', '.join(PEERS)}")
    return PINS / f"{peer}.txt"


def python_of(peer: str) -> Path:
    """The peer's interpreter, its environment made first where it is missing or older than its pins."""
    folder = cache() / peer
    if not _is_current(folder, peer):
        make(peer)
    return folder / "bin" / "python"


def make(peer: str) -> None:
    """Install one peer from nothing. Raises CalledProcessError when pip cannot; what it said is on stderr."""
    folder, pins = cache() / peer, pins_of(peer)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"Making {folder} (a few minutes, a few gigabytes)", file=sys.stderr)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    _install_torch(folder)
    # Every package is named, so there is nothing to resolve: what was measured is what is installed.
    _pip(folder, "--no-deps", "-r", str(pins))
    if peer == "vllm":
        _unpack_tcmalloc(folder)
    seconds = time.perf_counter() - started
    _stamp(folder).write_text(
        json.dumps({"pins": _digest(pins), "install_s": round(seconds, 1), "bytes": _size_bytes(folder)})
    )


def preloads(peer: str) -> str:
    """LD_PRELOAD for a peer's process: for vLLM the allocator and OpenMP runtime that its manual asks for."""
    if peer != "vllm":
        return ""
    folder = cache() / peer
    found = [*sorted(folder.glob("tcmalloc/**/libtcmalloc_minimal.so.4"))[:1], folder / "lib" / "libiomp5.so"]
    return ":".join(str(path) for path in found if path.exists())


def show() -> list[dict[str, object]]:
    """One record for each peer: path, whether current, megabytes, seconds the installation took."""
    records: list[dict[str, object]] = []
    for peer in PEERS:
        folder = cache() / peer
        record: dict[str, object] = {"peer": peer, "folder": str(folder), "current": _is_current(folder, peer)}
        if _stamp(folder).exists():
            stamp = json.loads(_stamp(folder).read_text())
            record |= {"megabytes": stamp["bytes"] // 2**20, "install_s": stamp["install_s"]}
        records.append(record)
    return records


def _stamp(folder: Path) -> Path:
    return folder / "agentrft-bench.json"


def _digest(pins: Path) -> str:
    return hashlib.sha256(pins.read_bytes()).hexdigest()


def _is_current(folder: Path, peer: str) -> bool:
    stamp = _stamp(folder)
    return stamp.exists() and json.loads(stamp.read_text())["pins"] == _digest(pins_of(peer))


def _pip(folder: Path, *arguments: str) -> None:
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True)


def _install_torch(folder: Path) -> None:
    # Only Linux has separate builds; the configured sources first, since a mirror or wheel folder may have this one.
    if not sys.platform.startswith("linux"):
        _pip(folder, f"torch=={TORCH}")
        return
    try:
        _pip(folder, "--no-deps", f"torch=={TORCH}+cpu")
    except subprocess.CalledProcessError:
        _pip(folder, "--no-deps", "--index-url", TORCH_INDEX, f"torch=={TORCH}+cpu")


def _unpack_tcmalloc(folder: Path) -> None:
    target = folder / "tcmalloc"
    target.mkdir()
    try:
        subprocess.run(["apt-get", "download", "-qq", TCMALLOC], cwd=target, check=True)
        package = next(target.glob("*.deb"))
        subprocess.run(["dpkg", "-x", package.name, "."], cwd=target, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"vLLM runs without {TCMALLOC}, which its manual recommends: {error}", file=sys.stderr)


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", help=f"of {', '.join(PEERS)}; all by default")
    parser.add_argument("--show", action="store_true", help="print what is there and install nothing")
    options = parser.parse_args()
    if not options.show:
        for peer in options.peers or PEERS:
            print(f"{peer}: {python_of(peer)}")
    print(json.dumps(show(), indent=2))


if __name__ == "__main__":
    main()
