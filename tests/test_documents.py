"""
The documents are true: tests they name exist and prove what they are named for, tables are those of the code, links
lead somewhere, examples can be read.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen

from tests import regenerate_docs
from tlsgate.operator.main import main

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/*.md", "conf/*.md", "newsfragments/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip
STANDARDS = (ROOT / "docs" / "standards.md").read_text("utf-8")

STATUS = re.compile(r"\*\*(Met|Relayed|Otherwise|Not met|Client's|Operator's)\b")
ITEM = re.compile(r"^- \*\*(\d{4}-D?\d+)\*\* (.*(?:\n  .*)*)", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")
# In names the separator is an underscore: test_no_compression_9325_07. A section (9325-3.4) is no number of ours.
NUMBER = re.compile(r"(?<![\d-])(\d{4})[-_](D?\d{1,2})(?![\d.]*\d|\w)")
RANGE = re.compile(r"(\d{4})-(\d\d) to \1-(\d\d)")
RFCS = frozenset(number[:4] for number, _ in ITEM.findall(STANDARDS))

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
MENTIONED = re.compile(r"(?<![\w/.])((?:docs|conf)/[\w-]+\.\w+)(#[\w-]+)?")
SOURCE = re.compile(r"`((?:src|tests|conf|benchmarks)/[\w/.*-]+)`")


@frozen
class Requirement:
    """
    What docs/standards.md says of one requirement.
    """

    text: str
    statuses: tuple[str, ...]
    tests: tuple[str, ...]


REQUIREMENTS = {
    number: Requirement(text, tuple(STATUS.findall(text)), tuple(NAMED.findall(text)))
    for number, text in ITEM.findall(STANDARDS)
}


def numbers(text: str) -> set[str]:
    """
    Return the requirements that *text* cites, of the RFCs that docs/standards.md numbers.
    """
    cited = {f"{rfc}-{count}" for rfc, count in NUMBER.findall(text) if rfc in RFCS}
    for rfc, first, last in RANGE.findall(text):
        cited |= {f"{rfc}-{count:02}" for count in range(int(first), int(last) + 1)}
    return cited


@cache
def cases() -> Mapping[str, set[str]]:
    """
    Return every test there is, and what it cites in its name, its docstring, its body, and the docstring of its class.
    """
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text("utf-8")
        lines = source.splitlines()
        for name, node, shared in _tests_of(ast.parse(source)):
            said = "\n".join([shared, *lines[node.lineno - 1 : node.end_lineno]])
            found[f"{path.relative_to(ROOT)}::{name}"] = numbers(said)
    return found


def _tests_of(
    node: ast.Module | ast.ClassDef, prefix: str = "", shared: str = ""
) -> Iterator[tuple[str, ast.stmt, str]]:
    """
    Yield name and source of each test, and what the docstring of its class says for all of them.
    """
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _tests_of(child, f"{prefix}{child.name}::", ast.get_docstring(child) or "")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and child.name.startswith("test"):
            yield prefix + child.name, child, shared


@cache
def cited() -> Mapping[str, set[str]]:
    """
    Return where each requirement is cited: in a test, or beside one (a table of cases, a docstring of a class).
    """
    where: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path != Path(__file__):
            for number in numbers(path.read_text("utf-8")):
                where.setdefault(number, set()).add(str(path.relative_to(ROOT)))
    return where


def anchors(document: str) -> set[str]:
    """
    Return the anchors of the headings of *document*, as GitHub makes them.
    """
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class TestStandards:
    def test_there_are_many_requirements(self) -> None:
        """What reads the page reads all of it."""
        assert len(REQUIREMENTS) == len(re.findall(r"^- \*\*\d{4}-", STANDARDS, re.MULTILINE)) > 100

    @pytest.mark.parametrize("number", REQUIREMENTS)
    def test_each_has_a_status_and_tests_that_cite_it(self, number: str) -> None:
        """A requirement that is met names tests, and each of them says that it is about it."""
        requirement = REQUIREMENTS[number]
        assert requirement.statuses
        assert "Met" not in requirement.statuses or requirement.tests or "as in" in requirement.text
        for name in requirement.tests:
            assert name in cases(), f"{name} is not there"
            assert number in cases()[name], f"{name} does not cite {number}"

    def test_each_test_that_is_named_is_there(self) -> None:
        """In the tables, too, that have no numbers."""
        assert [name for name in NAMED.findall(STANDARDS) if name not in cases()] == []

    def test_each_number_that_tests_cite_is_told(self) -> None:
        """No test proves what the page is silent about."""
        assert {number: sorted(where) for number, where in cited().items() if number not in REQUIREMENTS} == {}

    def test_each_number_that_the_page_refers_to_is_told(self) -> None:
        """See 3207-13: there must be one."""
        assert sorted(numbers(STANDARDS) - REQUIREMENTS.keys()) == []

    def test_numbers_are_found_where_they_stand(self) -> None:
        """A date, a section and a larger number are none."""
        assert numbers("3207-05, 9325-01 to 9325-03: as in `test_x_8314_06`, 2487-D4") == {
            "3207-05", "9325-01", "9325-02", "9325-03", "8314-06", "2487-D4"
        }  # fmt: skip
        assert numbers("2027-01-31 9325-3.4 13207-05 3207-051 1234-05") == set()


class TestTables:
    def test_they_are_those_of_the_code(self) -> None:
        """`python -m tests.regenerate_docs` writes them."""
        document = regenerate_docs.DOCUMENT.read_text("utf-8")
        assert document == regenerate_docs.regenerated(document)

    def test_all_of_them_are_there(self) -> None:
        """A marker that was lost would leave a table as it is for ever."""
        document = regenerate_docs.DOCUMENT.read_text("utf-8")
        assert sorted(re.findall(r"<!-- table: (\w+) -->", document)) == sorted(regenerate_docs.TABLES)
        assert document.count("<!-- end -->") == len(regenerate_docs.TABLES)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
class TestDocuments:
    def test_links_lead_somewhere(self, path: Path) -> None:
        """To a file that is there, and a heading that is in it."""
        document = path.read_text("utf-8")
        for link in LINK.findall(FENCE.sub("", document)):
            if re.match(r"\w+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = path if not name else path.parent / name
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text("utf-8")), link

    def test_sources_that_are_named_are_there(self, path: Path) -> None:
        """Files are renamed and split."""
        assert [name for name in SOURCE.findall(path.read_text("utf-8")) if not list(ROOT.glob(name))] == []

    def test_commands_that_are_named_are_there(self, path: Path) -> None:
        """What a reader is told to run can be run."""
        assert set(re.findall(r"`tlsgate ([a-z]+)", path.read_text("utf-8"))) <= main.commands.keys()

    def test_examples_are_toml(self, path: Path) -> None:
        """What is shown as TOML can be read as such."""
        for text in EXAMPLE.findall(path.read_text("utf-8")):
            tomllib.loads(text)


@pytest.mark.parametrize("path", sorted((ROOT / "conf").iterdir()), ids=lambda path: path.name)
def test_what_an_example_points_to_is_there(path: Path) -> None:
    """A comment that says where to read on."""
    for name, anchor in MENTIONED.findall(path.read_text("utf-8")):
        target = ROOT / name
        assert target.exists(), name
        assert not anchor or anchor[1:] in anchors(target.read_text("utf-8")), name + anchor
