"""Pages of the site that are made when it is built: one for each method, the metrics, the API, inside, what changed.

A hook of MkDocs (`mkdocs.yml`); `scripts/docs` builds the site.
"""

import functools
import pathlib
import re

import tables
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"


def on_config(config):
    """List a page for each method below the chapter on all of them."""
    import tfig

    pages = [{name: f"methods/{name}.md"} for name in tfig.methods()]
    for entry in config.nav:
        if "Methods" in entry:
            entry["Methods"] = ["methods.md", *pages]
    return config


def on_files(files: Files, config) -> Files:
    """Add the pages."""
    import tfig

    made = {f"methods/{name}.md": method(name, info) for name, info in tfig.methods().items()}
    made["metrics.md"] = metrics()
    made["api.md"] = api()
    made["inside.md"] = (ROOT / "CONTRIBUTING.md").read_text().replace("# Contributing", "# How it works inside", 1)
    made["changes.md"] = (ROOT / "CHANGELOG.md").read_text().replace("# Changelog", "# What changed", 1)
    for file in sorted((ROOT / "serving" / "deploy").glob("*.yaml")):
        made[f"deploy/{file.name}"] = file.read_text()
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Lead to deployment files where the site has them."""
    return markdown.replace("](../serving/deploy/", "](deploy/")


def chapters() -> dict[str, str]:
    """What docs/methods.md says, by method."""
    found = {}
    for part in re.split(r"^## ", (DOCS / "methods.md").read_text(), flags=re.MULTILINE)[1:]:
        heading, body = part.split("\n", 1)
        found.update(dict.fromkeys(heading.split(", "), body.strip()))
    return found


def questions(name: str) -> list[str]:
    """The questions for which docs/choosing.md names a method."""
    page = (DOCS / "choosing.md").read_text().split("## What to use", 1)[1].split("## Measured", 1)[0]
    rows = [tables.cells(line) for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line]
    return [f"{question.removeprefix('... ')} {answer}" for question, answer in rows]


def failures(name: str) -> list[str]:
    """What docs/choosing.md says of a method beside what it shows."""
    page = (DOCS / "choosing.md").read_text().split("What the table says:", 1)[1]
    points = re.findall(r"^\* (.+?)(?=^\* |^\S|\Z)", page, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(point.split()).replace("](figures/", "](../figures/") for point in points if f"`{name}`" in point]


def method(name: str, info) -> str:
    """A page: what it is, its formula, when to use it, how it fared, what it costs, how it fails, its class."""
    import tfig
    from tfig.methods import REGISTRY

    kind = REGISTRY[name]
    linked = chapters()[name].replace("](figures/", "](../figures/").replace("](choosing.md", "](../choosing.md")
    lines = [f"# {name}", "", info.summary, "", f"*{info.reference}*", "", f"![Two digits]({name}.png)", ""]
    if not (DOCS / "methods" / f"{name}.png").exists():
        lines = lines[:-2]
    lines += ["## Formula", "", linked, "", "## Facts", "", "| | |", "|---|---|"]
    lines += [
        f"| sums to F(x) - F(x') | {'yes' if info.complete else 'no'} |",
        f"| draws noise | {'yes, from the seed' if info.stochastic else 'no'} |",
        f"| baseline | {info.baseline or 'none'} |",
        f"| needs | {info.needs or 'nothing more than a model and x'} |",
        f"| explains words and categories | {'yes, by switching them' if info.switches else 'at their embedding'} |",
        f"| gives | {info.gives} |",
        f"| costs, for each row | {info.cost} |",
        "",
    ]
    asked = questions(name)
    if asked:
        lines += ["## When to use it", "", *(f"* {one}" for one in asked), ""]
    measured = tables.columns((DOCS / "figures" / "truth.md").read_text())
    rows = [(title, column[name]) for title, column in measured.items() if column.get(name)]
    if rows:
        lines += [
            "## How it fared",
            "",
            "On shapes painted on photographs ([which method](../choosing.md)), means over rows.",
            "",
        ]
        lines += ["| | |", "|---|---|", *(f"| {measured[title]['']} | {value} |" for title, value in rows), ""]
    failed = failures(name)
    if failed:
        lines += ["## How it fails, and what to mind", "", *(f"* {one}" for one in failed), ""]
    lines += ["## Class", "", f"::: tfig.{kind.__name__}", ""]
    assert getattr(tfig, kind.__name__) is kind
    return "\n".join(lines)


def metrics() -> str:
    """A page of all metrics."""
    import tfig

    lines = [
        "# Metrics", "", "Functions of an explanation, a number for each row; `tfig.evaluate` makes a table of methods",
        "by metrics with confidence intervals.", "", "| metric | | better | range | evaluations a row |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, metric in tfig.metrics.METRICS.items():
        cells = (f"[`{name}`](#tfig.metrics.{name})", metric.summary, metric.better, metric.range, metric.cost)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Which of them say what, and what none of them says: [which method](choosing.md).", ""]
    lines += [f"::: tfig.metrics.{name}\n" for name in tfig.metrics.METRICS]
    return "\n".join(lines)


API = {
    "Explaining": ("explain", "Explainer", "Explanation", "methods", "forget"),
    "Questions": ("Contrast", "At"),
    "Many methods, many rows": ("compare", "Comparison", "evaluate", "Evaluation", "summary", "Summary"),
    "More rows than one call holds": (
        "read", "Tally", "beam.Explanations", "beam.Explain", "beam.Failure", "beam.Tallied"
    ),
    "For people": ("report", "callbacks.Explain"),
    "Baselines": tuple(f"baselines.{name}" for name in (
        "Constant", "Mean", "Blur", "Uniform", "Gaussian", "MaxDistance", "Vocabulary", "Mode", "Dataset", "Boundary",
        "AtLayer",
    )),
    "Rules of relevance": tuple(f"rules.{name}" for name in ("Epsilon", "ZPlus", "AlphaBeta", "Gamma", "Composite")),
    "Serving": ("export", *(f"serving.{name}" for name in ("Client", "AsyncClient", "serve", "guard", "ServingError"))),
}  # fmt: skip


BY_PLACE = ("methods", "summary")
"""Functions with the names of their modules."""


def api() -> str:
    """A page of the public names, by what they are for."""
    import tfig
    import tfig.beam
    from tfig.methods import REGISTRY

    lines = ["# API", "", "Shapes are written `[B, H, W, C]`: rows, height, width, channels.", ""]
    for heading, names in API.items():
        lines += [f"## {heading}", ""]
        for name in names:
            one = functools.reduce(getattr, name.split("."), tfig)
            path = f"{one.__module__}.{one.__name__}" if name in BY_PLACE else f"tfig.{name}"
            if one.__module__.startswith("tfig.serving"):  # whose source lies beside tfig's
                path = f"{one.__module__}.{one.__name__}".removeprefix("tfig.")
            lines += [f"::: {path}", ""]
    lines += ["## Methods", "", "Each on its own page:", ""]
    lines += [
        f"* [`tfig.{kind.__name__}`](methods/{name}.md): {tfig.methods()[name].summary}"
        for name, kind in REGISTRY.items()
    ]
    return "\n".join(lines)
