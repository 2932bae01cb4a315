"""From plain data to one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any


def render(name: str, content: Mapping[str, Any], sections: Sequence[tuple[str, str]]) -> str:
    """Fill a template of this package.

    Parameters
    ----------
    name : str
        File in `templates`: what follows `head.html`; the macros of `macros.html` are at its disposal.
    content : mapping
        What the template shows; `title` and `subtitle` are in the head.
    sections : sequence of (str, str)
        Key and title of every section, for the list of contents.

    Returns
    -------
    str
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("amortnlme.report") / "templates"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    texts = [(folder / part).read_text(encoding="utf-8") for part in ("macros.html", "head.html", name)]
    template = environment.from_string("".join(texts))
    # The style sheet is part of the package; it holds no text from outside.
    style = Markup((folder / "style.css").read_text(encoding="utf-8"))
    contents = [{"key": key, "title": title} for key, title in sections]
    return template.render(**content, style=style, version=version("amortnlme"), contents=contents)
