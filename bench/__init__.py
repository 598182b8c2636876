"""Benchmarks: Mishards, alone and as a cluster, beside Milvus, on the same data through the same client.

`python -m bench` runs them. The order of reading: `settings` (how much), `data` (on what), `systems` (of whom), `load`
(by whom), the sections `serving`, `overhead`, `readers`, `inserting`, `many_collections` and `indexes` (what), `run`
(in which order), `results`, `report` and `plot` (what came out).
"""
