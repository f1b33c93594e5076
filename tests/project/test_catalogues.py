"""The translation catalogues are complete, compiled, and up to date with the sources.

Takes GNU gettext (on Debian: ``apt install gettext``), as Django's own commands do.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from gettext import GNUTranslations
from pathlib import Path
from typing import Any

import django
import pytest
from django.core.management import call_command
from django.utils import translation

import django_tiktok_business
from django_tiktok_business.models import ConnectionEvent
from tests.support.requires import require

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(django_tiktok_business.__file__).parent
LANGUAGES = ("ar", "de", "en", "es", "fr", "ja", "pt_BR", "zh_Hans")
each_language = pytest.mark.parametrize("language", LANGUAGES)

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.once]


def catalogue(language: str) -> Path:
    return PACKAGE / "locale" / language / "LC_MESSAGES" / "django.po"


def gettext(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    require("gettext")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of the texts in the sources, without translations."""
    require("gettext")
    folder = tmp_path_factory.mktemp("sources") / PACKAGE.name
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "locale"))
    (folder / "locale").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call_command("makemessages", locale=["en"], no_location=True, no_wrap=True, verbosity=0)
    return folder / "locale" / "en" / "LC_MESSAGES" / "django.po"


def test_there_are_eight_languages() -> None:
    assert {path.name for path in (PACKAGE / "locale").iterdir()} == set(LANGUAGES)


@each_language
def test_every_text_is_translated_and_none_is_doubtful(language: str) -> None:
    result = gettext("msgfmt", "--check", "--statistics", "-o", "/dev/null", catalogue(language))
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"\d+ translated messages?\.\n", result.stderr), result.stderr


@each_language
def test_catalogue_has_the_texts_that_there_are_and_no_others(language: str, fresh: Path) -> None:
    for one, other in ((catalogue(language), fresh), (fresh, catalogue(language))):
        result = gettext("msgcmp", "--use-untranslated", "--use-fuzzy", one, other)
        assert result.returncode == 0, f"make messages\n{result.stderr}"


@each_language
def test_compiled_catalogue_is_that_of_the_text(language: str, tmp_path: Path) -> None:
    compiled = tmp_path / "django.mo"
    gettext("msgfmt", "--check", "-o", compiled, catalogue(language))
    shipped = catalogue(language).with_suffix(".mo")
    assert shipped.read_bytes() == compiled.read_bytes(), "make messages"


@each_language
def test_no_braces_are_lost(language: str) -> None:
    """What `format_html` fills in; msgfmt looks after the %-style alone."""
    text = catalogue(language).read_text(encoding="utf-8")
    entries = re.findall(r'^msgid "(.*\{\}.*)"\nmsgstr "(.*)"$', text, re.MULTILINE)
    assert entries
    assert [msgid for msgid, msgstr in entries if msgid.count("{}") != msgstr.count("{}")] == []


@each_language
def test_texts_that_django_has_as_well_are_translated_as_django_does(language: str) -> None:
    """Catalogues are merged: another wording of ours would change the admin of the whole site."""
    ours = texts(PACKAGE, language)
    for part in ("conf", "contrib/admin", "contrib/auth"):
        theirs = texts(Path(django.__file__).parent / part, language)
        shared = {text for text in ours if theirs.get(text, ours[text]) != ours[text]}
        if part == "conf":
            assert set(theirs) & set(ours) or language == "en"
        assert {text: (ours[text], theirs[text]) for text in shared if text} == {}


def texts(folder: Path, language: str) -> dict[Any, str]:
    """The translations in a compiled catalogue, by text and form."""
    path = folder / "locale" / language / "LC_MESSAGES" / "django.mo"
    with path.open("rb") as file:
        catalog: dict[Any, str] = vars(GNUTranslations(file))["_catalog"]
    return catalog


def test_plural_texts_are_filled_in_with_the_same_names() -> None:
    """A language with one form for both uses the text for many, also for one."""
    text = catalogue("en").read_text(encoding="utf-8")
    pairs = re.findall(r'^msgid "(.+)"\nmsgid_plural "(.+)"$', text, re.MULTILINE)
    assert pairs
    names = [tuple(set(re.findall(r"%\((\w+)\)", form)) for form in pair) for pair in pairs]
    assert [one for one, many in names if one - many] == []


@pytest.mark.parametrize(
    ("language", "word"),
    [("de", "verbunden"), ("en", "connected"), ("zh-hans", "已连接"), ("ja", "連携")],
)
def test_translations_are_in_use(language: str, word: str) -> None:
    with translation.override(language):
        assert str(ConnectionEvent.Kind.CONNECTED.label) == word
