"""The picture of pull and diff shows their current output."""

import importlib.util
from pathlib import Path
from types import ModuleType

from tests.docs.snippets import ROOT


def _drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("picture", ROOT / "docs" / "picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_drawn_of_what_is_printed_now() -> None:
    picture = _drawing()
    drawn = picture.draw(picture.record())
    assert Path(picture.TARGET).read_text() == drawn
    assert "+ grade=A" in drawn
    assert "~ topic=billing → refunds" in drawn
