"""Makes the demo's data (`src/mishards/cli/demo_data/`) from a folder with Debian's packages and their embeddings.

    python tools/make_demo_data.py SOURCE [DESTINATION]

SOURCE holds `packages.parquet` (name, summary, section, installed_kb, tags, ...), `packages_vectors.npy` (float16, unit
length, row i describes row i), `packages_text_queries.json` (sentences) and `packages_queries.npz` (`text_vectors`,
their embeddings, and `text_ids`, their nearest rows). The choice is deterministic: from each section people recognise
up to a quota of packages, programs before libraries and data, spread evenly over the alphabet; and whatever answers the
sentences best. The result must stay below 5,000,000 bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BYTES_MAX = 5_000_000
ANSWERS_PER_QUERY = 10

QUOTAS = {
    "games": 800,
    "graphics": 420,
    "sound": 420,
    "video": 180,
    "science": 620,
    "math": 220,
    "editors": 180,
    "education": 20,
    "web": 220,
    "httpd": 60,
    "mail": 240,
    "news": 21,
    "net": 550,
    "comm": 90,
    "utils": 580,
    "text": 320,
    "tex": 60,
    "fonts": 150,
    "electronics": 140,
    "embedded": 20,
    "hamradio": 110,
    "database": 110,
    "vcs": 80,
    "shells": 25,
}

# Packages that only accompany another one say little to a person who reads the demo's answers.
_ACCOMPANIES = re.compile(
    r"-(data|common|dbg|dbgsym|dev|doc|docs|examples|l10n|plugins?|bin|core|extra)$|^lib|^python3?-"
)


def _rank(row: dict[str, object]) -> tuple[bool, bool]:
    """Smaller is chosen first: programs, then what stands on its own, then the rest."""
    tags = row["tags"] or []
    assert isinstance(tags, list)
    return (bool(_ACCOMPANIES.search(str(row["name"]))), "role::program" not in tags)


def _choose(packages: pa.Table, answers: np.ndarray) -> list[int]:
    """The positions of the sample, ascending."""
    by_section: dict[str, list[int]] = {}
    rows = packages.to_pylist()
    for position, row in enumerate(rows):
        by_section.setdefault(row["section"], []).append(position)

    chosen = {int(position) for position in answers[:, :ANSWERS_PER_QUERY].ravel()}
    for section, quota in QUOTAS.items():
        classes: dict[tuple[bool, bool], list[int]] = {}
        for position in by_section[section]:
            classes.setdefault(_rank(rows[position]), []).append(position)
        left = quota
        for rank in sorted(classes):
            members = classes[rank]
            take = min(left, len(members))
            chosen.update(members[i * len(members) // take] for i in range(take))
            left -= take
    return sorted(chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path, nargs="?", default=Path("src/mishards/cli/demo_data"))
    arguments = parser.parse_args()
    source: Path = arguments.source
    destination: Path = arguments.destination

    packages = pq.read_table(source / "packages.parquet")
    vectors = np.load(source / "packages_vectors.npy", mmap_mode="r")
    queries = np.load(source / "packages_queries.npz")
    sentences = json.loads((source / "packages_text_queries.json").read_text())

    sample = _choose(packages, queries["text_ids"])
    table = packages.take(sample)
    table = pa.table(
        {
            "name": table["name"],
            "summary": table["summary"],
            "section": table["section"],
            "installed_kb": pa.array(table["installed_kb"].to_pylist(), pa.int32()),
            "tags": table["tags"],
        }
    )

    destination.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, destination / "packages.parquet", compression="zstd", compression_level=19)
    np.save(destination / "vectors.npy", np.ascontiguousarray(vectors[sample], dtype=np.float16))
    np.save(destination / "query_vectors.npy", queries["text_vectors"].astype(np.float16))
    (destination / "queries.json").write_text(json.dumps(sentences, indent=1, ensure_ascii=False) + "\n")

    total = sum(file.stat().st_size for file in destination.iterdir() if file.is_file())
    sys.stdout.write(f"{len(sample):,} packages, {len(sentences)} queries, {total:,} bytes of at most {BYTES_MAX:,}\n")
    return 0 if total <= BYTES_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
