"""Runs MiniStack with the mends of `mends/` in this process. `cloud.py` starts it, with the environment it needs.

    launcher.py [--rds http://127.0.0.1:PORT]
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import mends  # noqa: E402
from ministack import app  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="MiniStack, mended, for Lifeboat's local cloud")
    parser.add_argument("--rds", metavar="URL", help="where the RDS API is; without it MiniStack's own answers")
    mends.apply_all(parser.parse_args().rds)
    # MiniStack reads the command line too.
    sys.argv = sys.argv[:1]
    app.main()


if __name__ == "__main__":
    main()
