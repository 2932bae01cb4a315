"""What the documentation names exists: verbs, options, links, Make targets."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from amortnlme.cli import main
from amortnlme.cli.inputs import read_population_model
from amortnlme.population.toml import parse_population

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "amortnlme/cli/schema.md"]
PAGES += sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs" / "how-to").glob("*.md"))
COMMANDS = sorted(
    set(re.findall(r"`amortnlme ([a-z][^`]*)`", (ROOT / "README.md").read_text(encoding="utf-8")))
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_uses_options_that_exist(command, capsys):
    words = command.split()
    verb = words[:2] if words[0] in ("data", "model") else words[:1]
    assert main([*verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert not [word for word in words if word.startswith("--") and word not in shown]


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert not [link for link in targets if not ((ROOT / page).parent / link).exists()]


def test_the_formula_of_the_readme_is_read_where_a_population_file_may_stand():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (formula,) = re.findall(r'--population "([^"]*~[^"]*)"', text)
    population = read_population_model(formula)
    assert population.random_effects.on == ("ka", "ke", "V")
    assert [effect.name for effect in population.covariates] == ["beta_V_weight"]
    assert population.occasion_effects is not None
    assert population.fixed == {"a": 0.3}


def test_the_population_model_of_the_readme_is_read():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert tomllib.loads(block)
    assert parse_population(block).name == "ka~weight, V~weight"


def test_the_make_targets_of_the_documentation_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        word
        for page in PAGES
        for word in re.findall(r"make ([a-z][a-z-]+)", (ROOT / page).read_text("utf-8"))
    }
    targets = set(re.findall(r"^([a-z][a-z-]+):", makefile, re.MULTILINE))
    assert {"demo", "test"} <= named
    # "make sure" and the like are prose.
    assert not {word for word in named if "-" in word or word in {"demo", "test", "lint"}} - targets
