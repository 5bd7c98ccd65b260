"""docs/README.md leads to every page, every link has a target, and every command exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.snippets import PAGES, ROOT
from worker.cli.flags import Configured, setting_arguments
from worker.cli.verbs import VERBS, commands_of
from worker.flags import arguments_of

INDEX = ROOT / "docs" / "README.md"
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _links(page: Path) -> list[str]:
    """Where a page's links lead, but for those to other hosts; code shows links that are none."""
    text = re.sub(r"`[^`\n]+`", "", _FENCED.sub("", page.read_text()))
    targets = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|srcset)="([^"]+)"', text)]
    return [target for target in targets if not target.startswith(("http:", "https:"))]


def _anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    for link in _links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_point_of_a_list_has_one_mark(page: Path) -> None:
    assert re.findall(r"^ *(?:\*\*|--|\+\+) .*", _FENCED.sub("", page.read_text()), re.MULTILINE) == []


def test_the_index_links_to_every_page() -> None:
    linked = {(INDEX.parent / link.partition("#")[0]).resolve() for link in _links(INDEX)}
    pages = {page for page in ROOT.glob("docs/**/*.md") if page != INDEX}
    assert pages - linked == set()
    assert INDEX.resolve() in {(ROOT / link).resolve() for link in _links(ROOT / "README.md")}


def _flags_of(model: type) -> set[str]:
    arguments = list(arguments_of(model))
    if issubclass(model, Configured):
        arguments += setting_arguments(model)
    return {name for argument in arguments for name in argument.names} | {"--help", "-h"}


COMMANDS = {command.name: _flags_of(command.model) for verb in VERBS for command in commands_of(verb)}


def _commands(page: Path) -> Iterator[list[str]]:
    """The words of each `metasync` that the page's code starts."""
    text = page.read_text().replace("\\\n", " ")
    lines = [line for block in _FENCED.findall(text) for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", _FENCED.sub("", text))
    for line in lines:
        for part in re.split(r"&&|\|\|?|;|\$\(|^\$ |  #|exec worker", line):
            program, *words = part.replace("[", "").replace("]", "").strip("`\"'() ").split() or [""]
            if program.rpartition("/")[2] == "metasync" and words:
                yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_shown_has_that_verb_and_those_flags(page: Path) -> None:
    for verb, *words in _commands(page):
        if verb.startswith("-"):
            assert verb in {"--help", "--version", "-h", "-v", "-V"}, verb
            continue
        assert verb in VERBS, f"metasync {verb}"
        actions = set().union(*(flags for name, flags in COMMANDS.items() if name.startswith(f"{verb} ")))
        known = COMMANDS.get(" ".join([verb, *words[:1]])) or COMMANDS.get(verb) or actions
        flags = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert flags <= known, f"metasync {verb} {' '.join(words)}: {flags - known}"
