"""One process: assembles its roles."""
