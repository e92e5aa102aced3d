"""The tools of filenav: list, print and search the config files of one row's virtual tree.

A row writes its tree compactly: `{"/apps/billing": {"port": "3100 4200 5300"}}` with `envs: [prod, staging, dev]` means
that `/apps/billing/prod.conf` holds the line `billing.port = 3100`, and so on.
"""

from __future__ import annotations

_SHOWN_LINES = 3
_SHOWN_CHARS = 40


class FileTree:
    """The files of one episode; nothing in it ever changes."""

    def __init__(self, item: dict) -> None:
        self._files: dict[str, list[str]] = {}
        for folder, settings in item["tree"].items():
            service = folder.rsplit("/", 1)[1]
            for position, env in enumerate(item["envs"]):
                lines = [f"{service}.{key} = {values.split()[position]}" for key, values in settings.items()]
                self._files[f"{folder}/{env}.conf"] = lines

    def ls(self, path: str) -> str:
        """List a folder."""
        prefix = path.rstrip("/") + "/"
        inside = [name[len(prefix) :] for name in self._files if name.startswith(prefix)]
        if not inside:
            raise ValueError(f"no folder {path[:_SHOWN_CHARS]}")
        return "  ".join(
            sorted({f"{first}/" if rest else first for first, _, rest in (n.partition("/") for n in inside)})
        )

    def cat(self, path: str) -> str:
        """Print a file."""
        if path not in self._files:
            raise ValueError(f"no file {path[:_SHOWN_CHARS]}")
        return "\n".join(self._files[path])

    def grep(self, text: str, path: str) -> str:
        """Print lines under PATH that contain TEXT."""
        if not text:
            raise ValueError("TEXT is empty")
        folder = path.rstrip("/") + "/"
        names = [name for name in self._files if name == path or name.startswith(folder)]
        if not names:
            raise ValueError(f"no path {path[:_SHOWN_CHARS]}")
        found = [f"{name}: {line}" for name in names for line in self._files[name] if text in line]
        if not found:
            return "no match"
        # Tool output is four fifths of an episode's tokens, so it is kept short.
        more = [f"[{len(found) - _SHOWN_LINES} more]"] if len(found) > _SHOWN_LINES else []
        return "\n".join(found[:_SHOWN_LINES] + more)
