"""What the tests of this folder share: it is importable (`import rows`)."""
