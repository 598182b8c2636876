"""The history of the schema, one file a revision. Files are never changed once released."""
