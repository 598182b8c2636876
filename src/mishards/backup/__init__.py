"""Backups: copies of pinned versions in another storage (P13). Needs the metadata service and storage, no node."""
