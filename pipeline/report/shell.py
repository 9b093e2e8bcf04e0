"""What every page of Holdfast is put into: template, style, figures as data, and a policy that forbids requests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pipeline.report.ink import ON_DARK
from pipeline.report.legend import legend


@cache
def template(package: str, name: str) -> jinja2.Template:
    """Return a template that lies in a package; all text put into it is escaped, a missing name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def page_parts(drawn: Mapping[str, go.Figure]) -> dict[str, Any]:
    """Return what a page needs beside its words: `style`, `titles`, `figures`, `plotly`, `script`, `policy`.

    And `legends`, by the figure's name as `titles` are.
    """
    plotly, script = _closed(get_plotlyjs()), _read("page.js")
    return {
        "style": Markup(_read("style.css") + _on_dark()),
        "legends": {name: Markup(_legend(figure)) for name, figure in drawn.items()},
        "titles": {name: figure.layout.title.text for name, figure in drawn.items()},
        "figures": Markup(_embedded({name: figure.to_json() for name, figure in drawn.items()})),
        "plotly": Markup(plotly),
        "script": Markup(script),
        "policy": policy(plotly, script),
    }


def _legend(figure: go.Figure) -> str:
    return template("pipeline.report", "legend.html.j2").render(keys=legend(figure))


def _on_dark() -> str:
    """Return the rules that give arms in tables and drawings the colours that the figures have on a dark page."""
    rules = (f'[style*="--arm:{light}"]{{--arm:{dark}!important}}' for light, dark in ON_DARK.items() if dark != light)
    return f"@media screen and (prefers-color-scheme:dark){{{''.join(rules)}}}"


def _read(name: str) -> str:
    return resources.files("pipeline.report").joinpath(name).read_text(encoding="utf-8")


def _closed(script: str) -> str:
    """Return a script that cannot end its element early, with the line ends that a browser hashes."""
    return script.replace("</script", "<\\/script").replace("\r\n", "\n").replace("\r", "\n")


def _embedded(named: dict[str, str]) -> str:
    """Return figures as one JSON object that is safe within a script element."""
    body = ",".join(f'"{name}":{text}' for name, text in named.items())
    return ("{" + body + "}").replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def policy(*scripts: str) -> str:
    """Return a content security policy: only these scripts run, and nothing is requested from anywhere."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    rules: dict[str, Any] = {
        "default-src": "'none'",
        "script-src": hashes,
        "style-src": "'unsafe-inline'",  # plotly.js writes its own style rules and attributes
        "img-src": "data: blob:",
        "form-action": "'none'",
        "base-uri": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
