"""Put what docs/choosing.md shows of docs/figures into it, between its markers.

Usage: tables.py [--check]   with --check nothing is written: status 1 if it would change
"""

import pathlib
import sys

DOCS = pathlib.Path(__file__).parents[1] / "docs"
SHOWN = ("on the shape", "on the decoy", "insertion - deletion (igos)", "max_sensitivity", "model_randomisation")
END = "<!-- end -->\n"


def cells(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def columns(text: str) -> dict[str, dict[str, str]]:
    """By heading, without its direction, and by method: the cells of all tables; under "" the heading as it stands."""
    found: dict[str, dict[str, str]] = {}
    heading: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            heading = []
        elif not heading:
            heading = cells(line)
        elif not line.startswith("|---"):
            name, *values = cells(line)
            for title, value in zip(heading[1:], values, strict=True):
                column = found.setdefault(
                    title.removesuffix(" (higher is better)").removesuffix(" (lower is better)"), {}
                )
                column.setdefault("", title)
                column[name] = value
    return found


def table(text: str) -> str:
    """The columns shown, rows by falling insertion minus deletion."""
    found = columns(text)
    chosen = [found[name] for name in SHOWN]

    def mean(name: str) -> float:
        return -float(found[SHOWN[2]][name].strip("*").split()[0])

    lines = ["| | " + " | ".join(column[""] for column in chosen) + " |", "|---|" + "---|" * len(chosen)]
    names = sorted((name for name in chosen[2] if name and chosen[2][name]), key=mean)
    lines += [f"| `{name}` | " + " | ".join(column.get(name, "") for column in chosen) + " |" for name in names]
    return "\n".join(lines) + "\n"


def listing(text: str) -> str:
    """Lines as they were printed."""
    return f"```\n{text.strip()}\n```\n"


BLOCKS = {"truth.md": table, "transformers.txt": listing}


def block(name: str) -> str:
    """What the page shows of a file, between its markers."""
    return begin(name) + BLOCKS[name]((DOCS / "figures" / name).read_text()) + END


def begin(name: str) -> str:
    """The marker before it."""
    return f"<!-- from figures/{name} by scripts/tables.py -->\n"


def main() -> int:
    """Write, or check."""
    page = DOCS / "choosing.md"
    old = new = page.read_text()
    for name in BLOCKS:
        before, rest = new.split(begin(name))
        new = before + block(name) + rest.split(END, 1)[1]
    if "--check" in sys.argv:
        return int(new != old)
    page.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
