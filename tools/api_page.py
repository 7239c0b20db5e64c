"""Write docs/api.md from the docstrings of the public names: ``python -m tools.api_page``.

The sources are read and not imported, so that the page depends on no other package.
"""

from __future__ import annotations

import re
from pathlib import Path

from tools.api_sources import Class, Constant, Sources, Thing

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
COMMAND = "python -m tools.api_page"
_HEAD = f"""# Public names

Made by `{COMMAND}` from the docstrings. Everything here is reached as `zsbir_fast.NAME`; sizes have
the letters of [design.md](design.md). Arguments behind `*` are given by name.
"""
_ENTRIES = ("Args", "Attributes", "Raises", "Warns")  # sections that are lists of names
_TITLES = {"Args": "Arguments"}
_WIDEST = 92  # of a signature on one line


def page(root: Path = ROOT) -> str:
    """Make the page.

    Args:
        root: folder of the repository.

    Returns:
        Markdown.
    """
    sources = Sources(root)
    groups = sources.public_names()
    public = {name for names in groups.values() for name in names}
    lines = [_HEAD]
    for group, names in groups.items():
        listed = ", ".join(f"[`{name}`](#{_anchor(name)})" for name in names)
        lines.append(f"- {group}: {listed}")
    aliases: dict[str, str] = {}
    for group, names in groups.items():
        lines.append(f"\n## {group}")
        for name, module in names.items():
            thing = sources.find(module, name)
            lines += _described(thing, name, public)
            aliases |= sources.aliases_of(thing)
    lines.append("\n## Types\n\n| in a signature | is |\n|---|---|")
    for alias, value in sorted(aliases.items()):
        shown = value.replace("|", "\\|")
        lines.append(f"| `{alias}` | `{shown}` |")
    return "\n".join(lines) + "\n"


def _described(thing: Thing, name: str, public: set[str]) -> list[str]:
    """Heading, signature and docstring of one name, and of its methods."""
    level = "###" if "." not in name else "####"
    lines = [f"\n{level} `{name}`\n"]
    if "." not in name:
        lines.append(f"[{thing.path}](../{thing.path})\n")
    if isinstance(thing, Constant):
        return [*lines, f"```python\n{thing.text}\n```", *_prose(thing.comment, public)]
    lines.append(f"```python\n{_signature(name, thing.parameters(), thing.result)}\n```")
    lines += _docstring(thing.docstring, public)
    if isinstance(thing, Class):
        properties = thing.properties()
        if properties:
            lines.append("\n**Properties**\n")
        for found in properties:
            said = " ".join(found.docstring.split())
            lines.append(f"- `{found.name}` (`{found.result}`): {_inline(said, public)}")
        for method in thing.methods():
            lines += _described(method, f"{name}.{method.name}", public)
    return lines


def _signature(name: str, parameters: list[str], result: str) -> str:
    arrow = f" -> {result}" if result else ""
    line = f"{name}({', '.join(parameters)}){arrow}"
    if len(line) <= _WIDEST:
        return line
    return "\n".join([f"{name}(", *(f"    {p}," for p in parameters), f"){arrow}"])


def _docstring(text: str, public: set[str]) -> list[str]:
    """Markdown of a docstring in Google's style."""
    lines: list[str] = []
    for section, body in _sections(text):
        if section in _ENTRIES:
            lines.append(f"\n**{_TITLES.get(section, section)}**\n")
            lines += [
                f"- {', '.join(f'`{n.strip()}`' for n in names.split(','))}: "
                f"{_inline(what, public)}"
                for names, what in _named(body)
            ]
        elif section == "Example":
            lines.append("\n```pycon\n" + "\n".join(body).strip() + "\n```")
        elif section:
            lines.append(f"\n**{section}**")
            lines += _prose("\n".join(body), public)
        else:
            lines += _prose("\n".join(body), public)
    return lines


def _sections(text: str) -> list[tuple[str, list[str]]]:
    """Sections in their order, without their indentation; "" is what stands outside of them."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        heading = re.fullmatch(r"([A-Z]\w+):", line)
        if heading:
            found.append((heading[1], []))
        elif line and not line.startswith(" ") and found[-1][0]:
            found.append(("", [line]))
        else:
            found[-1][1].append(line.removeprefix("    ") if found[-1][0] else line)
    return [(section, body) for section, body in found if any(body)]


def _named(body: list[str]) -> list[tuple[str, str]]:
    """Entries ``name: text`` with the lines that go on with them."""
    found: list[tuple[str, str]] = []
    for line in filter(None, body):
        entry = re.match(r"([\w*][\w*, .]*): (.*)", line)
        if entry and not line.startswith(" "):
            found.append((entry[1], entry[2]))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def _prose(text: str, public: set[str]) -> list[str]:
    """Paragraphs and lists; a line break inside a paragraph is none."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return [f"\n{_inline(block, public)}" for block in blocks if block]


def _inline(text: str, public: set[str]) -> str:
    def link(match: re.Match[str]) -> str:
        name = match[1].removeprefix("zsbir_fast.")
        return f"[`{name}`](#{_anchor(name)})" if name in public else f"`{name}`"

    text = re.sub(r":\w+:`~?([\w.]+)`", link, text)
    return text.replace("``", "`")


def _anchor(name: str) -> str:
    return name.lower().replace(".", "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {len(PAGE.read_text(encoding='utf-8').splitlines())} lines")
