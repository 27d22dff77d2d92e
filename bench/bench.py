"""Measures what the README and docs/benchmarks.md claim of speed and size, each figure beside what it is compared with.

    python bench/bench.py [SECTION ...]      all of them when none is named; the results go to docs/benchmarks.md
"""

import sys

import databases
import functions
from measure import ROOT, write_page
from servers import BenchError

sys.path.insert(0, str(ROOT / "tests" / "local-cloud"))
from cloud import terminate_as_interrupt  # noqa: E402


def backup():
    import executions
    return executions.backup()


SECTIONS = {"cold-start": functions.cold_start, "size": functions.size, "digest": databases.digest,
            "memory": databases.memory, "overhead": databases.overhead, "backup": backup}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(f"bench: no benchmark {', '.join(unknown)}; there are {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    terminate_as_interrupt()
    failed = []
    for name in names or SECTIONS:
        try:
            section = SECTIONS[name]()
        except (BenchError, RuntimeError) as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            failed.append(name)
            continue
        section.show()
        section.keep()
        write_page(ROOT / "docs" / "benchmarks.md", SECTIONS)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
