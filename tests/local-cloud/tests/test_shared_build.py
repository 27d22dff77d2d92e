"""`sam build` compiles each function by itself. They share one build of the SDK only while they ask for the same."""

import functools
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FUNCTIONS = sorted(manifest.parent.name for manifest in ROOT.glob("functions/*/Cargo.toml"))
TARGET = "x86_64-unknown-linux-gnu"


def cargo(*arguments):
    done = subprocess.run(["cargo", *arguments, "--locked"], cwd=ROOT, text=True, capture_output=True, check=False,
                          env={**os.environ, "CARGO_TERM_COLOR": "never"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def crates(function: str) -> dict[str, str]:
    """Every crate from outside the workspace that a function is built of, with its features."""
    listed = cargo("tree", "--package", function, "--edges", "normal,build", "--prefix", "none", "--target", TARGET,
                   "--format", "{p}|{f}")
    rows = (re.sub(r" \((\*|proc-macro)\)", "", line).split("|") for line in listed.splitlines() if line)
    return {crate: features for crate, features, *_ in rows if "(/" not in crate}


@functools.cache
def also_not_rlib() -> set[str]:
    """Crates that are also built as a C library: what they depend on is compiled to objects, not only for LTO."""
    packages = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", TARGET))["packages"]
    return {f"{package['name']} v{package['version']}" for package in packages for target in package["targets"]
            if {"cdylib", "staticlib", "dylib"} & set(target["crate_types"]) and "example" not in target["kind"]}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_asks_for_the_features_that_the_others_ask_for(function):
    different = {
        crate: {other: crates(other)[crate], function: features}
        for other in FUNCTIONS for crate, features in crates(function).items()
        if crates(other).get(crate, features) != features
    }
    assert not different, "set these features in shared/aws/Cargo.toml for all functions"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_has_the_same_crates_that_are_built_as_c_libraries(function):
    everywhere = {crate for other in FUNCTIONS for crate in crates(other)} & also_not_rlib()
    assert everywhere - set(crates(function)) == set(), "depend on these in shared/aws/Cargo.toml for all functions"
