"""Shared storage: immutable objects by path (P1), in a local directory or on S3. The only home of obstore."""
