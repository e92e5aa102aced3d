"""What every page is made with: templates that escape, styles and scripts of our own, and data that stay data."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from agentrft.report.text import printable


def templates(**filters: Callable[..., Any]) -> Environment:
    """Our templates: values are escaped, texts made printable, and what is not defined is an error."""
    environment = Environment(
        loader=PackageLoader("agentrft.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= filters
    return environment


def resource(name: str) -> Markup:
    """A style or a script that lies beside the templates."""
    return _file("agentrft.report", f"templates/{name}")


def plotly_script() -> Markup:
    """The package's own file, about 5 MB."""
    return _file("plotly", "package_data/plotly.min.js")


def json_for_script(value: Any) -> Markup:
    """The value as JSON that cannot close the element it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _file(package: str, name: str) -> Markup:
    return Markup((resources.files(package) / name).read_text(encoding="utf-8"))
