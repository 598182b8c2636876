"""The filter language of Milvus: text, parsed (`parse`), typed against a schema (`check`), run over Arrow tables
(`evaluate`; `documents` for JSON).
"""

from mishards.filter.compiled import Filter, compile_filter, weight

__all__ = ["Filter", "compile_filter", "weight"]
