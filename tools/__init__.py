"""Programs for those who work on Mishards."""
