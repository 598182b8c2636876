"""The writer role: the owner of shards, who commits what clients write and define (P2, P3)."""
