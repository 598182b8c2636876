"""Vector search over the positions of one segment: exact, and through the index types of Milvus. FAISS's only home.

`exact` is the reference and the path for fresh rows, small segments and narrow filters. `hnsw`, `ivf`, `flat` and
`auto` implement `ports.IndexKind`: they propose rows, which `stored` scores, so that scores are those of exact search.
"""
