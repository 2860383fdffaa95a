"""Every claim of search_spaces/articles, put to the test at a size that two cores can do; prints the README's table.

python tests/benchmarks/claims.py --data-dir DATA [--samples 3000] [--epochs 4] [NAME ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time

from dialin.specification import load_spec, shipped

ARTICLES = [name.partition("/")[2] for name in shipped.names() if name.startswith("articles/")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=ARTICLES, metavar="NAME")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=4)
    asked = parser.parse_args()
    print("| space | the claim | what came out: median (range, n) |\n|---|---|---|", flush=True)
    for name in asked.names:
        began = time.monotonic()
        verdict = run(name, asked)
        print(f"| `{name}` | {load_spec(f'articles/{name}').claim.says} | {verdict} |", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)


def run(name: str, asked: argparse.Namespace) -> str:
    """What `dialin run` says of the claim at its end."""
    sizes = [f"objective.samples={asked.samples}", f"budget.epochs={asked.epochs}"]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "dialin", "run", f"articles/{name}", "--data-dir", asked.data_dir]
        command += ["--out", out, *(argument for size in sizes for argument in ("--set", size))]
        done = subprocess.run(command, capture_output=True, text=True)
    verdicts = [line for line in done.stdout.splitlines() if line.startswith("the claim ")]
    if done.returncode or not verdicts:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return verdicts[0].removeprefix("the claim ").replace(" here: ", ": ")


if __name__ == "__main__":
    main()
