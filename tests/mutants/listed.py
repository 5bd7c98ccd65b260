"""The list of mutants: its fields, and how to apply one to a file."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
import yaml

LIST = Path(__file__).with_name("list.yaml")


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault.

    Args:
        file: the file that it is put into, relative to the project's folder.
        find: what the fault takes the place of: the first place with this text.
        replace: the fault.
        promise: what it breaks, in a sentence.
        tests: pytest ids, at least one of which has to fail.
        after: a text before it in the file, such as a statement's name; the fault goes behind its only place.
        store: of tests that run on every store, only those on this one.
    """

    file: str
    find: str
    replace: str
    promise: str
    tests: list[str]
    after: str = ""
    store: str = ""

    def apply(self, text: str) -> str:
        """Give the file's text with the fault in it.

        Raises:
            ValueError: the place is not there, or cannot be told from another one.
        """
        start = 0
        if self.after:
            if text.count(self.after) != 1:
                raise ValueError(f"{self.file} has {text.count(self.after)} times, not once: {self.after}")
            start = text.index(self.after)
        elif text.count(self.find) > 1:
            raise ValueError(f"{self.file} has more than once, and `after` does not say which: {self.find}")
        found = text.find(self.find, start)
        if self.find == self.replace:
            raise ValueError(f"{self.file} would stay as it is: {self.find}")
        if found < 0:
            raise ValueError(f"{self.file} does not have any more: {self.find}")
        return text[:found] + self.replace + text[found + len(self.find) :]


def read_list(path: Path = LIST) -> list[Mutant]:
    """Read a list.

    Raises:
        ValueError: an entry is not one, or stands there twice.
    """
    mutants = msgspec.convert(yaml.safe_load(path.read_text()), list[Mutant])
    twice = [promise for promise, times in Counter(mutant.promise for mutant in mutants).items() if times > 1]
    if twice:
        raise ValueError(f"promised twice: {', '.join(twice)}")
    return mutants


def misplaced(mutants: Iterable[Mutant], root: Path) -> list[str]:
    """Tell which faults have lost their place in the project, or a test its name."""
    complaints = []
    for mutant in mutants:
        try:
            mutant.apply((root / mutant.file).read_text())
        except (OSError, ValueError) as error:
            complaints.append(f"{mutant.promise}: {error}")
        for test in mutant.tests:
            path, _, name = test.partition("::")
            function = name.rpartition("::")[2].partition("[")[0]
            file = root / path
            if not file.is_file() or f"def {function}(" not in file.read_text():
                complaints.append(f"{mutant.promise}: there is no test {test}")
    return complaints
